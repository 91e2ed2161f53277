//! Reports as people and programs read them: one file for each format, nothing but words in here.

mod classic;
mod folded;
mod json;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::{
    io::{self, Write},
    time::SystemTime,
};

pub use json::{Rows as JsonRows, ValueObject as JsonValue};
pub use text::escaped;

use crate::{config::Format, keys::Key, report::Report};

/// Writes reports in one format.
pub trait Render: Send {
    /// Writes one report, whole; the caller flushes.
    ///
    /// # Errors
    /// Those of the writer.
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()>;
}

/// How reports look where they go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Columns there are; unlimited, if none.
    pub width: Option<u16>,
    /// Whether to use colour.
    pub colour: bool,
    /// Whether times need milliseconds, as those of intervals under a second do.
    pub milliseconds: bool,
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
        Format::Json => Box::new(json::Json),
        Format::Classic => Box::new(classic::Classic),
        Format::Folded => Box::new(folded::Folded),
    }
}

/// What a row stands for when nobody asks for anything else.
#[must_use]
pub fn default_keys(format: Format) -> &'static [Key] {
    match format {
        Format::Classic => &[Key::Location],
        Format::Folded => &[Key::Stack],
        Format::Table | Format::Text | Format::Json => &[Key::Location, Key::Reason],
    }
}
