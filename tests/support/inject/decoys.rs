//! Drops beside something that looks as if it had caused them.

use std::net::UdpSocket;

use super::{A, B, ELSEWHERE, Expected, Prepared, STRANGER, bpf, tc, wire::Wire};
use crate::support::frames::{self, IPV4, Line, Packet};

/// A blackhole among routes that are shorter, for other hosts, or of another kind.
pub fn blackhole() -> Prepared {
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/ip_forward", "1");
    for route in
        ["blackhole 10.0.0.0/8", "blackhole 10.88.0.0/16", "blackhole 10.87.0.0/16", "prohibit 10.88.1.0/24"]
    {
        wire.b.ip(&format!("route add {route}"));
    }
    let packet = Packet::udp(STRANGER, ELSEWHERE, 9);
    wire.packets(&packet, Expected::new(59, "NOT_SPECIFIED", &["ip_error"]))
}

/// Frames to an interface whose peer has been set down.
pub fn peer_down() -> Prepared {
    let Wire { a, b, to } = Wire::new();
    b.ip("link set vb down");
    let packet = Packet::udp(A, B, 9);
    let expected = Expected::new(61, "QDISC_DROP", tc::queue()).on(&a, "va").of(&packet);
    let count = expected.count;
    let frame = frames::frame(to, [2, 0, 0, 0, 0, 1], IPV4, &packet.bytes());
    let line = Line::open(&a, "va");
    let act = move || line.send((0..count).map(|_| frame.as_slice()));
    Prepared::new(expected, act).keeping((a, b))
}

/// Two interfaces with the same tree of queues, of which the other one has dropped more before.
pub fn queues() -> Prepared {
    let wire = Wire::new();
    let behind = wire.way_out();
    for device in ["vb", "vc"] {
        wire.b.words(&format!(
            "tc qdisc add dev {device} root handle 1: tbf rate 8kbit burst 1600 limit 100000"
        ));
        wire.b.words(&format!("tc qdisc add dev {device} parent 1:1 handle 2: pfifo limit 5"));
    }
    let socket = wire.b.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    for _ in 0..200 {
        let _ = socket.send_to(&[0; 1000], "10.97.0.1:9");
    }
    tc::leaving(wire, 6, Expected::new(67, "QDISC_DROP", tc::queue())).keeping(behind)
}

/// Two interfaces with an XDP program each; the number of the one that drops.
pub fn programs() -> (Prepared, u64) {
    let wire = Wire::new();
    let behind = wire.way_out();
    let programs = ["vb", "vc"].map(|device| bpf::drop_on(&wire.b, device, bpf::GENERIC));
    let said = wire.b.words("ip -j -d link show dev vb");
    let links: serde_json::Value = serde_json::from_str(&said).expect("JSON of ip");
    let id = links[0]["xdp"]["prog"]["id"].as_u64().expect("a program's number");
    let locations = &["do_xdp_generic", "netif_receive_generic_xdp", "__netif_receive_skb_core"];
    let packet = Packet::udp(STRANGER, B, 9);
    let prepared = wire.packets(&packet, Expected::new(71, "NOT_SPECIFIED", locations));
    (prepared.keeping((programs, behind)), id)
}

/// A bridge whose ports are isolated, all three of them, and a frame to a host that it does not know.
pub fn isolated() -> Prepared {
    let wire = Wire::new();
    wire.b.ip("link add name br0 type bridge mcast_snooping 0");
    wire.b.ip("link set br0 up");
    for (port, other) in [("near", "raen"), ("far", "raf")] {
        wire.b.ip(&format!("link add {port} type veth peer name {other}"));
        wire.b.ip(&format!("link set {other} up"));
        wire.b.ip(&format!("link set {port} master br0 up"));
    }
    wire.b.ip("link set vb master br0");
    for port in ["near", "far", "vb"] {
        wire.b.ip(&format!("link set {port} type bridge_slave isolated on"));
    }
    let packet = Packet::udp(STRANGER, B, 9);
    let locations = &["br_handle_frame_finish", "br_flood"];
    let expected = Expected::new(73, "NO_TX_TARGET", locations).of(&packet);
    wire.frames([2, 0, 0, 0, 0, 0x77], IPV4, packet.bytes(), expected)
}

/// What should leave by `IPsec`, for which there is no key.
pub fn no_state() -> Prepared {
    let wire = Wire::new();
    let template = "tmpl src 10.99.0.2 dst 10.99.0.1 proto esp mode transport";
    wire.b.ip(&format!("xfrm policy add dir out src 10.99.0.2/32 dst 10.99.0.1/32 {template}"));
    // Another policy, for another host.
    wire.b.ip("xfrm policy add dir out src 10.99.0.2/32 dst 10.99.0.3/32 action block");
    let socket = wire.b.run(|| UdpSocket::bind((B, frames::SOURCE_PORT))).expect("a socket");
    let expected = Expected::new(79, "NOT_SPECIFIED", &["dst_discard_out"]).within(&wire.b);
    let count = expected.count;
    let act = move || {
        for _ in 0..count {
            let _ = socket.send_to(b"x", (A, 9));
        }
    };
    Prepared::new(expected, act).keeping(wire)
}
