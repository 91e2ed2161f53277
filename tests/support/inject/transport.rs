//! What UDP, TCP and ICMP refuse, and what a socket does.

use std::net::{TcpListener, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};

use super::{B, Case, Expected, Prepared, STRANGER, needs, sys, wire::Wire};
use crate::support::frames::{self, Packet, Tcp};

pub const CASES: &[Case] = &[
    Case::new("udp_closed_port", 109, udp_closed),
    Case::new("udp_checksum", 113, udp_checksum),
    Case::new("udp_receive_buffer_full", 127, udp_full),
    Case::new("socket_filter", 131, socket_filter),
    Case::new("tcp_closed_port", 137, tcp_closed),
    Case::new("tcp_checksum", 139, tcp_checksum),
    Case::new("tcp_without_flags", 149, |count| listening(count, 0, "TCP_FLAGS").told_by_tcp()),
    Case::new("tcp_reset_of_a_listener", 449, |count| {
        listening(count, frames::RST, "TCP_RESET").told_by_tcp()
    }),
    Case::new("tcp_fin_to_a_listener", 457, |count| listening(count, frames::FIN, "TCP_FLAGS").told_by_tcp()),
    // Answered with a reset, below TCP's own part: never in silence.
    Case::new("tcp_ack_to_a_listener", 461, |count| listening(count, frames::ACK, "TCP_FLAGS")),
    Case::new("tcp_header_too_short", 463, tcp_short),
    Case::new("tcp_from_too_far", 467, tcp_far),
    Case::new("udp_length_beyond_the_packet", 479, udp_length),
    Case::new("icmp_checksum", 151, icmp_checksum),
    Case::new("icmp_unknown_type", 487, icmp_type),
    Case::new("policy_blocks", 491, policy).needs(&[needs::XFRM]),
];

const OPEN: u16 = 7000;

fn udp_socket(wire: &Wire) -> UdpSocket {
    wire.b.run(|| UdpSocket::bind((B, OPEN))).expect("a socket")
}

fn listener(wire: &Wire) -> TcpListener {
    wire.b.run(|| TcpListener::bind((B, OPEN))).expect("a listener")
}

fn udp_closed(count: u64) -> Prepared {
    Wire::new().packets(
        &Packet::udp(STRANGER, B, 9),
        Expected::new(count, "NO_SOCKET", &["__udp4_lib_rcv", "udp_rcv"]),
    )
}

fn udp_checksum(count: u64) -> Prepared {
    let wire = Wire::new();
    let socket = udp_socket(&wire);
    let packet = Packet::udp(STRANGER, B, OPEN);
    let broken = frames::flipped(packet.bytes(), 26);
    wire.mangled(&packet, broken, Expected::new(count, "UDP_CSUM", &[])).keeping(socket)
}

fn udp_full(count: u64) -> Prepared {
    let wire = Wire::new();
    let socket = udp_socket(&wire);
    setsockopt(&socket, sockopt::RcvBuf, &4096).expect("a small buffer");
    let packet = Packet::udp_with(STRANGER, B, OPEN, &[0; 1000]);
    // What fits is not dropped, and how much that is, only the kernel knows.
    wire.send(&packet, 50);
    let full = Expected::new(count, "SOCKET_RCVBUFF", &["udp_queue_rcv_one_skb", "__udp_queue_rcv_skb"]);
    wire.packets(&packet, full).keeping(socket)
}

fn socket_filter(count: u64) -> Prepared {
    let wire = Wire::new();
    let socket = udp_socket(&wire);
    sys::refuse_all(&socket);
    wire.packets(&Packet::udp(STRANGER, B, OPEN), Expected::new(count, "SOCKET_FILTER", &[])).keeping(socket)
}

fn tcp_closed(count: u64) -> Prepared {
    let packet = Packet::tcp(STRANGER, B, Tcp { port: 9, flags: frames::SYN, ..Tcp::default() });
    Wire::new().packets(&packet, Expected::new(count, "NO_SOCKET", &["tcp_v4_rcv"]))
}

fn tcp_checksum(count: u64) -> Prepared {
    let wire = Wire::new();
    let socket = listener(&wire);
    let packet = Packet::tcp(STRANGER, B, Tcp { port: OPEN, flags: frames::SYN, ..Tcp::default() });
    let broken = frames::flipped(packet.bytes(), 36);
    wire.mangled(&packet, broken, Expected::new(count, "TCP_CSUM", &[])).keeping(socket)
}

/// Segments with these flags to a listener, out of nowhere.
fn listening(count: u64, flags: u8, reason: &'static str) -> Prepared {
    let wire = Wire::new();
    let socket = listener(&wire);
    let packet = Packet::tcp(STRANGER, B, Tcp { port: OPEN, flags, ..Tcp::default() });
    // The last one, where the compiler did not put it into the others: on arm64.
    let places = &["tcp_rcv_state_process", "tcp_v4_do_rcv", "tcp_drop_reason"];
    let expected = Expected::new(count, reason, places);
    // Older kernels do not say why they answer with a reset.
    let older: &[_] = if flags == frames::ACK { &["NOT_SPECIFIED"] } else { &[] };
    let expected = Expected { older, ..expected };
    wire.packets(&packet, expected).keeping(socket)
}

fn tcp_short(count: u64) -> Prepared {
    const DATA_OFFSET: usize = 32;
    let packet = Packet::tcp(STRANGER, B, Tcp { port: OPEN, flags: frames::SYN, ..Tcp::default() });
    let mut broken = packet.bytes();
    broken[DATA_OFFSET] = 0x40;
    Wire::new().mangled(&packet, broken, Expected::new(count, "PKT_TOO_SMALL", &["tcp_v4_rcv"]))
}

fn tcp_far(count: u64) -> Prepared {
    let wire = Wire::new();
    let socket = listener(&wire);
    sys::set_option(&socket, libc::IPPROTO_IP, libc::IP_MINTTL, &255);
    let packet = Packet::tcp(STRANGER, B, Tcp { port: OPEN, flags: frames::SYN, ..Tcp::default() });
    wire.packets(&packet, Expected::new(count, "TCP_MINTTL", &["tcp_v4_rcv"])).keeping(socket)
}

fn udp_length(count: u64) -> Prepared {
    const LENGTH: usize = 24;
    let packet = Packet::udp(STRANGER, B, 9);
    let broken = frames::flipped(packet.bytes(), LENGTH);
    let expected = Expected::new(count, "PKT_TOO_SMALL", &["__udp4_lib_rcv", "udp_rcv"]);
    Wire::new().mangled(&packet, broken, expected)
}

fn icmp_type(count: u64) -> Prepared {
    let packet = Packet::icmp(STRANGER, B, 99, &[0; 4]);
    Wire::new().packets(&packet, Expected::new(count, "UNHANDLED_PROTO", &["icmp_rcv"]))
}

fn policy(count: u64) -> Prepared {
    let wire = Wire::new();
    let socket = udp_socket(&wire);
    wire.b.ip("xfrm policy add dir in src 10.98.0.0/16 dst 10.99.0.2/32 action block");
    let packet = Packet::udp(STRANGER, B, OPEN);
    wire.packets(&packet, Expected::new(count, "XFRM_POLICY", &[])).keeping(socket)
}

fn icmp_checksum(count: u64) -> Prepared {
    let packet = Packet::icmp(STRANGER, B, 8, &[0, 1, 0, 1]);
    let broken = frames::flipped(packet.bytes(), 22);
    Wire::new().mangled(&packet, broken, Expected::new(count, "ICMP_CSUM", &["icmp_rcv"]))
}
