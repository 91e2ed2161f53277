//! A running dropwatch: started, known to be attached, and gone whatever happens.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
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
        let ready = Ready::new()?;
        let mut command = Command::new(program);
        command.args(["--output", "json", "--interval", interval, "--duration", LIFE, "--ready-file"]);
        command
            .arg(ready.path())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let before = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut monitor = Self { child, output, started: Duration::ZERO };
        monitor.started = ready.wait(before, &mut monitor.child, complaint)?;
        Ok(monitor)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Of all its threads, since it started.
    pub fn processor_time(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(self.pid()).context("no clock of the monitor's processor time")?;
        Ok(clock_gettime(clock).context("no processor time of the monitor")?.into())
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
        kill(self.pid(), Signal::SIGINT).context("cannot interrupt dropwatch")?;
        let mut text = String::new();
        self.output.read_to_string(&mut text).context("cannot read dropwatch's reports")?;
        let status = self.child.wait().context("dropwatch does not end")?;
        ensure!(status.success(), "dropwatch failed: {status}");
        let last = text.lines().last().context("dropwatch printed no report at its end")?;
        serde_json::from_str(last).context("no report of dropwatch")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why it ended before it was ready.
fn complaint(child: &mut Child) -> Error {
    let mut complaint = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut complaint);
    }
    anyhow!("dropwatch ended before it was ready: {}", complaint.trim_end())
}
