//! A line for each entry.

use std::fmt::Write as _;

use super::Page;
use crate::knowledge::Entry;

/// Beyond this, a name pushes its title to the right.
const NAME: usize = 36;

/// Class, name and title, a line each. What does not fit the page is cut.
#[must_use]
pub fn list(entries: &[&Entry], page: Page) -> String {
    let names: Vec<_> = entries.iter().map(|entry| entry.name()).collect();
    let width = names.iter().map(String::len).filter(|&len| len <= NAME).max().unwrap_or(NAME);
    let mut out = String::new();
    for (entry, name) in entries.iter().zip(names) {
        let line = format!("{:<8}  {name:<width$}  {}", entry.class, entry.title);
        let line: String = line.chars().take(page.width.unwrap_or(usize::MAX)).collect();
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}
