//! A dropped packet as rules see it: bytes that are known, bytes that are not, and what is not there at all.

use super::hook::{Family, Hook};
use crate::evidence::objects::Question;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const FRAGMENT: u8 = 44;
/// Headers of IPv6 that another one follows.
const EXTENSIONS: [u8; 5] = [0, 43, FRAGMENT, 60, 135];

/// Bytes of the addresses in an Ethernet header.
const ADDRESSES: usize = 12;

/// A byte, if it is known.
pub type Known = Option<u8>;

/// Where a rule reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Link,
    Network,
    Transport,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, of which some may be unknown.
    Bytes(Vec<Known>),
    /// The packet does not have them: no rule that reads them matches.
    Absent,
    /// It is unknown whether it has them.
    Unknown,
}

/// The dropped packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    pub protocol: Option<u16>,
    pub ipproto: Option<u8>,
    pub iface: Option<(u32, Vec<u8>)>,
    /// The interface that its route leads to.
    pub egress: Option<(u32, Vec<u8>)>,
    pub hook: Option<Hook>,
    /// Whether the hook is one of IP's, not a device's or a bridge's.
    pub is_at_ip: bool,
    /// Bytes from the network header; zero if that is not known.
    pub length: u32,
    link: Vec<u8>,
    network: Vec<Known>,
    transport: Transport,
}

/// Where the transport header is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Transport {
    /// So far behind the network header.
    At(usize),
    /// Somewhere; these bytes of it are known.
    Somewhere(Vec<Known>),
    /// There is none: not IP, or not the first fragment.
    Absent,
    #[default]
    Unknown,
}

impl Packet {
    /// What the question tells of it.
    pub fn of(question: &Question, hook: Option<Hook>, is_at_ip: bool) -> Self {
        let mut packet = Self {
            protocol: question.protocol,
            ipproto: question.ipproto,
            iface: question.iface.as_ref().map(|(index, name)| (*index, name.bytes().to_vec())),
            egress: None,
            hook,
            is_at_ip,
            link: question.link.clone(),
            length: question.length,
            network: question.packet.iter().copied().map(Some).collect(),
            transport: Transport::Unknown,
        };
        if question.packet.is_empty() {
            packet.headers_from(question);
        } else {
            packet.transport = packet.find_transport();
        }
        packet
    }

    /// Its family, if it is IP.
    pub fn family(&self) -> Option<Family> {
        match self.protocol? {
            IPV4 => Some(Family::Ip),
            IPV6 => Some(Family::Ip6),
            _ => None,
        }
    }

    /// Some of its bytes.
    pub fn read(&self, base: Base, offset: usize, length: usize) -> Read {
        let begin = match (base, &self.transport) {
            // Behind the addresses there may be a VLAN's tag, which is kept elsewhere.
            (Base::Link, _) if offset + length > ADDRESSES => return Read::Unknown,
            (Base::Link, _) => {
                let bytes = self.link.get(offset..offset + length);
                return bytes
                    .map_or(Read::Unknown, |bytes| Read::Bytes(bytes.iter().copied().map(Some).collect()));
            }
            (Base::Network, _) => offset,
            (Base::Transport, Transport::At(at)) => at + offset,
            (Base::Transport, Transport::Absent) => return Read::Absent,
            (Base::Transport, Transport::Unknown) => return Read::Unknown,
            (Base::Transport, Transport::Somewhere(bytes)) => {
                return Read::Bytes((offset..offset + length).map(|at| bytes.get(at).copied()?).collect());
            }
        };
        let end = begin + length;
        if self.length > 0 && end > self.length as usize {
            return Read::Absent;
        }
        Read::Bytes((begin..end).map(|at| self.network.get(at).copied()?).collect())
    }

    /// What addresses, protocol and ports tell of the headers, where there is no copy of them.
    fn headers_from(&mut self, question: &Question) {
        let (room, protocol, source, destination) = match self.protocol {
            Some(IPV4) => (20, 9, 12, 16),
            // The next header need not be the protocol.
            Some(IPV6) => (40, usize::MAX, 8, 24),
            _ => return,
        };
        self.network = vec![None; room];
        let mut write = |at: usize, bytes: &[u8]| {
            for (place, byte) in self.network.iter_mut().skip(at).zip(bytes) {
                *place = Some(*byte);
            }
        };
        if let Some(number) = question.ipproto {
            write(protocol, &[number]);
        }
        for (at, address) in [(source, question.saddr), (destination, question.daddr)] {
            match address {
                Some(std::net::IpAddr::V4(address)) => write(at, &address.octets()),
                Some(std::net::IpAddr::V6(address)) => write(at, &address.octets()),
                None => {}
            }
        }
        if question.sport.is_some() || question.dport.is_some() {
            let bytes = |port: Option<u16>| match port {
                Some(port) => port.to_be_bytes().map(Some),
                None => [None; 2],
            };
            let ports = [bytes(question.sport), bytes(question.dport)].concat();
            self.transport = Transport::Somewhere(ports);
        }
    }

