//! A `dropwatch trace` at work, and what it has come to at its end.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::process::Process;

/// One whose benchmark was killed ends by itself after this long.
const LIFE: &str = "1m";

/// A trace that is attached; it is killed when this is dropped.
pub struct Tracer(Process);

/// Its last words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub shown: u64,
    pub not_shown: u64,
}

impl Tracer {
    /// Starts one that writes there, and waits until it is attached and has read its symbols.
    pub fn start(program: &Path, args: &[&str], output: Stdio) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["trace", "--duration", LIFE]).args(args).stdout(output);
        let (process, _) = Process::start(&mut command)?;
        process.settle()?;
        Ok(Self(process))
    }

    pub fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// Ends it as a user would, when it has written all there is.
    pub fn stop(self) -> Result<Summary> {
        self.0.interrupt()?;
        let said = self.0.ended()?;
        summary(&said).with_context(|| format!("dropwatch trace does not tell what was shown: {said:?}"))
    }
}

/// From `300 drops shown, 0 not shown`.
fn summary(said: &str) -> Option<Summary> {
    let (before, after) = said.lines().rev().find_map(|line| line.split_once(" shown, "))?;
    let shown = before.split(' ').next()?.parse().ok()?;
    Some(Summary { shown, not_shown: after.strip_suffix(" not shown")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One drop is a drop, and other lines are in between.
    #[test]
    fn the_summary_is_found() {
        let said =
            "Monitoring for dropped packets\n1 drop shown, 20 not shown\nStopping dropped packet monitor\n";
        assert_eq!(summary(said), Some(Summary { shown: 1, not_shown: 20 }));
        assert_eq!(summary("Monitoring for dropped packets\n"), None);
    }
}
