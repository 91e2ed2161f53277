//! Numbers that packets have, and bits that stand for what they say.

/// Ethertypes that are looked into.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// Reverse ARP.
    pub const RARP: u16 = 0x8035;
    /// A VLAN tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// An outer VLAN tag.
    pub const QINQ: u16 = 0x88a8;
}

/// Protocol numbers that are looked into.
pub mod protocol {
    /// Hop-by-hop options, an extension header of IPv6.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// IPv4 inside IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// IGRP.
    pub const IGRP: u8 = 9;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 inside IP.
    pub const IPV6: u8 = 41;
    /// A routing header of IPv6.
    pub const ROUTING: u8 = 43;
    /// A fragment header of IPv6.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// An authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing.
    pub const NONE: u8 = 59;
    /// Destination options, an extension header of IPv6.
    pub const DESTINATION: u8 = 60;
    /// EIGRP.
    pub const EIGRP: u8 = 88;
    /// OSPF.
    pub const OSPF: u8 = 89;
    /// PIM.
    pub const PIM: u8 = 103;
    /// VRRP, also CARP.
    pub const VRRP: u8 = 112;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// A mobility header of IPv6.
    pub const MOBILITY: u8 = 135;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// Bits of [`Packet::family`](crate::packet::Packet::family): how the bytes are read.
pub mod family {
    /// As IPv4.
    pub const IPV4: u8 = 1;
    /// As IPv6.
    pub const IPV6: u8 = 2;
    /// As ARP.
    pub const ARP: u8 = 4;
    /// As reverse ARP.
    pub const RARP: u8 = 8;
}

/// Bits of [`Packet::transport`](crate::packet::Packet::transport): whose ports the packet has.
pub mod transport {
    /// TCP.
    pub const TCP: u8 = 1;
    /// UDP.
    pub const UDP: u8 = 2;
    /// SCTP.
    pub const SCTP: u8 = 4;
    /// One that has ports and that no filter's `port` is about: DCCP, UDP-Lite.
    pub const OTHER: u8 = 8;
    /// Any that a filter's `port` is about.
    pub const ANY: u8 = TCP | UDP | SCTP;
}

/// Bits of [`Packet::cut`](crate::packet::Packet::cut): fields that the packet should have, and that lie beyond its bytes.
pub mod cut {
    /// [`Packet::next_header`](crate::packet::Packet::next_header).
    pub const NEXT_HEADER: u8 = 1;
    /// [`Packet::fragment_next`](crate::packet::Packet::fragment_next).
    pub const FRAGMENT_NEXT: u8 = 2;
    /// [`Packet::saddr`](crate::packet::Packet::saddr), or the end of it.
    pub const SADDR: u8 = 4;
    /// [`Packet::daddr`](crate::packet::Packet::daddr), or the end of it.
    pub const DADDR: u8 = 8;
    /// [`Packet::sport`](crate::packet::Packet::sport).
    pub const SPORT: u8 = 16;
    /// [`Packet::dport`](crate::packet::Packet::dport).
    pub const DPORT: u8 = 32;
}

/// Bits of [`Packet::known`](crate::packet::Packet::known): fields fit to be shown.
pub mod known {
    /// The source is an IP address.
    pub const SADDR: u8 = 1;
    /// The destination is an IP address.
    pub const DADDR: u8 = 2;
    /// The protocol above IP.
    pub const IPPROTO: u8 = 4;
    /// The source port.
    pub const SPORT: u8 = 8;
    /// The destination port.
    pub const DPORT: u8 = 16;
}
