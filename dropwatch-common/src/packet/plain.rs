//! Packets as most are: of IPv4 without options, whole or the start of one, with ports of TCP or UDP.

use super::{Bytes, Packet, ethertype, family, known, protocol, transport};

/// How many words of eight bytes are looked at: the header and the ports behind it.
pub const WORDS: usize = 3;

/// Addresses and ports of a packet from its network header on, as words of a little-endian machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain(pub [u64; WORDS]);

impl Plain {
    /// The start of a packet, if it is such a one.
    #[inline(always)]
    pub(super) fn of(bytes: &(impl Bytes + ?Sized)) -> Option<Self> {
        if bytes.has(size_of::<Self>() as u32) == 0 {
            return None;
        }
        let words = [bytes.raw::<0, 8>(), bytes.raw::<8, 8>(), bytes.raw::<16, 8>()];
        let start = Self(words.map(u64::from_le_bytes));
        start.is_plain().then_some(start)
    }

    /// All that is read from its headers, into a packet that is all zeros.
    #[inline(always)]
    pub fn write_to(&self, packet: &mut Packet) {
        // Whole words: a processor waits for the parts of a word that is read as a whole.
        packet.saddr = u128::from(self.saddr()).to_le_bytes();
        packet.daddr = u128::from(self.daddr()).to_le_bytes();
        let word = self.word();
        (packet.sport, packet.dport) = (word as u16, (word >> 16) as u16);
        (packet.ethertype, packet.ipproto) = ((word >> 32) as u16, (word >> 48) as u8);
        packet.next_header = packet.ipproto;
        packet.family = family::IPV4;
        packet.transport = if packet.ipproto == protocol::TCP { transport::TCP } else { transport::UDP };
        packet.known = known::SADDR | known::DADDR | known::IPPROTO | known::SPORT | known::DPORT;
        packet.ipv4_header = 5;
    }

    /// Whether it is such a packet. What these methods say is what [`parse`](super::parse) finds out then.
    #[inline(always)]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let is_ipv4 = self.0[0] as u8 == 0x45;
        let is_later_fragment = self.0[0] >> 48 & 0xff1f != 0;
        is_ipv4 && !is_later_fragment && matches!(self.protocol(), protocol::TCP | protocol::UDP)
    }

    /// The protocol above IP.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        (self.0[1] >> 8) as u8
    }

    /// The source address, in the order of the packet.
    #[inline(always)]
    #[must_use]
    pub fn saddr(&self) -> u32 {
        (self.0[1] >> 32) as u32
    }

    /// The destination address, in the order of the packet.
    #[inline(always)]
    #[must_use]
    pub fn daddr(&self) -> u32 {
        self.0[2] as u32
    }

    /// All that [`word::PACKET`](crate::row::word::PACKET) has of it.
    #[inline(always)]
    #[must_use]
    pub fn word(&self) -> u64 {
        // Both ports at once: what is first in the packet ends up in the lower half.
        let ports = ((self.0[2] >> 32) as u32).swap_bytes().rotate_left(16);
        u64::from(ports) | u64::from(ethertype::IPV4) << 32 | u64::from(self.protocol()) << 48
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ipv4::parse_any_ipv4;

    fn read(bytes: &[u8; size_of::<Plain>()]) -> Plain {
        let mut plain = Plain::default();
        for (word, bytes) in plain.0.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        plain
    }

    fn parsed(bytes: &[u8]) -> Packet {
        let mut packet = Packet { ethertype: ethertype::IPV4, ..Packet::default() };
        parse_any_ipv4(bytes, &mut packet);
        packet
    }

    fn written(plain: Plain) -> Packet {
        let mut packet = Packet::default();
        plain.write_to(&mut packet);
        packet
    }

    /// Each byte of the header takes each value.
    #[test]
    fn a_plain_packet_is_what_it_is_parsed_as() {
        let packet = [
            0x45, 0, 0, 32, 0x12, 0x34, 0x20, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7, 0x4e, 0x20, 0,
            53,
        ];
        let mut plain = 0;
        for place in 0..packet.len() {
            for value in 0..=u8::MAX {
                let mut bytes = packet;
                bytes[place] = value;
                if read(&bytes).is_plain() {
                    plain += 1;
                    assert_eq!(written(read(&bytes)), parsed(&bytes), "{bytes:?}");
                }
            }
        }
        // The version, the protocol and the offset of a fragment leave one, two and 8 of the values.
        assert_eq!(plain, (24 - 4) * 256 + 1 + 2 + 8 + 1);
    }
}
