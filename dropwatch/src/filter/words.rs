//! The words of the language.

use dropwatch_common::packet::{ethertype, family, protocol};

use super::tree::Header;

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
    protocol("tcp", BOTH, protocol::TCP),
    protocol("udp", BOTH, protocol::UDP),
    protocol("sctp", BOTH, protocol::SCTP),
    protocol("icmp", family::IPV4, protocol::ICMP),
    protocol("icmp6", family::IPV6, protocol::ICMPV6),
    protocol("igmp", family::IPV4, protocol::IGMP),
    protocol("igrp", family::IPV4, protocol::IGRP),
    protocol("pim", BOTH, protocol::PIM),
    protocol("vrrp", family::IPV4, protocol::VRRP),
    protocol("carp", family::IPV4, protocol::VRRP),
    protocol("ah", BOTH, protocol::AUTHENTICATION),
    protocol("esp", BOTH, protocol::ESP),
    protocol("gre", family::IPV4, protocol::GRE),
    protocol("ospf", family::IPV4, protocol::OSPF),
];

/// Words that are ours alone: libpcap knows them only as names of protocols, after `proto`.
pub const OURS: [&str; 2] = ["gre", "ospf"];

/// Words for ethertypes.
pub const ETHERTYPES: [(&str, u16); 4] =
    [("ip", ethertype::IPV4), ("ip6", ethertype::IPV6), ("arp", ethertype::ARP), ("rarp", ethertype::RARP)];

/// Words of libpcap for ethertypes after `ether proto`, beside those that reports print.
pub const ETHERTYPE_NAMES: [(&str, u16); 12] = [
    ("ip", ethertype::IPV4),
    ("ip6", ethertype::IPV6),
    ("arp", ethertype::ARP),
    ("rarp", ethertype::RARP),
    ("aarp", 0x80f3),
    ("atalk", 0x809b),
    ("decnet", 0x6003),
    ("lat", 0x6004),
    ("loopback", 0x9000),
    ("mopdl", 0x6001),
    ("moprc", 0x6002),
    ("sca", 0x6007),
];

/// The words that are neither a protocol's nor an ethertype's.
const OTHERS: [&str; 28] = [
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
    "link",
    "broadcast",
    "multicast",
    "vlan",
    "less",
    "greater",
    "len",
    "length",
    "reason",
    "class",
    "process",
    "container",
    "cgroup",
    "iface",
    "ifname",
    "netns",
];

/// One more word, which would not be in line with the others.
pub const LOCATION: &str = "location";

/// Words of tcpdump for what is not read here.
pub const ELSEWHERE: [&str; 27] = [
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
    "inbound",
    "outbound",
    "ifindex",
    "mpls",
    "geneve",
    "vxlan",
    "pppoes",
    "pppoed",
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

/// The header that a word stands for before `[`.
#[must_use]
pub fn header(word: &str) -> Option<Header> {
    if let Some((word, ethertype)) = ETHERTYPES.iter().find(|(known, _)| *known == word) {
        return Some(Header::Network(word, *ethertype));
    }
    match word {
        "ether" | "link" => return Some(Header::Ether),
        "icmp6" => return Some(Header::Icmp6),
        // libpcap refuses these two.
        "ah" | "esp" => return None,
        _ => {}
    }
    let known = PROTOCOLS.iter().find(|known| known.word == word && !OURS.contains(&word))?;
    Some(Header::Transport(known.word, known.number))
}

/// A number that has a name.
#[must_use]
pub fn constant(name: &str) -> Option<u32> {
    CONSTANTS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The names of numbers.
pub fn constants() -> impl Iterator<Item = &'static str> {
    CONSTANTS.iter().map(|(name, _)| *name)
}

/// The names that libpcap has for numbers: places of fields, and values of these.
const CONSTANTS: &[(&str, u32)] = &[
    ("tcpflags", 13),
    ("tcp-fin", 0x01),
    ("tcp-syn", 0x02),
    ("tcp-rst", 0x04),
    ("tcp-push", 0x08),
    ("tcp-ack", 0x10),
    ("tcp-urg", 0x20),
    ("tcp-ece", 0x40),
    ("tcp-cwr", 0x80),
    ("icmptype", 0),
    ("icmpcode", 1),
    ("icmp-echoreply", 0),
    ("icmp-unreach", 3),
    ("icmp-sourcequench", 4),
    ("icmp-redirect", 5),
    ("icmp-echo", 8),
    ("icmp-routeradvert", 9),
    ("icmp-routersolicit", 10),
    ("icmp-timxceed", 11),
    ("icmp-paramprob", 12),
    ("icmp-tstamp", 13),
    ("icmp-tstampreply", 14),
    ("icmp-ireq", 15),
    ("icmp-ireqreply", 16),
    ("icmp-maskreq", 17),
    ("icmp-maskreply", 18),
    ("icmp6type", 0),
    ("icmp6code", 1),
    ("icmp6-destinationunreach", 1),
    ("icmp6-packettoobig", 2),
    ("icmp6-timeexceeded", 3),
    ("icmp6-parameterproblem", 4),
    ("icmp6-echo", 128),
    ("icmp6-echoreply", 129),
    ("icmp6-multicastlistenerquery", 130),
    ("icmp6-multicastlistenerreportv1", 131),
    ("icmp6-multicastlistenerdone", 132),
    ("icmp6-routersolicit", 133),
    ("icmp6-routeradvert", 134),
    ("icmp6-neighborsolicit", 135),
    ("icmp6-neighboradvert", 136),
    ("icmp6-redirect", 137),
    ("icmp6-routerrenum", 138),
    ("icmp6-nodeinformationquery", 139),
    ("icmp6-nodeinformationresponse", 140),
    ("icmp6-ineighbordiscoverysolicit", 141),
    ("icmp6-ineighbordiscoveryadvert", 142),
    ("icmp6-multicastlistenerreportv2", 143),
    ("icmp6-homeagentdiscoveryrequest", 144),
    ("icmp6-homeagentdiscoveryreply", 145),
    ("icmp6-mobileprefixsolicit", 146),
    ("icmp6-mobileprefixadvert", 147),
    ("icmp6-certpathsolicit", 148),
    ("icmp6-certpathadvert", 149),
    ("icmp6-multicastrouteradvert", 151),
    ("icmp6-multicastroutersolicit", 152),
    ("icmp6-multicastrouterterm", 153),
];
