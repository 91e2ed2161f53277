//! The lines at the bottom: what the selected row means, what was said or lost, and the keys or the line being typed.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    State, fit,
    look::{Look, Role},
    put, put_all, table,
};
use crate::{
    commands::top::{
        detail::Detail,
        input::{Input, InputKind},
    },
    escape::Escaped,
    knowledge::Meanings,
    model::snapshot::Ledger,
    process::notice::Severity,
    session::losses,
};

/// The most lines of offers.
const OFFERS: u16 = 6;

/// How many lines are needed.
#[must_use]
pub fn height(state: &State, area: Rect) -> u16 {
    let usual = if area.height < 20 { 2 } else { 4 };
    let Some(input) = &state.input else { return usual };
    let fault = if input.fault.is_some() { 2 } else { 0 };
    let offers = u16::try_from(input.offers.len()).unwrap_or(OFFERS).min(OFFERS);
    (2 + fault + offers).max(usual).min(area.height / 2)
}

/// Draws them; where the cursor is, if a line is being typed.
pub fn draw(
    buffer: &mut Buffer,
    area: Rect,
    state: &State,
    detail: Option<&Detail>,
    look: &Look,
) -> Option<Position> {
    let last = area.bottom().saturating_sub(1);
    if let Some(input) = &state.input {
        return Some(draw_input(buffer, area, input, state, look));
    }
    if area.height >= 4 && detail.is_none() {
        draw_meaning(buffer, Rect { height: 2, ..area }, state, look);
    }
    status(buffer, Rect { y: last - 1, height: 1, ..area }, state, look);
    put_all(buffer, area, last, &hints(detail), look);
    None
}

fn hints(detail: Option<&Detail>) -> Vec<(String, Role)> {
    let keys: &[(&str, &str)] = match detail {
        None => &[
            ("Enter", "open"),
            ("/", "filter"),
            ("b", "keys"),
            ("s", "sort"),
            ("a", "all"),
            ("Space", "pause"),
            ("y", "copy"),
            ("?", "help"),
            ("q", "quit"),
        ],
        Some(_) => {
            &[("Esc", "back"), ("w", "write"), ("d", "dig"), ("y", "copy"), ("?", "help"), ("q", "quit")]
        }
    };
    let hint =
        |(key, what): &(&str, &str)| [((*key).to_owned(), Role::Key), (format!(" {what}  "), Role::Dim)];
    keys.iter().flat_map(hint).collect()
}

/// What the selected row means, and all of its values.
fn draw_meaning(buffer: &mut Buffer, area: Rect, state: &State, look: &Look) {
    let Some(line) = state.selected_row() else { return };
    let width = usize::from(area.width);
    let full = fit(&table::in_full(&state.data().by, line), width, look);
    put(buffer, area.as_position(), area.width, &full, look.style(Role::Plain));
    if let Some(entry) = Meanings::default().entry(&line.row.values) {
        let text = fit(&format!("{}: {}", entry.title, entry.meaning), width, look);
        put(buffer, Position { x: area.x, y: area.y + 1 }, area.width, &text, look.style(Role::Dim));
    }
}

/// What was said last, else what was lost; and how the table is sorted.
fn status(buffer: &mut Buffer, area: Rect, state: &State, look: &Look) {
    let right = format!("  sorted by {}", state.sort.word());
    let width = usize::from(area.width).saturating_sub(right.width());
    let lost = losses::warnings(state.data().ledger, 0).join("; ");
    let is_lossless = lost.is_empty();
    let (text, role) = match state.noticed() {
        _ if state.is_trying => ("attaching...".to_owned(), Role::Key),
        Some(notice) if notice.severity == Severity::Warning => {
            (format!("warning: {}", Escaped::new(&notice.text)), Role::Fault)
        }
        Some(notice) => (Escaped::new(&notice.text).to_string(), Role::Plain),
        None if is_lossless => ("ledger: every drop was counted".to_owned(), Role::Dim),
        None => (ledger(state.data().ledger), Role::Fault),
    };
    let x = put(buffer, area.as_position(), area.width, &fit(&text, width, look), look.style(role));
    put(buffer, Position { x, y: area.y }, area.width, &right, look.style(Role::Dim));
}

