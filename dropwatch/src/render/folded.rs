//! `folded`: a line for each call chain, for flame graphs.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::Render;
use crate::{
    escape::without,
    model::{
        location::Location,
        report::{Report, Row, Value},
    },
};

/// `outermost;…;innermost COUNT`, other keys in front as frames of their own.
#[derive(Debug)]
pub struct Folded;

impl Render for Folded {
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        // Frames are functions: chains that differ in the places of calls are one line.
        let mut lines = BTreeMap::new();
        for row in &report.rows {
            *lines.entry(line(row)).or_insert(0) += row.count;
        }
        for (frames, count) in lines {
            writeln!(out, "{frames} {count}")?;
        }
        if report.cut.rows > 0 {
            writeln!(out, "({} other rows) {}", report.cut.rows, report.cut.drops)?;
        }
        Ok(())
    }
}

fn line(row: &Row) -> String {
    let mut frames: Vec<_> = row
        .values
        .iter()
        .filter(|value| !matches!(value, Value::Stack(_)))
        .map(|value| as_frame(&value.words()))
        .collect();
    for value in &row.values {
        match value {
            Value::Stack(Some(chain)) => frames.extend(chain.iter().rev().map(function)),
            Value::Stack(None) => frames.push("-".to_owned()),
            _ => {}
        }
    }
    frames.join(";")
}

/// What separates frames is escaped in one.
fn as_frame(words: &str) -> String {
    without(words, |character| character == ';').into_owned()
}

/// A function, with its module if it is in one.
fn function(frame: &Location) -> String {
    match &frame.symbol {
        Some(symbol) if symbol.is_in_kernel() => as_frame(&symbol.name.word()),
        Some(symbol) => as_frame(&format!("{} [{}]", symbol.name.word(), symbol.module.word())),
        None => format!("{:#x}", frame.address),
    }
}
