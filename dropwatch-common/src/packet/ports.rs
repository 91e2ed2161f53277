//! Ports, and whose they are.

use super::{Bytes, Packet, cut, either, known, only_if, protocol, transport};

/// Whose ports follow a protocol number.
#[inline(always)]
pub(super) fn transport_of(bytes: &(impl Bytes + ?Sized), protocol: u8) -> u32 {
    let is = |number: u8| bytes.is_equal(protocol.into(), number.into());
    (is(protocol::TCP) * u32::from(transport::TCP))
        | (is(protocol::UDP) * u32::from(transport::UDP))
        | (is(protocol::SCTP) * u32::from(transport::SCTP))
        | ((is(protocol::DCCP) | is(protocol::UDP_LITE)) * u32::from(transport::OTHER))
}

#[inline(always)]
pub(super) fn protocol_is_cut(packet: &mut Packet) {
    packet.cut |= cut::NEXT_HEADER;
    ports_are_cut(packet);
}

/// The transport is unknown: a test for a port of any meets the cut.
#[inline(always)]
pub(super) fn ports_are_cut(packet: &mut Packet) {
    packet.transport = transport::ANY;
    packet.cut |= cut::SPORT | cut::DPORT;
}

/// Takes the ports: both, or at least the first.
#[inline(always)]
pub(super) fn set_ports(packet: &mut Packet, both: Option<[u8; 4]>, first: impl FnOnce() -> Option<[u8; 2]>) {
    if let Some([a, b, c, d]) = both {
        packet.sport = u16::from_be_bytes([a, b]);
        packet.dport = u16::from_be_bytes([c, d]);
        packet.known |= known::SPORT | known::DPORT;
        return;
    }
    packet.cut |= cut::DPORT;
    match first() {
        Some(port) => {
            packet.sport = u16::from_be_bytes(port);
            packet.known |= known::SPORT;
        }
        None => packet.cut |= cut::SPORT,
    }
}

/// Takes the ports at a fixed offset.
#[inline(always)]
pub(super) fn set_near_ports<const OFFSET: usize>(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    let [a, b, c, d] = bytes.raw::<OFFSET, 4>();
    let (has_first, has_both) = (bytes.has(OFFSET as u32 + 2), bytes.has(OFFSET as u32 + 4));
    packet.sport = only_if(has_first, u16::from_be_bytes([a, b]).into()) as u16;
    packet.dport = only_if(has_both, u16::from_be_bytes([c, d]).into()) as u16;
    packet.known |= either(has_first, known::SPORT, 0) | either(has_both, known::DPORT, 0);
    packet.cut |= either(has_first, 0, cut::SPORT) | either(has_both, 0, cut::DPORT);
}
