//! The words of the language.

use dropwatch_common::packet::{ethertype, family};

/// A word that stands for a protocol above IP.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// The word.
    pub word: &'static str,
    /// Bits of [`family`]: the versions of IP it is looked for in.
    pub families: u8,
    /// Its number.
    pub number: u8,
}

const BOTH: u8 = family::IPV4 | family::IPV6;

const fn protocol(word: &'static str, families: u8, number: u8) -> Protocol {
    Protocol { word, families, number }
}

/// Words for protocols above IP. Where two mean the same, the first is what is printed.
pub const PROTOCOLS: [Protocol; 14] = [
    protocol("tcp", BOTH, 6),
    protocol("udp", BOTH, 17),
    protocol("sctp", BOTH, 132),
    protocol("icmp", family::IPV4, 1),
    protocol("icmp6", family::IPV6, 58),
    protocol("igmp", family::IPV4, 2),
    protocol("igrp", family::IPV4, 9),
    protocol("pim", BOTH, 103),
    protocol("vrrp", family::IPV4, 112),
    protocol("carp", family::IPV4, 112),
    protocol("ah", BOTH, 51),
    protocol("esp", BOTH, 50),
    protocol("gre", family::IPV4, 47),
    protocol("ospf", family::IPV4, 89),
];

/// Words that are ours alone: libpcap knows them only as names of protocols, after `proto`.
pub const OURS: [&str; 2] = ["gre", "ospf"];

/// Words for ethertypes.
pub const ETHERTYPES: [(&str, u16); 4] =
    [("ip", ethertype::IPV4), ("ip6", ethertype::IPV6), ("arp", ethertype::ARP), ("rarp", ethertype::RARP)];

/// Names for numbers after `ip proto`: those of `/etc/protocols` that are in use.
pub const PROTOCOL_NAMES: [(&str, u8); 24] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("tcp", 6),
    ("igrp", 9),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("icmp6", 58),
    ("ipv6-nonxt", 59),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
    ("mpls-in-ip", 137),
];

/// Names for numbers after `ether proto`.
pub const ETHERTYPE_NAMES: [(&str, u16); 6] = [
    ("ip", ethertype::IPV4),
    ("ip6", ethertype::IPV6),
    ("arp", ethertype::ARP),
    ("rarp", ethertype::RARP),
    ("decnet", 0x6003),
    ("loopback", 0x9000),
];

/// The words that are neither a protocol's nor an ethertype's.
pub const OTHERS: [&str; 18] = [
    "and",
    "or",
    "not",
    "host",
    "net",
    "mask",
    "port",
    "portrange",
    "proto",
    "src",
    "dst",
    "ether",
    "less",
    "greater",
    "reason",
    "iface",
    "ifname",
    "netns",
];

/// One more word, which would not be in line with the others.
pub const LOCATION: &str = "location";

/// Words of tcpdump that ask for what is not read here.
pub const ELSEWHERE: [&str; 30] = [
    "link",
    "ppp",
    "slip",
    "fddi",
    "tr",
    "wlan",
    "atalk",
    "aarp",
    "decnet",
    "lat",
    "sca",
    "moprc",
    "mopdl",
    "iso",
    "stp",
    "ipx",
    "netbeui",
    "protochain",
    "gateway",
    "byte",
    "broadcast",
    "multicast",
    "len",
    "length",
    "inbound",
    "outbound",
    "ifindex",
    "vlan",
    "mpls",
    "geneve",
];

/// Every word of the language.
pub fn all() -> impl Iterator<Item = &'static str> {
    let protocols = PROTOCOLS.iter().map(|protocol| protocol.word);
    let ethertypes = ETHERTYPES.iter().map(|(word, _)| *word);
    OTHERS.into_iter().chain([LOCATION]).chain(protocols).chain(ethertypes)
}

/// Whether a word has a meaning of its own.
#[must_use]
pub fn is_keyword(word: &str) -> bool {
    all().any(|known| known == word)
}
