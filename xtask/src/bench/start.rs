//! How long a start takes, from before the process exists until it counts.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, anyhow};

use super::{
    cost::{FLOW, KEYS},
    other::{ONE_LINER, Tool},
    process::Process,
    ready::Ready,
    statistics::Sample,
    table::Figure,
};

const STARTS: usize = 20;

/// A question to dropwatch: for programs, for people, and its command line.
type Question<'a> = (&'a str, &'a str, Vec<&'a str>);

fn questions(all_keys: &str) -> [Question<'_>; 9] {
    [
        ("default", "dropwatch", vec!["watch"]),
        ("iface", "dropwatch -b iface", vec!["watch", "-b", "iface"]),
        ("dport", "dropwatch -b dport", vec!["watch", "-b", "dport"]),
        ("flow", "dropwatch -b, a flow with its location and reason", vec!["watch", "-b", FLOW]),
        ("process", "dropwatch -b process", vec!["watch", "-b", "process"]),
        ("filter", "dropwatch -f 'udp and dst port 9'", vec!["watch", "-f", FILTER]),
        ("all", "dropwatch -b, all keys", vec!["watch", "-b", all_keys]),
        ("trace", "dropwatch trace", vec!["trace"]),
        ("trace-filter", "dropwatch trace 'udp and dst port 9'", vec!["trace", "-f", FILTER]),
    ]
}

const FILTER: &str = "udp and dst port 9";

/// One whose benchmark was killed ends by itself after this long.
const LIFE: &str = "2m";

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    eprintln!("start: {STARTS} starts of each");
    let bpftrace = Tool::bpftrace();
    let all_keys = KEYS.join(",");
    let questions = questions(&all_keys);
    let mut times = [const { Vec::new() }; 9];
    let mut others = Vec::new();
    // The first round brings the files into the page cache.
    for round in 0..=STARTS {
        for ((.., args), times) in questions.iter().zip(&mut times) {
            let mut command = Command::new(dropwatch);
            command.args(args).args(["--duration", LIFE]).stdout(Stdio::null());
            let (process, started) = Process::start(&mut command)?;
            times.extend((round > 0).then_some(started.as_secs_f64() * 1e3));
            // What it still reads in the background must not delay the next one.
            process.settle()?;
            process.interrupt()?;
            process.ended()?;
        }
        if let Some(tool) = &bpftrace {
            let took = start_bpftrace(tool)?;
            others.extend((round > 0).then_some(took));
        }
    }
    let mut figures = Vec::new();
    for ((id, name, _), times) in questions.iter().zip(times) {
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
