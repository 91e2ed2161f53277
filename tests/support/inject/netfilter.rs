//! What rules and connection tracking drop.

use std::{
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::{A, B, Case, Expected, Prepared, STRANGER, needs, wire::Wire};
use crate::support::{
    frames::{self, Packet, Tcp},
    net::Net,
};

pub const CASES: &[Case] = &[
    nft("nft_prerouting", 257, |count| arriving(count, "prerouting")),
    nft("nft_input", 263, |count| arriving(count, "input")),
    nft("nft_forward", 269, forward),
    nft("nft_output", 271, |count| leaving(count, "output")),
    nft("nft_postrouting", 277, |count| leaving(count, "postrouting")),
    nft("nft_ingress", 281, ingress),
    nft("nft_conntrack_invalid", 283, invalid),
    legacy("iptables_input", 293, legacy_input),
    legacy("iptables_output", 307, legacy_output),
    Case::new("conntrack_table_full", 311, table_full).needs(&[needs::NFT, needs::CONNTRACK]),
];

/// A verdict has a location of its own in newer kernels.
const VERDICT: &[&str] = &["nft_do_chain", "nf_hook_slow"];
const HOOK: &[&str] = &["nf_hook_slow"];
const PORT: u16 = 9;

const fn nft(name: &'static str, count: u64, prepare: fn(u64) -> Prepared) -> Case {
    Case::new(name, count, prepare).needs(&[needs::NFT])
}

const fn legacy(name: &'static str, count: u64, prepare: fn(u64) -> Prepared) -> Case {
    Case::new(name, count, prepare).needs(&[needs::IPTABLES])
}

/// A chain at a hook with one rule.
fn rule(net: &Net, family: &str, hook: &str, rule: &str) {
    net.words(&format!("nft add table {family} t"));
    let chain = format!("add chain {family} t c {{ type filter hook {hook} priority 0 ; }}");
    net.command("nft", &[&chain]);
    net.words(&format!("nft add rule {family} t c {rule}"));
}

fn dropped(count: u64) -> Expected {
    Expected::new(count, "NETFILTER_DROP", VERDICT)
}

fn arriving(count: u64, hook: &str) -> Prepared {
    let wire = Wire::new();
    rule(&wire.b, "ip", hook, &format!("udp dport {PORT} drop"));
    wire.packets(&Packet::udp(STRANGER, B, PORT), dropped(count))
}

fn ingress(count: u64) -> Prepared {
    let wire = Wire::new();
    rule(&wire.b, "netdev", "ingress device vb", &format!("udp dport {PORT} drop"));
    wire.packets(&Packet::udp(STRANGER, B, PORT), dropped(count))
}

fn forward(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/ip_forward", "1");
    wire.b.ip("route add 10.88.0.0/16 via 10.99.0.1");
    rule(&wire.b, "ip", "forward", "drop");
    wire.packets(&Packet::udp(STRANGER, super::ELSEWHERE, PORT), dropped(count))
}

/// B's own datagrams to A, which it is not allowed to send.
fn sending(wire: Wire, expected: Expected) -> Prepared {
    let count = expected.count;
    let expected = expected.within(&wire.b).of(&Packet::udp(B, A, PORT));
    let socket = wire.b.run(|| UdpSocket::bind((B, frames::SOURCE_PORT))).expect("a socket");
    let prepared = Prepared::new(expected, move || {
        for _ in 0..count {
            // "Not permitted" is what some hooks answer.
            let _ = socket.send_to(b"x", (A, PORT));
        }
    });
    prepared.keeping(wire)
}

fn leaving(count: u64, hook: &str) -> Prepared {
    let wire = Wire::new();
    rule(&wire.b, "ip", hook, &format!("udp dport {PORT} drop"));
    sending(wire, dropped(count))
}

fn invalid(count: u64) -> Prepared {
    let wire = Wire::new();
    rule(&wire.b, "ip", "input", "ct state invalid drop");
    // It opens a connection and resets it, in one.
    let segment = Tcp { port: PORT, flags: frames::SYN | frames::RST, ..Tcp::default() };
    wire.packets(&Packet::tcp(STRANGER, B, segment), dropped(count))
}

fn legacy_input(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.words(&format!("iptables-legacy -w -A INPUT -p udp --dport {PORT} -j DROP"));
    wire.packets(&Packet::udp(STRANGER, B, PORT), Expected::new(count, "NETFILTER_DROP", HOOK))
}

fn legacy_output(count: u64) -> Prepared {
    let wire = Wire::new();
    wire.b.words(&format!("iptables-legacy -w -A OUTPUT -p udp --dport {PORT} -j DROP"));
    sending(wire, Expected::new(count, "NETFILTER_DROP", HOOK))
}

/// The limit on tracked connections; in older kernels the host's, which namespaces can read only.
const LIMIT: &str = "net/netfilter/nf_conntrack_max";

/// Puts the host's limit back.
struct HostLimit(String);

impl HostLimit {
    fn set(limit: &str) -> Self {
        let file = format!("/proc/sys/{LIMIT}");
        let before = fs::read_to_string(&file).expect(LIMIT);
        fs::write(&file, limit).expect(LIMIT);
        Self(before.trim().to_owned())
    }
}

impl Drop for HostLimit {
    fn drop(&mut self) {
        let _ = fs::write(format!("/proc/sys/{LIMIT}"), &self.0);
    }
}

fn table_full(count: u64) -> Prepared {
    const ROOM: usize = 3;
    let wire = Wire::new();
    rule(&wire.b, "ip", "prerouting", "ct state new accept");
    // It would drop the same packets, and no packet gets there.
    wire.b.words(&format!("nft add rule ip t c udp dport {PORT} counter drop"));
    let listener = wire.b.run(|| TcpListener::bind((B, PORT))).expect("a listener");
    // Established connections are never evicted for a new one; anything less is, now and then.
    let connections: Vec<_> =
        (0..ROOM).map(|_| wire.a.run(|| TcpStream::connect((B, PORT))).expect("a connection")).collect();
    let room = ROOM.to_string();
    let own = wire.b.run(|| fs::write(format!("/proc/sys/{LIMIT}"), &room));
    let hosts = own.is_err().then(|| HostLimit::set(&room));
    let packet = Packet::udp(STRANGER, B, PORT);
    let expected = Expected::new(count, "NETFILTER_DROP", HOOK);
    wire.packets(&packet, expected).keeping((hosts, connections, listener))
}
