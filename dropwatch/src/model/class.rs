//! What a drop is worth, and the little of a packet that decides it where neither reason nor function does.

use std::fmt;

use dropwatch_common::kind;

pub use super::words::{Class, Destination};

impl Class {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Lost, Self::Refused, Self::Harmless];

    /// The word for it in every format, rule and filter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::Harmless => "harmless",
        }
    }

    /// The class of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Drops by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split([u64; 3]);

impl Split {
    /// Adds drops of a class.
    pub fn add(&mut self, class: Class, drops: u64) {
        self.0[class as usize] += drops;
    }

    /// Adds another one.
    pub fn join(&mut self, other: Self) {
        for (drops, more) in self.0.iter_mut().zip(other.0) {
            *drops += more;
        }
    }

    /// What is left without these drops of a class.
    #[must_use]
    pub fn without(mut self, class: Class, drops: u64) -> Self {
        self.0[class as usize] = self.of(class).saturating_sub(drops);
        self
    }

    /// `2 lost, 139 refused`: the classes that there are.
    #[must_use]
    pub fn words(self) -> String {
        let classes = Class::ALL.into_iter().filter(|class| self.of(*class) > 0);
        classes.map(|class| format!("{} {class}", self.of(class))).collect::<Vec<_>>().join(", ")
    }

    /// The drops of a class.
    #[must_use]
    pub fn of(self, class: Class) -> u64 {
        self.0[class as usize]
    }
}

/// `9 lost, 139 refused, 590 harmless`
impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lost, refused, harmless] = self.0;
        write!(f, "{lost} lost, {refused} refused, {harmless} harmless")
    }
}

impl Destination {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::NotIp,
        Self::Unicast,
        Self::EmptySegment,
        Self::Broadcast,
        Self::LinkGroup,
        Self::Group,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotIp => "not IP",
            Self::Unicast => "unicast",
            Self::EmptySegment => "empty segment",
            Self::Broadcast => "broadcast",
            Self::LinkGroup => "link group",
            Self::Group => "group",
        }
    }

    /// What the probe has found.
    #[must_use]
    pub fn of_kind(kind: u8) -> Self {
        match kind {
            kind::UNICAST => Self::Unicast,
            kind::EMPTY_SEGMENT => Self::EmptySegment,
            kind::NOT_IP => Self::NotIp,
            kind::BROADCAST => Self::Broadcast,
            kind::LINK_GROUP => Self::LinkGroup,
            kind::GROUP => Self::Group,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// A network's broadcast address looks like a host's.
    fn of(address: &str) -> Destination {
        Destination::of_kind(match address.parse().unwrap() {
            IpAddr::V4(address) => kind::of_ipv4(address.octets()),
            IpAddr::V6(address) => kind::of_ipv6(address.octets()),
        })
    }

    /// What every link-up sends is distinguished from the traffic of an application's group.
    #[test]
    fn groups_of_a_link_coming_up_are_distinguished() {
        for group in ["224.0.0.22", "224.0.0.251", "ff02::16", "ff02::2", "ff02::fb", "ff02::1:ff12:3456"] {
            assert_eq!(of(group), Destination::LinkGroup, "{group}");
        }
        for group in ["239.1.2.3", "224.0.0.5", "224.0.1.129", "ff05::2", "ff02::5", "ff02::1:fe12:3456"] {
            assert_eq!(of(group), Destination::Group, "{group}");
        }
        assert_eq!(of("10.0.0.1"), Destination::Unicast);
        assert_eq!(of("fe80::1"), Destination::Unicast);
        assert_eq!(of("255.255.255.255"), Destination::Broadcast);
    }

    /// A segment's bytes from the network header, its TCP header with an option.
    fn segment(ethertype: u16, flags: u8, data: usize) -> Vec<u8> {
        let length = u8::try_from(24 + data).expect("a short segment");
        let mut bytes = if ethertype == 0x0800 {
            [&[0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, 64, 6][..], &[0; 10]].concat()
        } else {
            [&[0x60, 0, 0, 0, 0, length, 6, 64][..], &[0; 32]].concat()
        };
        bytes.extend([&[0; 12][..], &[6 << 4, flags], &[0; 10], &vec![0; data]].concat());
        bytes
    }

    #[test]
    fn a_segment_without_data_and_syn_brings_nothing() {
        const FIN_ACK: u8 = 0x11;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        for ethertype in [0x0800, 0x86dd] {
            let is_empty =
                |flags, data| kind::is_empty_segment(ethertype, segment(ethertype, flags, data).as_slice());
            assert!(is_empty(FIN_ACK, 0) && is_empty(RST, 0));
            assert!(!is_empty(FIN_ACK, 1) && !is_empty(SYN, 0));
            let whole = segment(ethertype, FIN_ACK, 0);
            for length in 0..whole.len() - 10 {
                assert!(!kind::is_empty_segment(ethertype, &whole[..length]), "{length} bytes");
            }
            assert!(!kind::is_empty_segment(0x0806, whole.as_slice()));
        }
        let mut fragment = segment(0x0800, FIN_ACK, 0);
        fragment[6] |= 0x20;
        assert!(!kind::is_empty_segment(0x0800, fragment.as_slice()));
        let mut datagram = segment(0x0800, FIN_ACK, 0);
        datagram[9] = 17;
        assert!(!kind::is_empty_segment(0x0800, datagram.as_slice()));
    }

    /// What is lost matters most, and a class is found by the name it is printed with.
    #[test]
    fn classes_are_ordered_and_named() {
        assert!(Class::Lost < Class::Refused && Class::Refused < Class::Harmless);
        for class in Class::ALL {
            assert_eq!(Class::from_name(class.name()), Some(class));
        }
        assert_eq!(Class::from_name("Lost"), None);
    }
}
