//! Names of namespaces by the numbers that another namespace has for them.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
};

use crate::{
    evidence::{
        netlink::{Netlink, attribute, put, u32_at},
        places::MOUNTED,
    },
    model::foreign::Foreign,
};

/// `RTM_GETNSID`.
const GET: u16 = 90;
/// `struct rtgenmsg`, padded.
const HEADER: usize = 4;
/// Attributes, `NETNSA_…`.
const NSID: u16 = 1;
const FD: u16 = 3;
/// No more names than this are looked at.
const MOST: usize = 256;

/// The name of a namespace that the socket's one has this number for; none if it is not mounted anywhere.
pub fn by_number(netlink: &Netlink, number: u32) -> Option<Foreign> {
    let mounts = MOUNTED.iter().flat_map(fs::read_dir).flatten().flatten().take(MOST);
    mounts.into_iter().find_map(|mount| {
        let namespace = File::open(mount.path()).ok()?;
        let mut request = vec![0; HEADER];
        put(&mut request, FD, &namespace.as_raw_fd().to_ne_bytes());
        let answer = netlink.ask(GET, &request).ok()?;
        let found = attribute(&answer, HEADER, NSID).and_then(|value| u32_at(value, 0))?;
        (found == number).then(|| mount.file_name().into())
    })
}
