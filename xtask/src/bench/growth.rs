//! What a report costs, by how many rows it has, and what a monitor does between its reports.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};

use super::{monitor::Monitor, sender::Sender, statistics::Sample, table::Figure};

const KEYS: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

/// Reports of each, after one in which the keys are new to the kernel.
const REPORTS: usize = 3;

/// With fewer, the kernel's ticks, hundreds a second, do not separate user space from the kernel.
const SHARED_FROM: usize = 100_000;

/// A key is a pair of ports, of which there are as many as needed.
const BY: [&str; 2] = ["-b", "sport,dport"];

/// Reports of `idle`.
const IDLE_REPORTS: usize = 5;

/// After a report, before which its thread may still be at work.
const SETTLED: Duration = Duration::from_millis(400);

/// How long nothing is expected to happen.
const QUIET: Duration = Duration::from_millis(1200);

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    let sender = Sender::start()?;
    let processors = sysconf(SysconfVar::_NPROCESSORS_CONF)?.context("no number of processors")?;
    let mut figures = Vec::new();
    for keys in KEYS {
        eprintln!("growth: {keys} keys");
        let room = (keys * 2).max(16_384).to_string();
        let interval = if keys > 10_000 { "4s" } else { "1s" };
        let args = [BY[0], BY[1], "--max-rows", &room];
        let mut monitor = Monitor::start(dropwatch, interval, &args)?;
        report(&mut monitor, &sender, keys)?;
        let before = monitor.ticks()?;
        let times: Result<Vec<_>> = (0..REPORTS)
            .map(|_| report(&mut monitor, &sender, keys).map(|took| took.as_secs_f64()))
            .collect();
        let times = Sample::new(times?);
        let each = f64::from(u32::try_from(keys)?) * f64::from(u32::try_from(processors)?);
        let name = |what: &str| format!("a report of {keys} keys, {what}");
        figures.push(
            Figure::new(format!("growth.{keys}"), &name("processor time"), times.least() * 1e3, "ms")
                .with_spread((times.median() - times.least()) * 1e3),
        );
        let share = times.least() * 1e6 / each;
        figures.push(Figure::new(format!("growth.{keys}.each"), &name("for each key and CPU"), share, "µs"));
        if keys >= SHARED_FROM {
            let after = monitor.ticks()?;
            let user = f64::from(after.0 - before.0) / f64::from((after.1 - before.1).max(1));
            let name = name("of that in user space");
            figures.push(Figure::new(format!("growth.{keys}.user"), &name, share * user, "µs"));
        }
    }
    Ok(figures)
}

/// The processor time, of all threads and in the kernel, too, of a report with a drop of each key.
fn report(monitor: &mut Monitor, sender: &Sender, keys: usize) -> Result<Duration> {
    for _ in 0..5 {
        monitor.line()?;
        monitor.settle()?;
        let before = monitor.processor_time()?;
        sender.spread(keys)?;
        // A row says its rate; nothing else does.
        let rows = monitor.line()?.matches("\"rate\":").count();
        monitor.settle()?;
        // Drops of others may be in it; it must not have begun before all of ours were there.
        if rows >= keys {
            return Ok(monitor.processor_time()?.saturating_sub(before));
        }
    }
    anyhow::bail!("dropwatch reported less than {keys} keys, five times")
}

/// Between reports, and one of ten rows.
pub fn measure_idle(dropwatch: &Path) -> Result<Vec<Figure>> {
    eprintln!("idle: {IDLE_REPORTS} reports");
    let sender = Sender::start()?;
    let mut monitor = Monitor::start(dropwatch, "2s", &BY)?;
    let (mut wake_ups, mut quiet, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..IDLE_REPORTS {
        monitor.line()?;
        let since = Instant::now();
        thread::sleep(SETTLED);
        let (switches, time) = (switches(&monitor)?, monitor.processor_time()?);
        thread::sleep(QUIET);
        wake_ups.push(self::switches(&monitor)? - switches);
        quiet.push(monitor.processor_time()?.saturating_sub(time).as_secs_f64() * 1e3);
        ensure!(since.elapsed() < Duration::from_secs(2), "the machine is too busy for `idle`");
        reports.push(report(&mut monitor, &sender, 10)?.as_secs_f64() * 1e3);
    }
    let (wake_ups, quiet, reports) = (Sample::new(wake_ups), Sample::new(quiet), Sample::new(reports));
    let figure = |id: &str, name, value, unit| Figure::new(format!("idle.{id}"), name, value, unit);
    Ok(vec![
        figure("wake-ups", "wake-ups in 1.2 s between reports, most", wake_ups.most(), ""),
        figure("time", "processor time in 1.2 s between reports, most", quiet.most(), "ms"),
        figure("report.least", "a report of 10 rows, processor time, least", reports.least(), "ms"),
        figure("report.median", "a report of 10 rows, processor time, median", reports.median(), "ms")
            .with_spread(reports.middle_half()),
    ])
}

/// How often its threads gave up a processor or lost it: each time, they had been woken.
fn switches(monitor: &Monitor) -> Result<f64> {
    let mut sum = 0.0;
    for task in fs::read_dir(format!("/proc/{}/task", monitor.pid())).context("the monitor is gone")? {
        // A thread that ends meanwhile no longer wakes.
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        sum += switches_of(&status);
    }
    Ok(sum)
}

fn switches_of(status: &str) -> f64 {
    let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
    counts.filter_map(|(_, count)| count.trim().parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both kinds count.
    #[test]
    fn switches_are_added() {
        let status = "Threads:\t2\nvoluntary_ctxt_switches:\t41\nnonvoluntary_ctxt_switches:\t7\n";
        assert!((switches_of(status) - 48.0).abs() < 1e-9);
    }
}
