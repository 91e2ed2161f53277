//! What IPv4 and the layer below refuse on arrival.

use std::net::Ipv4Addr;

use super::{A, B, Case, ELSEWHERE, Expected, Prepared, STRANGER, needs, wire, wire::Wire};
use crate::support::frames::{self, IPV4, Packet, VLAN};

pub const CASES: &[Case] = &[
    Case::new("ip_checksum", 11, checksum),
    Case::new("ip_version", 13, version),
    Case::new("ip_length_beyond_the_frame", 17, length),
    Case::new("ip_unknown_protocol", 19, unknown_protocol),
    Case::new("ospf_hello_to_a_group_not_joined", 23, ospf),
    Case::new("another_hosts_frame", 29, other_host),
    Case::new("unknown_ethertype", 31, ethertype),
    Case::new("unknown_vlan", 37, vlan),
    Case::new("reverse_path_filter", 41, reverse_path),
    Case::new("source_in_loopback_network", 43, from_loopback),
    Case::new("source_is_own_address", 47, from_itself),
    Case::new("source_is_multicast", 53, from_multicast),
    Case::new("destination_zero", 59, to_zero),
    Case::new("unicast_in_a_broadcast_frame", 61, unicast_in_broadcast),
    Case::new("source_route_refused", 67, source_route),
    Case::new("ip_options", 163, options),
    Case::new("gre_version", 71, gre_version).needs(&[needs::GRE]),
    Case::new("fragments_that_overlap", 73, duplicate_fragment),
    Case::new("fragment_alone", 503, lost_fragment),
];

const BROADCAST: [u8; 6] = [0xff; 6];
const OSPF: u8 = 89;

/// In `ip_rcv_finish` until it was split, and wherever that is inlined.
const FINISH: &[&str] = &["ip_rcv_finish_core", "ip_rcv_finish"];
const RECEIVE: &[&str] = &["ip_rcv_core", "ip_rcv"];
const DELIVER: &[&str] = &["ip_local_deliver_finish", "ip_protocol_deliver_rcu"];

fn stranger() -> Packet {
    Packet::udp(STRANGER, B, 9)
}

fn checksum(count: u64) -> Prepared {
    let packet = stranger();
    let broken = frames::flipped(packet.bytes(), 10);
    Wire::new().mangled(&packet, broken, Expected::new(count, "IP_CSUM", RECEIVE))
}

fn version(count: u64) -> Prepared {
    let packet = stranger();
    let mut broken = packet.bytes();
    broken[0] = 0x55;
    // What is not IPv4 has none of its addresses.
    let wire = Wire::new();
    let to = wire.to;
    wire.frames(to, packet.ethertype(), broken, Expected::new(count, "IP_INHDR", RECEIVE))
}

fn length(count: u64) -> Prepared {
    let packet = Packet::udp_with(STRANGER, B, 9, &[0; 100]);
    let mut broken = packet.bytes();
    broken.truncate(70);
    Wire::new().mangled(&packet, broken, Expected::new(count, "PKT_TOO_SMALL", RECEIVE))
}

fn unknown_protocol(count: u64) -> Prepared {
    let packet = Packet::new(STRANGER, B, 200, vec![0; 8]);
    Wire::new().packets(&packet, Expected::new(count, "IP_NOPROTO", DELIVER))
}

fn ospf(count: u64) -> Prepared {
    const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 5);
    let hello = frames::words(&[0x0201, 44, 0x0a0a, 0x0204, 0, 0, 0, 0, 0, 0, 0, 0]);
    let packet = Packet { hops: 1, ..Packet::new(A, ALL_ROUTERS, OSPF, hello) };
    let expected = Expected::new(count, "NOT_SPECIFIED", FINISH).of(&packet);
    Wire::new().frames([1, 0, 0x5e, 0, 0, 5], IPV4, packet.bytes(), expected)
}

fn other_host(count: u64) -> Prepared {
    let packet = stranger();
    let expected = Expected::new(count, "OTHERHOST", RECEIVE).of(&packet);
    Wire::new().frames([2, 0x11, 0x22, 0x33, 0x44, 0x55], IPV4, packet.bytes(), expected)
}

fn ethertype(count: u64) -> Prepared {
    let wire = Wire::new();
    let to = wire.to;
    let expected = Expected::new(count, "UNHANDLED_PROTO", &["__netif_receive_skb_core"]);
    wire.frames(to, 0x88b5, vec![0; 50], expected)
}

fn vlan(count: u64) -> Prepared {
    let wire = Wire::new();
    let (to, packet) = (wire.to, stranger());
    let mut tagged = frames::words(&[5, IPV4]);
    tagged.extend(packet.bytes());
    wire.frames(to, VLAN, tagged, Expected::new(count, "OTHERHOST", RECEIVE).of(&packet))
}

