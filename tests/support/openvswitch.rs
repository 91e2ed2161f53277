//! The kernel's Open vSwitch without its programs: a switch of our own, and packets that it drops.
//!
//! Both are generic netlink: a header, a header of the family, attributes of a type and a value.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use super::net::Net;

const NAME: &str = "dropwatch-ovs";

/// The control family, which has a fixed number, and its request.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Requests to the family of switches, and its attributes.
const NEW: u8 = 1;
const DELETE: u8 = 2;
const SWITCH_NAME: u16 = 1;
const UPCALL_PORT: u16 = 2;

/// Requests to the family of packets, and its attributes.
const EXECUTE: u8 = 3;
const PACKET: u16 = 1;
const KEY: u16 = 2;
const ACTIONS: u16 = 3;

/// A switch of a namespace; it goes when this is dropped.
pub struct Switch {
    socket: OwnedFd,
    index: u32,
    switches: u16,
    packets: u16,
}

impl Switch {
    /// A switch without ports but its own.
    pub fn new(net: &Net) -> Self {
        net.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::NetlinkGeneric;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).expect("netlink");
            let switches = family(&socket, "ovs_datapath");
            let packets = family(&socket, "ovs_packet");
            let name = [NAME.as_bytes(), b"\0"].concat();
            let attributes = [attribute(SWITCH_NAME, &name), attribute(UPCALL_PORT, &[0; 4])].concat();
            request(&socket, switches, NEW, &[&[0; 4][..], &attributes].concat());
            let index = if_nametoindex(NAME).expect("the switch's own device");
            Self { socket, index, switches, packets }
        })
    }

    /// Hands so many packets to the switch, with no action left to do: it drops them.
    pub fn drop_packets(&self, count: u64) {
        let mut packet = vec![2; 12];
        packet.extend([0x88, 0xb5]);
        packet.resize(64, 0);
        let nothing: [u8; 0] = [];
        let attributes = [attribute(PACKET, &packet), attribute(KEY, &nothing), attribute(ACTIONS, &nothing)];
        let body = [&self.index.to_ne_bytes()[..], &attributes.concat()].concat();
        for _ in 0..count {
            request(&self.socket, self.packets, EXECUTE, &body);
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        request(&self.socket, self.switches, DELETE, &self.index.to_ne_bytes());
    }
}

/// An attribute with its length and what fills it up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The number that a family has until the next boot.
fn family(socket: &OwnedFd, name: &str) -> u16 {
    let name = attribute(FAMILY_NAME, &[name.as_bytes(), b"\0"].concat());
    let mut answer = &request(socket, CONTROLLER, GET_FAMILY, &name)[20..];
    while let [low, high, kind, other, ..] = *answer {
        if u16::from_ne_bytes([kind, other]) == FAMILY_ID {
            return u16::from_ne_bytes([answer[4], answer[5]]);
        }
        answer = &answer[usize::from(u16::from_ne_bytes([low, high])).next_multiple_of(4)..];
    }
    panic!("a family without a number");
}

/// Sends a request, which has to succeed: the answer before the kernel's word that it did, if there is one.
fn request(socket: &OwnedFd, family: u16, command: u8, body: &[u8]) -> Vec<u8> {
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const ERROR: u16 = 2;
    const VERSION: u8 = 1;
    let length = u32::try_from(20 + body.len()).expect("a short request");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend([family, REQUEST_AND_ACKNOWLEDGE].iter().flat_map(|word| word.to_ne_bytes()));
    // Neither a sequence number nor an address is needed: one question at a time.
    message.extend([0; 8]);
    message.extend([command, VERSION, 0, 0]);
    message.extend(body);
    send(socket.as_raw_fd(), &message, MsgFlags::empty()).expect("a request is sent");
    let mut answer = Vec::new();
    loop {
        let mut buffer = vec![0; 16384];
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
        buffer.truncate(length);
        if u16::from_ne_bytes([buffer[4], buffer[5]]) == ERROR {
            let errno = i32::from_ne_bytes(buffer[16..20].try_into().expect("four bytes"));
            assert_eq!(errno, 0, "request {command} to family {family}");
            return answer;
        }
        answer = buffer;
    }
}
