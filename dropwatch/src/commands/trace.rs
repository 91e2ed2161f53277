//! `dropwatch trace`: each drop with its packet, as it happens.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc::{self, Sender},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    cli::{TraceArgs, config::TraceConfig},
    kernel::{btf::KernelBtf, lookup::Host, names::KernelNames, symbols::KallsymsSource},
    model::{keys::Key, plural::counted, snapshot::Ledger},
    probe::{
        clock::Clock,
        kfree_skb::{batch::Batch, rate::Limit, trace::TraceProbe, typed::KernelFilter},
    },
    process::{
        console::say,
        failure::Failure,
        files::ReadyFile,
        notice::Notices,
        privileges,
        signals::{Signals, Stop},
    },
    session::{
        namespaces::{self, Doubts},
        open::{Opened, Opener},
        preflight::{self, Need},
        run_to_end,
    },
    sys,
    trace::{
        output::Output,
        printer::{Printer, Progress, Totals},
    },
};

/// Batches that may wait for a slow reader before the ring buffer fills.
const QUEUE: usize = 4;
/// How long a drop may wait for others to be read with it: waking a reader for each would cost the kernel more than
/// the drop.
const GATHER: Duration = Duration::from_millis(2);
/// How often the rate is adapted, losses are reported, and the ring buffer is read in any case.
const TICK: Duration = Duration::from_millis(100);
/// What may still be on its way through the probe when it has been detached.
const GRACE: Duration = Duration::from_millis(10);

/// How long drops wait for lines of source. The ring buffer fills meanwhile.
const LINES_WAIT: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running.
pub fn run(args: &TraceArgs) -> Result<(), Failure> {
    let signals = Signals::of_a_run()?;
    let (kernel, notices) = (KernelBtf::default(), Notices::to_stderr());
    let namespaces = namespaces::of_this_host(&kernel);
    let host = Host::new(&kernel, &namespaces).with_symbols(args.symbols.kallsyms.as_deref());
    let config = TraceConfig::new(args, &host)?;
    let ready = ReadyFile::prepare(config.ready_file.as_deref())?;
    preflight::check(&needs(&config), &notices)?;
    let opener = Opener { kernel, namespaces, notices, doubts: Doubts::default(), symbols_first: false };
    let source = opener.symbol_source(config.kallsyms.as_deref(), true)?;
    run_to_end(&ready, trace(&config, source, opener, &signals, &ready))
}

/// What is needed, at the start and for longer.
fn needs(config: &TraceConfig) -> Vec<Need> {
    let mut needs = vec![Need::Memory, Need::Namespaces];
    if config.kallsyms.is_none() {
        needs.push(Need::Symbols);
    }
    needs.extend(config.ready_file.clone().map(Need::File));
    needs.extend(config.debug_dir.clone().map(Need::Directory));
    needs
}

async fn trace(
    config: &TraceConfig,
    source: KallsymsSource,
    opener: Opener,
    signals: &Signals,
    ready: &ReadyFile,
) -> Result<(), Failure> {
    let attach =
        |filter: Option<KernelFilter>| TraceProbe::attach(config.probe, filter.as_ref(), &opener.kernel);
    opener.watch_namespaces()?;
    let names_owners = config.filter.as_ref().is_some_and(|filter| !filter.cases().belongings().is_empty());
    let has_sockets = config.probe.socket || names_owners;
    let by: &[Key] = if has_sockets { &[Key::Process, Key::Container] } else { &[] };
    let Opened { mut probe, symbols, owners, life: _life } =
        opener.attach(config.filter.as_ref(), by, source, attach)?;
    let to_remove = ready.clone();
    let stop = signals.run(move || to_remove.remove());
    let output = Output::open(config.format, config.style, config.write.as_ref(), config.probe.snaplen)
        .map_err(anyhow::Error::from)?;
    privileges::give_up()?;
    let Opener { kernel, namespaces, notices, .. } = opener;
    let progress = Arc::new(Progress::new(probe.left_out()));
    let end_of_line = Printer {
        output,
        names: KernelNames::new(symbols, probe.has_reason(), kernel, namespaces, notices.clone())
            .with_lines(config.debug_dir.as_deref(), LINES_WAIT)
            .with_owners(owners),
        progress: Arc::clone(&progress),
        decide: probe.take_decide(),
        count: config.count,
        limit: Limit::new(config.probe.rate),
        with_stack: config.probe.stack,
        has_receivers: probe.has_receivers(),
    };
    say("Monitoring for dropped packets");
    ready.announce()?;
    let (sender, batches) = mpsc::channel(QUEUE);
    let ended = end_of_line.spawn(batches)?;
    let end = config.duration.map(|duration| Instant::now() + duration);
    Reader::new(probe, sender, notices, progress)?.read(end, &stop).await?;
    if let Some(totals) = ended.await.context("the printing thread died")?? {
        tell(totals);
    }
    say("Stopping dropped packet monitor");
    Ok(())
}

fn tell(Totals { shown, not_shown, without_frame }: Totals) {
    if without_frame > 0 {
        let drops = counted(without_frame, "drop");
        say(&format!("{drops} of local sockets (AF_UNIX, netlink) have no frame and are not in the capture"));
    }
    say(&format!("{} shown, {not_shown} not shown", counted(shown, "drop")));
}

/// Carries records from the ring buffer to the printer.
struct Reader {
    probe: TraceProbe,
    /// Reports when there is something to read.
    ready: AsyncFd<OwnedFd>,
    sender: Sender<Batch>,
    notices: Notices,
    progress: Arc<Progress>,
}

impl Reader {
    fn new(
        probe: TraceProbe,
        sender: Sender<Batch>,
        notices: Notices,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        let ring = probe.ring.as_fd().try_clone_to_owned().context("cannot wait for drops")?;
        let ready = sys::readable(ring).context("cannot wait for drops")?;
        Ok(Self { probe, ready, sender, notices, progress })
    }

    /// Until a time, a signal or the printer ends it.
    async fn read(mut self, end: Option<Instant>, stop: &Stop) -> Result<()> {
        let mut tick = Instant::now() + TICK;
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => break,
                () = self.sender.closed() => return Ok(()),
                () = until(end) => break,
                () = stop.report_wanted() => {
                    let (shown, not_shown) = (self.progress.shown(), self.progress.not_shown()?);
                    say(&format!("{} shown, {not_shown} not shown so far", counted(shown, "drop")));
                    continue;
                }
                () = sleep_until(tick) => {
                    tick = Instant::now() + TICK;
                    self.probe.adapt()?;
                    self.say_lost()?;
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
                () = stop.asked() => break,
                () = until(end) => break,
                () = hand_over(&mut self.probe, &self.sender) => {}
            }
        }
        self.finish().await
    }

    /// Says what the filter could not decide by.
    fn say_lost(&mut self) -> Result<()> {
        let Ledger { headers_unreadable: unreadable, names_unreadable, .. } = self.probe.newly_lost()?;
        if names_unreadable > 0 {
            let drops = counted(names_unreadable, "drop");
            self.notices
                .warn(format!("not all alternative names of the interfaces of {drops} could be read"));
        }
        if unreadable > 0 {
            self.notices.warn(format!(
                "the headers of {} could not be read: a filter by them does not match",
                counted(unreadable, "packet")
            ));
        }
        Ok(())
    }

    /// Hands over what has happened up to now.
    async fn finish(mut self) -> Result<()> {
        self.probe.detach();
        sleep(GRACE).await;
        hand_over(&mut self.probe, &self.sender).await;
        self.say_lost()
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
