//! What is over the table: the keys, and all that has been said.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    widgets::{Block, Clear, Widget as _},
};

use super::{
    State, fit,
    look::{Look, Role},
    put,
};
use crate::{
    commands::top::{detail::Detail, keys},
    escape::Escaped,
    process::notice::Severity,
};

/// The keys and what they do.
pub fn help(buffer: &mut Buffer, area: Rect, detail: Option<&Detail>, look: &Look) {
    let own = detail.map_or(&[][..], Detail::help);
    let lines: Vec<_> =
        own.iter().chain(keys::HELP).map(|(key, what)| (format!("{key:<26}"), *what)).collect();
    let inner = frame(buffer, area, " keys ", lines.len(), look);
    for (y, (key, what)) in (inner.y..inner.bottom()).zip(lines) {
        let x = put(buffer, Position { x: inner.x, y }, inner.width, &key, look.style(Role::Key));
        let room = inner.right().saturating_sub(x);
        put(buffer, Position { x, y }, room, &fit(what, usize::from(room), look), look.style(Role::Plain));
    }
}

/// What has been said, the newest first.
pub fn notices(buffer: &mut Buffer, area: Rect, state: &State, look: &Look) {
    let lines: Vec<_> = state.notices().collect();
    let inner = frame(buffer, area, " what has been said, newest first ", lines.len().max(1), look);
    if lines.is_empty() {
        put(buffer, inner.as_position(), inner.width, "nothing", look.style(Role::Dim));
    }
    let mut y = inner.y;
    for (ago, notice) in lines {
        let role = if notice.severity == Severity::Warning { Role::Fault } else { Role::Plain };
        let text = format!("{:>6}s ago  {}", ago.as_secs(), Escaped::new(&notice.text));
        for part in wrapped(&text, usize::from(inner.width)) {
            if y >= inner.bottom() {
                return;
            }
            put(buffer, Position { x: inner.x, y }, inner.width, &part, look.style(role));
            y += 1;
        }
    }
}

/// Lines of at most so many columns, broken at blanks.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    use unicode_width::UnicodeWidthStr as _;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("a line");
        if last.is_empty() || last.width() + 1 + word.width() <= width {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        } else {
            lines.push(format!("             {word}"));
        }
    }
    lines
}

/// A box in the middle; what is inside of it.
fn frame(buffer: &mut Buffer, area: Rect, title: &str, lines: usize, look: &Look) -> Rect {
    let height = u16::try_from(lines + 2).unwrap_or(u16::MAX).min(area.height);
    let width = area.width.min(96);
    let around =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(around, buffer);
    let block = Block::bordered().border_set(look.border()).title(title).style(look.style(Role::Plain));
    let inner = block.inner(around);
    block.render(around, buffer);
    Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner }
}
