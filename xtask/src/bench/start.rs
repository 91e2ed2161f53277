//! How long a start takes, from before the process exists until it counts.

use std::path::Path;

use anyhow::Result;

use super::{monitor::Monitor, statistics::Sample, table::Figure};

const STARTS: usize = 20;

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    eprintln!("start: {STARTS} starts");
    // The first one brings the files into the page cache.
    Monitor::start(dropwatch, "1h", &[])?.stop()?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let monitor = Monitor::start(dropwatch, "1h", &[])?;
        times.push(monitor.started.as_secs_f64() * 1e3);
        // What it still reads in the background must not delay the next one.
        monitor.settle()?;
        monitor.stop()?;
    }
    let times = Sample::new(times);
    Ok(vec![
        Figure::new("start.median", "start until attached, median", times.median(), "ms"),
        Figure::new("start.least", "start until attached, least", times.least(), "ms")
            .with_spread(times.spread()),
    ])
}
