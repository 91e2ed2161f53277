//! The terminal: taken over, given back however this ends, and waited for.

use std::{
    io::{self, BufWriter, PipeReader, Read as _, Stdout, Write as _},
    os::fd::AsFd as _,
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossterm::{
    Command,
    clipboard::CopyToClipboard,
    cursor,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};

/// Whether the terminal is ours now.
static IS_OURS: AtomicBool = AtomicBool::new(false);
/// The most bytes that are read at once.
const BYTES: usize = 1024;

/// The screen of this process's terminal.
pub struct Screen(Terminal<CrosstermBackend<BufWriter<Stdout>>>);

/// What there is after waiting.
#[derive(Debug, Default)]
pub struct Waited {
    /// Bytes from the terminal.
    pub bytes: Vec<u8>,
    /// Whether there was a wake-up.
    pub is_woken: bool,
    /// Whether the terminal is gone.
    pub is_gone: bool,
}

impl Screen {
    /// Takes the terminal over. A panic anywhere gives it back before it is reported.
    ///
    /// # Errors
    /// It is none, or has gone.
    pub fn take() -> io::Result<Self> {
        static AT_PANIC: Once = Once::new();
        AT_PANIC.call_once(restore_at_panic);
        enter()?;
        Terminal::new(CrosstermBackend::new(BufWriter::new(io::stdout()))).map(Self)
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// The terminal has gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if !IS_OURS.load(Ordering::SeqCst) {
            return Err(io::Error::other("the terminal has been given back"));
        }
        self.0.draw(draw).map(|_| ())
    }

    /// Takes the terminal over again, whatever others have done to it meanwhile.
    ///
    /// # Errors
    /// It has gone.
    pub fn retake(&mut self) -> io::Result<()> {
        restore();
        *self = Self::take()?;
        self.0.resize(self.0.size()?.into())
    }
}

/// Copies text where the terminal is, if it can do that.
///
/// # Errors
/// The terminal has gone.
pub fn copy(text: &str) -> io::Result<()> {
    send(&CopyToClipboard::to_clipboard_from(text))
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    IS_OURS.store(true, Ordering::SeqCst);
    send(&EnterAlternateScreen)?;
    send(&cursor::Hide)
}

/// Gives the terminal back as it was; once, however often it is called.
pub fn restore() {
    if IS_OURS.swap(false, Ordering::SeqCst) {
        // Nothing is left to be done for a terminal that has gone.
        let _ = send(&cursor::Show);
        let _ = send(&LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Writes a command past the buffers and locks of standard output: a thread that panicked may hold them.
fn send(command: &impl Command) -> io::Result<()> {
    let mut text = String::new();
    command.write_ansi(&mut text).map_err(io::Error::other)?;
    let mut bytes = text.as_bytes();
    while !bytes.is_empty() {
        let written = nix::unistd::write(io::stdout().as_fd(), bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

fn restore_at_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        restore();
        report(panic);
    }));
}

/// Waits for the terminal, a wake-up, or until the time is over.
///
/// # Errors
/// The kernel refuses to wait.
pub fn wait(wake: &mut PipeReader, timeout: Option<Duration>) -> io::Result<Waited> {
    let stdin = io::stdin();
    let mut polled =
        [PollFd::new(stdin.as_fd(), PollFlags::POLLIN), PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| timeout.try_into().unwrap_or(PollTimeout::MAX));
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let events = |polled: &PollFd<'_>| polled.revents().unwrap_or(PollFlags::empty());
    let (terminal, woken) = (events(&polled[0]), events(&polled[1]));
    let mut waited = Waited {
        is_woken: !woken.is_empty(),
        is_gone: terminal.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL | PollFlags::POLLHUP),
        ..Waited::default()
    };
    if waited.is_woken {
        // A few bytes at most: a wake-up is pending or not.
        let _ = wake.read(&mut [0; BYTES])?;
    }
    if terminal.contains(PollFlags::POLLIN) {
        let mut bytes = vec![0; BYTES];
        match nix::unistd::read(stdin.as_fd(), &mut bytes) {
            Ok(0) => waited.is_gone = true,
            Ok(length) => {
                bytes.truncate(length);
                waited.bytes = bytes;
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => waited.is_gone = true,
        }
    }
    Ok(waited)
}

/// Prints lines once the terminal has been given back.
pub fn print(lines: &[String]) {
    let mut out = io::stdout();
    for line in lines {
        // The terminal may have gone.
        let _ = writeln!(out, "{line}");
    }
}
