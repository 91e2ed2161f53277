//! What an expression says, and its words again.

mod relation;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use dropwatch_common::packet::{ethertype, family, transport};

pub use self::relation::{Access, Comparison, Header, Number, Operation, Relation};
use super::{lexer, words};
use crate::model::{belonging::Belonging, class::Class, namespace::WhichNetns, symbol_spec::SymbolSpec};

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// One question.
    Term(Term),
    /// Negation.
    Not(Box<Expr>),
    /// Both; the second is tested only if the first holds.
    And(Box<Expr>, Box<Expr>),
    /// Either; the second is tested only if the first does not hold.
    Or(Box<Expr>, Box<Expr>),
}

/// One question about a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// The ethertype.
    Ethertype(u16),
    /// The protocol above IP.
    Protocol {
        /// Bits of [`family`]: which versions of IP.
        families: u8,
        /// Its number.
        number: u8,
    },
    /// An address, or a network's.
    Address {
        /// Bits of [`family`]: whose addresses.
        families: u8,
        /// Of which end.
        direction: Direction,
        /// Which.
        net: Net,
    },
    /// A port of a range.
    Port {
        /// Bits of [`transport`]: whose ports.
        transports: u8,
        /// Of which end.
        direction: Direction,
        /// The range, ends included.
        range: (u16, u16),
    },
    /// A hardware address.
    Hardware {
        /// Of which end.
        direction: Direction,
        /// Its bytes.
        address: [u8; 6],
    },
    /// A destination that is a group of hosts, as Ethernet marks it.
    Group,
    /// A VLAN tag, of that number if there is one.
    Vlan(Option<u16>),
    /// Two numbers compared.
    Relation(Relation),
    /// Bytes from the network header on: a range, ends included.
    Length(u32, u32),
    /// A reason for the drop.
    Reason {
        /// As it was written.
        name: String,
        /// The kernel's numbers for it.
        codes: Vec<u32>,
    },
    /// What the drop is worth.
    Class(Class),
    /// Whose the drop is.
    Belongs(Belonging),
    /// An interface's name.
    Iface(String),
    /// A network namespace.
    Netns {
        /// As it was written.
        name: String,
        /// What that means.
        which: WhichNetns,
    },
    /// A place in the kernel.
    Location(SymbolSpec),
    /// The same by its address.
    CodeAddress(u64),
}

/// Which end of a packet's path is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
    /// One of them.
    Either,
    /// Both.
    Both,
}

/// Addresses that have some bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// The address; bits that do not count are zero.
    pub address: IpAddr,
    /// The bits that count, in the address's own bytes, which are the first four for IPv4.
    pub mask: [u8; 16],
}

impl Net {
    /// A network of IPv4.
    #[must_use]
    pub fn v4(address: u32, mask: u32) -> Self {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&mask.to_be_bytes());
        Self { address: Ipv4Addr::from(address & mask).into(), mask: bytes }
    }

    /// A network of IPv6, by the number of bits that count.
    #[must_use]
    pub fn v6(address: Ipv6Addr, bits: u32) -> Self {
        let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
        let address = Ipv6Addr::from(u128::from(address) & mask);
        Self { address: address.into(), mask: mask.to_be_bytes() }
    }

    /// The address's bytes; one of IPv4 is in the first four.
    #[must_use]
    pub fn bytes(&self) -> [u8; 16] {
        match self.address {
            IpAddr::V4(address) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&address.octets());
                bytes
            }
            IpAddr::V6(address) => address.octets(),
        }
    }

    /// How many leading bits count, if only leading bits do.
    fn prefix(&self) -> Option<u32> {
        let mask = u128::from_be_bytes(self.mask);
        let bits = mask.leading_ones();
        (bits == mask.count_ones()).then_some(bits)
    }
}

