//! The key of a row that stands for more than a location and a reason.

use crate::{
    chain::DeviceName,
    probe::{gather, keys},
};

/// How many generations of rows, with the chains they refer to, there is a place for: the one that counts, and the one
/// that is read to its end.
pub const GENERATIONS: usize = 2;

/// What a drop can be counted by. Fields that were not requested, or are not known, are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable, Eq, PartialOrd, Ord))]
pub struct RowKey {
    /// The address after the call that freed the packet: the tracepoint's `location`.
    pub location: u64,
    /// The call chain's number in the map of chains; zero if it could not be kept.
    pub stack: u64,
    /// The source address; an IPv4 address in the first four bytes.
    pub saddr: [u8; 16],
    /// The destination address, in the same form.
    pub daddr: [u8; 16],
    /// The name the interface had, padded with zeros; all zeros if it could not be read.
    pub iface: DeviceName,
    /// The cookie of the network namespace; zero on kernels that have none.
    pub cookie: u64,
    /// The socket's number, [`LOST`](crate::socket::LOST) if it could not be kept, zero if there is none.
    pub socket: u64,
    /// The kernel's number for the reason.
    pub reason: u32,
    /// Which of the fields are known: bits of [`known`]; and above them the [`Cases`](crate::program::Cases) in which the
    /// drops pass.
    pub known: u32,
    /// The inode number of the network namespace.
    pub netns: u32,
    /// The interface's number in its namespace.
    pub ifindex: u32,
    /// The CPU it was dropped on.
    pub cpu: u32,
    /// The names of rules that the interface had besides its own, as bits.
    pub names: u32,
    /// The source port, in host order.
    pub sport: u16,
    /// The destination port, in host order.
    pub dport: u16,
    /// The ethertype, in host order.
    pub protocol: u16,
    /// The transport protocol; behind the extension headers of IPv6.
    pub ipproto: u8,
    /// Whom the packets were for, one of [`kind`](crate::kind); of kinds on which no class depends, one host.
    pub kind: u8,
}

/// In one piece: field by field takes several times as long, and a report looks for each key more than once.
#[cfg(feature = "user")]
impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        bytemuck::bytes_of(self) == bytemuck::bytes_of(other)
    }
}

/// In one piece, too.
#[cfg(feature = "user")]
impl core::hash::Hash for RowKey {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write(bytemuck::bytes_of(self));
    }
}

/// The words of eight bytes that a [`RowKey`] consists of, by number.
pub mod word {
    /// [`RowKey::location`](super::RowKey::location)
    pub const LOCATION: usize = 0;
    /// [`RowKey::stack`](super::RowKey::stack)
    pub const STACK: usize = 1;
    /// The first of [`RowKey::saddr`](super::RowKey::saddr)
    pub const SADDR: usize = 2;
    /// The first of [`RowKey::daddr`](super::RowKey::daddr)
    pub const DADDR: usize = 4;
    /// The first of [`RowKey::iface`](super::RowKey::iface)
    pub const IFACE: usize = 6;
    /// [`RowKey::cookie`](super::RowKey::cookie)
    pub const COOKIE: usize = 8;
    /// [`RowKey::socket`](super::RowKey::socket)
    pub const SOCKET: usize = 9;
    /// [`RowKey::reason`](super::RowKey::reason), above it [`RowKey::known`](super::RowKey::known)
    pub const REASON: usize = 10;
    /// [`RowKey::netns`](super::RowKey::netns), above it [`RowKey::ifindex`](super::RowKey::ifindex)
    pub const NETNS: usize = 11;
    /// [`RowKey::cpu`](super::RowKey::cpu), above it [`RowKey::names`](super::RowKey::names)
    pub const CPU: usize = 12;
    /// From the lowest bits on: [`RowKey::sport`](super::RowKey::sport), [`RowKey::dport`](super::RowKey::dport),
    /// [`RowKey::protocol`](super::RowKey::protocol), [`RowKey::ipproto`](super::RowKey::ipproto),
    /// [`RowKey::kind`](super::RowKey::kind)
    pub const PACKET: usize = 13;
    /// How many there are.
    pub const COUNT: usize = 14;
}

