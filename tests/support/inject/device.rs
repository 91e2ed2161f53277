//! What devices and neighbours drop.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
};

use nix::sys::socket::{setsockopt, sockopt};

use super::{A, B, Case, Expected, Prepared, STRANGER, needs, sys, wire, wire::Wire};
use crate::support::{
    frames::{self, IPV4, Line, Packet},
    net::Net,
};

pub const CASES: &[Case] = &[
    Case::new("vxlan_without_underlay_route", 373, vxlan_no_route).needs(&[needs::VXLAN]),
    Case::new("vxlan_unknown_network", 379, |count| vxlan_arrives(count, 8, "VXLAN_VNI_NOT_FOUND"))
        .needs(&[needs::VXLAN]),
    Case::new("bridge_port_blocked", 383, bridge_blocked).needs(&[needs::BRIDGE]),
    Case::new("bridge_pause_frame", 389, bridge_pause).needs(&[needs::BRIDGE]),
    Case::new("larger_than_the_peer_takes", 397, veth_too_big),
    Case::new("tap_queue_full", 401, tap_full).needs(&[needs::TUN]),
    Case::new("neighbour_never_answers", 409, neighbour_fails),
    Case::new("neighbour_queue_full", 419, neighbour_queue),
];

/// Sends so many datagrams from `net`.
fn sender(net: &Net, to: Ipv4Addr, data: &'static [u8], times: u64) -> impl Fn() + Send + Sync + 'static {
    let socket = net.run(|| UdpSocket::bind(("0.0.0.0", frames::SOURCE_PORT))).expect("a socket");
    // Room for all: a sender that waits for room sends again at the moment the first are given up.
    setsockopt(&socket, sockopt::SndBufForce, &(16 << 20)).expect("a large buffer");
    move || {
        for _ in 0..times {
            // A full queue is no error of this datagram, nor is a host that was not found before.
            let _ = socket.send_to(data, (to, 9));
        }
    }
}

/// The case in which so many datagrams from `net` are dropped.
fn sending(net: Net, to: Ipv4Addr, data: &'static [u8], times: u64, expected: Expected) -> Prepared {
    Prepared::new(expected, sender(&net, to, data, times)).keeping(net)
}

fn vxlan_no_route(count: u64) -> Prepared {
    let net = Net::quiet();
    net.ip("link add vx type vxlan id 7 remote 192.0.2.9 dstport 4789");
    net.ip("addr add 10.77.0.1/24 dev vx");
    net.ip("link set vx up");
    net.neighbour("10.77.0.9", [2, 0, 0, 0, 0, 9], "vx");
    let to = Ipv4Addr::new(10, 77, 0, 9);
    let expected = Expected::new(count, "IP_OUTNOROUTES", &["vxlan_xmit_one"]).on(&net, "vx");
    // Older kernels know the reason, and do not give it here.
    let expected = Expected { older: &["NOT_SPECIFIED"], ..expected };
    let expected = expected.of(&Packet::udp([10, 77, 0, 1], to, 9));
    sending(net, to, b"x", count, expected)
}

fn vxlan_arrives(count: u64, network: u8, reason: &'static str) -> Prepared {
    let wire = Wire::new();
    wire.b.ip("link add vx type vxlan id 7 local 10.99.0.2 remote 10.99.0.1 dstport 4789");
    wire.b.ip("link set vx up");
    let inner = frames::frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], IPV4, &Packet::udp(A, B, 9).bytes());
    let mut data = vec![8, 0, 0, 0, 0, 0, network, 0];
    data.extend(inner);
    let packet = Packet::udp_with(A, B, 4789, &data);
    wire.packets(&packet, Expected::new(count, reason, &["vxlan_rcv"]))
}

/// A wire that ends in a bridge, made with these options.
fn bridged(options: &str) -> Wire {
    let wire = Wire::new();
    wire.b.ip(&format!("link add name br0 type bridge {options}"));
    wire.b.ip("link set br0 up");
    wire.b.ip("link set vb master br0");
    wire
}

