//! What UDP, TCP and ICMP refuse, and what a socket does.

use std::net::{TcpListener, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};

use super::{B, Case, Expected, Prepared, STRANGER, wire::Wire};
use crate::support::frames::{self, Packet, Tcp};

pub const CASES: &[Case] = &[
    Case::new("udp_closed_port", 109, udp_closed),
    Case::new("udp_checksum", 113, udp_checksum),
    Case::new("udp_receive_buffer_full", 127, udp_full),
    Case::new("socket_filter", 131, socket_filter),
    Case::new("tcp_closed_port", 137, tcp_closed),
    Case::new("tcp_checksum", 139, tcp_checksum),
    Case::new("tcp_without_flags", 149, tcp_flags),
    Case::new("icmp_checksum", 151, icmp_checksum),
];

const OPEN: u16 = 7000;

fn udp_socket(wire: &Wire) -> UdpSocket {
    wire.b.run(|| UdpSocket::bind((B, OPEN))).expect("a socket")
}

fn listener(wire: &Wire) -> TcpListener {
    wire.b.run(|| TcpListener::bind((B, OPEN))).expect("a listener")
}

fn udp_closed(count: u64) -> Prepared {
    Wire::new().packets(&Packet::udp(STRANGER, B, 9), Expected::new(count, "NO_SOCKET", &["__udp4_lib_rcv"]))
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
    super::filters::refuse_all(&socket);
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

fn tcp_flags(count: u64) -> Prepared {
    let wire = Wire::new();
    let socket = listener(&wire);
    let packet = Packet::tcp(STRANGER, B, Tcp { port: OPEN, ..Tcp::default() });
    let expected = Expected::new(count, "TCP_FLAGS", &["tcp_rcv_state_process", "tcp_v4_do_rcv"]);
    wire.packets(&packet, expected).keeping(socket)
}

fn icmp_checksum(count: u64) -> Prepared {
    let packet = Packet::icmp(STRANGER, B, 8, &[0, 1, 0, 1]);
    let broken = frames::flipped(packet.bytes(), 22);
    Wire::new().mangled(&packet, broken, Expected::new(count, "ICMP_CSUM", &["icmp_rcv"]))
}
