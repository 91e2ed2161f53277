//! All processors dropping as fast as they can: how fast that is, and whether every drop was counted.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{
    monitor::Monitor,
    other::{ONE_LINER, Running, Tool},
    sender::{self, SLICE, Source},
    statistics::{Random, Sample},
    table::Figure,
};

const ROUNDS: usize = 6;

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_millis(1500);

/// What a flood did, and how many of its drops the watcher saw, if there was one.
struct Flood {
    drops: u64,
    rate: f64,
    /// Processor time of a drop, in nanoseconds.
    time: f64,
    seen: Option<u64>,
}

/// No watcher, dropwatch, and bpftrace if it is installed.
#[derive(Clone, Copy)]
enum Watcher {
    None,
    Dropwatch,
    Bpftrace,
}

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    let bpftrace = Tool::bpftrace();
    // Everything started from here on is in the namespace, which makes no difference to the counting.
    let measure = || {
        sender::namespace().context("cannot make a namespace whose packets are dropped")?;
        rounds(dropwatch, bpftrace.as_ref())
    };
    thread::scope(|scope| scope.spawn(measure).join()).map_err(|_| anyhow!("the flooding thread panicked"))?
}

fn rounds(dropwatch: &Path, bpftrace: Option<&Tool>) -> Result<Vec<Figure>> {
    let mut watchers = vec![Watcher::None, Watcher::Dropwatch];
    watchers.extend(bpftrace.map(|_| Watcher::Bpftrace));
    let mut floods: Vec<Vec<Flood>> = watchers.iter().map(|_| Vec::new()).collect();
    let mut random = Random::from_time();
    let mut order: Vec<_> = (0..watchers.len()).collect();
    for round in 0..ROUNDS {
        eprintln!("peak: {round} of {ROUNDS} rounds");
        random.shuffle(&mut order);
        for &which in &order {
            floods[which].push(watched(watchers[which], dropwatch, bpftrace)?);
        }
    }
    let version = bpftrace.map_or("", |tool| &tool.version);
    let names = [("none", "no watcher"), ("dropwatch", "dropwatch"), ("bpftrace", version)];
    Ok(names.iter().zip(&floods).flat_map(|((id, name), floods)| figures(id, name, floods)).collect())
}

fn watched(watcher: Watcher, dropwatch: &Path, bpftrace: Option<&Tool>) -> Result<Flood> {
    match watcher {
        Watcher::None => flood(),
        Watcher::Dropwatch => {
            let monitor = Monitor::start(dropwatch, "1h", &[])?;
            monitor.settle()?;
            let flood = flood()?;
            let report = monitor.last_report()?;
            let counts = report["rows"].as_array().into_iter().flatten();
            // Ours is by far the largest row; drops of others have rows of their own.
            Ok(Flood { seen: counts.filter_map(|row| row["count"].as_u64()).max(), ..flood })
        }
        Watcher::Bpftrace => {
            let running = Running::bpftrace(bpftrace.context("no bpftrace")?, ONE_LINER)?;
            let flood = flood()?;
            let text = running.stop()?;
            let counts = text.lines().filter_map(|line| line.rsplit_once("]: ")?.1.parse().ok());
            Ok(Flood { seen: counts.max(), ..flood })
        }
    }
}

/// A thread on each processor, in the namespace of this one.
fn flood() -> Result<Flood> {
    let before = sender::dropped()?;
    let start = Instant::now();
    let processors = sender::processors()?;
    let times: Result<Vec<Duration>> = thread::scope(|scope| {
        let threads: Vec<_> = processors.iter().map(|&cpu| scope.spawn(move || send(cpu))).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|times| times.map_err(|_| anyhow!("a flooding thread panicked"))?).collect()
    });
    let elapsed = start.elapsed().as_secs_f64();
    let (times, drops) = (times?, sender::dropped()? - before);
    let many = f64::from(u32::try_from(drops).context("too many drops")?);
    let time = times.iter().sum::<Duration>().as_secs_f64() * 1e9 / many;
    Ok(Flood { drops, rate: many / elapsed, time, seen: None })
}

/// Sends until the flood is over, and returns the processor time it took.
fn send(cpu: usize) -> Result<Duration> {
    sender::pin_to(cpu)?;
    let source = Source::small()?;
    let (start, before) = (Instant::now(), sender::processor_time()?);
    while start.elapsed() < FLOOD {
        source.send(SLICE)?;
    }
    Ok(sender::processor_time()?.saturating_sub(before))
}

fn figures(id: &str, name: &str, floods: &[Flood]) -> Vec<Figure> {
    let rates = Sample::new(floods.iter().map(|flood| flood.rate / 1e6).collect());
    let times = Sample::new(floods.iter().map(|flood| flood.time).collect());
    let figure = |what: &str, words: &str, value, unit| {
        Figure::new(format!("peak.{id}.{what}"), &format!("flood, {name}: {words}"), value, unit)
    };
    let mut figures = vec![
        figure("rate", "drops, most", rates.most(), "M/s"),
        figure("rate.median", "drops, median", rates.median(), "M/s").with_spread(rates.middle_half()),
        figure("time", "processor time of a drop", times.least(), "ns").with_spread(times.spread()),
    ];
    let difference = |flood: &Flood| flood.seen.map(|seen| seen.abs_diff(flood.drops));
    if let Some(off) = floods.iter().filter_map(difference).max() {
        let off = f64::from(u32::try_from(off).unwrap_or(u32::MAX));
        figures.push(figure("off", "count off by, most", off, "drops"));
    }
    figures
}