/// Bits of [`RowKey::known`].
pub mod known {
    /// The interface is known.
    pub const IFACE: u32 = 1 << 0;
    /// The network namespace is known.
    pub const NETNS: u32 = 1 << 1;
    /// The ethertype is known.
    pub const PROTOCOL: u32 = 1 << 2;
    /// The transport protocol is known.
    pub const IPPROTO: u32 = 1 << 3;
    /// The addresses are known, and are of IPv4.
    pub const IPV4: u32 = 1 << 4;
    /// The addresses are known, and are of IPv6.
    pub const IPV6: u32 = 1 << 5;
    /// The ports are known.
    pub const PORTS: u32 = 1 << 6;
    /// The call chain was kept.
    pub const STACK: u32 = 1 << 7;
    /// The filter names network namespaces, and user space has not looked yet whether this is one of them: the drop
    /// passes if it is. The namespace is in the key.
    pub const UNDECIDED: u32 = 1 << 8;
    /// Whom the packets were for is known.
    pub const KIND: u32 = 1 << 9;
}

/// Which words of a key differ from row to row, as bits by number: the kernel hashes, compares and keeps no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWords(pub u32);

impl KeyWords {
    /// Those of rows that are counted by these [`keys`], when this is [`gather`]ed.
    #[must_use]
    pub fn of(keys: u32, gathered: u32) -> Self {
        // What is known is in all keys.
        let mut words = 1 << word::REASON;
        let parts = [
            (keys::LOCATION, 1 << word::LOCATION),
            (keys::STACK, 1 << word::STACK),
            (keys::SADDR, 0b11 << word::SADDR),
            (keys::DADDR, 0b11 << word::DADDR),
            (keys::IFACE, 0b11 << word::IFACE),
            (keys::IFACE | keys::NETNS, 1 << word::COOKIE | 1 << word::NETNS),
            (keys::SOCKET, 1 << word::SOCKET),
            (keys::CPU | keys::IFACE_NAMES, 1 << word::CPU),
            (keys::PROTOCOL | keys::IPPROTO | keys::SPORT | keys::DPORT | keys::KIND, 1 << word::PACKET),
        ];
        for (bits, of_them) in parts {
            if keys & bits != 0 {
                words |= of_them;
            }
        }
        if gathered & gather::NETNS_NAMES != 0 {
            words |= 1 << word::COOKIE | 1 << word::NETNS;
        }
        Self(words)
    }

    /// How many they are.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Their numbers, as they follow each other.
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        (0..word::COUNT).filter(move |word| self.0 >> word & 1 != 0)
    }

    /// The key whose other words are zero.
    #[cfg(feature = "user")]
    #[must_use]
    pub fn key(self, narrow: &[u64]) -> RowKey {
        let mut words = [0; word::COUNT];
        for (number, value) in self.numbers().zip(narrow) {
            words[number] = *value;
        }
        bytemuck::cast(words)
    }
}

/// What the keys of [`Plain`](crate::packet::plain::Plain) packets have, where nothing but these is to be found out: masks of
/// words, so that the kernel decides nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct PlainKeys {
    /// Zero if plain packets are not told from others.
    pub are_told: u64,
    /// What is known, where it is in [`word::REASON`].
    pub known: u64,
    /// What is counted of the reason.
    pub reason: u64,
    /// What is counted of [`word::PACKET`].
    pub packet: u64,
}

impl PlainKeys {
    /// Those of rows that are counted by these [`keys`], when so much is [gathered](gather) for them and for a filter.
    #[must_use]
    pub fn of(keys: u32, gathered: u32) -> Self {
        let headers = [
            (keys::SPORT, known::PORTS, 0xffff),
            (keys::DPORT, known::PORTS, 0xffff << 16),
            (keys::PROTOCOL, known::PROTOCOL, 0xffff << 32),
            (keys::IPPROTO, known::IPPROTO, 0xff << 48),
            (keys::SADDR, known::IPV4, 0),
            (keys::DADDR, known::IPV4, 0),
        ];
        let others = keys::LOCATION | keys::REASON | keys::CPU | keys::KIND;
        let of_headers = headers.iter().fold(0, |bits, (key, ..)| bits | key);
        let of_start = gather::PROTOCOL | gather::HEADERS;
        let of_packet = of_start | gather::LENGTH | gather::BYTES;
        if gathered & of_start == 0 || gathered & !of_packet != 0 || keys & !(of_headers | others) != 0 {
            return Self::default();
        }
        let (mut known, mut packet) = (0, 0);
        for (key, is_known, mask) in headers {
            if keys & key != 0 {
                known |= is_known;
                packet |= mask;
            }
        }
        if keys & keys::KIND != 0 {
            known |= known::KIND;
        }
        let reason = if keys & keys::REASON != 0 { u32::MAX.into() } else { 0 };
        Self { are_told: 1, known: u64::from(known) << 32, reason, packet }
    }
}

