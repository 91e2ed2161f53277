//! `json`: one object per report, one line each.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};

use super::Render;
use crate::{
    protocols,
    reasons::Reason,
    report::{Cut, Report, Row, Value},
    snapshot::Ledger,
    symbols::Location,
};

/// The version of the objects' shape.
const SCHEMA: u32 = 1;

/// One line of JSON for each report.
#[derive(Debug)]
pub struct Json;

#[derive(Serialize)]
struct ReportObject<'a> {
    schema: u32,
    r#type: &'static str,
    time: String,
    elapsed_s: f64,
    drops: u64,
    total: u64,
    rows: Rows<'a>,
    cut: Cut,
    ledger: Ledger,
}

impl Render for Json {
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let object = ReportObject {
            schema: SCHEMA,
            r#type: "report",
            time: time(report.time),
            elapsed_s: thousandths(report.elapsed.as_secs_f64()),
            drops: report.drops,
            total: report.total,
            rows: Rows(report),
            cut: report.cut,
            ledger: report.ledger,
        };
        serde_json::to_writer(&mut *out, &object)?;
        writeln!(out)
    }
}

/// RFC 3339 in UTC with milliseconds.
fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// The rows of a report, each an object.
#[derive(Debug)]
pub struct Rows<'a>(pub &'a Report);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.rows.iter().map(|row| RowObject(self.0, row)))
    }
}

struct RowObject<'a>(&'a Report, &'a Row);

impl Serialize for RowObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(report, row) = self;
        let mut object = serializer.serialize_map(Some(3 + row.values.len()))?;
        object.serialize_entry("count", &row.count)?;
        object.serialize_entry("rate", &thousandths(report.rate(row.count)))?;
        object.serialize_entry("total", &row.total)?;
        for (key, value) in report.by.iter().zip(&row.values) {
            object.serialize_entry(key.word(), &ValueObject(value))?;
        }
        object.end()
    }
}

/// The value of a key; what is not known is null.
#[derive(Debug)]
pub struct ValueObject<'a>(pub &'a Value);

impl Serialize for ValueObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Location { location, .. } => LocationObject::from(location).serialize(serializer),
            Value::Reason(value) => value.as_ref().map(ReasonObject::from).serialize(serializer),
            Value::Iface(value) => value.serialize(serializer),
            Value::Netns(value) => value.serialize(serializer),
            Value::Protocol(value) => value.map(protocols::ethertype).serialize(serializer),
            Value::IpProto(value) => value.map(protocols::ip_protocol).serialize(serializer),
            Value::Address(value) => value.serialize(serializer),
            Value::Port(value) => value.serialize(serializer),
            Value::Cpu(value) => value.serialize(serializer),
            Value::Stack(None) => serializer.serialize_none(),
            Value::Stack(Some(frames)) => {
                let mut array = serializer.serialize_seq(Some(frames.len()))?;
                for frame in frames {
                    array.serialize_element(&LocationObject::from(frame))?;
                }
                array.end()
            }
        }
    }
}

#[derive(Serialize)]
struct LocationObject<'a> {
    address: Address,
    symbol: Option<&'a str>,
    offset: Option<u64>,
    size: Option<u64>,
    module: Option<&'a str>,
}

impl<'a> From<&'a Location> for LocationObject<'a> {
    fn from(location: &'a Location) -> Self {
        let symbol = location.symbol.as_ref();
        Self {
            address: Address(location.address),
            symbol: symbol.map(|symbol| &*symbol.name),
            offset: symbol.map(|symbol| symbol.offset),
            size: symbol.and_then(|symbol| symbol.size),
            module: symbol.map(|symbol| &*symbol.module),
        }
    }
}

/// In sixteen digits: more than a number of JSON is good for.
struct Address(u64);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#018x}", self.0))
    }
}

#[derive(Serialize)]
struct ReasonObject<'a> {
    code: u32,
    subsystem: Option<&'a str>,
    name: Option<&'a str>,
}

impl<'a> From<&'a Reason> for ReasonObject<'a> {
    fn from(reason: &'a Reason) -> Self {
        Self { code: reason.code, subsystem: reason.subsystem.as_deref(), name: reason.name.as_deref() }
    }
}

/// Rounded: a measured time has no more true digits.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
