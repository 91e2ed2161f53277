//! Draws the state: values in, cells out.

mod chart;
mod footer;
mod header;
pub mod look;
mod overlay;
mod table;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Position, Rect},
    style::Style,
};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use self::look::{Look, Role};
use super::{
    detail::Detail,
    state::{Overlay, State},
};

/// Below this there is room for nothing.
const SMALLEST: (u16, u16) = (40, 10);
/// From this height on, the table stays visible above an open row.
const TALL: u16 = 40;

/// Where things are on a screen of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    header: Rect,
    chart: Rect,
    table: Rect,
    /// The open row.
    detail: Rect,
    footer: Rect,
}

impl Places {
    /// The places, with or without an open row, with as many lines at the bottom as are needed there.
    #[must_use]
    pub fn new(area: Rect, has_detail: bool, footer: u16) -> Self {
        let part = |y: u16, height: u16| Rect { y: area.y + y, height, ..area };
        let header = 2.min(area.height);
        let below = area.height.saturating_sub(header + footer);
        let chart = match area.height {
            _ if has_detail => 0,
            0..20 => 0,
            20..40 => 5,
            40..70 => 9,
            _ => 13,
        };
        let table = match has_detail {
            true if area.height >= TALL => 10,
            true => 0,
            false => below - chart,
        };
        let detail = if has_detail { below - table } else { 0 };
        Self {
            header: part(0, header),
            chart: part(header, chart),
            table: part(header + chart, table),
            detail: part(header + chart + table, detail),
            footer: part(area.height - footer.min(area.height), footer),
        }
    }
}

/// Draws all of it, and says where the cursor is.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, detail: Option<&Detail>, look: &Look) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (columns, lines) = SMALLEST;
        put(
            frame.buffer_mut(),
            area.as_position(),
            area.width,
            &format!("too small: {columns}x{lines}"),
            Style::default(),
        );
        return;
    }
    let places = Places::new(area, detail.is_some(), footer::height(state, area));
    state.resized(table::room(places.table, state));
    header::draw(frame.buffer_mut(), places.header, state, look);
    chart::draw(frame.buffer_mut(), places.chart, state, look);
    table::draw(frame.buffer_mut(), places.table, state, look);
    if let Some(detail) = detail {
        detail.draw(frame, places.detail, look);
    }
    let cursor = footer::draw(frame.buffer_mut(), places.footer, state, detail, look);
    match state.overlay {
        Overlay::None => {}
        Overlay::Help => overlay::help(frame.buffer_mut(), area, detail, look),
        Overlay::Notices => overlay::notices(frame.buffer_mut(), area, state, look),
    }
    if let Some(cursor) = cursor {
        frame.set_cursor_position(cursor);
    }
    if look.is_ascii {
        to_ascii(frame.buffer_mut());
    }
}

/// What such a terminal cannot show is a question mark.
fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            cell.set_symbol("?");
        }
    }
}

/// Writes text, cut off where the width ends; the column after it.
fn put(buffer: &mut Buffer, at: Position, width: u16, text: &str, style: Style) -> u16 {
    if !buffer.area.contains(at) {
        return at.x;
    }
    buffer.set_stringn(at.x, at.y, text, usize::from(width), style).0
}

/// Writes words one after the other, each with its role.
fn put_all(buffer: &mut Buffer, area: Rect, y: u16, words: &[(String, Role)], look: &Look) -> u16 {
    let mut x = area.x;
    for (word, role) in words {
        x = put(buffer, Position { x, y }, area.right().saturating_sub(x), word, look.style(*role));
    }
    x
}

/// The text in exactly so many columns, cut off or filled with blanks.
fn fit(text: &str, width: usize, look: &Look) -> String {
    let has = text.width();
    if has <= width {
        return format!("{text}{}", " ".repeat(width - has));
    }
    let mut cut = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > width {
            break;
        }
        cut.push(character);
    }
    if width > 0 {
        cut.push(look.ellipsis());
    }
    let has = cut.width();
    format!("{cut}{}", " ".repeat(width.saturating_sub(has)))
}

/// A rate in at most seven columns: `0.3/s`, `12.5k/s`.
fn rate(rate: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")];
    if rate <= 0.0 {
        return "-".to_owned();
    }
    for (from, unit) in UNITS {
        if rate >= from {
            let divisor = if unit == "k" { 1e3 } else { from };
            return format!("{:.1}{unit}/s", rate / divisor);
        }
    }
    match rate {
        0.0..0.05 => "<0.1/s".to_owned(),
        0.05..999.95 => format!("{rate:.1}/s"),
        _ => format!("{rate:.0}/s"),
    }
}
