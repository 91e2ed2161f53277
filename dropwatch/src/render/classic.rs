//! `classic`: what C dropwatch prints, for scripts that parse it.

use std::io::{self, Write};

use super::Render;
use crate::model::report::{Report, Value};

/// `6 drops at tcp_v4_rcv+aa (0xffffffff814a104a) [software]`
#[derive(Debug)]
pub struct Classic;

impl Render for Classic {
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        for row in &report.rows {
            for value in &row.values {
                let Value::Location { location, .. } = value else { continue };
                let address = location.address;
                match &location.symbol {
                    Some(symbol) => writeln!(
                        out,
                        "{} drops at {}+{:x} ({address:#x}) [software]",
                        row.count,
                        symbol.name.word(),
                        symbol.offset
                    )?,
                    None => writeln!(out, "{} drops at location {address:#x} [software]", row.count)?,
                }
            }
        }
        if report.cut.rows > 0 {
            writeln!(out, "{} drops in {} other locations [software]", report.cut.drops, report.cut.rows)?;
        }
        Ok(())
    }
}
