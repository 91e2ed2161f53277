//! The end of the line: turns intervals into reports and writes them, in a thread of its own.
//!
//! A slow reader, or a symbol table that is still being read, holds up the printing and never the
//! counting: snapshots are taken on time elsewhere and wait in a channel.

use std::{
    io::{self, BufWriter, Write},
    thread,
};

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot};

use crate::{
    aggregate::Interval,
    keys::Key,
    names::KernelNames,
    render::Render,
    report::{Limits, Report},
};

/// Everything between an interval and standard output.
pub struct Printer {
    /// What a row stands for.
    pub by: Vec<Key>,
    /// Which rows are shown.
    pub limits: Limits,
    /// Symbols and reasons.
    pub names: KernelNames,
    /// How reports look.
    pub render: Box<dyn Render>,
}

impl Printer {
    /// Prints what comes through the channel until it closes or nobody reads any more.
    ///
    /// What comes back is how it ended: a reader that went away is a good end.
    pub fn spawn(self, intervals: mpsc::Receiver<Interval>) -> Result<oneshot::Receiver<Result<()>>> {
        let (done, printed) = oneshot::channel();
        thread::Builder::new()
            .name("printer".into())
            .spawn(move || {
                let result = match self.print(intervals) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                    result => result.context("cannot write the report"),
                };
                // Whoever no longer waits does not want to know.
                let _ = done.send(result);
            })
            .context("cannot start a thread")?;
        Ok(printed)
    }

    fn print(mut self, mut intervals: mpsc::Receiver<Interval>) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        while let Some(interval) = intervals.blocking_recv() {
            let report = Report::new(interval, &self.by, self.limits, &mut self.names.for_report());
            self.render.report(&report, &mut out)?;
            out.flush()?;
        }
        Ok(())
    }
}