fn reverse_path(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.ip("link add other type veth peer name rehto");
    wire.b.ip("link set other up");
    wire.b.ip("route add 10.98.0.0/24 dev other");
    wire.b.sysctl("net/ipv4/conf/all/rp_filter", "1");
    wire.b.sysctl("net/ipv4/conf/vb/rp_filter", "1");
    wire.packets(&stranger(), Expected::new(count, "IP_RPFILTER", FINISH))
}

fn from_loopback(count: u64) -> Prepared {
    let packet = Packet::udp(Ipv4Addr::new(127, 1, 2, 3), B, 9);
    Wire::new().packets(&packet, Expected::new(count, "IP_LOCALNET", FINISH))
}

fn from_itself(count: u64) -> Prepared {
    Wire::new().packets(&Packet::udp(B, B, 9), Expected::new(count, "IP_LOCAL_SOURCE", FINISH))
}

fn from_multicast(count: u64) -> Prepared {
    let packet = Packet::udp(Ipv4Addr::new(224, 0, 0, 9), B, 9);
    Wire::new().packets(&packet, Expected::new(count, "IP_INVALID_SOURCE", FINISH))
}

fn to_zero(count: u64) -> Prepared {
    let packet = Packet::udp(A, Ipv4Addr::UNSPECIFIED, 9);
    Wire::new().packets(&packet, Expected::new(count, "IP_INVALID_DEST", FINISH))
}

fn unicast_in_broadcast(count: u64) -> Prepared {
    let packet = stranger();
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/conf/all/drop_unicast_in_l2_multicast", "1");
    let expected = Expected::new(count, "UNICAST_IN_L2_MULTICAST", FINISH).of(&packet);
    wire.frames(BROADCAST, IPV4, packet.bytes(), expected)
}

fn source_route(count: u64) -> Prepared {
    let [a, b, c, d] = ELSEWHERE.octets();
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/conf/all/accept_source_route", "0");
    let packet = Packet { options: vec![131, 7, 4, a, b, c, d, 0], ..stranger() };
    wire.packets(&packet, Expected::new(count, "NOT_SPECIFIED", FINISH))
}

fn options(count: u64) -> Prepared {
    // A timestamp's option that points beyond its end.
    let packet = Packet { options: vec![68, 4, 3, 0], ..stranger() };
    // Older kernels know the reason, and do not give it here.
    let expected = Expected { older: &["NOT_SPECIFIED"], ..Expected::new(count, "IP_INHDR", FINISH) };
    Wire::new().packets(&packet, expected)
}

/// A header of GRE; `gre` knows versions 0 and 1 at most, and `ip_gre` no tunnel for it.
pub fn gre(version: u16) -> Packet {
    Packet::new(STRANGER, B, 47, frames::words(&[version, IPV4, 0, 0, 0, 0, 0, 0]))
}

fn gre_version(count: u64) -> Prepared {
    let expected = Expected::new(count, "NOT_SPECIFIED", &["gre_rcv"]);
    Wire::new().packets(&gre(3), Expected { module: Some("gre"), ..expected })
}

/// The first fragment of a datagram, whose second never comes.
fn fragment(source: Ipv4Addr) -> Packet {
    const MORE: u16 = 0x2000;
    Packet { fragment: MORE, ..Packet::udp_with(source, B, 9, &[0; 40]) }
}

fn duplicate_fragment(count: u64) -> Prepared {
    let wire = Wire::new();
    let packet = fragment(STRANGER);
    wire.send(&packet, 1);
    wire.packets(&packet, Expected::new(count, "DUP_FRAG", &["ip_defrag", "ip_frag_queue"]))
}

fn lost_fragment(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/ipfrag_time", "1");
    let expected = Expected::new(count, "FRAG_REASM_TIMEOUT", &["ip_expire", "inet_frag_rbtree_purge"]);
    let expected = expected.on(&wire.b, "vb");
    // Each of a datagram of its own, from a sender of its own.
    let frames = (0..count).map(|number| {
        let [.., high, low] = number.to_be_bytes();
        let packet = fragment(Ipv4Addr::new(10, 98, high, low));
        frames::frame(wire.to, [2, 0, 0, 0, 0, 1], IPV4, &packet.bytes())
    });
    let frames: Vec<_> = frames.collect();
    Prepared::new(expected, move || {
        let wire = &wire;
        frames::send_all(&wire.a, "va", frames.iter().map(Vec::as_slice));
        wire::eventually("all fragments expire", || wire.b.counter("snmp", "Ip", "ReasmTimeout") == count);
    })
}
