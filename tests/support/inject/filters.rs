//! Small programs that refuse packets.
#![expect(unsafe_code, reason = "no crate attaches a classic filter, or loads a program of two instructions")]

use std::{io, net::UdpSocket, os::fd::AsRawFd as _};

/// Attaches a filter to a socket that keeps no byte of any packet.
pub fn refuse_all(socket: &UdpSocket) {
    const RETURN_CONSTANT: u16 = 6;
    let mut program = [libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the program and what it points to outlive the call, with their true lengths.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            u32::try_from(size_of_val(&program)).expect("a length"),
        )
    };
    assert_eq!(result, 0, "a socket's filter: {}", io::Error::last_os_error());
}
