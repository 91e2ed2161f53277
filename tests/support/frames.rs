//! Frames, byte by byte, and a way to put them on a wire.
#![expect(unsafe_code, reason = "no crate makes the address that a packet socket sends to")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::net::if_::if_nametoindex;

use super::net::Net;

/// An IPv4 packet to be: what is not set is what a healthy packet has.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub protocol: u8,
    pub payload: Vec<u8>,
}

impl Ipv4 {
    /// A datagram with a payload of one byte and no checksum, which UDP allows.
    pub fn udp(source: [u8; 4], destination: [u8; 4], port: u16) -> Self {
        let mut payload = Vec::new();
        for word in [40_000, port, 9, 0] {
            payload.extend(u16::to_be_bytes(word));
        }
        payload.push(b'x');
        Self { source, destination, protocol: 17, payload }
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u16::try_from(20 + self.payload.len()).expect("a packet's length");
        let mut header = vec![0x45, 0];
        header.extend(length.to_be_bytes());
        header.extend([0, 0, 0, 0, 64, self.protocol, 0, 0]);
        header.extend(self.source);
        header.extend(self.destination);
        let checksum = checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header.extend(&self.payload);
        header
    }
}

/// The Internet checksum of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// Puts `count` copies of an Ethernet frame on the wire behind `device`.
pub fn send(net: &Net, device: &str, to: [u8; 6], ethertype: u16, packet: &[u8], count: u64) {
    let from = net.hardware_address(device);
    let frame: Vec<u8> =
        to.into_iter().chain(from).chain(ethertype.to_be_bytes()).chain(packet.iter().copied()).collect();
    net.run(|| {
        let index = if_nametoindex(device).expect("the device's index");
        let socket = packet_socket().expect("a packet socket");
        for _ in 0..count {
            send_once(&socket, index, &frame).expect("the frame is sent");
        }
    });
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
