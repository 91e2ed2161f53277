//! Names of protocols, where tcpdump has one; numbers otherwise.

use std::borrow::Cow;

/// An ethertype in words: `ipv4`, `arp`, `0x88cc`.
#[must_use]
pub fn ethertype(number: u16) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        0x0800 => "ipv4",
        0x0806 => "arp",
        0x8035 => "rarp",
        0x8100 => "vlan",
        0x86dd => "ipv6",
        0x8847 | 0x8848 => "mpls",
        0x8863 => "pppoe-discovery",
        0x8864 => "pppoe",
        0x88a8 => "qinq",
        0x88cc => "lldp",
        0x88e5 => "macsec",
        0x88f7 => "ptp",
        _ => return Cow::Owned(format!("{number:#06x}")),
    })
}

/// A protocol above IP in words: `udp`, `icmp6`, `253`.
#[must_use]
pub fn ip_protocol(number: u8) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmp6",
        59 => "none",
        88 => "eigrp",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        136 => "udplite",
        _ => return Cow::Owned(number.to_string()),
    })
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
}
