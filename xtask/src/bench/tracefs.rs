//! The kernel's own tracing, as far as it is compared with.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use crate::command;

const TRACEFS: &str = "/sys/kernel/tracing";
const EVENT: &str = "events/skb/kfree_skb";

/// Mounts it, if it is not, for this thread and what it starts alone: the machine stays as it was.
pub fn mount() -> Result<()> {
    if Path::new(TRACEFS).join(EVENT).exists() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace")?;
    command::output(Command::new("mount").args(["--make-rprivate", "/"]))?;
    command::output(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]))?;
    fs::metadata(Path::new(TRACEFS).join(EVENT)).context("the kernel has no event skb:kfree_skb")?;
    Ok(())
}

/// A trace buffer of our own, where the event is recorded while it is enabled, as by `trace-cmd` or `echo`.
pub struct Ftrace(PathBuf);

impl Ftrace {
    pub fn new() -> Result<Self> {
        let path = Path::new(TRACEFS).join(format!("instances/dropwatch-bench-{}", process::id()));
        fs::create_dir(&path).context("no trace instance")?;
        Ok(Self(path))
    }

    pub fn enable(&self) -> Result<Enabled<'_>> {
        self.switch("1").context("cannot enable skb:kfree_skb")?;
        Ok(Enabled(self))
    }

    fn switch(&self, on: &str) -> io::Result<()> {
        fs::write(self.0.join(EVENT).join("enable"), on)
    }
}

impl Drop for Ftrace {
    fn drop(&mut self) {
        // Its files vanish with it; what cannot be removed is empty and costs nothing.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Disables the event when it is dropped.
pub struct Enabled<'a>(&'a Ftrace);

impl Drop for Enabled<'_> {
    fn drop(&mut self) {
        let _ = self.0.switch("0");
    }
}
