//! What a packet says about itself: addresses, protocols, ports.
//!
//! The BPF program and the tests run this one reading. So it has no loop without a small constant bound, no
//! recursion, no index that is not a constant, and nothing that could panic.

/// How far [`Bytes::near`] reaches: an IPv6 header and the ports behind it.
pub const NEAR: usize = 44;

/// How many extension headers of IPv6 are followed.
pub const MAX_EXTENSIONS: u32 = 8;

/// The bytes of a packet from its network header on.
pub trait Bytes {
    /// `N` bytes at a fixed offset; `OFFSET + N` is at most [`NEAR`].
    ///
    /// `None` if the packet ends before. In BPF these come from a single read into the stack.
    fn near<const OFFSET: usize, const N: usize>(&self) -> Option<[u8; N]>;

    /// `N` bytes at any offset; `None` if the packet ends before. In BPF each call reads kernel memory.
    fn far<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn near<const OFFSET: usize, const N: usize>(&self) -> Option<[u8; N]> {
        const { assert!(OFFSET + N <= NEAR) };
        self.get(OFFSET..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn far<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }
}

/// Ethertypes that are looked into.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// Reverse ARP.
    pub const RARP: u16 = 0x8035;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// Protocol numbers that are looked into.
pub mod protocol {
    /// Hop-by-hop options, an extension header of IPv6.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// A routing header of IPv6.
    pub const ROUTING: u8 = 43;
    /// A fragment header of IPv6.
    pub const FRAGMENT: u8 = 44;
    /// An authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// Destination options, an extension header of IPv6.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// Bits of [`Packet::family`]: how the bytes are read.
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

/// Bits of [`Packet::transport`]: whose ports the packet has.
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

/// Bits of [`Packet::cut`]: fields that the packet should have, and that lie beyond its bytes.
pub mod cut {
    /// [`Packet::next_header`](super::Packet::next_header).
    pub const NEXT_HEADER: u8 = 1;
    /// [`Packet::fragment_next`](super::Packet::fragment_next).
    pub const FRAGMENT_NEXT: u8 = 2;
    /// [`Packet::saddr`](super::Packet::saddr), or the end of it.
    pub const SADDR: u8 = 4;
    /// [`Packet::daddr`](super::Packet::daddr), or the end of it.
    pub const DADDR: u8 = 8;
    /// [`Packet::sport`](super::Packet::sport).
    pub const SPORT: u8 = 16;
    /// [`Packet::dport`](super::Packet::dport).
    pub const DPORT: u8 = 32;
}

/// Bits of [`Packet::known`]: fields fit to be shown.
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

/// What is read from a packet's headers.
///
/// There are two readers. A filter decides as libpcap does, which believes the ethertype and checks nothing
/// else: it asks [`family`](Self::family), [`transport`](Self::transport) and [`cut`](Self::cut). A report
/// must not invent: it asks [`known`](Self::known), which has no bit for a header that contradicts itself.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The source address; one of IPv4 (also of the sender in ARP) is in the first four bytes.
    pub saddr: [u8; 16],
    /// The destination address, or the target's in ARP.
    pub daddr: [u8; 16],
    /// The source port.
    pub sport: u16,
    /// The destination port.
    pub dport: u16,
    /// The ethertype: inside a VLAN tag, that of the packet proper.
    pub ethertype: u16,
    /// The protocol above IP, behind the extension headers of IPv6. Its bit is in [`known`].
    pub ipproto: u8,
    /// The protocol byte of the IP header itself.
    pub next_header: u8,
    /// What a fragment header of IPv6 names next, if it directly follows the IP header.
    pub fragment_next: u8,
    /// One bit of [`family`], or none.
    pub family: u8,
    /// Bits of [`transport`]: all of them if the protocol is cut off.
    pub transport: u8,
    /// Bits of [`cut`].
    pub cut: u8,
    /// Bits of [`known`].
    pub known: u8,
    /// How many whole words there are of a source address that is cut.
    pub saddr_words: u8,
    /// How many whole words there are of a destination address that is cut.
    pub daddr_words: u8,
    /// Keeps the size a multiple of eight; always zero.
    pub pad: u8,
}

const _: () = assert!(size_of::<Packet>() == 48 && align_of::<Packet>() == 8);

/// Reads the headers of a packet from its network header on.
#[inline(always)]
#[must_use]
pub fn parse(bytes: &(impl Bytes + ?Sized), ethertype: u16) -> Packet {
    let mut packet = Packet::default();
    parse_into(bytes, ethertype, &mut packet);
    packet
}

/// The same into a packet that is all zeros: the kernel's stack has no room to move one.
#[inline(always)]
pub fn parse_into(bytes: &(impl Bytes + ?Sized), ethertype: u16, packet: &mut Packet) {
    packet.ethertype = ethertype;
    match ethertype {
        ethertype::IPV4 => parse_ipv4(bytes, packet),
        ethertype::IPV6 => parse_ipv6(bytes, packet),
        ethertype::ARP => parse_arp(bytes, packet, family::ARP),
        ethertype::RARP => parse_arp(bytes, packet, family::RARP),
        _ => {}
    }
}

/// Whether the IP version is the one that the ethertype promises.
#[inline(always)]
fn version_is(bytes: &(impl Bytes + ?Sized), version: u8) -> bool {
    match bytes.near::<0, 1>() {
        Some([first]) => first >> 4 == version,
        None => false,
    }
}

/// Addresses of Ethernet and IPv4: the only kind of ARP there is, and all that libpcap looks for.
#[inline(always)]
fn parse_arp(bytes: &(impl Bytes + ?Sized), packet: &mut Packet, family: u8) {
    packet.family = family;
    match bytes.near::<14, 4>() {
        Some(address) => packet.saddr[..4].copy_from_slice(&address),
        None => packet.cut |= cut::SADDR,
    }
    match bytes.near::<24, 4>() {
        Some(address) => packet.daddr[..4].copy_from_slice(&address),
        None => packet.cut |= cut::DADDR,
    }
}

#[inline(always)]
fn parse_ipv4(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.family = family::IPV4;
    match bytes.near::<12, 4>() {
        Some(address) => {
            packet.saddr[..4].copy_from_slice(&address);
            packet.known |= known::SADDR;
        }
        None => packet.cut |= cut::SADDR,
    }
    match bytes.near::<16, 4>() {
        Some(address) => {
            packet.daddr[..4].copy_from_slice(&address);
            packet.known |= known::DADDR;
        }
        None => packet.cut |= cut::DADDR,
    }
    let (Some([first]), Some([high, low, _, protocol])) = (bytes.near::<0, 1>(), bytes.near::<6, 4>()) else {
        protocol_is_cut(packet);
        return;
    };
    packet.next_header = protocol;
    packet.ipproto = protocol;
    packet.known |= known::IPPROTO;
    if u16::from_be_bytes([high & 0x1f, low]) == 0 {
        packet.transport = transport_of(protocol);
    }
    parse_ipv4_ports(bytes, packet, first & 0x0f);
    if first >> 4 != 4 {
        packet.known = 0;
    }
}

#[inline(always)]
fn parse_ipv4_ports(bytes: &(impl Bytes + ?Sized), packet: &mut Packet, header_words: u8) {
    if packet.transport == 0 {
        return;
    }
    if header_words == 5 {
        set_ports(packet, bytes.near::<20, 4>(), || bytes.near::<20, 2>());
        return;
    }
    let at = u32::from(header_words) * 4;
    set_ports(packet, bytes.far(at), || bytes.far(at));
    if header_words < 5 {
        // Inside the header itself: libpcap compares them, nobody calls them ports.
        packet.known &= !(known::SPORT | known::DPORT);
    }
}

#[inline(always)]
fn parse_ipv6(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.family = family::IPV6;
    match bytes.near::<8, 16>() {
        Some(address) => {
            packet.saddr = address;
            packet.known |= known::SADDR;
        }
        None => cut_source(bytes, packet),
    }
    match bytes.near::<24, 16>() {
        Some(address) => {
            packet.daddr = address;
            packet.known |= known::DADDR;
        }
        None => cut_destination(bytes, packet),
    }
    match bytes.near::<6, 1>() {
        Some([next]) => {
            packet.next_header = next;
            parse_ipv6_payload(bytes, packet);
        }
        None => protocol_is_cut(packet),
    }
    if !version_is(bytes, 6) {
        packet.known = 0;
    }
}

/// An address is compared word by word: what is left of it can still differ.
#[inline(always)]
fn cut_source(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.cut |= cut::SADDR;
    let Some(word) = bytes.near::<8, 4>() else { return };
    packet.saddr[..4].copy_from_slice(&word);
    packet.saddr_words = 1;
    let Some(word) = bytes.near::<12, 4>() else { return };
    packet.saddr[4..8].copy_from_slice(&word);
    packet.saddr_words = 2;
    let Some(word) = bytes.near::<16, 4>() else { return };
    packet.saddr[8..12].copy_from_slice(&word);
    packet.saddr_words = 3;
}

/// The same for the destination.
#[inline(always)]
fn cut_destination(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    packet.cut |= cut::DADDR;
    let Some(word) = bytes.near::<24, 4>() else { return };
    packet.daddr[..4].copy_from_slice(&word);
    packet.daddr_words = 1;
    let Some(word) = bytes.near::<28, 4>() else { return };
    packet.daddr[4..8].copy_from_slice(&word);
    packet.daddr_words = 2;
    let Some(word) = bytes.near::<32, 4>() else { return };
    packet.daddr[8..12].copy_from_slice(&word);
    packet.daddr_words = 3;
}

/// What follows the IPv6 header, whose `next_header` is set.
#[inline(always)]
fn parse_ipv6_payload(bytes: &(impl Bytes + ?Sized), packet: &mut Packet) {
    if packet.next_header == protocol::FRAGMENT {
        match bytes.near::<40, 1>() {
            Some([next]) => packet.fragment_next = next,
            None => packet.cut |= cut::FRAGMENT_NEXT,
        }
    }
    if !is_extension(packet.next_header) {
        packet.ipproto = packet.next_header;
        packet.known |= known::IPPROTO;
        packet.transport = transport_of(packet.ipproto);
        if packet.transport != 0 {
            set_ports(packet, bytes.near::<40, 4>(), || bytes.near::<40, 2>());
        }
        return;
    }
    match behind_extensions(bytes, packet.next_header) {
        Chain::End { protocol, at, first } => {
            packet.ipproto = protocol;
            packet.known |= known::IPPROTO;
            if first {
                packet.transport = transport_of(protocol);
            }
            if packet.transport != 0 {
                set_ports(packet, bytes.far(at), || bytes.far(at));
            }
        }
        Chain::Cut => ports_are_cut(packet),
        Chain::TooLong => {}
    }
}

/// Where a chain of extension headers leads.
enum Chain {
    /// To a protocol at an offset; `first` is false in every fragment of a packet but the first.
    End { protocol: u8, at: u32, first: bool },
    /// Beyond the bytes.
    Cut,
    /// Beyond [`MAX_EXTENSIONS`].
    TooLong,
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
    )
}

