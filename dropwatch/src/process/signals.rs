//! The signals that end a run, or are meant for a command that runs beside it.
//!
//! One thread reads them all, and every other thread blocks them: no system call is interrupted by a signal, and none
//! that lasts, such as the verifier's work or the opening of a file, keeps a signal from being heard. Signals that the
//! parent process has set to be ignored stay ignored.

use std::{
    ffi::OsString,
    fmt, fs, io,
    os::fd::{AsFd as _, OwnedFd},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use caps::Capability;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, raise},
        signalfd::{SfdFlags, SignalFd},
    },
};
use tokio::sync::{Notify, watch};

use super::{
    command::RunningCommand,
    privileges::{self, Kept},
};

/// What a command that prints until it is ended handles.
const OF_A_RUN: &[Signal] =
    &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
/// What a full-screen command handles: also what stops and continues it, and what resizes its terminal.
const OF_A_SCREEN: &[Signal] = &[
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];
/// What is passed on to a command. What stops and continues a job reaches it through the terminal alone.
const OF_A_COMMAND: &[Signal] =
    &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGQUIT];

/// Signals so close together are one event: timeout(1) sends its signal to the process and then to its group.
const TOGETHER: Duration = Duration::from_millis(100);
/// How long the last report may take after two signals so close together.
const PATIENCE: Duration = Duration::from_secs(5);
/// The `si_code` of a signal from the kernel, such as the terminal's: a command in the foreground has it already.
const FROM_KERNEL: i32 = 0x80;

/// The signals of this process, and what they do now.
#[derive(Debug)]
pub struct Signals {
    phase: Arc<Mutex<Phase>>,
    /// Those that were blocked before, which is what a command is to start with.
    inherited: SigSet,
}

/// What a signal does.
enum Phase {
    /// Ends the process at once, with the status that this returns.
    Exit(Box<dyn Fn(Signal) -> u8 + Send>),
    /// Ends a run in order.
    Run(Run),
    /// Goes to the process with this descriptor.
    Forward(OwnedFd),
}

/// A run that ends in order, or at once at a second signal.
struct Run {
    ended: watch::Sender<bool>,
    report: Arc<Notify>,
    /// What is left to do when the run ends at once.
    cleanup: Box<dyn Fn() + Send>,
    /// What is done when the terminal has changed, or the run was stopped and continued.
    on_terminal: Box<dyn Fn(Signal) + Send>,
    /// When the first signal came.
    first: Option<Instant>,
    /// When it ends, whatever it is still doing.
    deadline: Option<Instant>,
}

/// The end of a run, to be waited for.
#[derive(Clone, Debug)]
pub struct Stop {
    ended: watch::Sender<bool>,
    report: Arc<Notify>,
}

impl Signals {
    /// Takes over the signals of a command that prints until it is ended, before any thread is started. Until
    /// [`run`](Self::run), one that requests an end ends the process, with status 0.
    ///
    /// # Errors
    /// There is no descriptor or no thread to be had.
    pub fn of_a_run() -> Result<Self> {
        Self::take(OF_A_RUN, Kept::default(), |_| 0)
    }

    /// Takes over the signals of a command that has the whole screen, before any thread is started: the same, and those
    /// that the kernel sends to the processes of a terminal.
    ///
    /// # Errors
    /// There is no descriptor or no thread to be had.
    pub fn of_a_screen() -> Result<Self> {
        Self::take(OF_A_SCREEN, Kept::default(), |_| 0)
    }

    /// Takes over the signals of a command that runs another one, before any thread is started. Until
    /// [`start`](Self::start), one that requests an end ends the process with the status that `exit` returns.
    ///
    /// # Errors
    /// There is no descriptor or no thread to be had.
    pub fn of_a_command(exit: impl Fn(Signal) -> u8 + Send + 'static) -> Result<Self> {
        let kept = Kept { here: [Capability::CAP_KILL].into(), ..Kept::default() };
        Self::take(OF_A_COMMAND, kept, exit)
    }

