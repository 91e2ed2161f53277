//! One run of a guest: starts QEMU, listens to its console, and leaves nothing behind.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::AsRawFd,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio, id},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::kernels::Series;
use crate::{
    arch::Arch,
    install::{self, Need},
};

/// The longest time from start to init's first line; five to ten seconds on an idle machine.
const BOOT: Duration = Duration::from_secs(180);

/// How much more is heard of a kernel that has just died, for its call trace.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What the kernel prints when it is beyond help, or was wrong.
const FATAL: [&str; 5] =
    ["Kernel panic - not syncing", "] BUG: ", "] Oops: ", "soft lockup - CPU#", "] general protection fault"];

/// How to run a guest.
pub struct Machine<'a> {
    pub arch: Arch,
    /// The processor's own, but for tests.
    pub qemu: &'a Path,
    pub kernel: &'a Path,
    /// The archive that is its first and only file system.
    pub initramfs: &'a File,
    pub accel: &'a str,
    /// What init says at the start and the end, so that no other output is taken for it.
    pub token: &'a str,
    /// For the command, from the moment it starts.
    pub timeout: Duration,
}

/// A QEMU that does not outlive the value.
struct Qemu(Child);

impl Qemu {
    /// How it ended by itself, if it did. Its console is closed a moment before that.
    fn ended(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a line of the console means.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Start,
    Exit(i32),
    Fatal,
    Output,
}

impl Machine<'_> {
    /// Runs the guest's command and returns its status; every line it prints is passed to `heard`.
    pub fn run(&self, mut heard: impl FnMut(&str)) -> Result<i32> {
        let mut qemu = self.qemu();
        qemu.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = Qemu(qemu.spawn().context("QEMU does not start: install QEMU and util-linux")?);
        let stdout = qemu.0.stdout.take().context("QEMU has no standard output")?;
        let stderr = qemu.0.stderr.take().context("QEMU has no standard error")?;
        let mut console = Console { lines: listen(stdout), said: Vec::new() };
        let result = self.listen(&mut console, &mut heard);
        if result.is_err() {
            console.print();
        }
        let ended = if result.is_err() { qemu.ended() } else { None };
        drop(qemu);
        result.with_context(|| why(ended, stderr))
    }

    /// Waits for the guest's command to start, and to end.
    fn listen(&self, console: &mut Console, heard: &mut impl FnMut(&str)) -> Result<i32> {
        let boot = Instant::now() + BOOT;
        loop {
            match console.next(boot, self.token).with_context(|| self.boot_failure())? {
                (Event::Start, _) => break,
                (Event::Fatal, line) => return Err(console.last_words(&line)),
                _ => {}
            }
        }
        let end = Instant::now() + self.timeout;
        loop {
            match console.next(end, self.token).context("the guest's command did not end")? {
                (Event::Exit(status), _) => return Ok(status),
                (Event::Fatal, line) => return Err(console.last_words(&line)),
                (Event::Start | Event::Output, line) => heard(&line),
            }
        }
    }

    /// What to say, and to try, when a kernel does not boot.
    fn boot_failure(&self) -> String {
        let dir = self.kernel.parent().unwrap_or(self.kernel).display();
        format!(
            "the kernel did not get as far as init (is the download damaged? `rm -r '{dir}'` has it fetched again)"
        )
    }

    /// Runs the guest with its console on the terminal.
    pub fn interact(&self) -> Result<()> {
        let mut qemu = self.qemu();
        // The monitor shares the line, so that Ctrl-C goes to the guest and Ctrl-A X ends it.
        qemu.args(["-serial", "mon:stdio"]);
        let mut qemu = Qemu(qemu.spawn().context("QEMU does not start: install QEMU and util-linux")?);
        qemu.0.wait().context("cannot wait for QEMU")?;
        Ok(())
    }

    fn qemu(&self) -> Command {
        // Killed with this process, whatever kills it: an orphaned guest would run for ever.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--"]).arg(self.qemu);
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        qemu.args(self.arch.machine());
        qemu.args(["-accel", self.accel, "-smp", "2", "-m", "1024"]);
        // By our descriptor: the file itself has no name, so there is none to clean up.
        qemu.arg("-initrd").arg(format!("/proc/{}/fd/{}", id(), self.initramfs.as_raw_fd()));
        qemu.arg("-kernel").arg(self.kernel);
        // On a busy machine the emulated timer is late, which the kernel would take for a broken one.
        let console = self.arch.console();
        qemu.arg("-append").arg(format!("console={console} panic=-1 oops=panic no_timer_check quiet"));
        qemu
    }
}

/// What is known of an early end, beside the console.
fn why(ended: Option<ExitStatus>, mut stderr: impl Read) -> String {
    let mut complaint = String::new();
    let _ = stderr.read_to_string(&mut complaint);
    let complaint = complaint.trim();
    match ended {
        Some(status) if complaint.is_empty() => format!("QEMU ended ({status})"),
        Some(status) => format!("QEMU ended ({status}): {complaint}"),
        None => "QEMU was stopped".to_string(),
    }
}

