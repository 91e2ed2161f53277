//! Sockets: kinds, options and commands that `nix` does not know.

use std::{
    ffi::c_char,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use super::mapped::Room;

/// A netlink socket for `IPsec`, which `nix` does not know.
///
/// # Errors
/// Whatever the kernel answers, `EPROTONOSUPPORT` where it is built without.
pub fn xfrm_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_XFRM) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the kernel apply the conditions in a request for a list, not ignore them (Linux 4.20).
pub fn netlink_is_strict(socket: BorrowedFd<'_>) {
    let yes: libc::c_int = 1;
    // SAFETY: the value outlives the call, and its size is given. Older kernels refuse, which does no harm.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_GET_STRICT_CHK,
            (&raw const yes).cast(),
            libc::socklen_t::try_from(size_of_val(&yes)).unwrap_or_default(),
        );
    }
}

/// The cookie of a socket's network namespace (Linux 5.14).
#[cfg(test)]
#[must_use]
pub fn socket_netns_cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let (mut cookie, mut size) = (0_u64, 8);
    // SAFETY: both places outlive the call, and the size is that of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    (result == 0).then_some(cookie)
}

/// Commands of ethtool for the interfaces of a socket's namespace.
#[derive(Debug)]
pub struct Ethtool<'a> {
    socket: BorrowedFd<'a>,
    answer: Room,
}

impl<'a> Ethtool<'a> {
    /// The words of the longest answer: twice as many names as any driver has.
    const ROOM: usize = 1 << 20;

    /// No command yet.
    ///
    /// # Errors
    /// There is no room for answers.
    pub fn new(socket: BorrowedFd<'a>) -> io::Result<Self> {
        Ok(Self { socket, answer: Room::new(Self::ROOM)? })
    }

    /// What the kernel leaves where the request was. What it does not write is of earlier answers.
    ///
    /// # Errors
    /// Whatever the kernel answers, `ENODEV` for an interface that has gone; `InvalidInput` for a request that is longer than
    /// any.
    pub fn ask(&mut self, interface: &[u8], request: &[u32]) -> io::Result<&[u32]> {
        let answer = self.answer.words();
        let place = answer.get_mut(..request.len()).ok_or(io::ErrorKind::InvalidInput)?;
        place.copy_from_slice(request);
        // SAFETY: a structure of plain integers and a union of such.
        let mut arguments: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays the zero that ends the name.
        for (to, from) in arguments.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface) {
            *to = c_char::from_ne_bytes([*from]);
        }
        arguments.ifr_ifru.ifru_data = answer.as_mut_ptr().cast();
        // SAFETY: the arguments outlive the call, and what they point to has room for any answer.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut arguments) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
    }
}
