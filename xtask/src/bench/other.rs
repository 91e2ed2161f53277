//! The tools that dropwatch is compared with: found, named by their versions, started and ended.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{held, tracefs};
use crate::command;

/// What people count drops with.
pub const ONE_LINER: &str = "tracepoint:skb:kfree_skb { @[args->location, args->reason] = count(); }";

/// The same without the kernel's record of the event.
pub const RAW_ONE_LINER: &str = "rawtracepoint:kfree_skb { @[arg1, arg2] = count(); }";

/// A line for each drop that says what one of `dropwatch trace` says at least. It needs the kernel's type information.
pub const PRINTER: &str = r#"tracepoint:skb:kfree_skb {
    $skb = (struct sk_buff *)args->skbaddr;
    $ip = (struct iphdr *)($skb->head + $skb->network_header);
    $udp = (struct udphdr *)($skb->head + $skb->transport_header);
    printf("%s %d %s IP %s:%d > %s:%d\n", strftime("%H:%M:%S.%f", nsecs), args->reason, ksym(args->location),
        ntop($ip->saddr), bswap($udp->source), ntop($ip->daddr), bswap($udp->dest));
}"#;

/// A start that takes longer has failed: type information takes bpftrace seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// From having opened what it needs to being at work.
const SETTLE: Duration = Duration::from_millis(300);

/// A program of this machine.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
    /// As it names itself: `bpftrace v0.17.0`.
    pub version: String,
}

impl Tool {
    /// Says so if there is none.
    pub fn find(name: &str) -> Option<Self> {
        let version = |path: &PathBuf| command::output(Command::new(path).arg("--version"));
        let found = command::find(name).and_then(|path| version(&path).ok().map(|version| (path, version)));
        let Some((path, version)) = found else {
            eprintln!("skipped: {name} is not installed");
            return None;
        };
        Some(Self { path, version: version.trim().to_owned() })
    }

    /// bpftrace, and what its tracepoints need; says so if either is not there.
    pub fn bpftrace() -> Option<Self> {
        let mounted = tracefs::mount();
        mounted.map_err(|error| eprintln!("skipped: bpftrace needs tracefs: {error:#}")).ok()?;
        Self::find("bpftrace")
    }

    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }
}

/// One that runs; it is killed when this is dropped.
pub struct Running(Child);

impl Running {
    /// bpftrace, once its program is in the kernel.
    pub fn bpftrace(tool: &Tool, one_liner: &str) -> Result<Self> {
        Self::started_bpftrace(
            tool.command().args(["-e", one_liner]).stdout(Stdio::piped()).stderr(Stdio::piped()),
        )
    }

    /// The same, but all that it prints goes to this file.
    pub fn bpftrace_printing(tool: &Tool, script: &str, printed: &File) -> Result<Self> {
        let printed = || printed.try_clone().context("no second descriptor of a file");
        Self::started_bpftrace(tool.command().args(["-e", script]).stdout(printed()?).stderr(printed()?))
    }

    fn started_bpftrace(command: &mut Command) -> Result<Self> {
        // It first loads others for a moment, to see what the kernel can do.
        let mut before = Vec::new();
        Self::start(command, |proc| {
            let now = held::loaded_by(&proc.join("fdinfo")).unwrap_or_default();
            let stays = !now.is_empty() && now == before;
            before = now;
            stays
        })
    }

    /// `perf record`, once it has opened the event.
    pub fn perf(tool: &Tool) -> Result<Self> {
        let mut command = tool.command();
        command.args(["record", "-q", "-a", "-e", "skb:kfree_skb", "-o", "/dev/null"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start(&mut command, |proc| opened(proc, "anon_inode:[perf_event]"))
    }

    fn start(command: &mut Command, mut ready: impl FnMut(&Path) -> bool) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{}`", command::line(command)))?;
        let mut running = Self(child);
        let proc = PathBuf::from(format!("/proc/{}", running.pid()));
        let start = Instant::now();
        while !ready(&proc) {
            running.check()?;
            ensure!(start.elapsed() < PATIENCE, "`{}` does not begin", command::line(command));
            thread::sleep(Duration::from_millis(30));
        }
        thread::sleep(SETTLE);
        running.check()?;
        Ok(running)
    }

    /// Fails if it has ended, with what it complained of.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.0.try_wait().context("cannot ask for a status")? else { return Ok(()) };
        let mut complaint = String::new();
        if let Some(stderr) = &mut self.0.stderr {
            let _ = stderr.read_to_string(&mut complaint);
        }
        bail!("it ended ({status}): {}", complaint.trim_end().lines().last().unwrap_or_default());
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }

    /// Interrupts it and returns what it printed.
    pub fn stop(mut self) -> Result<String> {
        kill(self.pid(), Signal::SIGINT).context("cannot interrupt it")?;
        let mut text = String::new();
        let output = self.0.stdout.as_mut().context("no standard output")?;
        output.read_to_string(&mut text).context("cannot read what it printed")?;
        Ok(text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process has a descriptor of this.
fn opened(proc: &Path, what: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(proc.join("fd")) else { return false };
    descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(what)))
}
