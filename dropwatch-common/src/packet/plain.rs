//! Packets as most are: of IPv4 without options, whole or the start of one, with ports of TCP or UDP.

use super::{ethertype, protocol};

/// How many words of four bytes are looked at: the header and the ports behind it.
pub const WORDS: usize = 6;

/// Addresses and ports of a packet from its network header on, as words of a little-endian machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain(pub [u32; WORDS]);

impl Plain {
    /// Whether it is such a packet. What these methods say is what [`parse`](super::parse) finds out then.
    #[inline(always)]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let is_ipv4 = self.0[0] as u8 == 0x45;
        let is_later_fragment = self.0[1] >> 16 & 0xff1f != 0;
        is_ipv4 && !is_later_fragment && matches!(self.protocol(), protocol::TCP | protocol::UDP)
    }

    /// The protocol above IP.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        (self.0[2] >> 8) as u8
    }

    /// The source address, in the order of the packet.
    #[inline(always)]
    #[must_use]
    pub fn saddr(&self) -> u32 {
        self.0[3]
    }

    /// The destination address, in the order of the packet.
    #[inline(always)]
    #[must_use]
    pub fn daddr(&self) -> u32 {
        self.0[4]
    }

    /// All that [`word::PACKET`](crate::row::word::PACKET) has of it.
    #[inline(always)]
    #[must_use]
    pub fn word(&self) -> u64 {
        // Both ports at once: what is first in the packet ends up in the lower half.
        let ports = self.0[5].swap_bytes().rotate_left(16);
        u64::from(ports) | u64::from(ethertype::IPV4) << 32 | u64::from(self.protocol()) << 48
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Packet, family, known, parse, transport};

    fn read(bytes: &[u8; WORDS * 4]) -> Plain {
        let mut plain = Plain::default();
        for (word, bytes) in plain.0.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        plain
    }

    fn as_parsed(plain: Plain) -> Packet {
        let address = |word: u32| u128::from(word).to_le_bytes();
        let all = known::SADDR | known::DADDR | known::IPPROTO | known::SPORT | known::DPORT;
        Packet {
            saddr: address(plain.saddr()),
            daddr: address(plain.daddr()),
            sport: plain.word() as u16,
            dport: (plain.word() >> 16) as u16,
            ethertype: (plain.word() >> 32) as u16,
            ipproto: (plain.word() >> 48) as u8,
            next_header: plain.protocol(),
            family: family::IPV4,
            transport: if plain.protocol() == protocol::TCP { transport::TCP } else { transport::UDP },
            known: all,
            ipv4_header: 5,
            ..Packet::default()
        }
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
                    assert_eq!(as_parsed(read(&bytes)), parse(&bytes[..], ethertype::IPV4), "{bytes:?}");
                }
            }
        }
        // The version, the protocol and the offset of a fragment leave one, two and 8 of the values.
        assert_eq!(plain, (24 - 4) * 256 + 1 + 2 + 8 + 1);
    }
}
