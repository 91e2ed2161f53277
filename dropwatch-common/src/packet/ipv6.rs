//! IPv6, and what follows its header.

use super::{
    Bytes, MAX_EXTENSIONS, Packet, cut, either, family, known, only_if,
    ports::{ports_are_cut, protocol_is_cut, set_near_ports, set_ports, transport_of},
    protocol, word,
};

#[inline(always)]
pub(super) fn parse_ipv6(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.family = family::IPV6;
    let (has_source, words) = address::<8, 12, 16, 20>(bytes, &mut packet.saddr);
    packet.saddr_words = words;
    packet.cut = either(has_source, 0, cut::SADDR);
    packet.known = either(has_source, known::SADDR, 0);
    let (has_destination, words) = address::<24, 28, 32, 36>(bytes, &mut packet.daddr);
    packet.daddr_words = words;
    packet.cut |= either(has_destination, 0, cut::DADDR);
    packet.known |= either(has_destination, known::DADDR, 0);
    match bytes.near::<6, 1>() {
        Some([next]) => {
            packet.next_header = next;
            parse_ipv6_payload(bytes, packet);
        }
        None => protocol_is_cut(packet),
    }
    let [first] = bytes.raw::<0, 1>();
    packet.known = only_if(bytes.is_equal(u32::from(first >> 4), 6), packet.known.into()) as u8;
}

/// Takes an address whose words are there; 1 if it is whole, else 0. Of one that is cut, also how many words there are: it is
/// compared word by word, and what is left of it can still differ.
#[inline(always)]
fn address<const A: usize, const B: usize, const C: usize, const D: usize>(
    bytes: &(impl Bytes + ?Sized),
    address: &mut [u8; 16],
) -> (u32, u8) {
    let (a, has_a) = word::<A>(bytes);
    address[..4].copy_from_slice(&a);
    let (b, has_b) = word::<B>(bytes);
    address[4..8].copy_from_slice(&b);
    let (c, has_c) = word::<C>(bytes);
    address[8..12].copy_from_slice(&c);
    let (d, has_d) = word::<D>(bytes);
    address[12..].copy_from_slice(&d);
    (has_d, only_if(has_d ^ 1, has_a + has_b + has_c) as u8)
}

/// What follows the IPv6 header, whose `next_header` is set.
#[inline(always)]
fn parse_ipv6_payload(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    let next = packet.next_header;
    if is_extension(bytes, next) == 0 {
        packet.ipproto = next;
        packet.known |= known::IPPROTO;
        packet.transport = transport_of(bytes, next) as u8;
        if packet.transport != 0 {
            set_near_ports::<40>(bytes, packet);
        }
        return;
    }
    let (is_fragment, is_whole) = (bytes.is_equal(next.into(), protocol::FRAGMENT.into()), bytes.has(41));
    let [behind] = bytes.raw::<40, 1>();
    packet.fragment_next = only_if(is_fragment & is_whole, behind.into()) as u8;
    packet.cut |= either(is_fragment & (is_whole ^ 1), cut::FRAGMENT_NEXT, 0);
    let end = behind_extensions(bytes, next);
    match end.state {
        state::CUT => ports_are_cut(packet),
        state::TOO_LONG => {}
        state => {
            packet.ipproto = end.protocol;
            packet.known |= known::IPPROTO;
            let is_first = bytes.is_equal(state, state::FIRST);
            packet.transport = only_if(is_first, transport_of(bytes, end.protocol)) as u8;
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

/// 1 if an extension header has this number, else 0.
#[inline(always)]
fn is_extension(bytes: &(impl Bytes + ?Sized), protocol: u8) -> u32 {
    let is = |number: u8| bytes.is_equal(protocol.into(), number.into());
    is(protocol::HOP_BY_HOP)
        | is(protocol::ROUTING)
        | is(protocol::FRAGMENT)
        | is(protocol::AUTHENTICATION)
        | is(protocol::DESTINATION)
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
    let is = |number: u8| bytes.is_equal(end.protocol.into(), number.into());
    let (is_fragment, is_authentication) = (is(protocol::FRAGMENT), is(protocol::AUTHENTICATION));
    // A fragment's header has no length, that of an authentication header counts words of four bytes, and all leave out the
    // first eight bytes.
    let unit = 8 - 8 * is_fragment - 4 * is_authentication;
    let is_at_start = bytes.is_equal(u32::from(u16::from_be_bytes([high, low]) & !0x7), 0);
    let is_later = is_fragment & (is_at_start ^ 1);
    end.at += 8 + u32::from(length) * unit;
    end.protocol = next;
    const { assert!(state::TOO_LONG == 0 && state::FIRST == 1 && state::LATER == 2) };
    end.state = (is_later * state::LATER) | (is_later ^ 1) & (is_extension(bytes, next) ^ 1);
}
