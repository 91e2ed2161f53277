//! Descriptors of files, and what they are.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Opens the directory of a cgroup of the second version by its number, below where these are mounted.
///
/// # Errors
/// `ESTALE` for one that has gone, `EPERM` without the privilege to pass by permissions.
pub fn open_cgroup(mount: BorrowedFd<'_>, number: u64) -> io::Result<OwnedFd> {
    /// `FILEID_KERNFS`.
    const KIND: i32 = 0xfe;
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        number: u64,
    }
    let mut handle = Handle { bytes: 8, kind: KIND, number };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: laid out as `struct file_handle` with eight bytes behind it, and it outlives the call.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether an open file is a network namespace.
#[must_use]
pub fn is_net_namespace(file: BorrowedFd<'_>) -> bool {
    /// `_IO(0xb7, 3)`: which kind of namespace, as `clone(2)` has it.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: takes no argument; files that are no namespaces refuse it.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// Registers a descriptor with the event loop, for reading.
///
/// # Errors
/// A descriptor that cannot be waited for.
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor stays the same while it is owned, which is until after it is deregistered.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(Into::into)
}
