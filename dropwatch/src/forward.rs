//! Passes signals on to a command, as if it had been started without us.

use std::thread;

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::SignalFd,
    },
    unistd::Pid,
};

/// What is passed on. What stops and continues a job reaches it through the terminal alone.
const SIGNALS: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// The `si_code` of a signal from the kernel, such as the terminal's: the command has it already.
const FROM_KERNEL: i32 = 0x80;

/// Signals that wait to be passed on.
#[derive(Debug)]
pub struct Forwarder {
    signals: SignalFd,
}

impl Forwarder {
    /// Blocks the signals in this thread and all it starts from now on; commands start with none blocked.
    pub fn block() -> Result<Self> {
        let set = SigSet::from_iter(SIGNALS);
        set.thread_block().context("cannot block signals")?;
        let signals = SignalFd::new(&set).context("cannot receive signals")?;
        Ok(Self { signals })
    }

    /// Passes on to a process, in a thread of its own, what somebody sent to us alone.
    pub fn forward_to(self, process: u32) -> Result<()> {
        let process = Pid::from_raw(process.cast_signed());
        let forward = move || {
            while let Ok(Some(info)) = self.signals.read_signal() {
                let signal =
                    i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
                if info.ssi_code != FROM_KERNEL {
                    // A command that has just ended needs no signal.
                    let _ = kill(process, signal);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(forward).context("cannot start a thread")?;
        Ok(())
    }
}
