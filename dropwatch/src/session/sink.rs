//! Where intervals end: a printer, a screen, an exporter.

use std::{ops::ControlFlow, thread};

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot};

use crate::model::interval::Interval;

/// Takes the intervals of a run, in their order.
pub trait Sink: Send + 'static {
    /// Takes one interval; breaks when there is no use for another one, as when a reader has gone away.
    ///
    /// # Errors
    /// The run cannot go on.
    fn interval(&mut self, interval: Interval) -> Result<ControlFlow<()>>;

    /// Says what a run ends with, after its last interval.
    ///
    /// # Errors
    /// It cannot be said.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Runs a sink in a thread of its own until the channel closes, the sink has enough, or it fails.
///
/// A slow reader, or a symbol table that is still being read, holds up this thread and never the counting: snapshots
/// are taken on time elsewhere and wait in the channel.
pub fn spawn(
    mut sink: impl Sink,
    mut intervals: mpsc::Receiver<Interval>,
) -> Result<oneshot::Receiver<Result<()>>> {
    let (done, ended) = oneshot::channel();
    let run = move || {
        let result = loop {
            let Some(interval) = intervals.blocking_recv() else { break sink.end() };
            match sink.interval(interval) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The receiver may be gone; ignore it.
        let _ = done.send(result);
    };
    thread::Builder::new().name("sink".into()).spawn(run).context("cannot start a thread")?;
    Ok(ended)
}