/// Follows the extension headers of IPv6.
#[inline(always)]
fn behind_extensions(bytes: &(impl Bytes + ?Sized), first_header: u8) -> Chain {
    let mut protocol = first_header;
    let mut at: u32 = 40;
    let mut followed = 0;
    while followed < MAX_EXTENSIONS {
        let Some([next, length, high, low]) = bytes.far::<4>(at) else { return Chain::Cut };
        let length = u32::from(length);
        if protocol == protocol::FRAGMENT {
            at += 8;
            if u16::from_be_bytes([high, low]) & !0x7 != 0 {
                return Chain::End { protocol: next, at, first: false };
            }
        } else if protocol == protocol::AUTHENTICATION {
            at += (length + 2) * 4;
        } else {
            at += (length + 1) * 8;
        }
        protocol = next;
        if !is_extension(protocol) {
            return Chain::End { protocol, at, first: true };
        }
        followed += 1;
    }
    Chain::TooLong
}

/// Whose ports follow a protocol number.
#[inline(always)]
fn transport_of(protocol: u8) -> u8 {
    match protocol {
        protocol::TCP => transport::TCP,
        protocol::UDP => transport::UDP,
        protocol::SCTP => transport::SCTP,
        protocol::DCCP | protocol::UDP_LITE => transport::OTHER,
        _ => 0,
    }
}

#[inline(always)]
fn protocol_is_cut(packet: &mut Packet) {
    packet.cut |= cut::NEXT_HEADER;
    ports_are_cut(packet);
}

/// Nobody knows whose ports there would be: a test for any of them meets the cut.
#[inline(always)]
fn ports_are_cut(packet: &mut Packet) {
    packet.transport = transport::ANY;
    packet.cut |= cut::SPORT | cut::DPORT;
}

/// Takes the ports: both, or at least the first.
#[inline(always)]
fn set_ports(packet: &mut Packet, both: Option<[u8; 4]>, first: impl FnOnce() -> Option<[u8; 2]>) {
    if let Some([a, b, c, d]) = both {
        packet.sport = u16::from_be_bytes([a, b]);
        packet.dport = u16::from_be_bytes([c, d]);
        packet.known |= known::SPORT | known::DPORT;
        return;
    }
    packet.cut |= cut::DPORT;
    match first() {
        Some(port) => {
            packet.sport = u16::from_be_bytes(port);
            packet.known |= known::SPORT;
        }
        None => packet.cut |= cut::SPORT,
    }
}
