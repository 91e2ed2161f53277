//! What IPv6 refuses, on arrival and on the way.

use std::net::{Ipv6Addr, TcpListener, UdpSocket};

use super::{Case, Expected, Flow, Prepared, needs, wire::Wire};
use crate::support::frames::{self, ICMPV6, IPV6, Packet, Tcp, UDP};

pub const CASES: &[Case] = &[
    Case::new("ipv6_disabled", 157, disabled),
    case("udp6_closed_port", 167, udp_closed),
    case("udp6_checksum", 173, udp_checksum),
    case("tcp6_closed_port", 179, tcp_closed),
    case("tcp6_checksum", 181, tcp_checksum),
    case("icmp6_checksum", 191, icmp_checksum),
    case("ipv6_version", 193, version),
    case("ipv6_length_beyond_the_frame", 197, length),
    case("ipv6_from_multicast", 199, from_multicast),
    case("ipv6_for_loopback", 211, to_loopback),
    case("ipv6_unknown_next_header", 223, unknown_header),
    case("ipv6_extension_header_too_long", 227, long_header),
    case("ipv6_forwarding_is_off", 229, forwarding_off),
    case("ipv6_no_route", 233, no_route),
    case("ipv6_hop_limit_ends", 239, hop_limit),
    case("ipv6_too_big_to_forward", 241, too_big),
    case("ndisc_from_afar", 251, far_neighbour),
];

const STRANGER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 7);
const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2);
const ELSEWHERE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 1);
const OPEN: u16 = 7000;
const HEADER: usize = 40;
const RECEIVE: &[&str] = &["ip6_rcv_core", "ipv6_rcv"];

const fn case(name: &'static str, count: u64, prepare: fn(u64) -> Prepared) -> Case {
    Case::new(name, count, prepare).needs(&[needs::IPV6])
}

fn stranger() -> Packet {
    Packet::udp(STRANGER, B, 9)
}

fn disabled(count: u64) -> Prepared {
    Wire::new().packets(&stranger(), Expected::new(count, "IPV6DISABLED", RECEIVE))
}

fn udp_closed(count: u64) -> Prepared {
    let expected = Expected::new(count, "NO_SOCKET", &["__udp6_lib_rcv", "udpv6_rcv"]);
    Wire::with_ipv6().packets(&stranger(), expected)
}

fn udp_checksum(count: u64) -> Prepared {
    let wire = Wire::with_ipv6();
    let socket = wire.b.run(|| UdpSocket::bind((B, OPEN))).expect("a socket");
    let packet = Packet::udp(STRANGER, B, OPEN);
    let broken = frames::flipped(packet.bytes(), HEADER + 6);
    wire.mangled(&packet, broken, Expected::new(count, "UDP_CSUM", &[])).keeping(socket)
}

fn tcp_closed(count: u64) -> Prepared {
    let packet = Packet::tcp(STRANGER, B, Tcp { port: 9, flags: frames::SYN, ..Tcp::default() });
    Wire::with_ipv6().packets(&packet, Expected::new(count, "NO_SOCKET", &["tcp_v6_rcv"]))
}

fn tcp_checksum(count: u64) -> Prepared {
    let wire = Wire::with_ipv6();
    let socket = wire.b.run(|| TcpListener::bind((B, OPEN))).expect("a listener");
    let packet = Packet::tcp(STRANGER, B, Tcp { port: OPEN, flags: frames::SYN, ..Tcp::default() });
    let broken = frames::flipped(packet.bytes(), HEADER + 16);
    wire.mangled(&packet, broken, Expected::new(count, "TCP_CSUM", &[])).keeping(socket)
}

fn icmp_checksum(count: u64) -> Prepared {
    let packet = Packet::icmp(STRANGER, B, 128, &[0, 1, 0, 1]);
    let broken = frames::flipped(packet.bytes(), HEADER + 2);
    Wire::with_ipv6().mangled(&packet, broken, Expected::new(count, "ICMP_CSUM", &["icmpv6_rcv"]))
}

fn version(count: u64) -> Prepared {
    let packet = stranger();
    let mut broken = packet.bytes();
    broken[0] = 0x50;
    // What is not IPv6 has none of its addresses.
    let wire = Wire::with_ipv6();
    let to = wire.to;
    wire.frames(to, packet.ethertype(), broken, Expected::new(count, "UNHANDLED_PROTO", RECEIVE))
}

