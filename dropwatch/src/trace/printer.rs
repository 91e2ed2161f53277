//! The end of the line: names drops and writes them, in a thread of its own.
//!
//! A slow reader holds up this thread and nothing else: the ring buffer fills, and what no longer fits is counted by
//! the probe.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use dropwatch_common::{event::known, program::Cases, sample::SocketView, socket::SocketKey};
use tokio::sync::{mpsc, oneshot};

use super::{
    dropped_packet::{DroppedPacket, destination},
    event::Event,
    output::{Output, WriteError},
};
use crate::{
    filter::assume::Decision,
    kernel::names::KernelNames,
    model::socket::Socket,
    probe::{
        kfree_skb::{batch::Batch, rate::Limit, trace::LeftOutCounters},
        source::{Belongs, Cause, Decide, Question},
    },
};

/// How often the stream says what is missing from it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Everything between a batch and a reader.
pub struct Printer {
    /// Where drops go to.
    pub output: Output,
    /// Symbols, reasons, namespaces.
    pub names: KernelNames,
    /// How far it has come, for others to read.
    pub progress: Arc<Progress>,
    /// Decides about drops that passed the filter because the kernel did not know all that decides.
    pub decide: Option<Decide>,
    /// Ends the run after so many.
    pub count: Option<u64>,
    /// At most this many a second pass.
    pub limit: Limit,
    /// Whether call chains were requested.
    pub with_stack: bool,
    /// Whether the kernel says which socket would have received a packet.
    pub has_receivers: bool,
}

/// What has become of the drops so far.
pub struct Progress {
    shown: AtomicU64,
    /// Handed over and left out by the printer.
    left_out: AtomicU64,
    /// Not handed over by the probe.
    not_recorded: Arc<LeftOutCounters>,
}

impl Progress {
    /// That of a probe whose drops have not been read yet.
    #[must_use]
    pub fn new(not_recorded: Arc<LeftOutCounters>) -> Self {
        Self { shown: AtomicU64::new(0), left_out: AtomicU64::new(0), not_recorded }
    }

    /// How many drops have been shown.
    #[must_use]
    pub fn shown(&self) -> u64 {
        self.shown.load(Relaxed)
    }

    /// How many have not.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn not_shown(&self) -> Result<u64> {
        Ok(self.not_recorded.read()? + self.left_out.load(Relaxed))
    }
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Drops written.
    pub shown: u64,
    /// Drops seen and not written.
    pub not_shown: u64,
    /// Drops that are in no capture, since no network carries them.
    pub without_frame: u64,
}

impl Printer {
    /// Prints what arrives through the channel until it closes, enough are shown, or the reader is gone.
    ///
    /// Returns how it ended; `None` if the reader went away.
    pub fn spawn(self, batches: mpsc::Receiver<Batch>) -> Result<oneshot::Receiver<Result<Option<Totals>>>> {
        let (done, printed) = oneshot::channel();
        thread::Builder::new()
            .name("printer".into())
            .spawn(move || {
                let result = Printing::new(self).run(batches);
                // The receiver may be gone; ignore it.
                let _ = done.send(result);
            })
            .context("cannot start a thread")?;
        Ok(printed)
    }
}

/// A printer at work.
struct Printing {
    printer: Printer,
    started: Instant,
    /// Left out of a capture, which holds frames.
    without_frame: u64,
    /// What the stream has said is missing from it, and when.
    said: (u64, Instant),
}

impl Printing {
    fn new(printer: Printer) -> Self {
        let now = Instant::now();
        Self { printer, started: now, without_frame: 0, said: (0, now) }
    }

