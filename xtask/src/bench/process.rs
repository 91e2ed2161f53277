//! A running dropwatch: started, known to be attached, and gone whatever happens.

use std::{
    io::Read as _,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, ensure};
use nix::{
    sys::signal::{Signal, kill},
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use super::ready::Ready;
use crate::command;

/// It is killed when this is dropped.
pub struct Process(Child);

impl Process {
    /// Starts a dropwatch, waits until it is attached, and returns how long that took from before the start.
    pub fn start(command: &mut Command) -> Result<(Self, Duration)> {
        let ready = Ready::new()?;
        command.arg("--ready-file").arg(ready.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        let before = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start `{}`", command::line(command)))?;
        let mut process = Self(child);
        let took = ready.wait(before, &mut process.0, complaint)?;
        Ok((process, took))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }

    /// Its standard output, if that is a pipe.
    pub fn output(&mut self) -> Result<ChildStdout> {
        self.0.stdout.take().context("no standard output")
    }

    /// Of all its threads, since it started.
    pub fn processor_time(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(self.pid()).context("no clock of dropwatch's processor time")?;
        Ok(clock_gettime(clock).context("no processor time of dropwatch")?.into())
    }

    /// Waits until its threads have read what they read after the start, or for a second.
    pub fn settle(&self) -> Result<()> {
        let mut before = self.processor_time()?;
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(10));
            let now = self.processor_time()?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// As a user would.
    pub fn interrupt(&self) -> Result<()> {
        kill(self.pid(), Signal::SIGINT).context("cannot interrupt dropwatch")
    }

    /// Waits for its end, and returns what it said on standard error.
    pub fn ended(mut self) -> Result<String> {
        let said = said(&mut self.0);
        let status = self.0.wait().context("dropwatch does not end")?;
        ensure!(status.success(), "dropwatch failed ({status}): {}", said.trim_end());
        Ok(said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left of it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Why it ended before it was ready.
fn complaint(child: &mut Child) -> Error {
    anyhow!("dropwatch ended before it was ready: {}", said(child).trim_end())
}

/// All that it says until it ends.
fn said(child: &mut Child) -> String {
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut said);
    }
    said
}
