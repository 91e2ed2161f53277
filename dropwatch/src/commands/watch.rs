//! `dropwatch watch`: counts drops and prints a sorted report every interval.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::sleep_until,
};

use super::{attach, symbol_source};
use crate::{
    aggregate::Interval,
    btf::KernelBtf,
    cli::WatchArgs,
    collector::Collector,
    config::WatchConfig,
    console::{say, warn},
    failure::{Failure, Refusal},
    host::Host,
    names::KernelNames,
    preflight::{self, Needs},
    printer::Printer,
    render::renderer,
    schedule::Schedule,
    signals::Stop,
    symbols::KallsymsSource,
};

/// Intervals that may wait for a slow reader before ticks are missed.
const QUEUE: usize = 16;

/// Said once until it is over: it may be many reports.
const BEHIND: &str = "reports are due faster than they are printed or read: some are left out, and the next one covers \
                      their drops";

/// Runs the command.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running.
pub fn run(args: &WatchArgs) -> Result<(), Failure> {
    let kernel = KernelBtf::default();
    let config = WatchConfig::new(args, &Host::new(&kernel))?;
    for warning in preflight::check(Needs {
        symbols: config.kallsyms.is_none() && config.query.names_functions(),
        statistics: config.cost,
    })? {
        warn(&warning);
    }
    let source = symbol_source(config.kallsyms.as_deref(), config.query.names_functions())?;
    let _statistics = config
        .cost
        .then(|| enable_stats(Stats::RunTime))
        .transpose()
        .map_err(|error| Refusal::new(format!("cannot switch on BPF statistics: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(watch(&config, source, kernel))
}

async fn watch(config: &WatchConfig, source: KallsymsSource, kernel: KernelBtf) -> Result<(), Failure> {
    let mut stop = Stop::install()?;
    let (probe, probe_config, symbols) = attach(&config.query, source, &kernel)?;
    let names = KernelNames::new(symbols, probe.has_reason() && config.query.names_reasons(), kernel);
    let mut collector = Collector::new(probe, probe_config, config.cost);
    say("Monitoring for dropped packets");
    if let Some(file) = &config.ready_file {
        fs::write(file, format!("{}\n", std::process::id()))
            .with_context(|| format!("cannot create {}", file.display()))?;
    }
    let (sender, intervals) = mpsc::channel(QUEUE);
    let render = renderer(config.format, config.style());
    let printed =
        Printer { by: config.query.by.clone(), limits: config.limits, names, render }.spawn(intervals)?;
    collect(config, &mut collector, sender, &mut stop).await?;
    tokio::select! {
        printed = printed => printed.context("the printing thread died")??,
        // Whoever asks twice does not want to wait for a slow reader.
        () = stop.again() => {}
    }
    say("Stopping dropped packet monitor");
    Ok(())
}

/// Sends an interval at each tick, until the schedule, a signal or the reader ends it.
async fn collect(
    config: &WatchConfig,
    collector: &mut Collector,
    sender: mpsc::Sender<Interval>,
    stop: &mut Stop,
) -> Result<()> {
    let mut schedule = Schedule::new(collector.since(), config.interval, config.duration, config.reports);
    let mut behind = false;
    loop {
        let tick = schedule.next();
        tokio::select! {
            biased;
            () = stop.first() => break,
            () = sender.closed() => return Ok(()),
            () = sleep_until(tick.at.into()) => {}
        }
        if tick.last {
            break;
        }
        let room = sender.try_reserve();
        let missed = schedule.advance(Instant::now(), room.is_ok());
        if missed > 0 {
            warn(&format!("this report is late: it also covers the {missed} before it"));
        }
        match room {
            Ok(room) => {
                behind = false;
                room.send(collector.interval()?);
            }
            Err(TrySendError::Full(())) => {
                if !std::mem::replace(&mut behind, true) {
                    warn(BEHIND);
                }
            }
            Err(TrySendError::Closed(())) => return Ok(()),
        }
    }
    let last = collector.last_interval()?;
    tokio::select! {
        // A reader that went away meanwhile is a good end as well.
        _ = sender.send(last) => {}
        () = stop.again() => {}
    }
    Ok(())
}
