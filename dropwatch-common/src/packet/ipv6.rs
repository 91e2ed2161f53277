//! IPv6, and what follows its header.

use super::{
    Bytes, MAX_EXTENSIONS, Packet, cut, family, known,
    ports::{ports_are_cut, protocol_is_cut, set_ports, transport_of},
    protocol,
};

/// Whether the IP version is the one that the ethertype promises.
#[inline(always)]
fn version_is(bytes: &(impl Bytes + ?Sized), version: u8) -> bool {
    match bytes.near::<0, 1>() {
        Some([first]) => first >> 4 == version,
        None => false,
    }
}

#[inline(always)]
pub(super) fn parse_ipv6(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.family = family::IPV6;
    match bytes.near::<8, 16>() {
        Some(address) => {
            packet.saddr = address;
            packet.known |= known::SADDR;
        }
        None => cut_source(bytes, packet),
    }
    bytes.meet(packet);
    match bytes.near::<24, 16>() {
        Some(address) => {
            packet.daddr = address;
            packet.known |= known::DADDR;
        }
        None => cut_destination(bytes, packet),
    }
    bytes.meet(packet);
    match bytes.near::<6, 1>() {
        Some([next]) => {
            packet.next_header = next;
            parse_ipv6_payload(bytes, packet);
        }
        None => protocol_is_cut(packet),
    }
    if !version_is(bytes, 6) {
        packet.known = 0;
    }
}

/// An address is compared word by word: what is left of it can still differ.
#[inline(always)]
fn cut_source(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.cut |= cut::SADDR;
    let Some(word) = bytes.near::<8, 4>() else { return };
    packet.saddr[..4].copy_from_slice(&word);
    packet.saddr_words = 1;
    let Some(word) = bytes.near::<12, 4>() else { return };
    packet.saddr[4..8].copy_from_slice(&word);
    packet.saddr_words = 2;
    let Some(word) = bytes.near::<16, 4>() else { return };
    packet.saddr[8..12].copy_from_slice(&word);
    packet.saddr_words = 3;
}

/// The same for the destination.
#[inline(always)]
fn cut_destination(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.cut |= cut::DADDR;
    let Some(word) = bytes.near::<24, 4>() else { return };
    packet.daddr[..4].copy_from_slice(&word);
    packet.daddr_words = 1;
    let Some(word) = bytes.near::<28, 4>() else { return };
    packet.daddr[4..8].copy_from_slice(&word);
    packet.daddr_words = 2;
    let Some(word) = bytes.near::<32, 4>() else { return };
    packet.daddr[8..12].copy_from_slice(&word);
    packet.daddr_words = 3;
}

/// What follows the IPv6 header, whose `next_header` is set.
#[inline(always)]
fn parse_ipv6_payload(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    if packet.next_header == protocol::FRAGMENT {
        match bytes.near::<40, 1>() {
            Some([next]) => packet.fragment_next = next,
            None => packet.cut |= cut::FRAGMENT_NEXT,
        }
    }
    if !is_extension(packet.next_header) {
        packet.ipproto = packet.next_header;
        packet.known |= known::IPPROTO;
        packet.transport = transport_of(packet.ipproto);
        if packet.transport != 0 {
            set_ports(packet, bytes.near::<40, 4>(), || bytes.near::<40, 2>());
        }
        return;
    }
    let end = behind_extensions(bytes, packet.next_header);
    match end.state {
        state::CUT => ports_are_cut(packet),
        state::TOO_LONG => {}
        state => {
            packet.ipproto = end.protocol;
            packet.known |= known::IPPROTO;
            if state == state::FIRST {
                packet.transport = transport_of(end.protocol);
            }
            bytes.meet(packet);
            if packet.transport != 0 {
                set_ports(packet, bytes.far(end.at), || bytes.far(end.at));
            }
        }
    }
}

/// Where a chain of extension headers leads: to a protocol at an offset, if it ends.
struct End {
    protocol: u8,
    at: u32,
    state: u32,
}

/// How a chain of extension headers ends.
mod state {
    /// Not yet: it has more headers than [`MAX_EXTENSIONS`](crate::packet::MAX_EXTENSIONS).
    pub const TOO_LONG: u32 = 0;
    /// In the only fragment of a packet, or in its first.
    pub const FIRST: u32 = 1;
    /// In another fragment.
    pub const LATER: u32 = 2;
    /// Beyond the bytes.
    pub const CUT: u32 = 3;
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
    )
}

/// Follows the extension headers of IPv6.
///
/// Numbers and no enumeration, and one way out of each round: of a number, a verifier can know nothing.
#[inline(always)]
fn behind_extensions(bytes: &(impl Bytes + ?Sized), first_header: u8) -> End {
    let mut end = End { protocol: first_header, at: 40, state: state::TOO_LONG };
    let mut followed = 0;
    while followed < MAX_EXTENSIONS {
        if end.state == state::TOO_LONG {
            follow(bytes, &mut end);
        }
        end.protocol = bytes.unknown(end.protocol.into()) as u8;
        end.at = bytes.unknown(end.at);
        end.state = bytes.unknown(end.state);
        followed += 1;
    }
    end
}

/// Follows one of them.
#[inline(always)]
fn follow(bytes: &(impl Bytes + ?Sized), end: &mut End) {
    let Some([next, length, high, low]) = bytes.far::<4>(end.at) else {
        end.state = state::CUT;
        return;
    };
    let length = u32::from(length);
    let is_later = end.protocol == protocol::FRAGMENT && u16::from_be_bytes([high, low]) & !0x7 != 0;
    end.at += match end.protocol {
        protocol::FRAGMENT => 8,
        protocol::AUTHENTICATION => (length + 2) * 4,
        _ => (length + 1) * 8,
    };
    end.protocol = next;
    if is_later {
        end.state = state::LATER;
    } else if !is_extension(next) {
        end.state = state::FIRST;
    }
}
