//! The end of the line: names drops and writes them, in a thread of its own.
//!
//! A slow reader holds up this thread and nothing else: the ring buffer fills, and what no longer fits is counted by
//! the probe.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot};

use super::{
    batch::Batch,
    drop::Drop,
    event::Event,
    output::{Output, WriteError},
    probe::Unseen,
    rate::Limit,
};
use crate::names::KernelNames;

/// How often the stream says what is missing from it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Everything between a batch and a reader.
pub struct Printer {
    /// Where drops go to.
    pub output: Output,
    /// Symbols, reasons, namespaces.
    pub names: KernelNames,
    /// How many drops the probe has not handed over.
    pub unseen: Arc<Unseen>,
    /// Ends the run after so many.
    pub count: Option<u64>,
    /// Lets so many a second pass.
    pub limit: Limit,
    /// Whether call chains were asked for.
    pub with_stack: bool,
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Drops written.
    pub shown: u64,
    /// Drops seen and not written.
    pub not_shown: u64,
}

impl Printer {
    /// Prints what comes through the channel until it closes, enough are shown, or nobody reads any more.
    ///
    /// What comes back is how it ended; nothing, if the reader went away.
    pub fn spawn(self, batches: mpsc::Receiver<Batch>) -> Result<oneshot::Receiver<Result<Option<Summary>>>> {
        let (done, printed) = oneshot::channel();
        thread::Builder::new()
            .name("printer".into())
            .spawn(move || {
                let result = Printing::new(self).run(batches);
                // Whoever no longer waits does not want to know.
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
    shown: u64,
    /// Handed over and left out here.
    left_out: u64,
    /// What the stream has said is missing from it, and when.
    said: (u64, Instant),
    /// When names were last searched for that were not known.
    searched: Option<Instant>,
}

impl Printing {
    fn new(printer: Printer) -> Self {
        let now = Instant::now();
        Self { printer, started: now, shown: 0, left_out: 0, said: (0, now), searched: None }
    }

    fn run(mut self, batches: mpsc::Receiver<Batch>) -> Result<Option<Summary>> {
        let printed = self.print(batches);
        // A reader that has gone, or a disk that is full: the other of the two still gets what was before.
        let flushed = self.printer.output.flush();
        let ended = match (printed, flushed) {
            (Ok(()) | Err(WriteError::Closed), Err(error)) => Err(error),
            (printed, _) => printed,
        };
        match ended {
            Ok(()) => Ok(Some(Summary { shown: self.shown, not_shown: self.said.0 })),
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
        self.printer.output.finish(self.shown, self.said.0, self.started.elapsed())
    }

    /// Writes the drops of a batch; whether that is enough.
    fn batch(&mut self, batch: &Batch) -> Result<bool, WriteError> {
        if batch.is_empty() {
            return Ok(false);
        }
        // Batches come by the hundred a second, and processes are looked through for names of namespaces.
        let names = &mut self.printer.names;
        let mut names = if self.searched.is_none_or(|searched| searched.elapsed() >= INTERVAL) {
            self.searched = Some(Instant::now());
            names.for_report()
        } else {
            names.so_far()
        };
        for record in batch.records() {
            let parsed =
                Event::parse(record).inspect_err(|error| log::warn!("a record is left out: {error}"));
            let Ok(event) = parsed else {
                self.left_out += 1;
                continue;
            };
            if !self.printer.limit.admits(event.head.time) {
                self.left_out += 1;
                continue;
            }
            let drop = Drop::new(event, batch.clock, &mut names, self.printer.with_stack);
            self.printer.output.drop(&drop)?;
            self.shown += 1;
            if self.printer.count == Some(self.shown) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Says what has been left out since the last time.
    fn say_not_shown(&mut self) -> Result<(), WriteError> {
        let unseen = self.printer.unseen.read().map_err(WriteError::Uncounted)?;
        let total = (unseen + self.left_out).max(self.said.0);
        let since = total - self.said.0;
        self.said = (total, Instant::now());
        if since > 0 { self.printer.output.not_shown(since) } else { Ok(()) }
    }
}
