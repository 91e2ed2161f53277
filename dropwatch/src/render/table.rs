//! `table`: what a person wants in front of them during an incident.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style as Ansi};
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row as TableRow, Width, presets,
};

use super::{Render, Style};
use crate::{
    keys::Key,
    report::{Report, Row, Value},
};

/// What stands in front of a frame.
const FRAME: &str = "        ";
/// The width a location keeps on the narrowest terminal.
const NARROWEST: u16 = 16;

/// An aligned table for each report, never wider than the terminal.
#[derive(Debug)]
pub struct Table {
    style: Style,
}

impl Table {
    /// Tables for a terminal of that style.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self { style }
    }

    fn painted(&self, style: Ansi, line: &str, out: &mut dyn Write) -> io::Result<()> {
        if self.style.colour { writeln!(out, "{style}{line}{style:#}") } else { writeln!(out, "{line}") }
    }
}

impl Render for Table {
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let title = format!(
            "{}  {} packets dropped in {:.1} s",
            self.style.time(report.time),
            report.drops,
            report.elapsed.as_secs_f64()
        );
        if report.drops == 0 {
            return writeln!(out, "{title}");
        }
        self.painted(Ansi::new().bold(), &title, out)?;
        let table = table(report, self.style.width);
        let lines: Vec<_> = table.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let line = line.trim_end();
            if number == 0 || number + 1 == lines.len() {
                self.painted(Ansi::new().fg_color(Some(AnsiColor::Cyan.into())), line, out)?;
                continue;
            }
            writeln!(out, "{line}")?;
            // A line of the table is a row: none is wrapped.
            for frame in report.rows.get(number - 1).into_iter().flat_map(frames) {
                writeln!(out, "{FRAME}{frame}")?;
            }
        }
        writeln!(out)
    }
}

/// The call chain of a row, in words.
fn frames(row: &Row) -> impl Iterator<Item = String> {
    row.values.iter().flat_map(|value| match value {
        Value::Stack(Some(frames)) => frames.iter().map(ToString::to_string).collect(),
        Value::Stack(None) => vec!["(the call chain is not known)".to_owned()],
        _ => vec![],
    })
}

/// The keys from left to right: the location is the longest, so it comes last. Call chains are no column: each stands
/// below its row.
fn columns(report: &Report) -> Vec<usize> {
    let mut columns: Vec<_> =
        (0..report.by.len()).filter(|&column| report.by[column] != Key::Stack).collect();
    columns.sort_by_key(|&column| report.by[column] == Key::Location);
    columns
}

fn table(report: &Report, width: Option<u16>) -> comfy_table::Table {
    let columns = columns(report);
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).set_truncation_indicator("…");
    match width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    let keys = columns.iter().map(|&column| report.by[column].word().to_uppercase());
    let header = ["COUNT", "RATE", "SHARE"].into_iter().map(str::to_owned).chain(keys);
    // What is cut is said in the last column: there is always one.
    let nameless = columns.is_empty().then(String::new);
    table.add_row(line(header.chain(nameless)));
    for row in &report.rows {
        let names = columns.iter().map(|&column| cell(&row.values[column]));
        table.add_row(line(figures(report, row.count).into_iter().chain(names)));
    }
    for (drops, words) in summary(report) {
        let mut cells: Vec<_> = figures(report, drops).into();
        cells.resize(cells.len() + columns.len().saturating_sub(1), String::new());
        cells.push(words);
        table.add_row(line(cells));
    }
    // Numbers are never cut; what has to give way is the name at the end of the line.
    let last = table.column_count() - 1;
    for (number, column) in table.column_iter_mut().enumerate() {
        if number < 3 {
            column.set_cell_alignment(CellAlignment::Right);
        }
        column.set_constraint(if number == last {
            ColumnConstraint::LowerBoundary(Width::Fixed(NARROWEST))
        } else {
            ColumnConstraint::ContentWidth
        });
    }
    table
}

/// A value in words; of a location also the line of source, which only people want.
fn cell(value: &Value) -> String {
    match value {
        Value::Location { location, source: Some(source) } => format!("{location} ({source})"),
        value => value.words(),
    }
}

/// The lines below the rows: what was cut, and the total.
fn summary(report: &Report) -> Vec<(u64, String)> {
    let mut lines = Vec::new();
    if report.cut.rows > 0 {
        lines.push((report.cut.drops, format!("in {} other rows", report.cut.rows)));
    }
    lines.push((report.drops, format!("total ({} since the start)", report.total)));
    lines
}

fn figures(report: &Report, drops: u64) -> [String; 3] {
    [
        drops.to_string(),
        format!("{:.1}/s", report.rate(drops)),
        format!("{:.1}%", report.share(drops) * 100.0),
    ]
}

/// A row of one line: what does not fit is cut, not wrapped.
fn line(cells: impl IntoIterator<Item = String>) -> TableRow {
    let mut row = TableRow::from(cells.into_iter().map(Cell::new).collect::<Vec<_>>());
    row.max_height(1);
    row
}
