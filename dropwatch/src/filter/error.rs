//! What is wrong with an expression, and where.

use std::{fmt, ops::Range};

use unicode_width::UnicodeWidthChar as _;

use crate::escape::{is_unsafe, without};

/// What is wrong with an expression. Shown, it has the expression and a caret under the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    text: String,
    span: Range<usize>,
    problem: String,
}

impl std::error::Error for FilterError {}

impl FilterError {
    pub(super) fn new(text: &str, span: Range<usize>, problem: String) -> Self {
        Self { text: text.to_owned(), span, problem }
    }

    /// The bytes of the expression that are at fault; empty at its end if something is missing there.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, before, carets) = shown(&self.text, &self.span);
        writeln!(f, "invalid filter: {}", without(&self.problem, is_unsafe))?;
        writeln!(f, "  {}", shown.trim_end())?;
        write!(f, "  {:before$}{}", "", "^".repeat(carets.max(1)))
    }
}

/// The expression on one line, the columns before the fault, and its width.
fn shown(text: &str, span: &Range<usize>) -> (String, usize, usize) {
    let mut line = String::new();
    let (mut before, mut within) = (0, 0);
    for (at, character) in text.char_indices() {
        let piece = printable_character(character);
        let width: usize = piece.chars().filter_map(char::width).sum();
        line.push_str(&piece);
        if at < span.start {
            before += width;
        } else if at < span.end {
            within += width;
        }
    }
    (line, before, within)
}

/// A character, or its escape if a terminal would do something with it or show nothing.
fn printable_character(character: char) -> String {
    match character.width() {
        Some(0) => character.escape_unicode().collect(),
        _ => without(character.encode_utf8(&mut [0; 4]), is_unsafe).into_owned(),
    }
}
