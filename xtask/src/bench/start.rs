//! How long a start takes, from before the process exists until it counts.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{
    cost::{FLOW, KEYS},
    other::{ONE_LINER, Tool},
    process::Process,
    ready::Ready,
    statistics::{Random, Sample},
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

/// What is started: for programs, for people, and how; that says how long it took.
struct Start<'a>(&'a str, &'a str, Box<dyn Fn() -> Result<Duration> + 'a>);

/// Between the end of one and the start of the next: the kernel takes programs and maps away after their owner has ended,
/// on the processors that the next one starts on.
const PAUSE: Duration = Duration::from_millis(100);

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    eprintln!("start: {STARTS} starts of each");
    let bpftrace = Tool::bpftrace();
    let all_keys = KEYS.join(",");
    let questions = questions(&all_keys);
    let ours = questions.iter().map(|(id, name, args)| Start(id, name, Box::new(|| start(dropwatch, args))));
    let other =
        bpftrace.iter().map(|tool| Start("bpftrace", &tool.version, Box::new(|| start_bpftrace(tool))));
    let starts: Vec<_> = ours.chain(other).collect();
    let mut times = vec![Vec::new(); starts.len()];
    let mut order: Vec<_> = (0..starts.len()).collect();
    let mut random = Random::from_time();
    // The first round brings the files into the page cache.
    for round in 0..=STARTS {
        // In one order, what one leaves behind would be in the figure of the next.
        random.shuffle(&mut order);
        for &which in &order {
            thread::sleep(PAUSE);
            let took = starts[which].2()?;
            times[which].extend((round > 0).then_some(took.as_secs_f64() * 1e3));
        }
    }
    Ok(starts.iter().zip(times).flat_map(|(Start(id, name, _), times)| both(id, name, times)).collect())
}

/// How long dropwatch takes until it is attached.
fn start(dropwatch: &Path, args: &[&str]) -> Result<Duration> {
    let mut command = Command::new(dropwatch);
    command.args(args).args(["--duration", LIFE]).stdout(Stdio::null());
    let (process, took) = Process::start(&mut command)?;
    // What it still reads in the background must not delay the next one.
    process.settle()?;
    process.interrupt()?;
    process.ended()?;
    Ok(took)
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

/// The same of bpftrace, which has no ready file: until it starts the program it is to watch, and that makes one. About a
/// millisecond is that program's.
fn start_bpftrace(tool: &Tool) -> Result<Duration> {
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
    attached
}
