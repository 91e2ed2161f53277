//! Whether an interface exists, by any of its names.

use std::{io, os::fd::AsRawFd as _};

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
};
use nix::{
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use crate::model::interface;

/// `struct ifinfomsg`, all of it zero: which interface is meant is in an attribute.
const HEADER: [u8; 16] = [0; 16];
/// The most of an answer that is read: its beginning says all.
const ROOM: usize = 1024;

/// Whether the network namespace of this thread has an interface that has this name, of its own or as an alternative
/// one.
///
/// # Errors
/// The kernel does not tell.
pub fn exists(name: &str) -> io::Result<bool> {
    if interface::check(name).is_err() {
        return Ok(false);
    }
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &request(name), MsgFlags::empty())?;
    let mut answer = [0; ROOM];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // What does not fit is cut off, and the message is longer than what is here.
    let message = NetlinkBuffer::new(&answer[..length]);
    if message.message_type() != NLMSG_ERROR {
        return Ok(true);
    }
    let errno = answer.get(16..20).and_then(|bytes| Some(i32::from_ne_bytes(*bytes.first_chunk()?)));
    match errno.map(i32::wrapping_neg) {
        // Kernels before 5.5 do not know alternative names, and take the request for one of nothing.
        Some(libc::ENODEV | libc::EINVAL) => Ok(false),
        errno => Err(errno.map_or_else(|| io::ErrorKind::InvalidData.into(), io::Error::from_raw_os_error)),
    }
}

/// A request for the interface that has a name.
fn request(name: &str) -> Vec<u8> {
    // A short name is looked up among both kinds.
    let kind = if name.len() < libc::IFNAMSIZ { libc::IFLA_IFNAME } else { libc::IFLA_ALT_IFNAME };
    let name = DefaultNla::new(kind, [name.as_bytes(), &[0]].concat());
    let mut header = NetlinkHeader::default();
    let start = header.buffer_len();
    let mut message = vec![0; start + HEADER.len() + name.buffer_len()];
    name.emit(&mut message[start + HEADER.len()..]);
    header.length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    (header.message_type, header.flags) = (libc::RTM_GETLINK, NLM_F_REQUEST);
    header.emit(&mut message[..]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_exists_or_not() {
        assert!(exists("lo").expect("an answer"));
        for name in ["no-such-iface", &"x".repeat(127), &"x".repeat(128), ""] {
            assert!(!exists(name).expect("an answer"), "{name}");
        }
    }
}
