//! A drop as an object of JSON: the facts of its line, for programs.

use std::{
    borrow::Cow,
    io::{self, Write},
    net::IpAddr,
    time::Duration,
};

use serde::Serialize;

use super::{
    dissect::{Fragment, Style, Summary, TcpFacts},
    dropped_packet::{DroppedPacket, Owner},
};
use crate::{
    model::{class::Class, protocols},
    process::host,
    render::{JsonValue, compact_json},
};

/// The version of the objects' shape.
const SCHEMA: u32 = 1;

/// Writes one object on a line of its own.
///
/// # Errors
/// Those of the writer.
pub fn write(drop: &DroppedPacket<'_>, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let words = Summary::of(&drop.frame, style);
    writeln!(out, "{}", compact_json(&DropObject::new(drop, &words))?)
}

/// Writes the object that ends the stream.
///
/// # Errors
/// Those of the writer.
pub fn write_summary(shown: u64, not_shown: u64, elapsed: Duration, out: &mut dyn Write) -> io::Result<()> {
    let elapsed_s = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
    let object =
        SummaryObject { schema: SCHEMA, r#type: "summary", host: host::name(), shown, not_shown, elapsed_s };
    writeln!(out, "{}", compact_json(&object)?)
}

#[derive(Serialize)]
struct SummaryObject {
    schema: u32,
    r#type: &'static str,
    host: &'static str,
    shown: u64,
    not_shown: u64,
    elapsed_s: f64,
}

#[derive(Serialize)]
struct DropObject<'a> {
    schema: u32,
    r#type: &'static str,
    host: &'static str,
    time: String,
    location: JsonValue<'a>,
    reason: JsonValue<'a>,
    class: Class,
    iface: JsonValue<'a>,
    netns: JsonValue<'a>,
    cpu: u32,
    length: u32,
    packet: Packet<'a>,
    #[serde(flatten)]
    owner: Option<OwnerObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<JsonValue<'a>>,
}

impl<'a> DropObject<'a> {
    fn new(drop: &'a DroppedPacket<'_>, packet: &'a Summary) -> Self {
        Self {
            schema: SCHEMA,
            r#type: "drop",
            host: host::name(),
            time: humantime::format_rfc3339_nanos(drop.time).to_string(),
            location: JsonValue(&drop.location),
            reason: JsonValue(&drop.reason),
            class: drop.class,
            iface: JsonValue(&drop.iface),
            netns: JsonValue(&drop.netns),
            cpu: drop.event.head.cpu,
            length: drop.event.head.length,
            packet: Packet::from(packet),
            owner: drop.owner.as_ref().map(OwnerObject::from),
            stack: drop.stack.as_ref().map(JsonValue),
        }
    }
}

/// What rows call the same.
#[derive(Serialize)]
struct OwnerObject<'a> {
    socket: JsonValue<'a>,
    process: JsonValue<'a>,
    container: JsonValue<'a>,
}

impl<'a> From<&'a Owner> for OwnerObject<'a> {
    fn from(Owner { socket, process, container }: &'a Owner) -> Self {
        Self { socket: JsonValue(socket), process: JsonValue(process), container: JsonValue(container) }
    }
}

/// The fields of every packet, those that only some have, and the line that describes it.
#[derive(Serialize)]
struct Packet<'a> {
    protocol: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    vlan: &'a [u16],
    ipproto: Option<Cow<'static, str>>,
    saddr: Option<IpAddr>,
    daddr: Option<IpAddr>,
    sport: Option<u16>,
    dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<Fragment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<&'a TcpFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<Icmp>,
    words: &'a str,
}

#[derive(Serialize)]
struct Icmp {
    r#type: u8,
    code: u8,
}

impl<'a> From<&'a Summary> for Packet<'a> {
    fn from(Summary { facts, text, .. }: &'a Summary) -> Self {
        Self {
            protocol: facts.ethertype.map(protocols::ethertype),
            vlan: &facts.vlans,
            ipproto: facts.ipproto.map(protocols::ip_protocol),
            saddr: facts.source,
            daddr: facts.destination,
            sport: facts.source_port,
            dport: facts.destination_port,
            fragment: facts.fragment,
            tcp: facts.tcp.as_ref(),
            icmp: facts.icmp.map(|(kind, code)| Icmp { r#type: kind, code }),
            words: text,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fakes::Kernel,
        trace::{
            dropped_packet::tests::{bare_datagram, clock, datagram},
            event::Event,
        },
    };

    fn read(record: &[u8], with_stack: bool) -> Value {
        let drop =
            DroppedPacket::new(Event::parse(record).unwrap(), clock(), &mut Kernel::small(), with_stack);
        let mut out = Vec::new();
        write(&drop, Style::default(), &mut out).unwrap();
        assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1), "one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn an_object_has_every_field_of_the_line() {
        let udp_rcv = json!({"address":"0x0000000000001010","symbol":"udp_rcv","offset":16,"size":256,"module":"kernel"});
        let ip_rcv = json!({"address":"0x0000000000002020","symbol":"ip_rcv","offset":32,"size":256,"module":"kernel"});
        let expected = json!({
            "schema": 1,
            "type": "drop",
            "host": host::name(),
            "time": "1970-01-01T00:00:02.000000005Z",
            "location": {
                "address": "0x0000000000001010", "symbol": "udp_rcv", "offset": 16, "size": 256, "module": "kernel",
                "source": null,
            },
            "reason": { "code": 3, "subsystem": "core", "name": "NO_SOCKET" },
            "iface": { "index": 1, "name": "lo" },
            "netns": { "inum": 4_026_531_840_u32, "name": "host" },
            "class": "lost",
            "cpu": 1,
            "length": 29,
            "packet": {
                "protocol": "ipv4", "ipproto": "udp", "saddr": "127.0.0.1", "daddr": "127.0.0.1",
                "sport": 40000, "dport": 9, "words": "IP 127.0.0.1.40000 > 127.0.0.1.9: UDP, length 1",
            },
            "stack": [udp_rcv, ip_rcv],
        });
        assert_eq!(read(&datagram(), true), expected);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let object = read(&bare_datagram(), true);
        for key in ["reason", "iface", "netns", "stack"] {
            assert_eq!(object.get(key), Some(&Value::Null), "{key}");
        }
        assert_eq!(read(&bare_datagram(), false).get("stack"), None);
    }

    #[test]
    fn the_summary_sums() {
        let mut out = Vec::new();
        write_summary(300, 7, Duration::from_millis(3200), &mut out).unwrap();
        let object: Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({"schema":1,"type":"summary","host":host::name(),"shown":300,"not_shown":7,"elapsed_s":3.2});
        assert_eq!(object, expected);
    }
}
