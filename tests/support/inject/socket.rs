//! What sockets of other kinds drop, and what never becomes a drop.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
};

use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

use super::{A, B, Case, ELSEWHERE, Expected, Prepared, STRANGER, sys, wire::Wire};
use crate::support::{
    frames::{self, Packet, Tcp},
    net::Net,
};

pub const CASES: &[Case] = &[
    Case::new("unix_socket_closed_unread", 421, unix_closed),
    Case::new("packet_socket_full_of_what_is_sent", 431, packet_egress),
    Case::new("nothing_for_a_full_accept_queue", 433, accept_queue),
    Case::new("nothing_for_a_full_packet_socket", 439, packet_ingress),
    Case::new("nothing_for_a_blackhole_on_output", 443, blackhole),
];

const OPEN: u16 = 7000;

fn unix_closed(count: u64) -> Prepared {
    let net = Net::quiet();
    let expected = Expected::new(count, "SOCKET_CLOSE", &["unix_release_sock"]).within(&net);
    Prepared::new(expected, move || {
        // Not more to a socket than it has room for, however the kernel accounts for a byte.
        for rest in (0..count).step_by(50) {
            let (mut writer, _reader) = net.run(UnixStream::pair).expect("a pair of sockets");
            for _ in rest..count.min(rest + 50) {
                writer.write_all(b"x").expect("a byte is written");
            }
        }
    })
}

/// A packet socket of a namespace without room for more than a few frames.
fn small_packet_socket(net: &Net) -> std::os::fd::OwnedFd {
    let socket = net.run(sys::packet_socket).expect("a packet socket");
    setsockopt(&socket, sockopt::RcvBuf, &0).expect("the smallest buffer");
    socket
}

/// More frames than the smallest buffer holds.
const FILL: u64 = 20;

fn packet_egress(count: u64) -> Prepared {
    let wire = Wire::new();
    let receiver = wire.a.run(|| UdpSocket::bind((A, OPEN))).expect("a socket");
    let sender = wire.b.run(|| UdpSocket::bind((B, frames::SOURCE_PORT))).expect("a socket");
    let capture = small_packet_socket(&wire.b);
    let send = move |times| {
        for _ in 0..times {
            sender.send_to(b"x", (A, OPEN)).expect("the datagram is sent");
        }
    };
    send(FILL);
    let expected = Expected::new(count, "PACKET_SOCK_ERROR", &["packet_rcv"]).on(&wire.b, "vb");
    let expected = expected.of(&Packet::udp(B, A, OPEN));
    Prepared::new(expected, move || send(count)).keeping((wire, receiver, capture))
}

fn packet_ingress(count: u64) -> Prepared {
    let wire = Wire::new();
    // A reader takes the packets, so that nothing else drops them.
    let receiver = wire.b.run(|| UdpSocket::bind((B, OPEN))).expect("a socket");
    sys::set_option(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &10_000_000);
    let capture = small_packet_socket(&wire.b);
    let packet = Packet::udp(STRANGER, B, OPEN);
    wire.send(&packet, FILL);
    sys::frames_refused(&capture);
    let prepared = Prepared::nothing(move || {
        wire.send(&packet, count);
        assert_eq!(u64::from(sys::frames_refused(&capture)), count, "all are refused");
    });
    prepared.keeping(receiver)
}

fn accept_queue(count: u64) -> Prepared {
    let wire = Wire::new();
    let listener = wire.b.run(|| TcpListener::bind((B, OPEN))).expect("a listener");
    listen(&listener, Backlog::new(0).expect("a backlog")).expect("a shorter queue");
    let waiting = wire.a.run(|| TcpStream::connect((B, OPEN))).expect("a connection");
    let packet = Packet::tcp(STRANGER, B, Tcp { port: OPEN, flags: frames::SYN, ..Tcp::default() });
    let prepared = Prepared::nothing(move || {
        let wire = &wire;
        let before = wire.b.counter("netstat", "TcpExt", "ListenDrops");
        wire.send(&packet, count);
        let after = wire.b.counter("netstat", "TcpExt", "ListenDrops");
        assert_eq!(after - before, count, "all are refused");
    });
    prepared.keeping((listener, waiting))
}

fn blackhole(count: u64) -> Prepared {
    let net = Net::quiet();
    net.ip("route add blackhole 10.88.0.0/16");
    let socket = net.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    let prepared = Prepared::nothing(move || {
        for _ in 0..count {
            socket.send_to(b"x", (ELSEWHERE, 9)).expect_err("there is no route");
        }
    });
    prepared.keeping(net)
}
