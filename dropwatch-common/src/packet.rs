//! What a packet says about itself: addresses, protocols, ports.
//!
//! The BPF program and the tests run this one reading. So it has no loop without a small constant bound, no
//! recursion, no index that is not a constant, and nothing that could panic.

mod code;
mod ipv4;
mod ipv6;
pub mod plain;
mod ports;

pub use self::code::{cut, ethertype, family, known, protocol, transport};
use self::{
    ipv4::{parse_arp, parse_ipv4},
    ipv6::parse_ipv6,
};

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

    /// 1 if there are so many bytes, else 0.
    ///
    /// A verifier follows each way through a program, with what it has learned on it, to its end: what is calculated
    /// instead has one.
    fn has(&self, length: u32) -> u32;

    /// `N` bytes as of [`near`](Self::near), of which those beyond the packet's end mean nothing.
    fn raw<const OFFSET: usize, const N: usize>(&self) -> [u8; N];

    /// 1 if two numbers are the same, else 0; a verifier follows one way.
    #[inline(always)]
    fn is_equal(&self, one: u32, other: u32) -> u32 {
        (one == other).into()
    }

    /// The same number, of which a verifier knows nothing: ways on which it differs are one to it.
    #[inline(always)]
    fn unknown(&self, number: u32) -> u32 {
        number
    }
}

/// A number if a bit is 1, zero if it is 0.
#[inline(always)]
fn only_if(bit: u32, number: u32) -> u32 {
    number & 0_u32.wrapping_sub(bit)
}

/// A word of four bytes at a fixed offset if the packet has it, else zero; and 1 or 0.
#[inline(always)]
fn word<const OFFSET: usize>(bytes: &(impl Bytes + ?Sized)) -> ([u8; 4], u32) {
    let is_there = bytes.has(OFFSET as u32 + 4);
    (only_if(is_there, u32::from_ne_bytes(bytes.raw::<OFFSET, 4>())).to_ne_bytes(), is_there)
}

/// One of these bits if 1, or the other if 0.
#[inline(always)]
fn either(bit: u32, one: u8, other: u8) -> u8 {
    ((bit * u32::from(one)) | ((bit ^ 1) * u32::from(other))) as u8
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

    #[inline(always)]
    fn has(&self, length: u32) -> u32 {
        (self.len() >= length as usize).into()
    }

    #[inline(always)]
    fn raw<const OFFSET: usize, const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.iter_mut().zip(self.get(OFFSET..).unwrap_or_default()).for_each(|(to, from)| *to = *from);
        bytes
    }
}

/// The bit of [`Packet::ipv4_header`] for a fragment that is not the first.
pub const LATER: u8 = 0x80;

/// What is read from a packet's headers.
///
/// There are two readers. A filter decides as libpcap does, which believes the ethertype and checks nothing
/// else: it uses [`family`](Self::family), [`transport`](Self::transport) and [`cut`](Self::cut). A report
/// must not invent: it uses [`known`](Self::known), which has no bit for a header that contradicts itself.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
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
    /// Of IPv4, the header's length in words, and [`LATER`].
    pub ipv4_header: u8,
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