const _: () = assert!(crate::kind::UNICAST == 0, "the kind of plain packets");
const _: () = assert!(known::KIND < 1 << crate::program::Cases::SHIFT);
const _: () = assert!(size_of::<RowKey>() == word::COUNT * 8 && align_of::<RowKey>() == 8);
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(RowKey, stack) == word::STACK * 8);
    assert!(offset_of!(RowKey, saddr) == word::SADDR * 8 && offset_of!(RowKey, daddr) == word::DADDR * 8);
    assert!(offset_of!(RowKey, iface) == word::IFACE * 8 && offset_of!(RowKey, cookie) == word::COOKIE * 8);
    assert!(offset_of!(RowKey, socket) == word::SOCKET * 8 && offset_of!(RowKey, reason) == word::REASON * 8);
    assert!(offset_of!(RowKey, netns) == word::NETNS * 8 && offset_of!(RowKey, cpu) == word::CPU * 8);
    assert!(offset_of!(RowKey, sport) == word::PACKET * 8);
};

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_the_words_that_it_needs() {
        let flow = keys::LOCATION | keys::REASON | keys::SADDR | keys::DADDR | keys::SPORT | keys::DPORT;
        let words = KeyWords::of(flow, gather::HEADERS);
        assert!(words.numbers().eq([0, 2, 3, 4, 5, 10, 13]), "{words:?}");
        assert_eq!(words.count(), 7);
        // The namespace decides later.
        let undecided = KeyWords::of(keys::REASON, gather::NETNS | gather::NETNS_NAMES);
        assert!(undecided.numbers().eq([8, 10, 11]), "{undecided:?}");
        assert_eq!(KeyWords::of(u32::MAX, u32::MAX).count(), word::COUNT);
    }

    #[test]
    fn keys_beyond_a_plain_packet_are_found_out_otherwise() {
        let plain = PlainKeys::of(keys::DPORT | keys::REASON | keys::KIND, gather::HEADERS);
        let known = u64::from(known::PORTS | known::KIND) << 32;
        assert_eq!(plain, PlainKeys { are_told: 1, known, reason: 0xffff_ffff, packet: 0xffff_0000 });
        // A filter reads headers, too.
        let filtered = PlainKeys::of(keys::LOCATION, gather::HEADERS | gather::LENGTH | gather::BYTES);
        assert_eq!(filtered, PlainKeys { are_told: 1, ..PlainKeys::default() });
        for (keys, gathered) in [
            (keys::LOCATION | keys::REASON, 0),
            (keys::DPORT | keys::NETNS, gather::HEADERS | gather::NETNS),
            (keys::SADDR | keys::STACK, gather::HEADERS),
            (keys::LOCATION, gather::HEADERS | gather::IFACE),
            (keys::LOCATION, gather::HEADERS | gather::LINK),
        ] {
            assert_eq!(PlainKeys::of(keys, gathered), PlainKeys::default(), "{keys:b} {gathered:b}");
        }
    }

    #[test]
    fn a_key_has_its_words_where_they_belong() {
        let words = KeyWords::of(keys::LOCATION | keys::SADDR | keys::DPORT, 0);
        let key = words.key(&[7, u64::from_le_bytes([192, 0, 2, 1, 0, 0, 0, 0]), 0, 3 << 32 | 2, 9 << 16]);
        let mut saddr = [0; 16];
        saddr[..4].copy_from_slice(&[192, 0, 2, 1]);
        assert_eq!(key, RowKey { location: 7, saddr, reason: 2, known: 3, dport: 9, ..RowKey::default() });
    }
}
