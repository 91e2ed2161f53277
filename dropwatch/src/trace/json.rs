//! A drop as an object of JSON: the facts of its line, for programs.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::{
    drop::Drop,
    words::{Facts, Fragment, TcpFacts},
};
use crate::{protocols, render::json_value};

/// The version of the objects' shape.
const SCHEMA: u32 = 1;

/// Writes one object on a line of its own.
///
/// # Errors
/// Those of the writer.
pub fn write(drop: &Drop<'_>, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &object(drop))?;
    writeln!(out)
}

/// Writes the object that ends the stream.
///
/// # Errors
/// Those of the writer.
pub fn write_summary(shown: u64, not_shown: u64, elapsed: Duration, out: &mut dyn Write) -> io::Result<()> {
    let elapsed = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
    let object = json!({
        "schema": SCHEMA,
        "type": "summary",
        "shown": shown,
        "not_shown": not_shown,
        "elapsed_s": elapsed,
    });
    serde_json::to_writer(&mut *out, &object)?;
    writeln!(out)
}

fn object(drop: &Drop<'_>) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.into(), value);
    put("schema", SCHEMA.into());
    put("type", "drop".into());
    put("time", humantime::format_rfc3339_nanos(drop.time).to_string().into());
    put("location", json_value(&drop.location));
    put("reason", json_value(&drop.reason));
    put("iface", json_value(&drop.iface));
    put("netns", json_value(&drop.netns));
    put("cpu", drop.event.head.cpu.into());
    put("length", drop.event.head.length.into());
    put("packet", packet(&drop.words.facts, &drop.words.text));
    if let Some(stack) = &drop.stack {
        put("stack", json_value(stack));
    }
    Value::Object(object)
}

/// The facts that every packet is asked for, those that only some have, and the words they were told in.
fn packet(facts: &Facts, words: &str) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.into(), value);
    put("protocol", facts.ethertype.map(protocols::ethertype).into());
    if !facts.vlans.is_empty() {
        put("vlan", json!(facts.vlans));
    }
    put("ipproto", facts.ipproto.map(protocols::ip_protocol).into());
    put("saddr", facts.source.map(|address| address.to_string()).into());
    put("daddr", facts.destination.map(|address| address.to_string()).into());
    put("sport", facts.source_port.into());
    put("dport", facts.destination_port.into());
    if let Some(Fragment { id, offset, more }) = facts.fragment {
        put("fragment", json!({ "id": id, "offset": offset, "more": more }));
    }
    if let Some(TcpFacts { flags, seq, ack, win }) = &facts.tcp {
        put("tcp", json!({ "flags": flags, "seq": seq, "ack": ack, "win": win }));
    }
    if let Some((kind, code)) = facts.icmp {
        put("icmp", json!({ "type": kind, "code": code }));
    }
    put("words", words.into());
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{
        drop::tests::{Small, bare_datagram, clock, datagram},
        event::Event,
    };

    fn read(record: &[u8], with_stack: bool) -> Value {
        let drop = Drop::new(Event::parse(record).unwrap(), clock(), &mut Small, with_stack);
        let mut out = Vec::new();
        write(&drop, &mut out).unwrap();
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
            "time": "1970-01-01T00:00:02.000000005Z",
            "location": udp_rcv,
            "reason": { "code": 3, "subsystem": "core", "name": "NO_SOCKET" },
            "iface": { "index": 1, "name": "lo" },
            "netns": { "inum": 4_026_531_840_u32, "name": "host" },
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
        let expected = json!({"schema":1,"type":"summary","shown":300,"not_shown":7,"elapsed_s":3.2});
        assert_eq!(object, expected);
    }
}
