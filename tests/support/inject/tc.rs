//! What traffic control drops, on either side.

use std::net::UdpSocket;

use super::{A, B, Case, Expected, Prepared, STRANGER, needs, wire::Wire};
use crate::support::{
    frames::{self, Packet},
    kernel,
};

pub const CASES: &[Case] = &[
    Case::new("tc_ingress", 313, ingress).needs(&[needs::TC_BPF]),
    Case::new("tc_egress", 317, egress).needs(&[needs::TC_BPF]),
    Case::new("tbf_over_its_limit", 331, tbf).needs(&[needs::TBF]),
    Case::new("pfifo_over_its_limit", 337, pfifo).needs(&[needs::TBF]),
];

/// Queues drop in lists, which a function of their own frees: up to Linux 6.2 that is the place, then its caller.
pub(super) fn queue() -> &'static [&'static str] {
    if kernel::is_before(6, 3) {
        &["kfree_skb_list_reason", "kfree_skb_list"]
    } else {
        &["__dev_queue_xmit", "__dev_xmit_skb", "__tcf_kfree_skb_list"]
    }
}

/// A classic program that says "shot".
const SHOT: &str = "bpf da bytecode 1,6 0 0 2,";

/// Attaches the program to all packets of a direction of a device of B.
pub fn shoot(wire: &Wire, device: &str, direction: &str) {
    wire.b.words(&format!("tc qdisc add dev {device} clsact"));
    let filter = format!("tc filter add dev {device} {direction} {SHOT}");
    let (words, bytecode) = filter.split_once(" bytecode ").expect("a filter");
    let mut words: Vec<_> = words.split(' ').collect();
    words.extend(["bytecode", bytecode]);
    wire.b.command(words[0], &words[1..]);
}

/// How many packets of a device of B the program has shot.
pub fn shot(wire: &Wire, device: &str) -> u64 {
    let said = wire.b.words(&format!("tc -j -s qdisc show dev {device} clsact"));
    let queues: Vec<serde_json::Value> = serde_json::from_str(&said).expect("JSON of tc");
    queues[0]["drops"].as_u64().expect("a count")
}

fn ingress(count: u64) -> Prepared {
    let wire = Wire::new();
    shoot(&wire, "vb", "ingress");
    let locations = &["__netif_receive_skb_core", "sch_handle_ingress"];
    wire.packets(&Packet::udp(STRANGER, B, 9), Expected::new(count, "TC_INGRESS", locations))
}

/// B's own datagrams, larger than few, which leave by `vb` or do not.
pub(super) fn leaving(wire: Wire, first: u64, expected: Expected) -> Prepared {
    let packet = Packet::udp_with(B, A, 9, &[0; 1000]);
    let count = expected.count + first;
    let expected = expected.on(&wire.b, "vb").of(&packet);
    let socket = wire.b.run(|| UdpSocket::bind((B, frames::SOURCE_PORT))).expect("a socket");
    let prepared = Prepared::new(expected, move || {
        for _ in 0..count {
            let _ = socket.send_to(&[0; 1000], (A, 9));
        }
    });
    prepared.keeping(wire)
}

fn egress(count: u64) -> Prepared {
    let wire = Wire::new();
    shoot(&wire, "vb", "egress");
    leaving(wire, 0, Expected::new(count, "TC_EGRESS", &["__dev_queue_xmit", "sch_handle_egress"]))
}

fn tbf(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.words("tc qdisc add dev vb root tbf rate 8kbit burst 1600 limit 3000");
    leaving(wire, 3, Expected::new(count, "QDISC_DROP", queue()))
}

fn pfifo(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.words("tc qdisc add dev vb root handle 1: tbf rate 8kbit burst 1600 limit 100000");
    wire.b.words("tc qdisc add dev vb parent 1:1 handle 2: pfifo limit 5");
    leaving(wire, 6, Expected::new(count, "QDISC_DROP", queue()))
}
