//! `json`: one object per report, one line each.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::SystemTime,
};

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};

use super::{Render, Style};
use crate::{
    escape::is_unsafe,
    knowledge::Meanings,
    model::{
        counter::Counter,
        foreign::Foreign,
        keys::Key,
        location::{Location, SourceLine},
        protocols,
        reason::Reason,
        report::{Cut, Iface, Netns, Report, Row, Value},
        snapshot::Ledger,
        socket::{Ownership, Socket},
    },
};

/// The version of the objects' shape.
const SCHEMA: u32 = 1;

/// One line of JSON for each report.
#[derive(Debug)]
pub struct Json {
    host: &'static str,
}

impl Json {
    /// Objects of the host that a style names.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self { host: style.host }
    }
}

#[derive(Serialize)]
struct ReportObject<'a> {
    schema: u32,
    r#type: &'static str,
    host: &'a str,
    time: String,
    elapsed_s: f64,
    drops: u64,
    total: u64,
    rows: Rows<'a>,
    cut: Cut,
    ledger: Ledger,
    counters: &'a [Counter],
    #[serde(skip_serializing_if = "Option::is_none")]
    peak: Option<f64>,
}

impl Render for Json {
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let object = ReportObject {
            schema: SCHEMA,
            r#type: "report",
            host: self.host,
            time: time(report.time),
            elapsed_s: thousandths(report.elapsed.as_secs_f64()),
            drops: report.drops,
            total: report.total,
            rows: Rows(report),
            cut: report.cut,
            ledger: report.ledger,
            counters: &report.counters,
            peak: report.peak.map(thousandths),
        };
        writeln!(out, "{}", compact(&object)?)
    }
}

/// JSON on one line.
///
/// # Errors
/// None that a string could give.
pub fn compact(value: &impl Serialize) -> io::Result<String> {
    Ok(safe(serde_json::to_string(value)?))
}

/// JSON for a file that people also look into.
///
/// # Errors
/// None that a string could give.
pub fn pretty(value: &impl Serialize) -> io::Result<String> {
    Ok(safe(serde_json::to_string_pretty(value)?))
}

/// Escapes what JSON allows in strings, where alone it occurs, and a terminal obeys.
fn safe(json: String) -> String {
    let is_obeyed = |character: char| character > '\x1f' && is_unsafe(character);
    // Nearly all is plain, which is seen at a glance.
    if json.is_ascii() && !json.as_bytes().contains(&b'\x7f') || !json.contains(is_obeyed) {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if is_obeyed(character) {
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
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
        serializer.collect_seq(self.0.rows.iter().map(|row| RowObject { report: self.0, row }))
    }
}

struct RowObject<'a> {
    report: &'a Report,
    row: &'a Row,
}

impl Serialize for RowObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { report, row } = self;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("count", &row.count)?;
        object.serialize_entry("rate", &thousandths(report.rate(row.count)))?;
        object.serialize_entry("total", &row.total)?;
        if report.peak.is_some() {
            object.serialize_entry("peak", &row.peak.map(thousandths))?;
        }
        for (key, value) in report.by.iter().zip(&row.values) {
            match value {
                Value::Iface(Some(iface)) => object.serialize_entry(key.word(), &IfaceObject::from(iface))?,
                value => object.serialize_entry(key.word(), &ValueObject(value))?,
            }
        }
        if let (Some(class), false) = (row.class, report.by.contains(&Key::Class)) {
            object.serialize_entry("class", &class)?;
        }
        if report.is_explained {
            let meaning = Meanings::default().entry(&row.values).map(|entry| entry.title);
            object.serialize_entry("meaning", &meaning)?;
            object.serialize_entry("evidence", &row.evidence)?;
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
            Value::Location { location, source } => {
                PlaceObject { location: location.into(), source: source.as_ref() }.serialize(serializer)
            }
            Value::Function(value) => value.serialize(serializer),
            Value::Reason(value) => value.as_ref().map(ReasonObject::from).serialize(serializer),
            Value::Class(value) => value.serialize(serializer),
            Value::Iface(value) => value.serialize(serializer),
            Value::Netns(value) => value.serialize(serializer),
            Value::Protocol(value) => value.map(protocols::ethertype).serialize(serializer),
            Value::IpProto(value) => value.map(protocols::ip_protocol).serialize(serializer),
            Value::Address(value) => value.serialize(serializer),
            Value::Port(value) => value.serialize(serializer),
            Value::Cpu(value) => value.serialize(serializer),
            Value::Socket(value) => value.as_deref().map(SocketObject::from).serialize(serializer),
            Value::Process(Ownership::Process(process)) => process.serialize(serializer),
            Value::Process(Ownership::Kernel) => {
                KernelObject { pid: None, comm: "kernel" }.serialize(serializer)
            }
            Value::Container { container, .. } => container.serialize(serializer),
            Value::Process(Ownership::Nobody | Ownership::Unknown) | Value::Stack(None) => {
                serializer.serialize_none()
            }
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

/// An interface of a row. Its number says nothing without its namespace.
#[derive(Serialize)]
struct IfaceObject<'a> {
    #[serde(flatten)]
    iface: &'a Iface,
    netns: Option<&'a Netns>,
}

impl<'a> From<&'a Iface> for IfaceObject<'a> {
    fn from(iface: &'a Iface) -> Self {
        Self { iface, netns: iface.netns.as_ref() }
    }
}

#[derive(Serialize)]
struct LocationObject<'a> {
    address: Address,
    symbol: Option<&'a Foreign>,
    offset: Option<u64>,
    size: Option<u64>,
    module: Option<&'a Foreign>,
}

/// Where packets are dropped; frames of call chains have no line of source.
#[derive(Serialize)]
struct PlaceObject<'a> {
    #[serde(flatten)]
    location: LocationObject<'a>,
    source: Option<&'a SourceLine>,
}

impl<'a> From<&'a Location> for LocationObject<'a> {
    fn from(location: &'a Location) -> Self {
        let symbol = location.symbol.as_ref();
        Self {
            address: Address(location.address),
            symbol: symbol.map(|symbol| &symbol.name),
            offset: symbol.map(|symbol| symbol.offset),
            size: symbol.and_then(|symbol| symbol.size),
            module: symbol.map(|symbol| &symbol.module),
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

#[derive(Serialize)]
struct SocketObject {
    protocol: String,
    local: Option<String>,
    remote: Option<String>,
    state: Option<&'static str>,
    receive_used: Option<u32>,
    receive_size: Option<u32>,
    cookie: Option<u64>,
    inode: Option<u64>,
    uid: Option<u32>,
    kernel: bool,
}

impl From<&Socket> for SocketObject {
    fn from(socket: &Socket) -> Self {
        let is_full = socket.is_full();
        Self {
            protocol: socket.protocol(),
            local: socket.local().map(|address| address.to_string()),
            remote: socket.remote().map(|address| address.to_string()),
            state: socket.state(),
            receive_used: socket.receive_used(),
            receive_size: socket.receive_size(),
            cookie: socket.cookie(),
            inode: (socket.key.inode != 0).then_some(socket.key.inode),
            uid: is_full.then_some(socket.seen.uid),
            kernel: socket.is_of_kernel(),
        }
    }
}

/// In place of a process.
#[derive(Serialize)]
struct KernelObject {
    pid: Option<u32>,
    comm: &'static str,
}

/// Rounded: a measured time has no more true digits.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
