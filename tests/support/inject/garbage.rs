//! Packets that no protocol handles: drops that are no other case's own.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{B, Expected, Prepared, STRANGER, wire::Wire};
use crate::support::frames::{self, IPV6, Line, Packet, UDP};

/// Modules with protocols that drop it; without them, it is dropped as an unknown protocol.
pub const MODULES: &[&str] = &[
    "dccp_ipv4",
    "dccp_ipv6",
    "esp4",
    "ip6_gre",
    "ip6_tunnel",
    "ip_gre",
    "ipip",
    "l2tp_ip",
    "l2tp_ip6",
    "mpls_router",
    "psnap",
    "sctp",
    "sit",
    "stp",
];

const STRANGER_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 7);
const B_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2);

/// So many packets for each place, each dropped once.
pub fn prepare(each: u64) -> Prepared {
    let wire = Wire::with_ipv6();
    let line = Line::open(&wire.a, "va");
    let packets = v4().into_iter().chain(v6()).map(|packet| ip(&wire, &packet));
    let frames: Vec<_> = packets.chain(others(&wire)).collect();
    let places = u64::try_from(frames.len()).expect("a number");
    let expected = Expected::new(places * each, "", &[]).on(&wire.b, "vb");
    let act = move || {
        for _ in 0..each {
            line.send(frames.iter().map(Vec::as_slice));
        }
    };
    Prepared::new(expected, act).keeping(wire)
}

fn frame(wire: &Wire, ethertype: u16, bytes: &[u8]) -> Vec<u8> {
    frames::frame(wire.to, [2, 0, 0, 0, 0, 1], ethertype, bytes)
}

fn ip(wire: &Wire, packet: &Packet) -> Vec<u8> {
    frame(wire, packet.ethertype(), &packet.bytes())
}

fn v4() -> Vec<Packet> {
    // IGMP, tunnels (4, 41, 137), DCCP, GRE, ESP, PIM, L2TP, SCTP.
    const PROTOCOLS: [u8; 10] = [2, 4, 33, 41, 47, 50, 103, 115, 132, 137];
    const MORE: u16 = 0x2000;
    let packet = |protocol, payload| Packet::new(STRANGER, B, protocol, payload);
    let mut packets: Vec<_> = PROTOCOLS.map(|protocol| packet(protocol, vec![0xff; 60])).into();
    // A fragment that is not the last, and not in units of eight.
    packets.push(Packet { fragment: MORE, ..packet(UDP, vec![0; 7]) });
    packets.push(Packet::udp(STRANGER, Ipv4Addr::BROADCAST, 9));
    packets
}

fn v6() -> Vec<Packet> {
    // Options that are longer than the packet, DCCP, routing, fragments, GRE, PIM, L2TP, MPLS.
    const PROTOCOLS: [u8; 8] = [HOP_BY_HOP, 33, ROUTING, FRAGMENT, 47, 103, 115, 137];
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const NOTHING: u8 = 59;
    let packet = |protocol, payload| Packet::new(STRANGER_6, B_6, protocol, payload);
    let option = |kind| packet(HOP_BY_HOP, vec![NOTHING, 0, kind, 4, 0, 0, 0, 1]);
    let routing = |kind| packet(ROUTING, [&[NOTHING, 2, kind, 1][..], &[0; 20]].concat());
    let mut packets: Vec<_> = PROTOCOLS.map(|protocol| packet(protocol, vec![0xff; 60])).into();
    // A jumbogram, an option to discard and one to complain of, a router's alert, measurements.
    packets.extend([0xc2, 0x5e, 0x9e, 5, 0x31].map(option));
    packets.extend([0, 3].map(routing));
    packets.push(packet(FRAGMENT, vec![NOTHING, 0, 0, 1]));
    packets
}

/// What is not for an address of B.
fn others(wire: &Wire) -> Vec<Vec<u8>> {
    const ARP: u16 = 0x0806;
    const MPLS: u16 = 0x8847;
    // A spanning tree frame where there is no bridge, a SNAP protocol, and an unknown LLC address.
    const SERVICES: [u8; 3] = [0x42, 0xaa, 0x12];
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x1234);
    let to_group = Packet::udp(STRANGER_6, group, 9).bytes();
    let mut frames: Vec<_> = SERVICES.map(|service| llc(wire, service)).into();
    frames.push(frames::frame([0x33, 0x33, 0, 0, 0x12, 0x34], [2, 0, 0, 0, 0, 1], IPV6, &to_group));
    frames.push(frame(wire, MPLS, &[0xff; 60]));
    frames.push(frame(wire, ARP, &[0xff; 60]));
    // Neither question nor answer.
    let neither = [&[0, 1, 8, 0, 6, 4, 0, 9][..], &[2; 20]].concat();
    frames.push(frame(wire, ARP, &neither));
    frames
}

/// A frame of IEEE 802.2, which has a length for its type, and a number at either end.
fn llc(wire: &Wire, service: u8) -> Vec<u8> {
    const LENGTH: u16 = 64;
    let mut bytes = vec![0; LENGTH.into()];
    bytes[..3].copy_from_slice(&[service, service, 3]);
    frame(wire, LENGTH, &bytes)
}