    /// Where the transport header begins, in a copy of the headers; finds the protocol as well.
    fn find_transport(&mut self) -> Transport {
        let found = match self.protocol {
            Some(IPV4) => self.behind_ipv4(),
            Some(IPV6) => self.behind_ipv6(),
            Some(_) => return Transport::Absent,
            None => None,
        };
        match found {
            Some((protocol, at)) => {
                self.ipproto = Some(protocol);
                at.map_or(Transport::Absent, Transport::At)
            }
            None => Transport::Unknown,
        }
    }

    fn behind_ipv4(&self) -> Option<(u8, Option<usize>)> {
        let words = usize::from(self.byte(0)? & 0xf);
        let is_later = (self.byte(6)? & 0x1f, self.byte(7)?) != (0, 0);
        Some((self.byte(9)?, (!is_later).then_some(words * 4)))
    }

    fn behind_ipv6(&self) -> Option<(u8, Option<usize>)> {
        let (mut next, mut at) = (self.byte(6)?, 40);
        while EXTENSIONS.contains(&next) {
            if next == FRAGMENT && (self.byte(at + 2)?, self.byte(at + 3)? & 0xf8) != (0, 0) {
                return Some((self.byte(at)?, None));
            }
            let length = if next == FRAGMENT { 8 } else { (usize::from(self.byte(at + 1)?) + 1) * 8 };
            (next, at) = (self.byte(at)?, at + length);
        }
        Some((next, Some(at)))
    }

    fn byte(&self, at: usize) -> Known {
        self.network.get(at).copied()?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(known: &[u8]) -> Read {
        Read::Bytes(known.iter().copied().map(Some).collect())
    }

    fn udp() -> Question {
        let mut packet = vec![0; 28];
        (packet[0], packet[9]) = (0x45, 17);
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[22..24].copy_from_slice(&6500_u16.to_be_bytes());
        Question { protocol: Some(IPV4), length: 328, packet, ..Question::default() }
    }

    #[test]
    fn headers_are_read_as_far_as_they_were_captured() {
        let packet = Packet::of(&udp(), None, true);
        assert_eq!(packet.ipproto, Some(17));
        assert_eq!(packet.read(Base::Network, 12, 4), bytes(&[10, 0, 0, 1]));
        assert_eq!(packet.read(Base::Transport, 2, 2), bytes(&[0x19, 0x64]));
        assert_eq!(packet.read(Base::Transport, 8, 1), Read::Bytes(vec![None]), "it was not captured");
        assert_eq!(packet.read(Base::Transport, 307, 2), Read::Absent, "it is not in the packet");
        assert_eq!(Packet::of(&Question::default(), None, true).read(Base::Transport, 0, 1), Read::Unknown);
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut question = udp();
        question.packet[7] = 1;
        assert_eq!(Packet::of(&question, None, true).read(Base::Transport, 2, 2), Read::Absent);
    }

    #[test]
    fn ports_of_ipv6_are_behind_its_extensions() {
        let mut packet = vec![0; 60];
        (packet[0], packet[6], packet[40]) = (0x60, 0, 17);
        packet[50..52].copy_from_slice(&53_u16.to_be_bytes());
        let question = Question { protocol: Some(IPV6), length: 90, packet, ..Question::default() };
        let packet = Packet::of(&question, None, true);
        assert_eq!((packet.ipproto, packet.read(Base::Transport, 2, 2)), (Some(17), bytes(&[0, 53])));
    }

    #[test]
    fn without_a_copy_addresses_and_ports_are_known() {
        let question = Question {
            protocol: Some(IPV4),
            ipproto: Some(6),
            saddr: Some([10, 0, 0, 1].into()),
            dport: Some(22),
            ..Question::default()
        };
        let packet = Packet::of(&question, None, true);
        assert_eq!(packet.read(Base::Network, 12, 4), bytes(&[10, 0, 0, 1]));
        assert_eq!(packet.read(Base::Network, 16, 1), Read::Bytes(vec![None]));
        assert_eq!(packet.read(Base::Transport, 0, 4), Read::Bytes(vec![None, None, Some(0), Some(22)]));
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            protocol in prop::option::of(prop_oneof![Just(IPV4), Just(IPV6), any::<u16>()]),
            offset in 0..200_usize,
        ) {
            let question = Question { protocol, packet: bytes, length: 70, ..Question::default() };
            let packet = Packet::of(&question, None, true);
            let _ = (packet.read(Base::Transport, offset, 16), packet.read(Base::Network, offset, 4));
        }
    }
}