    fn take(signals: &[Signal], kept: Kept, exit: impl Fn(Signal) -> u8 + Send + 'static) -> Result<Self> {
        let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let is_ignored = |signal: Signal| ignored & (1 << (signal as i32 - 1)) != 0;
        let set: SigSet = signals.iter().copied().filter(|&signal| !is_ignored(signal)).collect();
        let inherited = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("cannot block signals")?;
        let descriptor =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("cannot receive signals")?;
        let phase = Arc::new(Mutex::new(Phase::Exit(Box::new(exit))));
        let shared = Arc::clone(&phase);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                // It started before all else, with everything that the process has.
                if let Err(error) = privileges::give_up_all_but(&kept) {
                    log::warn!("{error:#}");
                }
                serve(&descriptor, &shared);
            })
            .context("cannot start a thread")?;
        Ok(Self { phase, inherited })
    }

    /// From now on the first signal requests the end of the run; a second one ends it, after `cleanup`.
    #[must_use]
    pub fn run(&self, cleanup: impl Fn() + Send + 'static) -> Stop {
        self.run_with(cleanup, |_| ())
    }

    /// The same, where `on_terminal` does what the signals of a terminal require.
    #[must_use]
    pub fn run_with(
        &self,
        cleanup: impl Fn() + Send + 'static,
        on_terminal: impl Fn(Signal) + Send + 'static,
    ) -> Stop {
        let stop = Stop::new();
        *lock(&self.phase) = Phase::Run(Run {
            ended: stop.ended.clone(),
            report: Arc::clone(&stop.report),
            cleanup: Box::new(cleanup),
            on_terminal: Box::new(on_terminal),
            first: None,
            deadline: None,
        });
        stop
    }

    /// Starts a command. From now on signals go to it, but for those that the kernel has sent it too.
    ///
    /// # Errors
    /// The command cannot be executed.
    pub fn start(&self, command: &[OsString]) -> io::Result<RunningCommand> {
        // A signal that arrives meanwhile waits until its recipient is known.
        let mut phase = lock(&self.phase);
        let command = RunningCommand::start(command, &self.inherited)?;
        *phase = Phase::Forward(command.descriptor()?);
        Ok(command)
    }

    /// From now on a signal ends the process with the status that `exit` returns.
    pub fn exit(&self, exit: impl Fn(Signal) -> u8 + Send + 'static) {
        *lock(&self.phase) = Phase::Exit(Box::new(exit));
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// One that no signal requests.
    #[must_use]
    pub fn new() -> Self {
        Self { ended: watch::Sender::new(false), report: Arc::default() }
    }

    /// Waits until the run is to end.
    pub async fn asked(&self) {
        // The sender lives as long as `self`.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Waits until a signal requests a report.
    pub async fn report_wanted(&self) {
        self.report.notified().await;
    }

    /// Requests the end of the run.
    pub fn ask(&self) {
        self.ended.send_replace(true);
    }
}

impl Phase {
    fn signal(&mut self, signal: Signal, code: i32, now: Instant) {
        match self {
            Self::Exit(_) if matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2) => {}
            Self::Exit(_) if signal == Signal::SIGTSTP => stop_here(),
            Self::Exit(_) if is_of_a_terminal(signal) => {}
            Self::Exit(exit) => process::exit(exit(signal).into()),
            Self::Run(run) => run.signal(signal, now),
            Self::Forward(process) => {
                if code != FROM_KERNEL
                    && let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32)
                {
                    // A command that has just ended needs no signal.
                    let _ = rustix::process::pidfd_send_signal(process, signal);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if let Self::Run(run) = self { run.deadline } else { None }
    }

    /// Ends the process if it is time.
    fn end_if_due(&self, now: Instant) {
        if let Self::Run(run) = self
            && run.deadline.is_some_and(|deadline| deadline <= now)
        {
            (run.cleanup)();
            process::exit(0);
        }
    }
}

impl Run {
    fn signal(&mut self, signal: Signal, now: Instant) {
        match (signal, self.first) {
            (Signal::SIGUSR1, _) => self.report.notify_one(),
            (Signal::SIGUSR2, _) => {}
            (signal, _) if is_of_a_terminal(signal) => (self.on_terminal)(signal),
            (_, None) => {
                self.first = Some(now);
                self.ended.send_replace(true);
            }
            (_, Some(first)) if now - first < TOGETHER => self.deadline = Some(first + PATIENCE),
            (_, Some(_)) => self.deadline = Some(now),
        }
    }
}

/// Whether a signal is about a terminal, and ends nothing.
fn is_of_a_terminal(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTSTP | Signal::SIGCONT | Signal::SIGWINCH)
}

/// Stops this process until it is continued, as a shell's Ctrl-Z does; not where no shell could continue it, which is what
/// the kernel makes of this signal and not of SIGSTOP.
pub fn stop_here() {
    let stop = SigSet::from(Signal::SIGTSTP);
    // It waits until this thread lets it in. None of this can be refused.
    let _ = stop.thread_block();
    let _ = raise(Signal::SIGTSTP);
    let _ = stop.thread_unblock();
    let _ = stop.thread_block();
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exit(_) => "Exit",
            Self::Run(_) => "Run",
            Self::Forward(_) => "Forward",
        })
    }
}