/// The console's lines as they come, from a thread that ends with QEMU.
fn listen(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_string();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Console {
    lines: Receiver<String>,
    /// Everything so far, to be shown if the run fails.
    said: Vec<String>,
}

impl Console {
    fn next(&mut self, deadline: Instant, token: &str) -> Result<(Event, String)> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.said.push(line.clone());
                Ok((event(&line, token), line))
            }
            Err(RecvTimeoutError::Timeout) => bail!("it timed out"),
            Err(RecvTimeoutError::Disconnected) => bail!("the console was closed"),
        }
    }

    /// Hears a dying kernel out.
    fn last_words(&mut self, line: &str) -> anyhow::Error {
        let deadline = Instant::now() + LAST_WORDS;
        while self.next(deadline, "").is_ok() {}
        anyhow::anyhow!("the guest's kernel failed: {line}")
    }

    fn print(&self) {
        eprintln!("---- the guest's console ----");
        for line in &self.said {
            eprintln!("{line}");
        }
        eprintln!("---- end of the console ----");
    }
}

fn event(line: &str, token: &str) -> Event {
    if FATAL.iter().any(|fatal| line.contains(fatal)) {
        return Event::Fatal;
    }
    // Not at the line's beginning: a command may leave its last line unfinished.
    let Some((_, said)) = line.split_once("guest: ") else { return Event::Output };
    let words: Vec<_> = said.split_whitespace().collect();
    match words[..] {
        ["start", of, _] if of == token => Event::Start,
        ["exit", status, of] if of == token => status.parse().map_or(Event::Output, Event::Exit),
        _ => Event::Output,
    }
}

/// The file system's archive as a file that needs no name.
pub fn unnamed_file(dir: &Path) -> Result<File> {
    tempfile::tempfile_in(dir).with_context(|| format!("cannot create a file in {}", dir.display()))
}

/// A word that shell and kernel leave alone.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Whether the programs that run these guests are here.
pub fn check_host(chosen: &[&Series]) -> Result<()> {
    let other = chosen.iter().any(|series| series.arch != Arch::X86);
    let arm: &[Need] = if other { &install::ARM_GUESTS } else { &[] };
    let missing = install::missing(install::GUESTS.iter().chain(arm));
    ensure!(missing.is_empty(), install::explain(&missing, "cargo xtask test --install"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only init, which knows the token, can end the run; also behind an unfinished line.
    #[test]
    fn only_init_is_believed() {
        assert_eq!(event("guest: start t1 6.1.0-56-cloud-amd64", "t1"), Event::Start);
        assert_eq!(event("prompt> guest: exit 101 t1", "t1"), Event::Exit(101));
        assert_eq!(event("guest: exit 0 t2", "t1"), Event::Output);
        assert_eq!(event("guest: exit 0", "t1"), Event::Output);
    }

    /// A kernel panic is distinguished from a test that only mentions one.
    #[test]
    fn a_dying_kernel_is_heard() {
        assert_eq!(event("[   12.3] BUG: kernel NULL pointer dereference, address: 0", "t"), Event::Fatal);
        assert_eq!(event("[    1.0] Kernel panic - not syncing: Attempted to kill init!", "t"), Event::Fatal);
        assert_eq!(event("[   40.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!", "t"), Event::Fatal);
        assert_eq!(event("test reports_a_BUG: ... ok", "t"), Event::Output);
    }

    /// Runs a guest whose kernel is a script; what came of it, and whether the script is gone.
    fn emulated(script: &str) -> (Result<i32>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, pid) = (dir.path().join("kernel"), dir.path().join("pid"));
        std::fs::write(&kernel, format!("echo $$ >{}\n{script}\n", pid.display())).unwrap();
        let initramfs = unnamed_file(dir.path()).unwrap();
        let machine = Machine {
            arch: Arch::X86,
            qemu: &crate::workspace::root().join("xtask/src/vm/test-qemu.sh"),
            kernel: &kernel,
            initramfs: &initramfs,
            accel: "tcg",
            token: "t1",
            timeout: Duration::from_secs(1),
        };
        let result = machine.run(|_| {});
        let pid = std::fs::read_to_string(pid).unwrap();
        (result, !Path::new("/proc").join(pid.trim()).exists())
    }

    /// Runs such a guest, which has to fail and to leave nothing behind: the message.
    fn failure(script: &str) -> String {
        let (result, is_gone) = emulated(script);
        assert!(is_gone, "something is left running");
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn a_status_comes_back() {
        let (result, is_gone) = emulated("echo guest: start t1 6.1; echo guest: exit 3 t1; exec sleep 60");
        assert_eq!(result.unwrap(), 3);
        assert!(is_gone);
    }

    /// By a signal, or for lack of memory.
    #[test]
    fn an_emulator_that_is_killed_is_an_error() {
        let message = failure("echo guest: start t1 6.1; kill -9 $$");
        assert!(message.contains("signal: 9"), "{message}");
        assert!(message.contains("the guest's command did not end"), "{message}");
    }

    /// A damaged download is the likeliest cause, and the message says how to get another one.
    #[test]
    fn a_kernel_that_is_no_kernel_is_an_error() {
        let message = failure("echo 'qemu: linux kernel too old' >&2; exit 1");
        assert!(message.contains("linux kernel too old"), "{message}");
        assert!(message.contains("rm -r"), "{message}");
    }

    #[test]
    fn a_kernel_that_dies_is_an_error() {
        let message = failure("echo guest: start t1 6.1; echo '[ 1.0] Oops: 0002 [#1]'; exec sleep 60");
        assert!(message.contains("the guest's kernel failed: [ 1.0] Oops"), "{message}");
    }

    #[test]
    fn a_command_without_an_end_is_ended() {
        let message = failure("echo guest: start t1 6.1; exec sleep 60");
        assert!(message.contains("it timed out"), "{message}");
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
