//! A pane on the screen: the row, one line about it, and a window of everything else.

use std::cell::{Cell, RefCell};

use crossterm::event::KeyCode;
use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    Target,
    view::{DetailView, Kind, wrapped},
};
use crate::{
    commands::top::draw::look::{Look, Role},
    model::report::Value,
};

/// Which lines are in the window. How many there are is known once they are drawn.
#[derive(Debug, Default)]
pub struct Scroll {
    first: Cell<usize>,
    height: Cell<usize>,
    lines: Cell<usize>,
    headings: RefCell<Vec<usize>>,
}

impl Scroll {
    /// Whether a key scrolls.
    pub fn key(&self, key: KeyCode) -> bool {
        let (first, page) = (self.first.get(), self.height.get().saturating_sub(1).max(1));
        let next = match key {
            KeyCode::Down | KeyCode::Char('j') => first + 1,
            KeyCode::Up | KeyCode::Char('k') => first.saturating_sub(1),
            KeyCode::PageDown => first + page,
            KeyCode::PageUp => first.saturating_sub(page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => self.last(),
            KeyCode::Tab => {
                self.headings.borrow().iter().copied().find(|&heading| heading > first).unwrap_or(0)
            }
            KeyCode::BackTab => {
                let headings = self.headings.borrow();
                headings.iter().rev().copied().find(|&heading| heading < first).unwrap_or(0)
            }
            _ => return false,
        };
        self.first.set(next.min(self.last()));
        true
    }

    pub fn to_top(&self) {
        self.first.set(0);
    }

    /// Where the window is when it shows the end.
    fn last(&self) -> usize {
        self.lines.get().saturating_sub(self.height.get())
    }

    fn fit(&self, lines: &[(Kind, String)], height: usize) -> usize {
        let headings = lines.iter().enumerate().filter(|(_, (kind, _))| *kind == Kind::Heading);
        self.headings.replace(headings.map(|(place, _)| place).collect());
        self.lines.set(lines.len());
        self.height.set(height);
        // Lines come and go: the window is kept inside.
        self.first.set(self.first.get().min(self.last()));
        self.first.get()
    }
}

/// Draws a pane; `name` is that of a file that is being typed.
pub fn pane(
    frame: &mut Frame<'_>,
    area: Rect,
    look: &Look,
    target: &Target,
    view: &DetailView,
    scroll: &Scroll,
    name: Option<&str>,
) {
    let width = usize::from(area.width);
    let values: Vec<_> = target.row.values.iter().map(Value::words).collect();
    let mut lines: Vec<Line<'_>> = wrapped(&values.join("  "), width)
        .into_iter()
        .take(2)
        .map(|text| Line::styled(text, look.style(Role::Title)))
        .collect();
    let (kind, summary) = view.summary();
    lines.extend(wrapped(&summary, width).into_iter().map(|text| styled(kind, text, look)));
    let all = view.lines(width);
    let height = usize::from(area.height).saturating_sub(lines.len() + 1);
    let first = scroll.fit(&all, height);
    let shown = all.iter().skip(first).take(height);
    lines.extend(shown.map(|(kind, text)| styled(*kind, text.clone(), look)));
    lines.resize(usize::from(area.height).saturating_sub(1), Line::default());
    lines.push(foot(look, scroll, name));
    frame.render_widget(Paragraph::new(lines), area);
}

fn styled(kind: Kind, text: String, look: &Look) -> Line<'static> {
    match kind {
        Kind::Heading => Line::styled(text, look.style(Role::Title)),
        Kind::Text => Line::raw(text),
        Kind::Aside => Line::styled(text, look.style(Role::Dim)),
        Kind::Fault => Line::styled(text, look.style(Role::Fault)),
    }
}

/// The last line: what is typed, or which keys there are and how much there is.
fn foot(look: &Look, scroll: &Scroll, name: Option<&str>) -> Line<'static> {
    if let Some(name) = name {
        let name = crate::escape::Escaped::new(name).to_string();
        return Line::from(vec![
            Span::styled("write packets to: ", look.style(Role::Title)),
            Span::raw(name),
            Span::styled(" ", look.style(Role::Selected)),
        ]);
    }
    let (first, lines) = (scroll.first.get(), scroll.lines.get());
    let last = (first + scroll.height.get()).min(lines);
    let place = if lines == 0 { String::new() } else { format!("lines {}-{last} of {lines}", first + 1) };
    Line::styled(place, look.style(Role::Dim))
}
