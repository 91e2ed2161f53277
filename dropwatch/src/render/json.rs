//! `json`: one object per report, one line each.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use serde_json::{Map, Value as JsonValue, json};

use super::Render;
use crate::{
    protocols,
    reasons::Reason,
    report::{Report, Row, Value},
    snapshot::Ledger,
    symbols::Location,
};

/// The version of the objects' shape.
const SCHEMA: u32 = 1;

/// One line of JSON for each report.
#[derive(Debug)]
pub struct Json;

impl Render for Json {
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<_> = report.rows.iter().map(|value| row(report, value)).collect();
        let object = json!({
            "schema": SCHEMA,
            "type": "report",
            "time": time(report.time),
            "elapsed_s": thousandths(report.elapsed.as_secs_f64()),
            "drops": report.drops,
            "total": report.total,
            "rows": rows,
            "cut": { "rows": report.cut.rows, "drops": report.cut.drops },
            "ledger": ledger(report.ledger),
        });
        serde_json::to_writer(&mut *out, &object)?;
        writeln!(out)
    }
}

/// RFC 3339 in UTC with milliseconds.
fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// What was lost.
#[must_use]
pub fn ledger(ledger: Ledger) -> JsonValue {
    json!({
        "map_full": ledger.map_full,
        "update_failed": ledger.update_failed,
        "stack_failed": ledger.stack_failed,
        "recursion_missed": ledger.recursion_missed,
    })
}

/// A row of a report.
#[must_use]
pub fn row(report: &Report, row: &Row) -> JsonValue {
    let mut object = Map::new();
    object.insert("count".into(), row.count.into());
    object.insert("rate".into(), thousandths(report.rate(row.count)).into());
    object.insert("total".into(), row.total.into());
    for (key, value) in report.by.iter().zip(&row.values) {
        let value = self::value(value);
        object.insert(key.word().into(), value);
    }
    JsonValue::Object(object)
}

/// The value of a key; what is not known is null.
#[must_use]
pub fn value(value: &Value) -> JsonValue {
    match value {
        Value::Location { location: value, .. } => location(value),
        Value::Reason(value) => value.as_ref().map_or(JsonValue::Null, reason),
        Value::Iface(value) => {
            value.as_ref().map(|iface| json!({ "index": iface.index, "name": iface.name.as_deref() })).into()
        }
        Value::Netns(value) => {
            value.as_ref().map(|netns| json!({ "inum": netns.inum, "name": netns.name.as_deref() })).into()
        }
        Value::Protocol(value) => value.map(protocols::ethertype).into(),
        Value::IpProto(value) => value.map(protocols::ip_protocol).into(),
        Value::Address(value) => value.map(|address| address.to_string()).into(),
        Value::Port(value) => (*value).into(),
        Value::Cpu(value) => (*value).into(),
        Value::Stack(value) => {
            value.as_ref().map(|frames| frames.iter().map(location).collect::<Vec<_>>()).into()
        }
    }
}

fn location(location: &Location) -> JsonValue {
    let symbol = location.symbol.as_ref();
    json!({
        "address": format!("{:#018x}", location.address),
        "symbol": symbol.map(|symbol| &*symbol.name),
        "offset": symbol.map(|symbol| symbol.offset),
        "size": symbol.and_then(|symbol| symbol.size),
        "module": symbol.map(|symbol| &*symbol.module),
    })
}

fn reason(reason: &Reason) -> JsonValue {
    json!({ "code": reason.code, "subsystem": reason.subsystem.as_deref(), "name": reason.name.as_deref() })
}

/// Rounded: a measured time has no more true digits.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
