//! Drops on purpose: how to cause exactly so many of them, and what has to be seen of each.
//!
//! A case prepares its namespaces first and acts on a call, so that the drops of the preparation are over
//! before the counting starts. What comes back to the sender would be dropped there a second time: senders have
//! addresses that the receiver has no route to.

pub mod bpf;
pub mod decoys;
pub mod device;
pub mod forward;
pub mod garbage;
pub mod ip;
pub mod ipv6;
pub mod needs;
pub mod netfilter;
pub mod socket;
pub mod sys;
pub mod tc;
pub mod tcp;
pub mod transport;
pub mod wire;

use std::net::{IpAddr, Ipv4Addr};

use needs::Need;

use super::{frames::Packet, kernel, net::Net};

/// A way to cause drops.
pub struct Case {
    pub name: &'static str,
    /// How many drops, or attempts; no two cases have the same number, so that a mix-up shows.
    pub count: u64,
    pub needs: &'static [Need],
    /// Sets it up, for so many drops.
    pub prepare: fn(u64) -> Prepared,
}

impl Case {
    const fn new(name: &'static str, count: u64, prepare: fn(u64) -> Prepared) -> Self {
        Self { name, count, needs: &[], prepare }
    }

    const fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }
}

/// A case that is set up, and stays so until this is dropped.
pub struct Prepared {
    /// What has to be seen; nothing for what never reaches the tracepoint.
    pub expected: Option<Expected>,
    /// Causes the drops.
    pub act: Box<dyn Fn() + Send + Sync>,
}

impl Prepared {
    fn new(expected: Expected, act: impl Fn() + Send + Sync + 'static) -> Self {
        Self { expected: Some(expected), act: Box::new(act) }
    }

    /// An attempt that never reaches the tracepoint.
    fn nothing(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self { expected: None, act: Box::new(act) }
    }

    /// For what TCP itself refuses: before it had reasons, it freed that without a word (`tcp_drop`).
    fn told_by_tcp(self) -> Self {
        let is_told = kernel::has_reason("TCP_OLD_DATA");
        Self { expected: self.expected.filter(|_| is_told), ..self }
    }

    /// For what TCP refuses when it is about to queue it: such a packet has lost its route already. Where the
    /// tracepoint does not pass the socket either (before 6.11), the namespace is unknown.
    fn queued_by_tcp(self) -> Self {
        let placed = kernel::tells_socket();
        Self { expected: self.expected.map(|expected| Expected { placed, ..expected }), ..self }
    }

    /// With something that has to outlive the drops.
    fn keeping(self, kept: impl Send + Sync + 'static) -> Self {
        let Self { expected, act } = self;
        let act = Box::new(move || {
            let _ = &kept;
            act();
        });
        Self { expected, act }
    }
}

/// The drops a case causes.
#[derive(Clone, Debug)]
pub struct Expected {
    pub count: u64,
    /// The reason's name where kernels give one.
    pub reason: &'static str,
    /// What kernels say that know the reason, but do not use it here yet, or not of all of the drops.
    pub older: &'static [&'static str],
    /// Functions where kernels we know drop it; none is "wherever".
    pub locations: &'static [&'static str],
    /// The module where the functions are not part of the kernel proper.
    pub module: Option<&'static str>,
    /// Whether the device or the namespace can be known.
    pub placed: bool,
    pub iface: Option<&'static str>,
    pub netns: Option<u64>,
    pub flow: Option<Flow>,
}

impl Expected {
    fn new(count: u64, reason: &'static str, locations: &'static [&'static str]) -> Self {
        Self {
            count,
            reason,
            older: &[],
            locations,
            module: None,
            placed: true,
            iface: None,
            netns: None,
            flow: None,
        }
    }

    /// On this device of this namespace.
    fn on(self, net: &Net, device: &'static str) -> Self {
        Self { iface: Some(device), ..self.within(net) }
    }

    /// In this namespace, on a device that the packet does not name.
    fn within(self, net: &Net) -> Self {
        Self { netns: Some(net.inum()), ..self }
    }

    /// Packets of this flow.
    fn of(self, packet: &Packet) -> Self {
        Self { flow: Some(Flow::of(packet)), ..self }
    }
}

/// The sender, the receiver and what is sent.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ports: Option<(u16, u16)>,
}

impl Flow {
    fn of(packet: &Packet) -> Self {
        let &Packet { source, destination, protocol, .. } = packet;
        Self { source, destination, protocol, ports: packet.ports() }
    }
}

/// All cases.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        ip::CASES,
        ipv6::CASES,
        forward::CASES,
        transport::CASES,
        tcp::CASES,
        netfilter::CASES,
        tc::CASES,
        device::CASES,
        socket::CASES,
        bpf::CASES,
    ]
    .into_iter()
    .flatten()
}

/// A sender whose packets the receiver cannot answer.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 7);
/// The ends of the wire.
const A: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Behind no other.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
