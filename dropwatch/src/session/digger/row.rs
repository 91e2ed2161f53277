//! A drop as a row of a report has it, which is what meanings and evidence are looked up for.

use std::sync::Arc;

use dropwatch_common::{
    event, kind,
    packet::{self, family},
    row::{RowKey, known},
};

use crate::{
    model::{
        keys::Key,
        references::trimmed,
        report::{Names, Row},
        sample::Sample,
    },
    trace::event::Event,
};

/// What a drop is called by.
pub const BY: [Key; 4] = [Key::Location, Key::Reason, Key::Iface, Key::Netns];

/// The row of a single drop.
pub fn of(event: &Event<'_>, names: &mut impl Names) -> Row {
    Row::of_drop(Arc::new(sample(event)), &BY, names)
}

fn sample(event: &Event<'_>) -> Sample {
    let head = &event.head;
    let (link, packet) = split(event);
    let frames: Vec<_> = event.stack().collect();
    let frames = trimmed(&frames, head.location);
    Sample {
        key: key(event),
        chain: (!frames.is_empty()).then(|| frames.into()),
        socket: None,
        filter: None,
        of_cgroup: Vec::new(),
        length: head.length,
        mark: 0,
        queue: 0,
        egress: None,
        link: link.to_vec(),
        packet: packet.to_vec(),
    }
}

/// The link header and what is behind it.
fn split<'a>(event: &Event<'a>) -> (&'a [u8], &'a [u8]) {
    event.bytes.split_at_checked(event.head.link_length as usize).unwrap_or((&[], event.bytes))
}

/// What a probe would count a drop by, but for its socket and its call chain.
#[must_use]
pub fn key(event: &Event<'_>) -> RowKey {
    let head = &event.head;
    let (_, bytes) = split(event);
    let packet = packet::parse(bytes, head.protocol);
    let mut key = RowKey {
        location: head.location,
        reason: head.reason,
        cpu: head.cpu,
        saddr: packet.saddr,
        daddr: packet.daddr,
        sport: packet.sport,
        dport: packet.dport,
        ipproto: packet.ipproto,
        protocol: packet.ethertype,
        kind: kind::of(kind::link::HOST, head.protocol, bytes),
        known: known::KIND,
        ..RowKey::default()
    };
    if event.knows(event::known::NETNS) {
        (key.netns, key.cookie) = (head.netns, head.cookie);
        key.known |= known::NETNS;
    }
    if event.knows(event::known::DEVICE | event::known::DEVICE_NAME) {
        (key.ifindex, key.iface) = (head.ifindex, head.iface);
        key.known |= known::IFACE;
    }
    let knows = |bits: u8| packet.known & bits == bits;
    let of_family = if packet.family == family::IPV4 { known::IPV4 } else { known::IPV6 };
    let bits = [
        (packet.ethertype != 0, known::PROTOCOL),
        (knows(packet::known::IPPROTO), known::IPPROTO),
        (knows(packet::known::SADDR | packet::known::DADDR), of_family),
        (knows(packet::known::SPORT | packet::known::DPORT), known::PORTS),
    ];
    key.known |= bits.iter().filter(|(is_known, _)| *is_known).fold(0, |known, (_, bit)| known | bit);
    key
}
