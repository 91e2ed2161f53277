//! IPv4, and ARP, which has its addresses.

use super::{
    Bytes, LATER, Packet, cut, family, known,
    ports::{protocol_is_cut, set_ports, transport_of},
};

/// Addresses of Ethernet and IPv4: the only kind of ARP there is, and all that libpcap looks for.
#[inline(always)]
pub(super) fn parse_arp(bytes: &(impl Bytes + ?Sized), packet: &mut Packet, family: u8) {
    packet.family = family;
    match bytes.near::<14, 4>() {
        Some(address) => packet.saddr[..4].copy_from_slice(&address),
        None => packet.cut |= cut::SADDR,
    }
    match bytes.near::<24, 4>() {
        Some(address) => packet.daddr[..4].copy_from_slice(&address),
        None => packet.cut |= cut::DADDR,
    }
}

#[inline(always)]
pub(super) fn parse_ipv4(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.family = family::IPV4;
    match bytes.near::<12, 4>() {
        Some(address) => {
            packet.saddr[..4].copy_from_slice(&address);
            packet.known |= known::SADDR;
        }
        None => packet.cut |= cut::SADDR,
    }
    match bytes.near::<16, 4>() {
        Some(address) => {
            packet.daddr[..4].copy_from_slice(&address);
            packet.known |= known::DADDR;
        }
        None => packet.cut |= cut::DADDR,
    }
    let (Some([first]), Some([high, low, _, protocol])) = (bytes.near::<0, 1>(), bytes.near::<6, 4>()) else {
        protocol_is_cut(packet);
        return;
    };
    packet.ipv4_header = first & 0x0f;
    packet.next_header = protocol;
    packet.ipproto = protocol;
    packet.known |= known::IPPROTO;
    if u16::from_be_bytes([high & 0x1f, low]) == 0 {
        packet.transport = transport_of(protocol);
    } else {
        packet.ipv4_header |= LATER;
    }
    parse_ipv4_ports(bytes, packet, first & 0x0f);
    if first >> 4 != 4 {
        packet.known = 0;
    }
}

#[inline(always)]
fn parse_ipv4_ports(bytes: &(impl Bytes + ?Sized), packet: &mut Packet, header_words: u8) {
    if packet.transport == 0 {
        return;
    }
    if header_words == 5 {
        set_ports(packet, bytes.near::<20, 4>(), || bytes.near::<20, 2>());
        return;
    }
    let at = u32::from(header_words) * 4;
    set_ports(packet, bytes.far(at), || bytes.far(at));
    if header_words < 5 {
        // Inside the header itself: libpcap compares these bytes, but they are not ports.
        packet.known &= !(known::SPORT | known::DPORT);
    }
}
