//! A running dropwatch: started, known to be attached, and gone whatever happens.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        signal::{Signal, kill},
    },
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use std::os::fd::AsFd as _;

use crate::workspace;

/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A monitor whose benchmark was killed ends by itself after this long.
const LIFE: &str = "2m";

/// A dropwatch that is attached; it is killed when this is dropped.
pub struct Monitor {
    child: Child,
    output: BufReader<ChildStdout>,
    /// From before the process existed until it said that it counts.
    pub started: Duration,
}

impl Monitor {
    /// Starts one that prints JSON every `interval`, and waits until it counts.
    pub fn start(program: &Path, interval: &str, args: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir_in(workspace::target()).context("no directory for the ready file")?;
        let ready = dir.path().join("ready");
        // The kernel wakes us: a loop that looks for the file would take the processor the start needs.
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("no inotify")?;
        inotify.add_watch(dir.path(), AddWatchFlags::IN_CREATE).context("cannot watch for the ready file")?;
        let mut command = Command::new(program);
        command.args(["--output", "json", "--interval", interval, "--duration", LIFE, "--ready-file"]);
        command.arg(&ready).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let before = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut monitor = Self { child, output, started: Duration::ZERO };
        while !ready.exists() {
            monitor.check(before)?;
            let mut events = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
            poll(&mut events, 100_u8).context("cannot wait for the ready file")?;
        }
        monitor.started = before.elapsed();
        Ok(monitor)
    }

    /// Fails if the process ended, or takes too long, instead of waiting for what will not come.
    fn check(&mut self, since: Instant) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("cannot ask for the monitor's status")? {
            let mut complaint = String::new();
            if let Some(stderr) = &mut self.child.stderr {
                let _ = stderr.read_to_string(&mut complaint);
            }
            bail!("dropwatch ended before it was ready ({status}): {}", complaint.trim_end());
        }
        ensure!(since.elapsed() < PATIENCE, "dropwatch is not ready after {PATIENCE:?}");
        Ok(())
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits until its threads have read what they read after the start, or for a second.
    pub fn settle(&self) -> Result<()> {
        let clock = clock_getcpuclockid(self.pid()).context("no clock of the monitor's processor time")?;
        let mut before = clock_gettime(clock).context("no processor time of the monitor")?;
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(10));
            let now = clock_gettime(clock).context("no processor time of the monitor")?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// The next report, as soon as it is there.
    pub fn report(&mut self) -> Result<serde_json::Value> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read dropwatch's reports")?;
        serde_json::from_str(&line).with_context(|| format!("no report of dropwatch: {line:?}"))
    }

    /// Ends it as a user would, and returns how many drops it counted in all.
    pub fn stop(mut self) -> Result<u64> {
        kill(self.pid(), Signal::SIGINT).context("cannot interrupt dropwatch")?;
        let mut text = String::new();
        self.output.read_to_string(&mut text).context("cannot read dropwatch's reports")?;
        let status = self.child.wait().context("dropwatch does not end")?;
        ensure!(status.success(), "dropwatch failed: {status}");
        let last = text.lines().last().context("dropwatch printed no report at its end")?;
        let report: serde_json::Value = serde_json::from_str(last).context("no report of dropwatch")?;
        report["total"].as_u64().context("dropwatch's report has no total")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