/// Handles signals until the process ends.
fn serve(signals: &SignalFd, phase: &Mutex<Phase>) {
    loop {
        let deadline = lock(phase).deadline();
        if is_readable(signals, deadline)
            && let Ok(Some(info)) = signals.read_signal()
            && let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok())
        {
            lock(phase).signal(signal, info.ssi_code, Instant::now());
        }
        lock(phase).end_if_due(Instant::now());
    }
}

/// Waits for a signal, at most until the deadline.
fn is_readable(signals: &SignalFd, deadline: Option<Instant>) -> bool {
    let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        left.try_into().unwrap_or(PollTimeout::ZERO)
    });
    poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}

/// No code panics while it holds the lock.
fn lock(phase: &Mutex<Phase>) -> MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mask of ignored signals in `/proc/self/status`; none if it does not say.
fn ignored(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> (Run, Stop) {
        let stop = Stop::new();
        let (ended, report) = (stop.ended.clone(), Arc::clone(&stop.report));
        let (cleanup, on_terminal) = (Box::new(|| ()), Box::new(|_| ()));
        (Run { ended, report, cleanup, on_terminal, first: None, deadline: None }, stop)
    }

    #[test]
    fn the_first_signal_leaves_all_the_time() {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let (mut run, stop) = run();
            run.signal(signal, Instant::now());
            assert!(*stop.ended.borrow());
            assert_eq!(run.deadline, None);
        }
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let (mut run, _stop) = run();
        let now = Instant::now();
        run.signal(Signal::SIGINT, now);
        run.signal(Signal::SIGTERM, now + TOGETHER);
        assert_eq!(run.deadline, Some(now + TOGETHER));
    }

    #[test]
    fn two_signals_together_leave_time_for_the_last_report() {
        let (mut run, _stop) = run();
        let now = Instant::now();
        run.signal(Signal::SIGINT, now);
        run.signal(Signal::SIGINT, now + TOGETHER / 2);
        assert_eq!(run.deadline, Some(now + PATIENCE));
        run.signal(Signal::SIGINT, now + TOGETHER * 2);
        assert_eq!(run.deadline, Some(now + TOGETHER * 2), "a third one does not wait");
    }

    #[test]
    fn the_users_signals_end_nothing() {
        let (mut run, stop) = run();
        run.signal(Signal::SIGUSR1, Instant::now());
        run.signal(Signal::SIGUSR2, Instant::now());
        assert!(!*stop.ended.borrow());
        assert_eq!(run.first, None);
    }

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"), 0x1001);
        assert_eq!(ignored("Name:\tx\n"), 0);
        assert_eq!(ignored("SigIgn:\tnonsense\n"), 0);
    }
}
