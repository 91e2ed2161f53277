//! `text`: one line per row, for logs.

use std::io::{self, Write};

use super::{Render, Style, figures::peak};
use crate::{
    escape::word,
    model::{
        keys::Key,
        report::{Report, Value, needs_namespaces},
    },
};

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
            writeln!(out, "{time} 0 packets dropped")?;
        }
        let namespaces = needs_namespaces(&report.by, report.rows.iter().map(|row| &row.values[..]));
        for row in &report.rows {
            write!(out, "{time} {} packets dropped", row.count)?;
            for (key, value) in report.by.iter().zip(&row.values) {
                if let Value::Location { location, source } = value {
                    write!(out, " at {location}")?;
                    if let Some(source) = source {
                        write!(out, " source {}", word(&source.to_string()))?;
                    }
                } else {
                    write!(out, " {} {}", key.word(), value.word())?;
                }
                if let (true, Some(netns)) = (namespaces, value.interface_namespace()) {
                    write!(out, " netns {}", word(&netns.words()))?;
                }
            }
            if let (Some(class), false) = (row.class, report.by.contains(&Key::Class)) {
                write!(out, " class {class}")?;
            }
            if report.peak.is_some() {
                write!(out, " peak {}", peak(row.peak))?;
            }
            writeln!(out)?;
        }
        if report.cut.rows > 0 {
            writeln!(out, "{time} {} packets dropped in {} other rows", report.cut.drops, report.cut.rows)?;
        }
        report.counters.iter().try_for_each(|counter| writeln!(out, "{time} {}", counter.words()))
    }
}
