//! How long a start takes, from before the process exists until it counts.

use std::{path::Path, process::Stdio, time::Instant};

use anyhow::{Context, Result, anyhow};

use super::{
    monitor::Monitor,
    other::{ONE_LINER, Tool},
    ready::Ready,
    statistics::Sample,
    table::Figure,
};

const STARTS: usize = 20;

/// The queries to dropwatch, for programs, people and itself.
const QUESTIONS: [(&str, &str, &[&str]); 3] = [
    ("default", "dropwatch", &[]),
    ("iface", "dropwatch -b iface", &["-b", "iface"]),
    ("filter", "dropwatch -f 'udp and dst port 9'", &["-f", "udp and dst port 9"]),
];

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    eprintln!("start: {STARTS} starts of each");
    let bpftrace = Tool::bpftrace();
    let mut times = QUESTIONS.map(|_| Vec::new());
    let mut others = Vec::new();
    // The first round brings the files into the page cache.
    for round in 0..=STARTS {
        for ((.., args), times) in QUESTIONS.iter().zip(&mut times) {
            let monitor = Monitor::start(dropwatch, "1h", args)?;
            times.extend((round > 0).then_some(monitor.started.as_secs_f64() * 1e3));
            // What it still reads in the background must not delay the next one.
            monitor.settle()?;
            monitor.stop()?;
        }
        if let Some(tool) = &bpftrace {
            let took = start_bpftrace(tool)?;
            others.extend((round > 0).then_some(took));
        }
    }
    let mut figures = Vec::new();
    for ((id, name, _), times) in QUESTIONS.iter().zip(times) {
        figures.extend(both(id, name, times));
    }
    if let Some(tool) = &bpftrace {
        figures.extend(both("bpftrace", &tool.version, others));
    }
    Ok(figures)
}

fn both(id: &str, name: &str, times: Vec<f64>) -> [Figure; 2] {
    let times = Sample::new(times);
    let figure = |which: &str, value| {
        Figure::new(format!("start.{id}.{which}"), &format!("{name}, until attached, {which}"), value, "ms")
    };
    [
        figure("median", times.median()).with_spread(times.middle_half()),
        figure("least", times.least()).with_spread(times.spread()),
    ]
}

/// Milliseconds until bpftrace, which has no ready file, starts the program it is to watch, and that makes one:
/// about one of them is that program's.
fn start_bpftrace(tool: &Tool) -> Result<f64> {
    let ready = Ready::new()?;
    let mut command = tool.command();
    command.args(["-c", &format!("/usr/bin/touch {}", ready.path().display()), "-e", ONE_LINER]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().context("cannot start bpftrace")?;
    let attached = ready.wait(start, &mut child, |_| anyhow!("bpftrace ended before it was attached"));
    if attached.is_err() {
        let _ = child.kill();
    }
    child.wait().context("bpftrace does not end")?;
    Ok(attached?.as_secs_f64() * 1e3)
}
