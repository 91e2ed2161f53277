//! Reports as people and programs read them: one file for each format, nothing but words in here.

mod advice;
mod classic;
mod commands;
mod explained;
mod figures;
mod folded;
mod harmless;
mod json;
mod layout;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod text;

use std::{
    io::{self, Write},
    time::SystemTime,
};

pub use advice::{EXPLAINED, explanation};
pub use commands::Enter;
pub use json::{Rows as JsonRows, ValueObject as JsonValue, compact as compact_json, pretty as pretty_json};

use clap::ValueEnum;

use crate::model::{keys::Key, report::Report};

/// What a report can look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    /// One line per row, for logs.
    Text,
    /// One object per report, one line each.
    Json,
    /// What C dropwatch prints, by location alone.
    Classic,
    /// A line for each call chain, for flame graphs.
    Folded,
}

/// Writes reports in one format.
pub trait Render: Send {
    /// Writes one report, whole; the caller flushes.
    ///
    /// # Errors
    /// Those of the writer.
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()>;

    /// Writes what a run ends with, if the format has that; the caller flushes.
    ///
    /// # Errors
    /// Those of the writer.
    fn end(&mut self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

/// How many columns there are.
#[derive(Clone, Copy, Debug, Default)]
pub enum Width {
    /// As many as are needed.
    #[default]
    Unlimited,
    /// So many.
    Columns(u16),
    /// As many as a terminal has when a report is written: it may have been resized.
    Of(fn() -> Option<u16>),
}

impl Width {
    /// That of the terminal of standard output.
    pub const OF_TERMINAL: Self = Self::Of(|| terminal_size::terminal_size().map(|(width, _)| width.0));

    /// The columns there are now; unlimited, if none.
    #[must_use]
    pub fn now(self) -> Option<usize> {
        match self {
            Self::Unlimited => None,
            Self::Columns(columns) => Some(columns.into()),
            Self::Of(terminal) => terminal().map(Into::into),
        }
    }
}

/// How reports look where they go to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Columns there are.
    pub width: Width,
    /// Whether to use colour.
    pub colour: bool,
    /// Whether times need milliseconds, as those of intervals under a second do.
    pub milliseconds: bool,
    /// What this host is called.
    pub host: &'static str,
    /// Whether the largest lost rows of a table are explained, and how commands enter their namespaces.
    pub explain: Option<Enter>,
}

impl Style {
    /// The end of an interval, in UTC.
    fn time(self, time: SystemTime) -> String {
        if self.milliseconds {
            humantime::format_rfc3339_millis(time).to_string()
        } else {
            humantime::format_rfc3339_seconds(time).to_string()
        }
    }
}

/// The writer of a format.
#[must_use]
pub fn renderer(format: Format, style: Style) -> Box<dyn Render> {
    match format {
        Format::Table => Box::new(table::Table::new(style)),
        Format::Text => Box::new(text::Text::new(style)),
        Format::Json => Box::new(json::Json::new(style)),
        Format::Classic => Box::new(classic::Classic),
        Format::Folded => Box::new(folded::Folded),
    }
}

/// What a row stands for by default.
#[must_use]
pub fn default_keys(format: Format) -> &'static [Key] {
    match format {
        Format::Classic => &[Key::Location],
        Format::Folded => &[Key::Stack],
        Format::Table | Format::Text | Format::Json => &[Key::Location, Key::Reason],
    }
}
