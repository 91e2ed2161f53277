//! Drops per second by class, a column for each interval, the newest at the right.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    State,
    look::{Look, Role},
    put, rate,
};
use crate::{commands::top::history::Column, model::class::Class};

/// Columns at the left that say what the highest bar is.
const SCALE: u16 = 9;

pub fn draw(buffer: &mut Buffer, area: Rect, state: &State, look: &Look) {
    if area.height < 3 || area.width <= SCALE + 10 {
        return;
    }
    let bars = Rect { x: area.x + SCALE, width: area.width - SCALE, height: area.height - 1, ..area };
    let columns = &state.data().history.columns;
    let shown = columns.len().min(usize::from(bars.width));
    let columns: Vec<_> =
        columns.iter().skip(columns.len() - shown).map(|column| heights(column, state)).collect();
    let highest = columns.iter().map(|parts| parts.iter().map(|(_, rate)| rate).sum()).fold(0.0, f64::max);
    scale(buffer, area, highest, look);
    axis(buffer, area, bars, state, look);
    let start = bars.right() - u16::try_from(shown).unwrap_or(0);
    for (x, parts) in (start..).zip(&columns) {
        stack(buffer, bars, x, parts, highest, look);
    }
}

/// What is piled up in a column, from the bottom: harmless drops only if they are shown one by one.
fn heights(column: &Column, state: &State) -> Vec<(Role, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "a bar has a few dozen heights")]
    let per_second =
        |drops: u64| if column.seconds > 0.0 { drops as f64 / f64::from(column.seconds) } else { 0.0 };
    let is_shown = |class: &Class| state.all || *class != Class::Harmless;
    let classes = Class::ALL.into_iter().filter(is_shown);
    let mut parts: Vec<_> =
        classes.map(|class| (Role::from(Some(class)), per_second(column.split.of(class)))).collect();
    parts.push((Role::Unclassed, per_second(column.others)));
    parts.retain(|(_, rate)| *rate > 0.0);
    parts
}

/// One column. Each class that there is has a part of a cell at least, as far as there are cells.
fn stack(buffer: &mut Buffer, bars: Rect, x: u16, parts: &[(Role, f64)], highest: f64, look: &Look) {
    let eighths = f64::from(bars.height) * 8.0;
    let (mut below, mut sum) = (0_u16, 0.0);
    for (role, rate) in parts {
        sum += rate / highest * eighths;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no more than the cells")]
        let top = (sum.round() as u16).max(below * 8 + 1);
        let (full, rest) = (top / 8, top % 8);
        for level in below..full.min(bars.height) {
            put_cell(buffer, bars, x, level, look.cell(*role), *role, look);
        }
        below = full.max(below);
        if rest > 0 && below < bars.height {
            let is_last = parts.last().is_some_and(|last| last.0 == *role);
            // Only the uppermost class ends within a cell: the one above it has the next cell.
            let part = if is_last && look.has_colour && !look.is_ascii {
                look.bar(f64::from(rest) / 8.0)
            } else {
                look.cell(*role)
            };
            put_cell(buffer, bars, x, below, part, *role, look);
            below += 1;
        }
    }
}

fn put_cell(buffer: &mut Buffer, bars: Rect, x: u16, level: u16, cell: char, role: Role, look: &Look) {
    let at = Position { x, y: bars.bottom() - 1 - level };
    put(buffer, at, 1, cell.encode_utf8(&mut [0; 4]), look.style(role));
}

/// What the highest bar is.
fn scale(buffer: &mut Buffer, area: Rect, highest: f64, look: &Look) {
    let text = format!("{:>8}", rate(highest));
    put(buffer, area.as_position(), SCALE, &text, look.style(Role::Dim));
    put(buffer, Position { x: area.x, y: area.bottom() - 2 }, SCALE, "      0", look.style(Role::Dim));
}

/// The line below, with how long ago its beginning is, and which bar is what.
fn axis(buffer: &mut Buffer, area: Rect, bars: Rect, state: &State, look: &Look) {
    let y = area.bottom() - 1;
    let line: String = std::iter::repeat_n(look.rule(), usize::from(bars.width)).collect();
    put(buffer, Position { x: bars.x, y }, bars.width, &line, look.style(Role::Dim));
    let ago = state.interval * u32::from(bars.width);
    let ago = format!("{} ago ", humantime::format_duration(std::time::Duration::from_secs(ago.as_secs())));
    put(buffer, Position { x: bars.x, y }, bars.width, &ago, look.style(Role::Dim));
    if state.data().history.columns.back().is_some_and(|column| column.others > 0) {
        return;
    }
    let mut legend: Vec<(String, Role)> = Vec::new();
    for class in Class::ALL.into_iter().filter(|class| state.all || *class != Class::Harmless) {
        legend.push((format!(" {} {}", look.cell(Some(class).into()), class.name()), Some(class).into()));
    }
    if !state.all {
        legend.push((" (harmless: a)".to_owned(), Role::Dim));
    }
    legend.push((" ".to_owned(), Role::Dim));
    let width: usize = legend.iter().map(|(text, _)| text.width()).sum();
    let mut x = bars.right().saturating_sub(u16::try_from(width).unwrap_or(0) + 2);
    for (text, role) in legend {
        x = put(buffer, Position { x, y }, bars.right().saturating_sub(x), &text, look.style(role));
    }
}
