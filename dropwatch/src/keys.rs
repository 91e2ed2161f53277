//! What a row can stand for.

use dropwatch_common::{
    probe::{gather, keys},
    row::{RowKey, known},
};

use crate::spelling;

/// A key of `--by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Where the packet was dropped.
    Location,
    /// Why.
    Reason,
    /// On which interface, in which namespace.
    Iface,
    /// In which network namespace.
    Netns,
    /// The ethertype.
    Protocol,
    /// The transport protocol, behind the extension headers of IPv6.
    IpProto,
    /// The source address.
    Saddr,
    /// The destination address.
    Daddr,
    /// The source port.
    Sport,
    /// The destination port.
    Dport,
    /// On which CPU.
    Cpu,
    /// The call chain.
    Stack,
}

impl Key {
    /// All there are, in the order in which they are explained.
    pub const ALL: [Self; 12] = [
        Self::Location,
        Self::Reason,
        Self::Iface,
        Self::Netns,
        Self::Protocol,
        Self::IpProto,
        Self::Saddr,
        Self::Daddr,
        Self::Sport,
        Self::Dport,
        Self::Cpu,
        Self::Stack,
    ];

    /// The word for it in options and reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Location => "location",
            Self::Reason => "reason",
            Self::Iface => "iface",
            Self::Netns => "netns",
            Self::Protocol => "protocol",
            Self::IpProto => "ipproto",
            Self::Saddr => "saddr",
            Self::Daddr => "daddr",
            Self::Sport => "sport",
            Self::Dport => "dport",
            Self::Cpu => "cpu",
            Self::Stack => "stack",
        }
    }

    /// The key with a word, among `keys`.
    ///
    /// # Errors
    /// What the word may have been meant to be, and what there is.
    pub fn find(word: &str, keys: &[Self]) -> Result<Self, String> {
        keys.iter().copied().find(|key| key.word() == word).ok_or_else(|| {
            let words: Vec<_> = keys.iter().map(|key| key.word()).collect();
            let hint = spelling::hint(word, words.iter().copied());
            format!("there is no key '{word}'{hint} (it takes {})", words.join(", "))
        })
    }

    /// Its bit in what the probe counts by.
    #[must_use]
    pub fn bit(self) -> u32 {
        match self {
            Self::Location => keys::LOCATION,
            Self::Reason => keys::REASON,
            Self::Iface => keys::IFACE,
            Self::Netns => keys::NETNS,
            Self::Protocol => keys::PROTOCOL,
            Self::IpProto => keys::IPPROTO,
            Self::Saddr => keys::SADDR,
            Self::Daddr => keys::DADDR,
            Self::Sport => keys::SPORT,
            Self::Dport => keys::DPORT,
            Self::Cpu => keys::CPU,
            // A chain starts where the packet was dropped.
            Self::Stack => keys::STACK | keys::LOCATION,
        }
    }

    /// What the probe has to find out about a drop to count by it.
    #[must_use]
    pub fn gathered(self) -> u32 {
        match self {
            Self::Location | Self::Reason | Self::Cpu | Self::Stack => 0,
            Self::Iface => gather::IFACE,
            Self::Netns => gather::NETNS,
            Self::Protocol => gather::PROTOCOL,
            Self::IpProto | Self::Saddr | Self::Daddr | Self::Sport | Self::Dport => gather::HEADERS,
        }
    }

    /// Copies what this key says from one row's key to another.
    fn copy(self, from: &RowKey, to: &mut RowKey) {
        let bits = match self {
            Self::Location => {
                to.location = from.location;
                0
            }
            Self::Reason => {
                to.reason = from.reason;
                0
            }
            Self::Cpu => {
                to.cpu = from.cpu;
                0
            }
            Self::Iface => {
                (to.ifindex, to.netns) = (from.ifindex, from.netns);
                known::IFACE
            }
            Self::Netns => {
                to.netns = from.netns;
                known::NETNS
            }
            Self::Protocol => {
                to.protocol = from.protocol;
                known::PROTOCOL
            }
            Self::IpProto => {
                to.ipproto = from.ipproto;
                known::IPPROTO
            }
            Self::Saddr => {
                to.saddr = from.saddr;
                known::IPV4 | known::IPV6
            }
            Self::Daddr => {
                to.daddr = from.daddr;
                known::IPV4 | known::IPV6
            }
            Self::Sport => {
                to.sport = from.sport;
                known::PORTS
            }
            Self::Dport => {
                to.dport = from.dport;
                known::PORTS
            }
            Self::Stack => {
                to.stack = from.stack;
                known::STACK
            }
        };
        to.known |= from.known & bits;
    }
}

/// A row's key with only what these keys say.
#[must_use]
pub fn project(key: &RowKey, by: &[Key]) -> RowKey {
    let mut projected = RowKey::default();
    for part in by {
        part.copy(key, &mut projected);
    }
    projected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_again() {
        for key in Key::ALL {
            assert_eq!(Key::find(key.word(), &Key::ALL), Ok(key));
        }
    }

    #[test]
    fn a_mistyped_word_gets_the_nearest_one() {
        let error = Key::find("locaton", &Key::ALL).expect_err("no such key");
        assert!(error.contains("did you mean 'location'?"), "{error}");
        let error = Key::find("zzz", &Key::ALL).expect_err("no such key");
        assert!(!error.contains("did you mean") && error.contains("ipproto, saddr"), "{error}");
    }

    #[test]
    fn a_projection_keeps_what_was_asked_for_and_nothing_else() {
        let full = RowKey {
            location: 1,
            stack: 2,
            saddr: [3; 16],
            daddr: [4; 16],
            reason: 5,
            netns: 6,
            ifindex: 7,
            cpu: 8,
            protocol: 9,
            sport: 10,
            dport: 11,
            ipproto: 12,
            known: !known::IPV4,
        };
        assert_eq!(project(&full, &Key::ALL), full);
        assert_eq!(project(&full, &[]), RowKey::default());
        let iface = project(&full, &[Key::Iface]);
        assert_eq!(iface, RowKey { ifindex: 7, netns: 6, known: known::IFACE, ..RowKey::default() });
        let flow = project(&full, &[Key::Daddr, Key::Dport]);
        let expected =
            RowKey { daddr: [4; 16], dport: 11, known: known::IPV6 | known::PORTS, ..RowKey::default() };
        assert_eq!(flow, expected);
    }
}
