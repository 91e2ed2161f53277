//! How many drops a second can be shown, each with its packet; and what it costs to show one or not to.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cost,
    other::{PRINTER, Running, Tool},
    search::{self, Trial},
    sender::Sender,
    table::Figure,
    tracer::Tracer,
};

/// Bytes of a frame: a minimal one, and one that is nearly full.
const FRAMES: [usize; 2] = [60, 1400];

/// What may still be unwritten when the last packet has been dropped: the ring buffer hides for a while that it
/// fills faster than it empties. A rate is at most a tenth too large for it; ending takes a part of it.
const LATE: Duration = Duration::from_millis(100);

/// Files there are in memory: no disk is measured.
const MEMORY: &str = "/dev/shm";

/// The queries to dropwatch, for programs, people and itself, and the frame sizes.
const FORMATS: [(&str, &str, &[&str], usize); 4] = [
    ("text", "dropwatch trace", &[], FRAMES[0]),
    ("json", "dropwatch trace -o json", &["-o", "json"], FRAMES[0]),
    ("pcapng", "dropwatch trace -w -, frames of 60 bytes", CAPTURE, FRAMES[0]),
    ("pcapng-large", "dropwatch trace -w -, frames of 1400 bytes", CAPTURE, FRAMES[1]),
];

/// Packets to standard output, and no lines.
const CAPTURE: &[&str] = &["-w", "-"];

/// A table of rates, and one of costs for each size of a frame.
pub fn measure(dropwatch: &Path, rounds: u32) -> Result<Vec<Vec<Figure>>> {
    let mut rates = Vec::new();
    for (id, name, args, frame) in FORMATS {
        let sender = Sender::start_with(frame)?;
        rates.extend(figures(id, name, |rate| try_dropwatch(dropwatch, args, &sender, rate))?);
    }
    rates.extend(bpftrace()?);
    // The rates take longer than any other part: the whole is to take less than ten minutes.
    let costs = cost::measure_trace(dropwatch, FRAMES, rounds / 2)?;
    Ok([rates].into_iter().chain(costs).collect())
}

/// The largest rate, and what was written meanwhile.
fn figures(id: &str, name: &str, trial: impl FnMut(u32) -> Result<Trial>) -> Result<Vec<Figure>> {
    eprintln!("trace: {name}");
    let Some(found) = search::largest(trial)? else {
        eprintln!("skipped: {name}: it lost drops at every rate that was tried");
        return Ok(Vec::new());
    };
    let figure = |what: &str, words: &str, value, unit| {
        Figure::new(format!("trace.{id}.{what}"), &format!("{name}: {words}"), value, unit)
    };
    let words = if found.of_sender { "drops, all that could be sent" } else { "most drops without a loss" };
    Ok(vec![
        figure("rate", words, found.trial.rate / 1e3, "k/s"),
        figure("written", "written meanwhile", found.trial.written / 1e6, "MB/s"),
    ])
}

/// A dropwatch for this rate alone; its summary shows whether it has kept up.
fn try_dropwatch(dropwatch: &Path, args: &[&str], sender: &Sender, rate: u32) -> Result<Trial> {
    let file = memory()?;
    let output = file.try_clone().context("no second descriptor of a file")?;
    let tracer = Tracer::start(dropwatch, args, output.into())?;
    let seconds = sender.drop_paced(rate)?.as_secs_f64();
    let end = Instant::now();
    let summary = tracer.stop()?;
    let late = end.elapsed();
    let told = summary.shown + summary.not_shown;
    ensure!(told >= u64::from(rate), "dropwatch trace {args:?} knows of {told} of {rate} drops");
    Ok(Trial {
        rate: f64::from(rate) / seconds,
        kept_up: summary.not_shown == 0 && late < LATE,
        written: f64::from(u32::try_from(size(&file)?)?) / seconds,
    })
}

/// A contender that runs all the time, because it needs seconds to start.
fn bpftrace() -> Result<Vec<Figure>> {
    let Some(tool) = Tool::bpftrace() else { return Ok(Vec::new()) };
    let file = memory()?;
    let mut running = match Running::bpftrace_printing(&tool, PRINTER, &file) {
        Ok(running) => running,
        Err(error) => {
            eprintln!("skipped: {}: {error:#}", tool.version);
            return Ok(Vec::new());
        }
    };
    let sender = Sender::start_with(FRAMES[0])?;
    figures("bpftrace", &format!("{}, a line with less in it", tool.version), |rate| {
        let before = settled(&file)?;
        let seconds = sender.drop_paced(rate)?.as_secs_f64();
        thread::sleep(LATE);
        let after = size(&file)?;
        running.check()?;
        Ok(Trial {
            rate: f64::from(rate) / seconds,
            kept_up: is_whole(&printed(&file, before, after)?, rate),
            written: f64::from(u32::try_from(after - before)?) / seconds,
        })
    })
}

/// A file that no disk is written for.
fn memory() -> Result<File> {
    tempfile::tempfile_in(MEMORY).context("no file in memory")
}

fn size(file: &File) -> Result<u64> {
    Ok(file.metadata().context("no size of a file")?.len())
}

/// Its size once nothing has been added for a while, or after some seconds: the rest of what was dropped before may
/// still be printed.
fn settled(file: &File) -> Result<u64> {
    let mut before = size(file)?;
    for _ in 0..50 {
        thread::sleep(LATE);
        let now = size(file)?;
        if now == before {
            break;
        }
        before = now;
    }
    Ok(before)
}

/// What is in a file between two of its sizes.
fn printed(file: &File, before: u64, after: u64) -> Result<String> {
    let mut text = vec![0; usize::try_from(after - before)?];
    file.read_exact_at(&mut text, before).context("cannot read what bpftrace printed")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether there is a line for each drop: bpftrace says what it has lost, unless it is late with that, too.
fn is_whole(printed: &str, drops: u32) -> bool {
    let says_lost = printed.lines().any(|line| line.starts_with("Lost "));
    !says_lost && printed.lines().count() >= usize::try_from(drops).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line too few is a loss that was not said, and drops of others do not make up for one that was.
    #[test]
    fn losses_are_seen() {
        assert!(is_whole("one\ntwo\nanother's\n", 2));
        assert!(!is_whole("one\n", 2));
        assert!(!is_whole("one\nLost 3 events\nanother's\n", 2));
    }
}
