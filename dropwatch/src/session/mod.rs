//! One run: what it needs, when reports are due, and the way from the probe to a reader.

pub mod collector;
pub mod decide;
pub mod digger;
pub mod evidence;
pub mod follow;
pub mod interfaces;
pub mod judge;
pub mod life;
pub mod losses;
pub mod namespaces;
pub mod open;
pub mod owners;
pub mod preflight;
pub mod presence;
pub mod printer;
pub mod reports;
pub mod samples;
pub mod schedule;
pub mod sink;
pub mod words;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use crate::process::{failure::Failure, files::ReadyFile};

/// Runs a command in an event loop of this thread; its ready file goes when it ends.
///
/// # Errors
/// Those of the command, or there is no event loop to be had.
pub fn run_to_end(
    ready: &ReadyFile,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let ended = event_loop()?.block_on(command);
    ready.remove();
    ended
}

/// An event loop for this thread.
///
/// # Errors
/// There is none to be had.
pub fn event_loop() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().context("cannot start the event loop")
}
