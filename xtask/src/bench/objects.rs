//! What a report costs that names processes, containers and network namespaces, where there are many of them.

use std::{
    net::UdpSocket,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};

use super::{monitor::Monitor, statistics::Sample, table::Figure};
use crate::command;

const PROCESSES: usize = 1_000;
const NAMESPACES: usize = 300;

/// Reports of each, after one in which everything is new.
const REPORTS: usize = 5;

/// What is reported, and whether the kernel's own counters of all namespaces are read beside it.
const CONTENDERS: [(&str, &str, &[&str]); 4] = [
    ("rows", "by process, container and namespace", &["-b", "process,container,netns", "--no-counters"]),
    ("namespaces", "by namespace", &["-b", "reason,netns", "--no-counters"]),
    ("counters", "by location and reason, with counters", &["-b", "location,reason"]),
    ("explained", "by namespace, with counters and evidence", &["-b", "location,reason,netns", "--explain"]),
];

/// A port without a socket.
const CLOSED: &str = "127.0.0.1:9";

/// Namespaces, each with a process that has a socket in it open, and other processes.
struct Crowd {
    sockets: Vec<UdpSocket>,
    processes: Vec<Child>,
}

impl Crowd {
    fn gather() -> Result<Self> {
        let mut crowd = Self { sockets: Vec::new(), processes: Vec::new() };
        for _ in 0..NAMESPACES {
            // A thread of its own enters a namespace and ends: the socket and the process stay in it.
            let entered = thread::spawn(in_new_namespace).join();
            let (socket, process) = entered.ok().context("a thread has died")??;
            crowd.sockets.push(socket);
            crowd.processes.push(process);
        }
        while crowd.processes.len() < PROCESSES {
            crowd.processes.push(sleeper(Stdio::null())?);
        }
        Ok(crowd)
    }

    /// One drop in each namespace.
    fn drop_packets(&self) -> Result<()> {
        self.sockets.iter().try_for_each(|socket| {
            // A call reports the ICMP error that the datagram before it has caused.
            let _ = socket.take_error();
            socket.send_to(b"x", CLOSED).map(drop).context("cannot send")
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Nothing is left of it, however it has ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn in_new_namespace() -> Result<(UdpSocket, Child)> {
    unshare(CloneFlags::CLONE_NEWNET).context("no network namespace")?;
    command::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let socket = UdpSocket::bind("127.0.0.1:0").context("no socket")?;
    let shared = OwnedFd::from(socket.try_clone().context("no socket")?);
    Ok((socket, sleeper(shared.into())?))
}

fn sleeper(stdin: Stdio) -> Result<Child> {
    Command::new("sleep").arg("600").stdin(stdin).spawn().context("cannot start `sleep`")
}

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    eprintln!("objects: {PROCESSES} processes in {NAMESPACES} namespaces");
    let crowd = Crowd::gather()?;
    let mut figures = Vec::new();
    for (id, name, args) in CONTENDERS {
        let mut monitor = Monitor::start(dropwatch, "1s", args)?;
        let mut ticks = Ticks::default();
        let first = report(&mut monitor, &crowd, &mut ticks)?.as_secs_f64() * 1e3;
        let times = (0..REPORTS).map(|_| report(&mut monitor, &crowd, &mut ticks));
        let times = times.collect::<Result<Vec<_>>>()?;
        let times = Sample::new(times.iter().map(|time| time.as_secs_f64() * 1e3).collect());
        let figure = |part: &str, what: &str, value, unit| {
            let name =
                format!("a report {name}, of {PROCESSES} processes and {NAMESPACES} namespaces, {what}");
            Figure::new(format!("objects.{id}{part}"), &name, value, unit)
        };
        figures.push(
            figure("", "processor time", times.least(), "ms").with_spread(times.median() - times.least()),
        );
        figures.push(figure(".first", "the first one", first, "ms"));
        figures.push(figure(".late", "how late counts were read, at most", ticks.latest * 1e3, "ms"));
    }
    Ok(figures)
}

/// How late the counts of reports were read that are due each second.
#[derive(Default)]
struct Ticks {
    reports: f64,
    elapsed: f64,
    latest: f64,
}

impl Ticks {
    fn add(&mut self, report: &serde_json::Value) -> Result<()> {
        self.reports += 1.0;
        self.elapsed += report["elapsed_s"].as_f64().context("dropwatch's report has no time")?;
        self.latest = self.latest.max(self.elapsed - self.reports);
        Ok(())
    }
}

/// The processor time of a report with a drop in each namespace.
fn report(monitor: &mut Monitor, crowd: &Crowd, ticks: &mut Ticks) -> Result<Duration> {
    for _ in 0..5 {
        ticks.add(&monitor.report()?)?;
        monitor.settle()?;
        let before = monitor.processor_time()?;
        crowd.drop_packets()?;
        let report = monitor.report()?;
        ticks.add(&report)?;
        monitor.settle()?;
        // It must not have begun before all of ours were there.
        if report["drops"].as_u64().is_some_and(|drops| drops >= NAMESPACES as u64) {
            return Ok(monitor.processor_time()?.saturating_sub(before));
        }
    }
    bail!("dropwatch reported less than {NAMESPACES} drops, five times")
}