fn bridge_blocked(count: u64) -> Prepared {
    let locations = &["br_handle_frame", "br_handle_frame_finish"];
    let expected = Expected::new(count, "BRIDGE_INGRESS_STP_STATE", locations);
    // With a spanning tree, a new port first listens, for half a minute.
    bridged("stp_state 1 forward_delay 3000").packets(&Packet::udp(STRANGER, B, 9), expected)
}

fn bridge_pause(count: u64) -> Prepared {
    let expected = Expected::new(count, "MAC_IEEE_MAC_CONTROL", &["br_handle_frame"]);
    bridged("stp_state 0").frames([1, 0x80, 0xc2, 0, 0, 1], 0x8808, vec![0; 46], expected)
}

fn veth_too_big(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.ip("link set vb mtu 600");
    let locations = &["veth_xmit", "__dev_forward_skb2", "____dev_forward_skb", "__dev_forward_skb"];
    let packet = Packet::udp_with(A, B, 9, &[0; 1000]);
    let expected = Expected::new(count, "NOT_SPECIFIED", locations).on(&wire.a, "va").of(&packet);
    let Wire { a, b, .. } = wire;
    sending(a, B, &[0; 1000], count, expected).keeping(b)
}

fn tap_full(count: u64) -> Prepared {
    const ROOM: u64 = 5;
    let net = Net::quiet();
    let tap = net.run(|| sys::tap("tap")).expect("a tap device");
    net.ip(&format!("link set tap txqueuelen {ROOM} up"));
    let expected = Expected::new(count, "FULL_RING", &["tun_net_xmit"]).on(&net, "tap");
    let frame = frames::frame([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1], IPV4, &Packet::udp(A, B, 9).bytes());
    let line = Line::open(&net, "tap");
    let act = move || line.send((0..count + ROOM).map(|_| frame.as_slice()));
    Prepared::new(expected, act).keeping((net, tap))
}

const ABSENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 77);

/// B, asking for a neighbour this often, and this much room for what waits meanwhile.
fn asking(times: &str, room: &str) -> Wire {
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/neigh/vb/mcast_solicit", times);
    wire.b.sysctl("net/ipv4/neigh/vb/unres_qlen_bytes", room);
    wire
}

fn neighbour_fails(count: u64) -> Prepared {
    let Wire { a, b, .. } = asking("1", "10000000");
    let locations = &["neigh_invalidate", "arp_error_report"];
    // The kernel reports each packet with the neighbour unlocked; what it finds changed then, it purges.
    let older = &["QUEUE_PURGE"];
    let expected = Expected { older, ..Expected::new(count, "NEIGH_FAILED", locations).within(&b) };
    let expected = expected.of(&Packet::udp(B, ABSENT, 9));
    let send = sender(&b, ABSENT, b"x", count);
    let prepared = Prepared::new(expected, move || {
        send();
        // The neighbour is shown as failed before its last packet is given up.
        wire::eventually("all packets are given up", || unsent(&b) == 0);
    });
    prepared.keeping(a)
}

/// Bytes of datagrams that sockets of this namespace have sent and the kernel still holds.
fn unsent(net: &Net) -> u64 {
    let table = net.run(|| fs::read_to_string("/proc/thread-self/net/udp")).expect("the table of sockets");
    let queue = |line: &str| {
        let (sent, _) =
            line.split_whitespace().nth(4).and_then(|queues| queues.split_once(':')).expect("queues");
        u64::from_str_radix(sent, 16).expect("a size")
    };
    table.lines().skip(1).map(queue).sum()
}

fn neighbour_queue(count: u64) -> Prepared {
    // The newest waits, and pushes out the one before.
    let wire = asking("3", "1");
    let expected = Expected::new(count, "NEIGH_QUEUEFULL", &["__neigh_event_send"]).within(&wire.b);
    let expected = expected.of(&Packet::udp(B, ABSENT, 9));
    let Wire { a, b, .. } = wire;
    sending(b, ABSENT, b"x", count + 1, expected).keeping(a)
}
