//! Ports, and whose they are.

use super::{Packet, cut, known, protocol, transport};

/// Whose ports follow a protocol number.
#[inline(always)]
pub(super) fn transport_of(protocol: u8) -> u8 {
    match protocol {
        protocol::TCP => transport::TCP,
        protocol::UDP => transport::UDP,
        protocol::SCTP => transport::SCTP,
        protocol::DCCP | protocol::UDP_LITE => transport::OTHER,
        _ => 0,
    }
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
