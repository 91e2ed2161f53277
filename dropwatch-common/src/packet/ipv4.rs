//! IPv4, and ARP, which has its addresses.

use super::{
    Bytes, LATER, Packet, cut, either, family, known, only_if,
    plain::Plain,
    ports::{protocol_is_cut, set_near_ports, set_ports, transport_of},
    word,
};

/// Addresses of Ethernet and IPv4: the only kind of ARP there is, and all that libpcap looks for.
#[inline(always)]
pub(super) fn parse_arp(bytes: &(impl Bytes + ?Sized), packet: &mut Packet, family: u8) {
    packet.family = family;
    addresses::<14, 24>(bytes, packet);
}

/// The addresses at these offsets; 1 for each that is there.
#[inline(always)]
fn addresses<const SOURCE: usize, const DESTINATION: usize>(
    bytes: &(impl Bytes + ?Sized),
    packet: &mut Packet,
) -> [u32; 2] {
    let (source, has_source) = word::<SOURCE>(bytes);
    let (destination, has_destination) = word::<DESTINATION>(bytes);
    packet.saddr[..4].copy_from_slice(&source);
    packet.daddr[..4].copy_from_slice(&destination);
    packet.cut = either(has_source, 0, cut::SADDR) | either(has_destination, 0, cut::DADDR);
    [has_source, has_destination]
}

/// Most are plain, of which there is less to find out.
#[inline(always)]
pub(super) fn parse_ipv4(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    match Plain::of(bytes) {
        Some(plain) => plain.write_to(packet),
        None => parse_any_ipv4(bytes, packet),
    }
}

#[inline(always)]
pub(super) fn parse_any_ipv4(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.family = family::IPV4;
    let [has_source, has_destination] = addresses::<12, 16>(bytes, packet);
    let Some([high, low, _, protocol]) = bytes.near::<6, 4>() else {
        protocol_is_cut(packet);
        return;
    };
    let [first] = bytes.raw::<0, 1>();
    packet.next_header = protocol;
    packet.ipproto = protocol;
    let is_first = bytes.is_equal(u16::from_be_bytes([high & 0x1f, low]).into(), 0);
    packet.ipv4_header = first & 0x0f | either(is_first, 0, LATER);
    packet.transport = only_if(is_first, transport_of(bytes, protocol)) as u8;
    packet.known =
        either(has_source, known::SADDR, 0) | either(has_destination, known::DADDR, 0) | known::IPPROTO;
    parse_ipv4_ports(bytes, packet, first & 0x0f);
    packet.known = only_if(bytes.is_equal(u32::from(first >> 4), 4), packet.known.into()) as u8;
}

#[inline(always)]
fn parse_ipv4_ports(bytes: &(impl Bytes + ?Sized), packet: &mut Packet, header_words: u8) {
    if packet.transport == 0 {
        return;
    }
    if header_words == 5 {
        set_near_ports::<20>(bytes, packet);
        return;
    }
    let at = u32::from(header_words) * 4;
    set_ports(packet, bytes.far(at), || bytes.far(at));
    if header_words < 5 {
        // Inside the header itself: libpcap compares these bytes, but they are not ports.
        packet.known &= !(known::SPORT | known::DPORT);
    }
}
