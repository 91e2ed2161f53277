//! `dropwatch explain`: what reasons and functions mean.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;

use crate::{
    cli::ExplainArgs,
    explain::{self, Page, Request},
    process::failure::Failure,
};

/// Longer lines are hard to read.
const WIDEST: usize = 100;

/// Runs the command.
///
/// # Errors
/// An unknown name, or standard output cannot be written to.
pub fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let ExplainArgs { names, list, output } = args;
    let request = Request { words: names, list: *list, format: *output, page: page() };
    let answer = explain::answer(request).map_err(Failure::Usage)?;
    match anstream::stdout().write_all(answer.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write to standard output")?),
    }
}

/// As wide as the terminal, within reason; unlimited where there is none.
fn page() -> Page {
    if !io::stdout().is_terminal() {
        return Page::default();
    }
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0).min(WIDEST));
    Page { width, colour: true }
}