/// `ledger: map_full 12, recursion_missed 1`, since the start.
fn ledger(ledger: Ledger) -> String {
    let all = [
        ("map_full", ledger.map_full),
        ("update_failed", ledger.update_failed),
        ("stack_failed", ledger.stack_failed),
        ("socket_failed", ledger.socket_failed),
        ("undecided", ledger.undecided),
        ("headers_unreadable", ledger.headers_unreadable),
        ("names_unreadable", ledger.names_unreadable),
        ("recursion_missed", ledger.recursion_missed.unwrap_or(0)),
    ];
    let lost: Vec<_> =
        all.iter().filter(|(_, drops)| *drops > 0).map(|(name, drops)| format!("{name} {drops}")).collect();
    format!("ledger since the start: {}", lost.join(", "))
}

/// The line that is being typed, below it what it can become, above it where it is faulty.
fn draw_input(buffer: &mut Buffer, area: Rect, input: &Input, state: &State, look: &Look) -> Position {
    let label = match input.kind {
        InputKind::Filter => "filter: ",
        InputKind::Keys => "keys: ",
    };
    let indent = u16::try_from(label.width()).unwrap_or(0);
    let room = usize::from(area.width.saturating_sub(indent + 1));
    let before = input.text()[..input.cursor()].width();
    // What is typed stays visible.
    let hidden = before.saturating_sub(room);
    let mut y = area.y;
    put(buffer, Position { x: area.x, y }, area.width, label, look.style(Role::Key));
    let at = Position { x: area.x + indent, y };
    put(buffer, at, area.width - indent, &without_start(input.text(), hidden), look.style(Role::Plain));
    let cursor = Position { x: at.x + u16::try_from(before - hidden).unwrap_or(0), y };
    if let Some((span, problem)) = &input.fault {
        y += 1;
        if let Some(span) = span {
            let columns =
                |end: usize| input.text().get(..end).unwrap_or(input.text()).width().saturating_sub(hidden);
            let (from, to) = (columns(span.start), columns(span.end));
            let carets = "^".repeat((to - from).max(1));
            let x = at.x + u16::try_from(from).unwrap_or(0);
            put(buffer, Position { x, y }, area.right().saturating_sub(x), &carets, look.style(Role::Fault));
            y += 1;
        }
        put(
            buffer,
            Position { x: area.x, y },
            area.width,
            &Escaped::new(problem).to_string(),
            look.style(Role::Fault),
        );
    }
    offers(buffer, Rect { y: y + 1, height: area.bottom().saturating_sub(y + 2), ..area }, input, look);
    let hint = if state.is_trying { "attaching..." } else { "Enter apply  Tab complete  Esc give up" };
    put(buffer, Position { x: area.x, y: area.bottom() - 1 }, area.width, hint, look.style(Role::Dim));
    cursor
}

fn offers(buffer: &mut Buffer, area: Rect, input: &Input, look: &Look) {
    let lines = usize::from(area.height);
    if lines == 0 {
        return;
    }
    let widest = input.offers.iter().map(|offer| offer.width()).max().unwrap_or(0) + 2;
    let across = (usize::from(area.width) / widest.max(1)).max(1);
    let first = input.chosen().unwrap_or(0) / (lines * across) * (lines * across);
    for (place, offer) in input.offers.iter().enumerate().skip(first).take(lines * across) {
        let (column, line) = ((place - first) % across, (place - first) / across);
        let at = |part: usize| u16::try_from(part).unwrap_or(u16::MAX);
        let position = Position { x: area.x + at(column * widest), y: area.y + at(line) };
        let role = if input.chosen() == Some(place) { Role::Selected } else { Role::Plain };
        put(buffer, position, at(widest), &Escaped::new(offer).to_string(), look.style(role));
    }
}

/// Text without its first columns.
fn without_start(text: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthChar as _;
    let mut skipped = 0;
    text.chars()
        .skip_while(|character| {
            let skip = skipped < columns;
            skipped += character.width().unwrap_or(0);
            skip
        })
        .collect()
}
