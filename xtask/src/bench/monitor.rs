//! A dropwatch that counts, and its reports.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;

use super::process::Process;

/// A monitor whose benchmark was killed ends by itself after this long.
const LIFE: &str = "2m";

/// A dropwatch that is attached; it is killed when this is dropped.
pub struct Monitor {
    process: Process,
    output: BufReader<ChildStdout>,
}

impl Monitor {
    /// Starts one that prints JSON every `interval`, and waits until it counts.
    pub fn start(program: &Path, interval: &str, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--output", "json", "--interval", interval, "--duration", LIFE]).args(args);
        let (mut process, _) = Process::start(command.stdout(Stdio::piped()))?;
        Ok(Self { output: BufReader::new(process.output()?), process })
    }

    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Of all its threads, since it started.
    pub fn processor_time(&self) -> Result<Duration> {
        self.process.processor_time()
    }

    /// The part of that which it spent in user space, as the kernel samples it at its ticks, and the whole: in ticks.
    pub fn ticks(&self) -> Result<(u32, u32)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).context("the monitor is gone")?;
        // Behind the name, which may hold anything: the state and what proc(5) numbers from 4 on.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse::<u32>().ok()).context("no times");
        let (user, system) = (ticks()?, ticks()?);
        Ok((user, user + system))
    }

    /// Waits until its threads have read what they read after the start, or for a second.
    pub fn settle(&self) -> Result<()> {
        self.process.settle()
    }

    /// The next report, as soon as it is there.
    pub fn report(&mut self) -> Result<serde_json::Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("no report of dropwatch: {line:?}"))
    }

    /// The next report as it was printed.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read dropwatch's reports")?;
        ensure!(!line.is_empty(), "dropwatch ended");
        Ok(line)
    }

    /// Ends it as a user would, and returns how many drops it counted in all.
    pub fn stop(self) -> Result<u64> {
        self.last_report()?["total"].as_u64().context("dropwatch's report has no total")
    }

    /// Ends it as a user would, and returns what it reported then.
    pub fn last_report(mut self) -> Result<serde_json::Value> {
        self.process.interrupt()?;
        let mut text = String::new();
        self.output.read_to_string(&mut text).context("cannot read dropwatch's reports")?;
        self.process.ended()?;
        let last = text.lines().last().context("dropwatch printed no report at its end")?;
        serde_json::from_str(last).context("no report of dropwatch")
    }
}
