//! Two namespaces with a wire between them, quiet until something is sent.

use std::{
    iter,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

use super::{A, B, Expected, Prepared};
use crate::support::{
    PATIENCE,
    frames::{self, Line, Packet},
    net::Net,
};

/// What is sent on `va` in one namespace arrives at `vb` in the other.
pub struct Wire {
    pub a: Net,
    pub b: Net,
    /// The hardware address of `vb`.
    pub to: [u8; 6],
}

impl Wire {
    /// A wire without IPv6, whose chatter at link-up would be dropped.
    pub fn new() -> Self {
        let (a, b) = (Net::quiet(), Net::quiet());
        Self::between(a, b)
    }

    /// A wire with the addresses `fd00:99::1` and `fd00:99::2` as well, once they can be used.
    pub fn with_ipv6() -> Self {
        let (a, b) = (Net::new(), Net::new());
        for net in [&a, &b] {
            for scope in ["all", "default"] {
                // No addresses but ours, and multicast groups are announced once and at once.
                net.sysctl(&format!("net/ipv6/conf/{scope}/addr_gen_mode"), "1");
                net.sysctl(&format!("net/ipv6/conf/{scope}/mldv2_unsolicited_report_interval"), "1");
                net.sysctl(&format!("net/ipv6/conf/{scope}/router_solicitations"), "0");
            }
        }
        let wire = Self::between(a, b);
        wire.a.ip("addr add fd00:99::1/64 dev va nodad");
        wire.b.ip("addr add fd00:99::2/64 dev vb nodad");
        thread::sleep(Duration::from_millis(300));
        wire
    }

    fn between(a: Net, b: Net) -> Self {
        for net in [&a, &b] {
            for name in ["all", "default"] {
                // New namespaces inherit what the host has chosen.
                net.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
                net.sysctl(&format!("net/ipv4/conf/{name}/accept_local"), "0");
            }
            net.sysctl("net/ipv4/ip_forward", "0");
        }
        a.join("va", &format!("{A}/24"), &b, "vb", &format!("{B}/24"));
        let to = b.hardware_address("vb");
        for (net, device, neighbour, address) in [(&a, "va", B, to), (&b, "vb", A, a.hardware_address("va"))]
        {
            await_carrier(net, device);
            net.neighbour(&neighbour.to_string(), address, device);
        }
        Self { a, b, to }
    }

    /// Another wire out of B, from `vc` at 10.97.0.2 to a namespace where `vd` is 10.97.0.1.
    pub fn way_out(&self) -> Net {
        let c = Net::quiet();
        self.b.join("vc", "10.97.0.2/24", &c, "vd", "10.97.0.1/24");
        await_carrier(&self.b, "vc");
        self.b.neighbour("10.97.0.1", c.hardware_address("vd"), "vc");
        c
    }

    /// Puts copies of a packet on the wire.
    pub fn send(&self, packet: &Packet, count: u64) {
        frames::send(&self.a, "va", self.to, packet.ethertype(), &packet.bytes(), count);
    }

    /// Puts frames on the wire, and waits until B has dealt with them.
    ///
    /// What is sent on one CPU is taken in order there: a datagram sent behind the frames arrives when they are done.
    pub fn deliver<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) {
        let last = self.b.run(|| UdpSocket::bind((B, 0))).expect("a socket");
        last.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let port = last.local_addr().expect("an address").port();
        let from = self.a.hardware_address("va");
        let marker = frames::frame(self.to, from, frames::IPV4, &Packet::udp(A, B, port).bytes());
        let line = Line::open(&self.a, "va");
        on_one_cpu(|| {
            line.send(frames);
            line.send(iter::once(marker.as_slice()));
        });
        last.recv(&mut [0; 8]).expect("the datagram behind the frames arrives");
    }

    /// The same with copies of a frame.
    pub fn deliver_copies(&self, ethertype: u16, packet: &[u8], count: usize) {
        let frame = frames::frame(self.to, self.a.hardware_address("va"), ethertype, packet);
        self.deliver(iter::repeat_n(frame.as_slice(), count));
    }

    /// The case in which copies of this packet arrive at B and are dropped there.
    pub fn packets(self, packet: &Packet, expected: Expected) -> Prepared {
        let bytes = packet.bytes();
        self.mangled(packet, bytes, expected)
    }

    /// The same with the packet's bytes changed.
    pub fn mangled(self, packet: &Packet, bytes: Vec<u8>, expected: Expected) -> Prepared {
        let (to, ethertype) = (self.to, packet.ethertype());
        self.frames(to, ethertype, bytes, expected.of(packet))
    }

    /// The case in which copies of this frame arrive at B and are dropped there.
    pub fn frames(self, to: [u8; 6], ethertype: u16, bytes: Vec<u8>, expected: Expected) -> Prepared {
        let count = expected.count;
        let expected = expected.on(&self.b, "vb");
        let (line, from) = (Line::open(&self.a, "va"), self.a.hardware_address("va"));
        let act = move || {
            let frame = frames::frame(to, from, ethertype, &bytes);
            line.send((0..count).map(|_| frame.as_slice()));
        };
        Prepared::new(expected, act).keeping(self)
    }
}

/// Waits until a device can send.
fn await_carrier(net: &Net, device: &str) {
    eventually(&format!("{device} comes up"), || net.is_up(device));
}

/// Keeps this thread, and those that it starts meanwhile, on the CPU that it is on.
pub fn on_one_cpu<T>(work: impl FnOnce() -> T) -> T {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).expect("the CPUs");
    let mut here = CpuSet::new();
    here.set(sched_getcpu().expect("a CPU")).expect("a CPU");
    sched_setaffinity(this, &here).expect("pinned to a CPU");
    let done = work();
    sched_setaffinity(this, &before).expect("free again");
    done
}

/// Waits until something is true.
pub fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "never seen: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
