//! A file that a started program makes when it is ready, and the wait for it.

use std::{os::fd::AsFd as _, path::PathBuf, process::Child, time::Duration, time::Instant};

use anyhow::{Context, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tempfile::TempDir;

use crate::workspace;

/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Ready {
    dir: TempDir,
    /// The kernel wakes us: a loop that looks for the file would take the processor the start needs.
    inotify: Inotify,
}

impl Ready {
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir_in(workspace::target()).context("no directory for the ready file")?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("no inotify")?;
        inotify.add_watch(dir.path(), AddWatchFlags::IN_CREATE).context("cannot watch for the ready file")?;
        Ok(Self { dir, inotify })
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("ready")
    }

    /// The time since `start`; `failed` reports a process that ended instead.
    pub fn wait(
        &self,
        start: Instant,
        child: &mut Child,
        failed: impl Fn(&mut Child) -> anyhow::Error,
    ) -> Result<Duration> {
        while !self.path().exists() {
            let ended = child.try_wait().context("cannot ask for a process's status")?.is_some();
            // One that made the file and ended meanwhile has not failed.
            if ended && !self.path().exists() {
                return Err(failed(child));
            }
            ensure!(start.elapsed() < PATIENCE, "nothing is ready after {PATIENCE:?}");
            let mut events = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
            poll(&mut events, 100_u8).context("cannot wait for the ready file")?;
        }
        Ok(start.elapsed())
    }
}
