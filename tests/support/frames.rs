//! Frames, byte by byte, and a way to put them on a wire.
//!
//! What is not set is what a healthy packet has, and every checksum is right: a packet is broken on purpose,
//! with [`flipped`] or a field, or not at all.
#![expect(unsafe_code, reason = "no crate makes the address that a packet socket sends to")]

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::net::if_::if_nametoindex;

use super::net::Net;

/// Ethertypes.
pub const IPV4: u16 = 0x0800;
pub const VLAN: u16 = 0x8100;
pub const IPV6: u16 = 0x86dd;

/// Protocols above IP.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// The port that every packet made here comes from.
pub const SOURCE_PORT: u16 = 40_000;

/// An IP packet to be, of the version its addresses have.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub hops: u8,
    /// IPv4's flags and fragment offset.
    pub fragment: u16,
    /// IPv4's options, in whole words.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A TCP segment; the flags are those of the header's fourteenth byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp {
    pub port: u16,
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    pub data: &'static [u8],
}

/// TCP flags.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

impl Packet {
    pub fn new(
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        protocol: u8,
        payload: Vec<u8>,
    ) -> Self {
        let (source, destination) = (source.into(), destination.into());
        Self { source, destination, protocol, hops: 64, fragment: 0, options: Vec::new(), payload }
    }

    /// A datagram with a payload of one byte.
    pub fn udp(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, port: u16) -> Self {
        Self::udp_with(source, destination, port, b"x")
    }

    /// A datagram with a payload.
    pub fn udp_with(
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        port: u16,
        data: &[u8],
    ) -> Self {
        let length = u16::try_from(8 + data.len()).expect("a datagram's length");
        let mut payload = words(&[SOURCE_PORT, port, length, 0]);
        payload.extend(data);
        Self::new(source, destination, UDP, payload).summed(6)
    }

    pub fn tcp(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, segment: Tcp) -> Self {
        let mut payload = words(&[SOURCE_PORT, segment.port]);
        payload.extend(segment.sequence.to_be_bytes());
        payload.extend(segment.acknowledged.to_be_bytes());
        payload.extend([0x50, segment.flags]);
        payload.extend(words(&[64_000, 0, 0]));
        payload.extend(segment.data);
        Self::new(source, destination, TCP, payload).summed(16)
    }

    /// The same segment from another port.
    pub fn set_source_port(&mut self, port: u16) {
        self.payload[..2].copy_from_slice(&port.to_be_bytes());
        self.payload[16..18].fill(0);
        *self = Self::summed(self.clone(), 16);
    }

    /// A message of ICMP, or of `ICMPv6` between IPv6 addresses.
    pub fn icmp(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, kind: u8, rest: &[u8]) -> Self {
        let mut payload = vec![kind, 0, 0, 0];
        payload.extend(rest);
        let mut packet = Self::new(source, destination, ICMP, payload);
        if packet.source.is_ipv6() {
            packet.protocol = ICMPV6;
        }
        packet.summed(2)
    }

    /// With the payload's checksum, which stands at `at`.
    fn summed(mut self, at: usize) -> Self {
        let mut covered = Vec::new();
        if self.protocol != ICMP {
            covered.extend(address(self.source));
            covered.extend(address(self.destination));
            covered.extend(words(&[self.protocol.into(), self.payload.len().try_into().expect("a length")]));
        }
        covered.extend(&self.payload);
        let sum = checksum(&covered);
        self.payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        self
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut header = if self.source.is_ipv4() { self.header_v4() } else { self.header_v6() };
        header.extend(&self.payload);
        header
    }

    fn header_v4(&self) -> Vec<u8> {
        let header_length = 20 + self.options.len();
        let length = u16::try_from(header_length + self.payload.len()).expect("a packet's length");
        let mut header = vec![0x40 | u8::try_from(header_length / 4).expect("few options"), 0];
        header.extend(words(&[length, 0x1234, self.fragment]));
        header.extend([self.hops, self.protocol, 0, 0]);
        header.extend(address(self.source));
        header.extend(address(self.destination));
        header.extend(&self.options);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn header_v6(&self) -> Vec<u8> {
        let length = u16::try_from(self.payload.len()).expect("a packet's length");
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(length.to_be_bytes());
        header.extend([self.protocol, self.hops]);
        header.extend(address(self.source));
        header.extend(address(self.destination));
        header
    }

    /// Its ethertype.
    pub fn ethertype(&self) -> u16 {
        if self.source.is_ipv4() { IPV4 } else { IPV6 }
    }

    /// Its ports, if it has any.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let port = |at: usize| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]);
        matches!(self.protocol, TCP | UDP).then(|| (port(0), port(2)))
    }
}

/// Words as they are sent.
pub fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The bytes with one bit changed in the byte at `at`.
pub fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 0x10;
    bytes
}

/// The Internet checksum of bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(word(pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// An Ethernet frame.
pub fn frame(to: [u8; 6], from: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    to.into_iter().chain(from).chain(ethertype.to_be_bytes()).chain(packet.iter().copied()).collect()
}

/// Puts `count` copies of an Ethernet frame on the wire behind `device`.
pub fn send(net: &Net, device: &str, to: [u8; 6], ethertype: u16, packet: &[u8], count: u64) {
    let frame = frame(to, net.hardware_address(device), ethertype, packet);
    send_all(net, device, (0..count).map(|_| frame.as_slice()));
}

/// Puts frames on the wire behind `device`.
pub fn send_all<'a>(net: &Net, device: &str, frames: impl Iterator<Item = &'a [u8]>) {
    Line::open(net, device).send(frames);
}

/// Access to the wire behind a device while this is open: the kernel closes one with a delay.
pub struct Line {
    socket: OwnedFd,
    index: u32,
}

impl Line {
    pub fn open(net: &Net, device: &str) -> Self {
        net.run(|| Self {
            socket: packet_socket().expect("a packet socket"),
            index: if_nametoindex(device).expect("the device's index"),
        })
    }

    /// Puts frames on the wire.
    pub fn send<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) {
        for frame in frames {
            send_once(&self.socket, self.index, frame).expect("the frame is sent");
        }
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a new descriptor is ours alone.
    unsafe {
        match libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

fn send_once(socket: &OwnedFd, index: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: integers only, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("a family");
    address.sll_ifindex = index.cast_signed();
    // SAFETY: both buffers outlive the call, with their true lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&address).cast(),
            u32::try_from(size_of_val(&address)).expect("a length"),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
