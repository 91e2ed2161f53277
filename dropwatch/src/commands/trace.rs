//! `dropwatch trace`: each drop with its packet, as it happens.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc::{self, Sender},
    time::{Instant, sleep, sleep_until},
};

use super::{attach_filtered, symbol_source};
use crate::{
    btf::KernelBtf,
    cli::TraceArgs,
    config::TraceConfig,
    console::{say, warn},
    failure::Failure,
    host::Host,
    names::KernelNames,
    preflight::{self, Needs},
    probe::KernelFilter,
    signals::Stop,
    symbols::KallsymsSource,
    sys,
    trace::{
        batch::Batch,
        clock::Clock,
        output::Output,
        printer::{Printer, Summary},
        probe::TraceProbe,
        rate::Limit,
    },
};

/// Batches that may wait for a slow reader before the ring buffer fills.
const QUEUE: usize = 4;
/// How long a drop may wait for others to be read with it: waking a reader for each would cost the kernel more than
/// the drop.
const GATHER: Duration = Duration::from_millis(2);
/// How often the rate is adapted, and the ring buffer looked at in any case.
const TICK: Duration = Duration::from_millis(100);
/// What may still be on its way through the probe when it has been detached.
const GRACE: Duration = Duration::from_millis(10);

/// Runs the command.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running.
pub fn run(args: &TraceArgs) -> Result<(), Failure> {
    let kernel = KernelBtf::default();
    let config = TraceConfig::new(args, &Host::new(&kernel))?;
    for warning in preflight::check(Needs { symbols: config.kallsyms.is_none(), statistics: false })? {
        warn(&warning);
    }
    let source = symbol_source(config.kallsyms.as_deref(), true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(trace(&config, source, kernel))
}

async fn trace(config: &TraceConfig, source: KallsymsSource, kernel: KernelBtf) -> Result<(), Failure> {
    let mut stop = Stop::install()?;
    let output = Output::open(config).map_err(anyhow::Error::from)?;
    let attach = |filter: Option<KernelFilter>| TraceProbe::attach(config.probe, filter.as_ref(), &kernel);
    let (probe, symbols) = attach_filtered(config.filter.as_ref(), source, attach, TraceProbe::take_ranges)?;
    let end_of_line = Printer {
        output,
        names: KernelNames::new(symbols, probe.has_reason(), kernel),
        unseen: probe.unseen(),
        count: config.count,
        limit: Limit::new(config.probe.rate),
        with_stack: config.probe.stack,
    };
    say("Monitoring for dropped packets");
    if let Some(file) = &config.ready_file {
        fs::write(file, format!("{}\n", std::process::id()))
            .with_context(|| format!("cannot create {}", file.display()))?;
    }
    let (sender, batches) = mpsc::channel(QUEUE);
    let mut ending = end_of_line.spawn(batches)?;
    let end = config.duration.map(|duration| Instant::now() + duration);
    Reader::new(probe, sender)?.read(end, &mut stop).await?;
    tokio::select! {
        ended = &mut ending => {
            if let Some(summary) = ended.context("the printing thread died")?? {
                tell(summary);
            }
        }
        // Whoever asks twice does not want to wait for a slow reader.
        () = stop.again() => {}
    }
    say("Stopping dropped packet monitor");
    Ok(())
}

fn tell(Summary { shown, not_shown }: Summary) {
    let drops = if shown == 1 { "drop" } else { "drops" };
    say(&format!("{shown} {drops} shown, {not_shown} not shown"));
}

/// Carries records from the ring buffer to the printer.
struct Reader {
    probe: TraceProbe,
    /// Tells when there is something to read.
    ready: AsyncFd<OwnedFd>,
    sender: Sender<Batch>,
}

impl Reader {
    fn new(probe: TraceProbe, sender: Sender<Batch>) -> Result<Self> {
        let ring = probe.ring.as_fd().try_clone_to_owned().context("cannot wait for drops")?;
        let ready = sys::readable(ring).context("cannot wait for drops")?;
        Ok(Self { probe, ready, sender })
    }

    /// Until a time, a signal or the printer ends it.
    async fn read(mut self, end: Option<Instant>, stop: &mut Stop) -> Result<()> {
        let mut tick = Instant::now() + TICK;
        loop {
            tokio::select! {
                biased;
                () = stop.first() => break,
                () = self.sender.closed() => return Ok(()),
                () = until(end) => break,
                () = sleep_until(tick) => {
                    tick = Instant::now() + TICK;
                    self.probe.adapt()?;
                    // Also an empty one: it has the printer say what is missing.
                    let batch = Batch::new(Clock::now());
                    let _ = self.sender.try_send(batch);
                }
                ready = self.ready.readable() => {
                    ready.context("cannot wait for drops")?.clear_ready();
                    sleep(GATHER).await;
                }
            }
            tokio::select! {
                biased;
                () = stop.first() => break,
                () = until(end) => break,
                () = hand_over(&mut self.probe, &self.sender) => {}
            }
        }
        self.finish(stop).await
    }

    /// Hands over what has happened up to now.
    async fn finish(mut self, stop: &mut Stop) -> Result<()> {
        self.probe.detach();
        sleep(GRACE).await;
        tokio::select! {
            () = hand_over(&mut self.probe, &self.sender) => {}
            () = stop.again() => {}
        }
        Ok(())
    }
}

/// Waits for a time, for ever if there is none.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Sends all records there are, as fast as the printer takes them.
async fn hand_over(probe: &mut TraceProbe, sender: &Sender<Batch>) {
    loop {
        // First a place, then a batch: what is not read yet is safe in the ring buffer.
        let Ok(place) = sender.reserve().await else { return };
        let batch = probe.batch();
        if batch.is_empty() {
            return;
        }
        place.send(batch);
    }
}
