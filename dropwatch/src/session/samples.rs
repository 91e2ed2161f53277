//! Samples of drops, taken from the probe as they come, and the owners of their sockets.

use std::{
    io::PipeReader,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    kernel::owners::Owners, model::sample::Sample, probe::kfree_skb::sample::Sampler, process::privileges,
    session::life::Life,
};

/// The most samples that are kept from one interval to the next.
const KEPT: usize = 4096;

/// Samples of this interval and the one before. Clones share them.
#[derive(Clone)]
pub struct Samples(Arc<Mutex<State>>);

struct State {
    probe: Sampler,
    now: Vec<Arc<Sample>>,
    before: Vec<Arc<Sample>>,
}

impl Samples {
    /// Takes samples from now on, in a thread that ends with `life`, and looks for the owners of their sockets at
    /// once: by the time of a report, a process may have gone.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(probe: Sampler, owners: &Owners, life: &mut Life) -> Result<Self> {
        let ring = probe.ring().try_clone_to_owned().context("cannot wait for samples")?;
        let state = State { probe, now: Vec::new(), before: Vec::new() };
        let samples = Self(Arc::new(Mutex::new(state)));
        let end = life.hangup().context("cannot wait for samples")?;
        let (taking, owners) = (samples.clone(), owners.clone());
        let take = move || {
            privileges::give_up_in_thread();
            taking.take_as_they_come(&ring, &owners, &end);
        };
        thread::Builder::new().name("samples".into()).spawn(take).context("cannot start a thread")?;
        Ok(samples)
    }

    /// Those there are, newest interval first, and has more taken.
    ///
    /// Those of the interval before are among them: a drop that comes while counts are read is in the one interval, and
    /// its sample may be in the other.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn end_interval(&self) -> Result<Vec<Arc<Sample>>> {
        let mut state = self.lock();
        state.take();
        state.probe.begin_interval()?;
        let now = std::mem::take(&mut state.now);
        let before = std::mem::replace(&mut state.before, now.clone());
        Ok(now.into_iter().chain(before).collect())
    }

    fn take_as_they_come(&self, ring: &OwnedFd, owners: &Owners, end: &PipeReader) {
        loop {
            let mut polled =
                [PollFd::new(ring.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            let waited = poll(&mut polled, PollTimeout::NONE);
            if polled[1].any() == Some(true) {
                return;
            }
            if let Err(error) = waited
                && error != Errno::EINTR
            {
                return log::warn!("cannot wait for samples: {error}");
            }
            let inodes = self.lock().take();
            if !inodes.is_empty() {
                owners.look_for(&inodes);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes what is there; the inode numbers of its sockets.
    fn take(&mut self) -> Vec<u64> {
        let taken = self.probe.take();
        let inodes = taken.iter().filter_map(|sample| sample.socket.as_ref()).map(|socket| socket.key.inode);
        let inodes = inodes.filter(|inode| *inode != 0).collect();
        let room = KEPT.saturating_sub(self.now.len());
        self.now.extend(taken.into_iter().take(room).map(Arc::new));
        inodes
    }
}
