//! `text`: one line per row, for logs.

use std::io::{self, Write};

use super::{Render, Style};
use crate::report::{Report, Value};

/// `TIME COUNT packets dropped at LOCATION KEY VALUE…`
#[derive(Debug)]
pub struct Text {
    style: Style,
}

impl Text {
    /// Lines in that style.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self { style }
    }
}

impl Render for Text {
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let time = self.style.time(report.time);
        if report.rows.is_empty() && report.cut.rows == 0 {
            return writeln!(out, "{time} 0 packets dropped");
        }
        for row in &report.rows {
            write!(out, "{time} {} packets dropped", row.count)?;
            for (key, value) in report.by.iter().zip(&row.values) {
                if let Value::Location { location, .. } = value {
                    write!(out, " at {location}")?;
                } else {
                    write!(out, " {} {}", key.word(), escaped(&value.words()))?;
                }
            }
            writeln!(out)?;
        }
        if report.cut.rows > 0 {
            writeln!(out, "{time} {} packets dropped in {} other rows", report.cut.drops, report.cut.rows)?;
        }
        Ok(())
    }
}

/// A value without blanks, so that a line splits into words.
#[must_use]
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(' ', "\\x20")
}
