//! What an established TCP connection refuses: segments made up between its own.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

use super::{
    A, B, Case, Expected, Prepared, sys,
    wire::{Wire, eventually},
};
use crate::support::frames::{ACK, Packet, SOURCE_PORT, Tcp};

pub const CASES: &[Case] = &[
    Case::new("tcp_segment_long_received", 509, |count| between(count, OLD, "TCP_OLD_SEQUENCE")),
    Case::new("tcp_segment_beyond_the_window", 521, |count| between(count, FAR, "TCP_INVALID_SEQUENCE")),
    Case::new("tcp_data_received_before", 523, |count| between(count, AGAIN, "TCP_OLD_DATA")),
    Case::new("tcp_acknowledges_what_was_not_sent", 541, |count| {
        between(count, UNSENT, "TCP_ACK_UNSENT_DATA")
    }),
    Case::new("tcp_out_of_order_twice", 547, out_of_order),
];

const OPEN: u16 = 7000;

/// Where a segment stands to the one that would be next, and what it acknowledges to what was sent.
#[derive(Clone, Copy)]
struct Beside {
    sequence: i32,
    acknowledged: i32,
}

/// All of it before anything the peer sent last.
const OLD: Beside = Beside { sequence: -500_000, acknowledged: 0 };
const FAR: Beside = Beside { sequence: 50_000_000, acknowledged: 0 };
/// The byte received last.
const AGAIN: Beside = Beside { sequence: -1, acknowledged: 0 };
const UNSENT: Beside = Beside { sequence: 0, acknowledged: 1_000_000 };
/// With a byte missing before it.
const AHEAD: Beside = Beside { sequence: 1, acknowledged: 0 };

/// A connection from A, by the port that made-up packets come from.
struct Connection {
    peer: TcpStream,
    accepted: TcpStream,
}

impl Connection {
    fn new(wire: &Wire) -> Self {
        let listener = wire.b.run(|| TcpListener::bind((B, OPEN))).expect("a listener");
        let peer = wire.a.run(|| {
            let (family, kind) = (AddressFamily::Inet, SockType::Stream);
            let peer = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
            let address = |address, port| {
                let SocketAddr::V4(address) = SocketAddr::from((address, port)) else { unreachable!() };
                SockaddrIn::from(address)
            };
            socket::bind(peer.as_raw_fd(), &address(A, SOURCE_PORT)).expect("the port is free");
            socket::connect(peer.as_raw_fd(), &address(B, OPEN)).expect("a connection");
            TcpStream::from(peer)
        });
        let (accepted, _) = listener.accept().expect("a connection");
        Self { peer, accepted }
    }

    /// A segment beside those of the connection.
    fn segment(&self, beside: Beside) -> Packet {
        let (sent, received) = sys::sequences(&self.accepted);
        let Beside { sequence, acknowledged } = beside;
        let sequence = received.wrapping_add_signed(sequence);
        let acknowledged = sent.wrapping_add_signed(acknowledged);
        Packet::tcp(A, B, Tcp { port: OPEN, sequence, acknowledged, flags: ACK, data: b"x" })
    }
}

const PLACES: &[&str] = &[
    "tcp_validate_incoming",
    "tcp_rcv_established",
    "tcp_data_queue",
    "tcp_data_queue_ofo",
    "tcp_ack",
    "tcp_v4_do_rcv",
    // Where compilers leave it a function of its own, as those for arm64 do.
    "tcp_drop_reason",
];

/// Sent before anything made up is.
const DATA: &[u8] = b"hello";

fn between(count: u64, beside: Beside, reason: &'static str) -> Prepared {
    let wire = Wire::new();
    let connection = Connection::new(&wire);
    (&connection.peer).write_all(DATA).expect("data is sent");
    // Whether others exist is known once it has arrived.
    eventually("data is received", || {
        connection.accepted.peek(&mut [0; 8]).is_ok_and(|received| received == DATA.len())
    });
    let packet = connection.segment(beside);
    // Of these two, kernels before 6.3 say the one.
    let older: &[_] = if reason == "TCP_OLD_SEQUENCE" { &["TCP_INVALID_SEQUENCE"] } else { &[] };
    let expected = Expected { older, ..Expected::new(count, reason, PLACES) };
    let prepared = wire.packets(&packet, expected).keeping(connection).told_by_tcp();
    if reason == "TCP_OLD_DATA" { prepared.queued_by_tcp() } else { prepared }
}

fn out_of_order(count: u64) -> Prepared {
    let wire = Wire::new();
    let connection = Connection::new(&wire);
    let packet = connection.segment(AHEAD);
    // The first one waits for what is missing.
    wire.send(&packet, 1);
    let expected = Expected::new(count, "TCP_OFOMERGE", PLACES);
    wire.packets(&packet, expected).keeping(connection).told_by_tcp().queued_by_tcp()
}