    fn run(mut self, batches: mpsc::Receiver<Batch>) -> Result<Option<Totals>> {
        let printed = self.print(batches);
        // A reader that has gone, or a disk that is full: the other of the two still gets what was before.
        let flushed = self.printer.output.flush();
        let ended = match (printed, flushed) {
            (Ok(()) | Err(WriteError::Closed), Err(error)) => Err(error),
            (printed, _) => printed,
        };
        match ended {
            Ok(()) => Ok(Some(Totals {
                shown: self.printer.progress.shown(),
                not_shown: self.said.0,
                without_frame: self.without_frame,
            })),
            Err(WriteError::Closed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn print(&mut self, mut batches: mpsc::Receiver<Batch>) -> Result<(), WriteError> {
        while let Some(batch) = batches.blocking_recv() {
            if self.batch(&batch)? {
                break;
            }
            if self.said.1.elapsed() >= INTERVAL {
                self.say_not_shown()?;
            }
            if batches.is_empty() {
                self.printer.output.flush()?;
            }
        }
        self.say_not_shown()?;
        let shown = self.printer.progress.shown();
        self.printer.output.finish(shown, self.said.0, self.started.elapsed())
    }

    /// Writes the drops of a batch; whether that is enough.
    fn batch(&mut self, batch: &Batch) -> Result<bool, WriteError> {
        if batch.is_empty() {
            return Ok(false);
        }
        let sockets = Sockets::of(batch, self.printer.has_receivers);
        self.printer.names.look_for_owners(&sockets.inodes());
        let decisions = self.decisions(batch, &sockets);
        let progress = Arc::clone(&self.printer.progress);
        let leave_out = || progress.left_out.fetch_add(1, Relaxed);
        let names = &mut self.printer.names;
        let mut names = names.for_report();
        for record in batch.records() {
            let parsed =
                Event::parse(record).inspect_err(|error| log::warn!("a record is left out: {error}"));
            let Ok(event) = parsed else {
                leave_out();
                continue;
            };
            match question(&event, sockets.belongs(&event)).map(|question| decisions.get(&question)) {
                None | Some(Some(Decision::Matches)) => {}
                Some(Some(Decision::Differs)) => continue,
                Some(Some(Decision::Unknown) | None) => {
                    leave_out();
                    continue;
                }
            }
            if !self.printer.limit.admits(event.head.time) {
                leave_out();
                continue;
            }
            let drop = DroppedPacket::new(event, batch.clock, &mut names, self.printer.with_stack);
            let written = self.printer.output.write(&drop)?;
            self.without_frame += u64::from(!written.captured && self.printer.output.captures());
            if !written.shown {
                leave_out();
                continue;
            }
            let shown = progress.shown.fetch_add(1, Relaxed) + 1;
            if self.printer.count == Some(shown) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What becomes of drops about which the kernel did not know all that decides.
    fn decisions(&mut self, batch: &Batch, sockets: &Sockets) -> HashMap<Question, Decision> {
        let Some(decide) = &mut self.printer.decide else { return HashMap::new() };
        let events = batch.records().filter_map(|record| Event::parse(record).ok());
        let undecided: HashSet<_> =
            events.filter_map(|event| question(&event, sockets.belongs(&event))).collect();
        let undecided: Vec<_> = undecided.into_iter().collect();
        if undecided.is_empty() {
            return HashMap::new();
        }
        let decisions = decide(&undecided, &|number| sockets.get(number));
        undecided.into_iter().zip(decisions).collect()
    }

    /// Says what has been left out since the last time.
    fn say_not_shown(&mut self) -> Result<(), WriteError> {
        let not_shown = self.printer.progress.not_shown().map_err(WriteError::Uncounted)?;
        let total = not_shown.max(self.said.0);
        let since = total - self.said.0;
        self.said = (total, Instant::now());
        if since > 0 { self.printer.output.not_shown(since) } else { Ok(()) }
    }
}

/// The sockets of a batch, each with a number.
struct Sockets {
    numbers: HashMap<SocketKey, u64>,
    /// Each at its number.
    all: Vec<Socket>,
    has_receivers: bool,
}

impl Sockets {
    fn of(batch: &Batch, has_receivers: bool) -> Self {
        let mut sockets = Self { numbers: HashMap::new(), all: Vec::new(), has_receivers };
        // They were requested for all records of a run, or for none.
        let first = batch.records().find_map(|record| Event::parse(record).ok());
        if !first.is_some_and(|event| event.knows(known::SOCKET)) {
            return sockets;
        }
        let views = batch.records().filter_map(|record| Event::parse(record).ok()?.socket());
        for SocketView { key, seen, .. } in views {
            sockets.numbers.entry(key).or_insert_with(|| {
                sockets.all.push(Socket { key, seen });
                sockets.all.len() as u64 - 1
            });
        }
        sockets
    }

    fn get(&self, number: u64) -> Option<Socket> {
        self.all.get(usize::try_from(number).ok()?).cloned()
    }

    /// By which they have owners.
    fn inodes(&self) -> Vec<u64> {
        self.all.iter().map(Socket::owned_inode).filter(|inode| *inode != 0).collect()
    }

    /// Which one a packet belongs to; none if sockets were not requested.
    fn belongs(&self, event: &Event<'_>) -> Option<Belongs> {
        event.knows(known::SOCKET).then(|| match event.socket() {
            Some(view) => self.numbers.get(&view.key).map_or(Belongs::Unknown, |number| Belongs::To(*number)),
            None if self.has_receivers && !event.knows(known::SOCKET_FAILED) => Belongs::ToNone,
            None => Belongs::Unknown,
        })
    }
}

/// What is open about a drop that belongs to a socket, if that is known; none if nothing is.
#[must_use]
pub fn question(event: &Event<'_>, socket: Option<Belongs>) -> Option<Question> {
    let is_undecided = event.knows(known::UNDECIDED);
    let passed = event.head.known >> Cases::SHIFT;
    let cause = || Cause {
        location: event.head.location,
        reason: event.head.reason,
        destination: destination(event),
    };
    (is_undecided || passed != 0).then(|| Question {
        namespace: is_undecided.then(|| event.netns().unwrap_or_default()),
        passed,
        cause: (passed != 0).then(cause),
        socket: socket.filter(|_| passed != 0),
    })
}
