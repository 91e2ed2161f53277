//! The signals that end a run.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP end a run alike; a second SIGINT ends it at once.
#[derive(Debug)]
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    signalled: bool,
    again: bool,
}

impl Stop {
    /// Takes over the signals' handling.
    pub fn install() -> Result<Self> {
        let take = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            signalled: false,
            again: false,
        })
    }

    /// Waits for a signal to end the run.
    pub async fn first(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
        self.signalled = true;
    }

    /// Waits for a SIGINT that comes after a signal; at once, if it has come before.
    pub async fn again(&mut self) {
        if !self.signalled {
            self.first().await;
        }
        if !self.again {
            self.interrupt.recv().await;
            self.again = true;
        }
    }
}
