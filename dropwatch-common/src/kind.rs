//! Whom a packet is for, as far as the class of a drop depends on it.
//!
//! The BPF program and user space decide by this one reading. A packet that came in for this host's own hardware
//! address is for one host, whatever its headers say: they are read only of others.

use crate::packet::{Bytes, ethertype};

/// One host.
pub const UNICAST: u8 = 0;
/// All hosts on the link, and no IP packet: LLDP, spanning tree, and the like.
pub const NOT_IP: u8 = 1;
/// All hosts of a network.
pub const BROADCAST: u8 = 2;
/// A group that hosts talk to by themselves when a link comes up: all routers, MLD, mDNS.
pub const LINK_GROUP: u8 = 3;
/// Any other group: one that an application or a routing protocol has chosen.
pub const GROUP: u8 = 4;
/// Its headers could not be read.
pub const UNKNOWN: u8 = 5;
/// One host, and a segment of TCP that brings nothing: neither data nor a new connection.
pub const EMPTY_SEGMENT: u8 = 6;

/// What the kernel says about a packet's hardware address: values of `skb->pkt_type`.
pub mod link {
    /// For this host, or not set: outgoing packets.
    pub const HOST: u8 = 0;
    /// All.
    pub const BROADCAST: u8 = 1;
    /// A group.
    pub const MULTICAST: u8 = 2;
    /// Another host's.
    pub const OTHER_HOST: u8 = 3;
    /// The bits of it.
    pub const MASK: u8 = 7;
}

/// The kind of a packet by the kernel's word for its hardware address, its ethertype and what follows.
#[inline(always)]
#[must_use]
pub fn of<B: Bytes + ?Sized>(link: u8, ethertype: u16, bytes: &B) -> u8 {
    match ethertype {
        ethertype::IPV4 => match bytes.near::<16, 4>() {
            Some(address) => match of_ipv4(address) {
                UNICAST if link == link::BROADCAST => BROADCAST,
                kind => kind,
            },
            None => UNKNOWN,
        },
        ethertype::IPV6 => match bytes.near::<24, 16>() {
            Some(address) => of_ipv6(address),
            None => UNKNOWN,
        },
        _ if link == link::BROADCAST || link == link::MULTICAST => NOT_IP,
        _ => UNICAST,
    }
}

/// Whether a packet is a segment of TCP with neither data nor SYN, as far as headers tell without extensions or fragments.
#[inline(always)]
#[must_use]
pub fn is_empty_segment<B: Bytes + ?Sized>(ethertype: u16, bytes: &B) -> bool {
    const TCP: u8 = 6;
    const SYN: u8 = 2;
    let (protocol, start, end) = match ethertype {
        ethertype::IPV4 => match (bytes.near::<0, 4>(), bytes.near::<6, 4>()) {
            (Some([version, _, high, low]), Some([flags, offset, _, protocol]))
                if flags & 0x3f == 0 && offset == 0 =>
            {
                (protocol, u32::from(version & 0xf) * 4, u32::from(u16::from_be_bytes([high, low])))
            }
            _ => return false,
        },
        ethertype::IPV6 => match bytes.near::<4, 3>() {
            Some([high, low, next]) => (next, 40, 40 + u32::from(u16::from_be_bytes([high, low]))),
            None => return false,
        },
        _ => return false,
    };
    let Some([offset, flags]) = bytes.far::<2>(start + 12) else { return false };
    protocol == TCP && flags & SYN == 0 && start + u32::from(offset >> 4) * 4 == end
}

/// The kind of an IPv4 address. A network's own broadcast address looks like a host's.
#[inline(always)]
#[must_use]
pub fn of_ipv4(address: [u8; 4]) -> u8 {
    match address {
        [224, 0, 0, 1 | 2 | 22 | 251 | 252] | [239, 255, 255, 250] => LINK_GROUP,
        [255, 255, 255, 255] => BROADCAST,
        [224..=239, ..] => GROUP,
        _ => UNICAST,
    }
}

/// The kind of an IPv6 address.
#[inline(always)]
#[must_use]
pub fn of_ipv6(address: [u8; 16]) -> u8 {
    /// Groups of the link.
    const LINK_LOCAL: u64 = 0xff02 << 48;
    /// Solicited-node groups, which neighbour discovery sends to for one address. Without its last three bytes.
    const SOLICITED: u64 = 0x1ff;
    let address = u128::from_be_bytes(address);
    let (high, low) = ((address >> 64) as u64, address as u64);
    if high >> 56 != 0xff {
        return UNICAST;
    }
    // All nodes, all routers, SSDP, reports of MLD, mDNS, servers of DHCP, LLMNR.
    let is_known = matches!(low, 1 | 2 | 0xc | 0x16 | 0xfb | 0x1_0002 | 0x1_0003);
    if high == LINK_LOCAL && (is_known || low >> 24 == SOLICITED) { LINK_GROUP } else { GROUP }
}