impl Direction {
    /// What is written before `host` or `port`.
    fn words(self) -> &'static str {
        match self {
            Self::Source => "src ",
            Self::Destination => "dst ",
            Self::Either => "",
            Self::Both => "src and dst ",
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(term) => term.fmt(f),
            Self::Not(inner) => match **inner {
                Self::Term(_) | Self::Not(_) => write!(f, "not {inner}"),
                Self::And(..) | Self::Or(..) => write!(f, "not ({inner})"),
            },
            Self::And(left, right) => {
                // `and` and `or` bind alike: a mixture is clearer with parentheses than without.
                match **left {
                    Self::Or(..) => write!(f, "({left})")?,
                    _ => write!(f, "{left}")?,
                }
                f.write_str(" and ")?;
                right.fmt_right(f)
            }
            Self::Or(left, right) => {
                match **left {
                    Self::And(..) => write!(f, "({left})")?,
                    _ => write!(f, "{left}")?,
                }
                f.write_str(" or ")?;
                right.fmt_right(f)
            }
        }
    }
}

impl Expr {
    fn fmt_right(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(_) | Self::Not(_) => write!(f, "{self}"),
            Self::And(..) | Self::Or(..) => write!(f, "({self})"),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ethertype(number) => fmt_ethertype(*number, f),
            Self::Protocol { families, number } => fmt_protocol(*families, *number, f),
            Self::Address { families, direction, net } => {
                write!(f, "{}{}{net}", address_prefix(*families), direction.words())
            }
            Self::Port { transports, direction, range } => {
                write!(f, "{}{}", transport_prefix(*transports), direction.words())?;
                match range {
                    (low, high) if low == high => write!(f, "port {low}"),
                    (low, high) => write!(f, "portrange {low}-{high}"),
                }
            }
            Self::Hardware { direction, address } => {
                write!(f, "ether {}host {}", direction.words(), hardware(*address))
            }
            Self::Group => f.write_str("ether multicast"),
            Self::Vlan(None) => f.write_str("vlan"),
            Self::Vlan(Some(number)) => write!(f, "vlan {number}"),
            Self::Relation(relation) => relation.fmt(f),
            Self::Length(0, most) => write!(f, "less {most}"),
            Self::Length(least, _) => write!(f, "greater {least}"),
            Self::Reason { name, .. } => write!(f, "reason {}", lexer::quoted(name)),
            Self::Class(class) => write!(f, "class {class}"),
            Self::Belongs(to) => {
                let (word, name) = to.words();
                write!(f, "{word} {}", lexer::quoted(name))
            }
            Self::Iface(name) => write!(f, "iface {}", lexer::quoted(name)),
            Self::Netns { name, .. } => write!(f, "netns {}", lexer::quoted(name)),
            Self::CodeAddress(address) => write!(f, "location {address:#x}"),
            Self::Location(place) => write!(f, "location {}", lexer::quoted(&place.to_string())),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        let all = if address.is_ipv4() { 32 } else { 128 };
        match self.prefix() {
            Some(bits) if bits == all => write!(f, "host {address}"),
            Some(bits) => write!(f, "net {address}/{bits}"),
            None => {
                let mask = self.mask.first_chunk::<4>().copied().unwrap_or_default();
                write!(f, "net {address} mask {}", Ipv4Addr::from(mask))
            }
        }
    }
}

/// A hardware address as it is written.
fn hardware(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

fn fmt_ethertype(number: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match number {
        ethertype::IPV4 => f.write_str("ip"),
        ethertype::IPV6 => f.write_str("ip6"),
        ethertype::ARP => f.write_str("arp"),
        ethertype::RARP => f.write_str("rarp"),
        _ => write!(f, "ether proto {number:#06x}"),
    }
}

fn fmt_protocol(families: u8, number: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_it = |known: &words::Protocol| {
        // After `ip6 proto` our words would be read as values of it.
        (known.families, known.number) == (families, number) && !words::OURS.contains(&known.word)
    };
    let word = words::PROTOCOLS.into_iter().find(is_it);
    match (word, families) {
        (Some(known), _) => f.write_str(known.word),
        (None, family::IPV4) => write!(f, "ip proto {number}"),
        (None, family::IPV6) => write!(f, "ip6 proto {number}"),
        (None, _) => write!(f, "proto {number}"),
    }
}

fn address_prefix(families: u8) -> &'static str {
    match families {
        family::IPV4 => "ip ",
        family::ARP => "arp ",
        family::RARP => "rarp ",
        _ => "",
    }
}

fn transport_prefix(transports: u8) -> &'static str {
    match transports {
        transport::TCP => "tcp ",
        transport::UDP => "udp ",
        transport::SCTP => "sctp ",
        _ => "",
    }
}