fn length(count: u64) -> Prepared {
    let packet = Packet::udp_with(STRANGER, B, 9, &[0; 100]);
    let mut broken = packet.bytes();
    broken.truncate(90);
    Wire::with_ipv6().mangled(&packet, broken, Expected::new(count, "PKT_TOO_SMALL", RECEIVE))
}

fn from_multicast(count: u64) -> Prepared {
    let packet = Packet::udp(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 9), B, 9);
    Wire::with_ipv6().packets(&packet, Expected::new(count, "IP_INHDR", RECEIVE))
}

fn to_loopback(count: u64) -> Prepared {
    let packet = Packet::udp(STRANGER, Ipv6Addr::LOCALHOST, 9);
    Wire::with_ipv6().packets(&packet, Expected::new(count, "IP_INHDR", RECEIVE))
}

fn unknown_header(count: u64) -> Prepared {
    // Freeing it is the last thing that this function does in some kernels, so that its caller is the place.
    const DELIVER: &[&str] = &["ip6_protocol_deliver_rcu", "ip6_input_finish", "ip6_input"];
    let packet = Packet::new(STRANGER, B, 200, vec![0; 8]);
    Wire::with_ipv6().packets(&packet, Expected::new(count, "IP_NOPROTO", DELIVER))
}

fn long_header(count: u64) -> Prepared {
    const DESTINATION_OPTIONS: u8 = 60;
    // It claims to be 80 bytes long, in a packet of 16.
    let options = vec![UDP, 9, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let packet = Packet::new(STRANGER, B, DESTINATION_OPTIONS, options);
    let expected = Expected::new(count, "NOT_SPECIFIED", &["ipv6_destopt_rcv", "ip6_parse_tlv"]);
    // What it says comes next is not in the packet any more.
    let flow = Flow { protocol: UDP, ..Flow::of(&packet) };
    let wire = Wire::with_ipv6();
    let to = wire.to;
    let expected = Expected { flow: Some(flow), ..expected };
    wire.frames(to, packet.ethertype(), packet.bytes(), expected)
}

fn passing() -> Packet {
    Packet::udp(STRANGER, ELSEWHERE, 9)
}

fn forwarding_off(count: u64) -> Prepared {
    let wire = Wire::with_ipv6();
    wire.b.ip("-6 route add fd00:88::/32 dev vb");
    wire.packets(&passing(), Expected::new(count, "IP_INADDRERRORS", &[]))
}

fn router(route: &str) -> Wire {
    let wire = Wire::with_ipv6();
    wire.b.sysctl("net/ipv6/conf/all/forwarding", "1");
    if !route.is_empty() {
        wire.b.ip(&format!("-6 route add {route}"));
        wire.b.neighbour("fd00:99::99", [2, 0, 0, 0, 0, 0x99], "vb");
    }
    wire
}

fn no_route(count: u64) -> Prepared {
    router("")
        .packets(&passing(), Expected::new(count, "IP_INNOROUTES", &["ip6_pkt_drop", "ip6_pkt_discard"]))
}

fn hop_limit(count: u64) -> Prepared {
    let packet = Packet { hops: 1, ..passing() };
    router("fd00:88::/32 via fd00:99::99")
        .packets(&packet, Expected::new(count, "IP_INHDR", &["ip6_forward"]))
}

fn too_big(count: u64) -> Prepared {
    let packet = Packet::udp_with(STRANGER, ELSEWHERE, 9, &[0; 1400]);
    let route = "fd00:88::/32 via fd00:99::99 mtu lock 1280";
    router(route).packets(&packet, Expected::new(count, "PKT_TOO_BIG", &["ip6_forward"]))
}

fn far_neighbour(count: u64) -> Prepared {
    const SOLICITATION: u8 = 135;
    let mut rest = vec![0; 4];
    rest.extend(B.octets());
    // Neighbours are never a hop away: their limit is 255.
    let packet = Packet::icmp(STRANGER, B, SOLICITATION, &rest);
    assert_eq!((packet.protocol, packet.ethertype()), (ICMPV6, IPV6));
    Wire::with_ipv6().packets(&packet, Expected::new(count, "IPV6_NDISC_HOP_LIMIT", &[]))
}
