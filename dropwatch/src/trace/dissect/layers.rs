//! What the layers share: numbers of protocols, and both ends of a packet.

use std::net::IpAddr;

use super::Summary;

/// Ethertypes.
pub mod ethertype {
    pub use dropwatch_common::packet::ethertype::{ARP, IPV4, IPV6, RARP};

    pub const MPLS: [u16; 2] = [0x8847, 0x8848];
    pub const PPPOE: [u16; 2] = [0x8863, 0x8864];
}

/// Protocols above IP.
pub mod ip_protocol {
    pub use dropwatch_common::packet::protocol::{
        AUTHENTICATION as AH, ESP, GRE, ICMP, ICMPV6, IGMP, IPIP, IPV6, OSPF, PIM, SCTP, TCP, UDP, VRRP,
    };
}

/// The addresses and ports of the packet, as far as the layers above IP need them.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub from: IpAddr,
    pub to: IpAddr,
    /// Whether the addresses have been said, because something stands between them and the ports.
    pub said: bool,
}

impl Ends {
    /// Says both ends with their ports, if both are known; else just the addresses.
    pub fn say_ports(self, ports: Option<(u16, u16)>, summary: &mut Summary) {
        let Self { from, to, said } = self;
        if let (Some((source, destination)), Some(facts)) = (ports, summary.facts()) {
            (facts.source_port, facts.destination_port) = (Some(source), Some(destination));
        }
        match ports {
            Some((source, destination)) if said => summary.say(format_args!("{source} > {destination}: ")),
            Some((source, destination)) => {
                summary.say(format_args!("{from}.{source} > {to}.{destination}: "));
            }
            None if said => {}
            None => summary.say(format_args!("{from} > {to}:")),
        }
    }
}
