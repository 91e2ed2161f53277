//! Sockets and what they lost, as `ss -m` shows it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::evidence::netlink::{Netlink, attribute, u32_at};

/// `SOCK_DIAG_BY_FAMILY`.
const GET: u16 = 20;
/// In the array of a socket's memory: `SK_MEMINFO_DROPS`.
const DROPS: usize = 8 * 4;

/// Which socket of a namespace it is: its inode number, and its cookie, since such numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    /// What `/proc/PID/fd` shows.
    pub inode: u32,
    /// No other socket's, ever.
    pub cookie: [u32; 2],
}

/// A socket with what it lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lossy {
    /// Which one.
    pub id: Id,
    /// What it lost.
    pub drops: u32,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// It and the connection requests that it lost.
    pub socket: Lossy,
    /// Where it listens.
    pub local: SocketAddr,
    /// How many connections wait to be accepted.
    pub queue: u32,
    /// How many may.
    pub limit: u32,
}

/// The packet sockets of the socket's namespace; none where the kernel does not list them.
///
/// # Errors
/// They could not be read whole.
pub fn packet(diag: &Netlink) -> io::Result<Vec<Lossy>> {
    /// `PACKET_SHOW_MEMINFO`.
    const MEMORY: u32 = 1 << 4;
    let mut request = [0; 20];
    request[0] = family(libc::AF_PACKET);
    request[8..12].copy_from_slice(&MEMORY.to_ne_bytes());
    Ok(diag.dump(GET, &request)?.iter().filter_map(|message| parse_packet(message)).collect())
}

/// The listening TCP sockets of the socket's namespace.
///
/// # Errors
/// They could not be read whole.
pub fn listening(diag: &Netlink) -> io::Result<Vec<Listening>> {
    const LISTEN: u32 = 10;
    /// `INET_DIAG_SKMEMINFO`, as a bit.
    const MEMORY: u8 = 1 << (7 - 1);
    let mut found = Vec::new();
    for version in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; 56];
        (request[0], request[1], request[2]) = (family(version), family(libc::IPPROTO_TCP), MEMORY);
        request[4..8].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
        found.extend(diag.dump(GET, &request)?.iter().filter_map(|message| parse_listening(message)));
    }
    Ok(found)
}

/// Families and protocols of a byte.
fn family(number: i32) -> u8 {
    number.to_le_bytes()[0]
}

pub(super) fn parse_packet(message: &[u8]) -> Option<Lossy> {
    /// `struct packet_diag_msg`.
    const HEADER: usize = 16;
    /// `PACKET_DIAG_MEMINFO`.
    const MEMORY: u16 = 6;
    let id = Id { inode: u32_at(message, 4)?, cookie: [u32_at(message, 8)?, u32_at(message, 12)?] };
    Some(Lossy { id, drops: u32_at(attribute(message, HEADER, MEMORY)?, DROPS)? })
}

pub(super) fn parse_listening(message: &[u8]) -> Option<Listening> {
    /// `struct inet_diag_msg`.
    const HEADER: usize = 72;
    /// `INET_DIAG_SKMEMINFO`.
    const MEMORY: u16 = 7;
    let address: IpAddr = match i32::from(*message.first()?) {
        libc::AF_INET => Ipv4Addr::from(*message.get(8..)?.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    let port = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
    let id = Id { inode: u32_at(message, 68)?, cookie: [u32_at(message, 44)?, u32_at(message, 48)?] };
    let drops = u32_at(attribute(message, HEADER, MEMORY)?, DROPS)?;
    Some(Listening {
        socket: Lossy { id, drops },
        local: SocketAddr::new(address, port),
        queue: u32_at(message, 56)?,
        limit: u32_at(message, 60)?,
    })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd as _};

    use nix::sys::{socket::SockProtocol, stat::fstat};

    use super::*;

    #[test]
    fn a_listener_of_our_own_is_listed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Without IPv6 there is one address less.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().expect("an address");
            let diag = Netlink::open(SockProtocol::NetlinkSockDiag).expect("a socket");
            let all = listening(&diag).expect("listeners");
            let found = all.iter().find(|found| found.local == local).unwrap_or_else(|| panic!("{all:?}"));
            assert_eq!((found.queue, found.socket.drops), (0, 0));
            assert!(found.limit > 0, "{found:?}");
            let inode = fstat(&listener).expect("its inode").st_ino;
            assert_eq!(u64::from(found.socket.id.inode), inode, "descriptor {}", listener.as_raw_fd());
        }
    }

    #[test]
    fn what_is_cut_short_is_none() {
        for length in 0..80 {
            let mut message = vec![0; length];
            if let Some(first) = message.first_mut() {
                *first = family(libc::AF_INET);
            }
            assert_eq!(parse_listening(&message), None);
            assert_eq!(parse_packet(&message), None);
        }
    }
}
