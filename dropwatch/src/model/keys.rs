//! What a row can stand for.

use dropwatch_common::{
    probe::{gather, keys},
    row::{RowKey, known},
};

use crate::model::suggestions;

/// A key of `--by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Where the packet was dropped.
    Location,
    /// In which function of which module: derived from the location in user space.
    Function,
    /// Why.
    Reason,
    /// What such a drop is worth: derived from location, reason and the kind of the packet, which is what the kernel
    /// counts for it.
    Class,
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
    /// Of which socket.
    Socket,
    /// Of which process: derived from the socket in user space.
    Process,
    /// In which container, service or cgroup: derived from the socket in user space.
    Container,
    /// The call chain.
    Stack,
}

impl Key {
    /// All there are, in the order in which they are explained.
    pub const ALL: [Self; 17] = [
        Self::Location,
        Self::Function,
        Self::Reason,
        Self::Class,
        Self::Iface,
        Self::Netns,
        Self::Protocol,
        Self::IpProto,
        Self::Saddr,
        Self::Daddr,
        Self::Sport,
        Self::Dport,
        Self::Cpu,
        Self::Socket,
        Self::Process,
        Self::Container,
        Self::Stack,
    ];

    /// The word for it in options and reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Location => "location",
            Self::Function => "function",
            Self::Reason => "reason",
            Self::Class => "class",
            Self::Iface => "iface",
            Self::Netns => "netns",
            Self::Protocol => "protocol",
            Self::IpProto => "ipproto",
            Self::Saddr => "saddr",
            Self::Daddr => "daddr",
            Self::Sport => "sport",
            Self::Dport => "dport",
            Self::Cpu => "cpu",
            Self::Socket => "socket",
            Self::Process => "process",
            Self::Container => "container",
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
            let hint = suggestions::hint(word, words.iter().copied());
            format!("there is no key '{word}'{hint} (known keys: {})", words.join(", "))
        })
    }

    /// Whether user space derives it from what the kernel counts.
    #[must_use]
    pub fn is_derived(self) -> bool {
        matches!(self, Self::Function | Self::Class | Self::Process | Self::Container)
    }

    /// Its bit in what the probe counts by.
    #[must_use]
    pub fn bit(self) -> u32 {
        match self {
            Self::Location | Self::Function => keys::LOCATION,
            Self::Reason => keys::REASON,
            Self::Class => keys::KIND,
            Self::Iface => keys::IFACE,
            Self::Netns => keys::NETNS,
            Self::Protocol => keys::PROTOCOL,
            Self::IpProto => keys::IPPROTO,
            Self::Saddr => keys::SADDR,
            Self::Daddr => keys::DADDR,
            Self::Sport => keys::SPORT,
            Self::Dport => keys::DPORT,
            Self::Cpu => keys::CPU,
            Self::Socket | Self::Process | Self::Container => keys::SOCKET,
            // A chain starts where the packet was dropped.
            Self::Stack => keys::STACK | keys::LOCATION,
        }
    }

    /// What the probe has to find out about a drop to count by it.
    #[must_use]
    pub fn gathered(self) -> u32 {
        match self {
            Self::Location
            | Self::Function
            | Self::Reason
            | Self::Class
            | Self::Cpu
            | Self::Socket
            | Self::Process
            | Self::Container
            | Self::Stack => 0,
            Self::Iface => gather::IFACE | gather::IFACE_NAME,
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
            Self::Function | Self::Process | Self::Container => 0,
            Self::Socket => {
                to.socket = from.socket;
                0
            }
            Self::Reason => {
                to.reason = from.reason;
                0
            }
            Self::Class => {
                to.kind = from.kind;
                known::KIND
            }
            Self::Cpu => {
                to.cpu = from.cpu;
                0
            }
            Self::Iface => {
                (to.ifindex, to.iface) = (from.ifindex, from.iface);
                (to.netns, to.cookie) = (from.netns, from.cookie);
                to.names = from.names;
                known::IFACE
            }
            Self::Netns => {
                (to.netns, to.cookie) = (from.netns, from.cookie);
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

/// What the kernel counts by for these keys, each once: what a class depends on as well, wherever it can be told.
#[must_use]
pub fn counted(by: &[Key]) -> Vec<Key> {
    let mut counted = Vec::with_capacity(by.len() + 2);
    let mut add = |key| {
        if !counted.contains(&key) {
            counted.push(key);
        }
    };
    for key in by {
        match key {
            Key::Function => add(Key::Location),
            Key::Process | Key::Container => add(Key::Socket),
            Key::Class => [Key::Location, Key::Reason].into_iter().for_each(&mut add),
            key => add(*key),
        }
    }
    if counted.contains(&Key::Location) && counted.contains(&Key::Reason) {
        counted.push(Key::Class);
    }
    counted
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
            iface: [13; 16],
            cookie: 14,
            socket: 15,
            reason: 5,
            netns: 6,
            ifindex: 7,
            cpu: 8,
            protocol: 9,
            sport: 10,
            dport: 11,
            ipproto: 12,
            names: 15,
            kind: 15,
            known: 0xff & !known::IPV4 | known::KIND,
        };
        assert_eq!(project(&full, &Key::ALL), full);
        assert_eq!(project(&full, &[]), RowKey::default());
        assert_eq!(project(&full, &[Key::Function]), RowKey::default(), "it is not the kernel's");
        let iface = project(&full, &[Key::Iface]);
        let expected = RowKey {
            ifindex: 7,
            iface: [13; 16],
            names: 15,
            netns: 6,
            cookie: 14,
            known: known::IFACE,
            ..RowKey::default()
        };
        assert_eq!(iface, expected);
        let flow = project(&full, &[Key::Daddr, Key::Dport]);
        let expected =
            RowKey { daddr: [4; 16], dport: 11, known: known::IPV6 | known::PORTS, ..RowKey::default() };
        assert_eq!(flow, expected);
    }

    #[test]
    fn a_derived_key_is_counted_by_what_it_comes_from() {
        assert_eq!(counted(&[Key::Function, Key::Location, Key::Cpu]), [Key::Location, Key::Cpu]);
        let all = [Key::Location, Key::Reason, Key::Class];
        assert_eq!(counted(&[Key::Class]), all);
        assert_eq!(counted(&[Key::Location, Key::Reason]), all, "each row has a class");
        assert_eq!(counted(&[Key::Reason]), [Key::Reason], "no row has one");
        assert!(Key::ALL.iter().all(|&key| counted(&counted(&[key])) == counted(&[key])));
    }
}
