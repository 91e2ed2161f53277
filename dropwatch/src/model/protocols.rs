//! Names of protocols, where tcpdump has one; numbers otherwise.

use std::borrow::Cow;

use dropwatch_common::packet::{ethertype, protocol};

/// A number, the name that is printed for it, and other names that it has.
type Known<T> = (T, &'static str, &'static [&'static str]);

const ETHERTYPES: &[Known<u16>] = &[
    (ethertype::IPV4, "ipv4", &["ip"]),
    (ethertype::ARP, "arp", &[]),
    (ethertype::RARP, "rarp", &[]),
    (ethertype::VLAN, "vlan", &[]),
    (ethertype::IPV6, "ipv6", &["ip6"]),
    (0x8847, "mpls", &[]),
    (0x8848, "mpls", &[]),
    (0x8863, "pppoe-discovery", &[]),
    (0x8864, "pppoe", &[]),
    (ethertype::QINQ, "qinq", &[]),
    (0x88cc, "lldp", &[]),
    (0x88e5, "macsec", &[]),
    (0x88f7, "ptp", &[]),
];

const IP_PROTOCOLS: &[Known<u8>] = &[
    (protocol::ICMP, "icmp", &[]),
    (protocol::IGMP, "igmp", &[]),
    (protocol::IPIP, "ipip", &["ipencap"]),
    (protocol::TCP, "tcp", &[]),
    (protocol::UDP, "udp", &[]),
    (protocol::DCCP, "dccp", &[]),
    (protocol::IPV6, "ipv6", &[]),
    (protocol::GRE, "gre", &[]),
    (protocol::ESP, "esp", &["ipsec-esp"]),
    (protocol::AUTHENTICATION, "ah", &["ipsec-ah"]),
    (protocol::ICMPV6, "icmp6", &["ipv6-icmp"]),
    (protocol::NONE, "none", &["ipv6-nonxt"]),
    (protocol::EIGRP, "eigrp", &[]),
    (protocol::OSPF, "ospf", &["ospfigp"]),
    (protocol::PIM, "pim", &[]),
    (protocol::VRRP, "vrrp", &["carp"]),
    (protocol::SCTP, "sctp", &[]),
    (protocol::UDP_LITE, "udplite", &[]),
];

/// Names of the system's `/etc/protocols` for numbers that reports print as numbers.
const MORE_IP_PROTOCOLS: &[Known<u8>] = &[
    (protocol::HOP_BY_HOP, "hopopt", &[]),
    (protocol::IGRP, "igrp", &[]),
    (protocol::ROUTING, "ipv6-route", &[]),
    (protocol::FRAGMENT, "ipv6-frag", &[]),
    (46, "rsvp", &[]),
    (protocol::DESTINATION, "ipv6-opts", &[]),
    (115, "l2tp", &[]),
    (protocol::MOBILITY, "mobility-header", &[]),
    (137, "mpls-in-ip", &[]),
];

/// An ethertype in words: `ipv4`, `arp`, `0x88cc`.
#[must_use]
pub fn ethertype(number: u16) -> Cow<'static, str> {
    match name(ETHERTYPES, number) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("{number:#06x}")),
    }
}

/// A protocol above IP in words: `udp`, `icmp6`, `253`.
#[must_use]
pub fn ip_protocol(number: u8) -> Cow<'static, str> {
    match name(IP_PROTOCOLS, number) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(number.to_string()),
    }
}

/// The number of an ethertype by a name of it.
#[must_use]
pub fn ethertype_number(name: &str) -> Option<u16> {
    number(ETHERTYPES, name)
}

/// The number of a protocol above IP by a name of it.
#[must_use]
pub fn ip_protocol_number(name: &str) -> Option<u8> {
    number(IP_PROTOCOLS, name).or_else(|| number(MORE_IP_PROTOCOLS, name))
}

/// The names of ethertypes.
pub fn ethertype_names() -> impl Iterator<Item = &'static str> {
    names(ETHERTYPES)
}

/// The names of protocols above IP.
pub fn ip_protocol_names() -> impl Iterator<Item = &'static str> {
    names(IP_PROTOCOLS).chain(names(MORE_IP_PROTOCOLS))
}

fn name<T: Copy + PartialEq>(known: &[Known<T>], number: T) -> Option<&'static str> {
    known.iter().find(|(of, ..)| *of == number).map(|(_, name, _)| *name)
}

fn number<T: Copy>(known: &[Known<T>], name: &str) -> Option<T> {
    known.iter().find(|(_, first, others)| *first == name || others.contains(&name)).map(|(of, ..)| *of)
}

fn names<T>(known: &'static [Known<T>]) -> impl Iterator<Item = &'static str> {
    known.iter().flat_map(|(_, name, others)| [*name].into_iter().chain(others.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_is_a_number() {
        assert_eq!(ethertype(0x0800), "ipv4");
        assert_eq!(ethertype(0x88b5), "0x88b5");
        assert_eq!(ip_protocol(17), "udp");
        assert_eq!(ip_protocol(253), "253");
    }

    #[test]
    fn no_two_numbers_have_one_name() {
        let mut names: Vec<_> = (0..=u8::MAX).map(ip_protocol).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 256);
    }

    /// A name that is printed is understood, and means the same number.
    #[test]
    fn names_lead_back_to_their_numbers() {
        for number in 0..=u8::MAX {
            let name = ip_protocol(number);
            assert_eq!(name.parse().ok().or_else(|| ip_protocol_number(&name)), Some(number), "{name}");
        }
        for number in 0..=u16::MAX {
            let name = ethertype(number);
            let digits = name.strip_prefix("0x").and_then(|digits| u16::from_str_radix(digits, 16).ok());
            let back = digits.or_else(|| ethertype_number(&name));
            // One name is of two numbers.
            assert!(back == Some(number) || name == "mpls" && back == Some(0x8847), "{name}");
        }
        let mut names: Vec<_> = ip_protocol_names().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "two numbers with one name");
    }
}
