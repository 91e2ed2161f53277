//! The owners of sockets, looked for as soon as a drop's socket is new.

use std::{io::PipeReader, os::fd::AsFd as _, thread};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    filter::Filter,
    kernel::owners::Owners,
    model::{belonging::Belonging, keys::Key},
    probe::{open_sockets::SocketWatch, source::Filtered},
    process::privileges,
    session::life::Life,
};

/// Looks for the owners of sockets from now on, in a thread that ends with `life`; none unless keys or the filter
/// need them.
///
/// # Errors
/// No thread can be started.
pub fn watch(
    probe: &mut impl Filtered,
    by: &[Key],
    filter: Option<&Filter>,
    life: &mut Life,
) -> Result<Option<Owners>> {
    let named = filter.map_or(&[][..], |filter| filter.cases().belongings());
    let has_containers =
        by.contains(&Key::Container) || named.iter().any(|it| !matches!(it, Belonging::Process(_)));
    if !has_containers && !by.contains(&Key::Process) && named.is_empty() {
        return Ok(None);
    }
    let Some(SocketWatch { lister, bell }) = probe.take_socket_watch() else { return Ok(None) };
    let owners = Owners::new(Box::new(lister), has_containers);
    let looking = owners.clone();
    let end = life.hangup().context("cannot wait for new sockets")?;
    let look = move || {
        privileges::give_up_in_thread();
        listen(bell, &looking, &end);
    };
    thread::Builder::new().name("owners".into()).spawn(look).context("cannot start a thread")?;
    Ok(Some(owners))
}

/// Looks for the owners of the sockets that the probe names.
fn listen(mut bell: RingBuf<MapData>, owners: &Owners, end: &PipeReader) {
    loop {
        let mut polled =
            [PollFd::new(bell.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        let waited = poll(&mut polled, PollTimeout::NONE);
        if polled[1].any() == Some(true) {
            return;
        }
        if let Err(error) = waited
            && error != Errno::EINTR
        {
            return log::warn!("cannot wait for new sockets: {error}");
        }
        let inodes: Vec<u64> = std::iter::from_fn(|| {
            let inode = bell.next()?;
            <[u8; 8]>::try_from(&*inode).ok().map(u64::from_ne_bytes)
        })
        .collect();
        owners.look_for(&inodes);
    }
}
