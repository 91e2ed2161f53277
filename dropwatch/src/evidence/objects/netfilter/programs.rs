//! Other programs that list rules: what they print, and what that may cost.

use std::{
    io::Read as _,
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{UsageWho, getrusage},
        time::{TimeVal, TimeValLike as _},
    },
};

/// Longer than any ruleset that is worth its time.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const MOST_TEXT: usize = 1 << 20;
/// How many times as long as runs take of a processor it must be until they may take as much again.
const PATIENCE: u32 = 50;
/// What they may take at once: at the start, all namespaces have their rules listed.
const MOST: Duration = Duration::from_millis(500);
/// What listing rules requires: iptables asks through a raw socket.
pub const LISTING_RULES: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// Why there is no output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The program is not installed.
    Program,
    /// It would cost too much, or it failed.
    Output,
}

/// Runs programs, after expensive ones not for a while.
#[derive(Debug, Default)]
pub struct Runner {
    /// When what runs have taken is worked off.
    paid: Option<Instant>,
}

impl Runner {
    /// What the first of these programs prints that is installed. They are named by fixed paths, because they inherit
    /// privileges: the environment that dropwatch is started in must not choose them.
    ///
    /// # Errors
    /// Why there is none.
    pub fn run(&mut self, programs: &[&str], arguments: &[&str]) -> Result<String, Missing> {
        let program = programs.iter().find(|path| Path::new(path).exists()).ok_or(Missing::Program)?;
        let now = Instant::now();
        let paid = self.paid.unwrap_or(now).max(now);
        if paid - now > MOST * PATIENCE {
            return Err(Missing::Output);
        }
        let before = used_by_children();
        let printed = output(program, arguments);
        let cost = used_by_children().saturating_sub(before);
        self.paid = Some(paid + cost * PATIENCE);
        printed.ok_or(Missing::Output)
    }
}

/// What a program prints, if it succeeds in time. It keeps the privileges that listing rules requires.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        for privilege in LISTING_RULES {
            // A thread of root needs neither.
            let _ = caps::raise(None, set, privilege);
        }
    }
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let (end, mut text, mut room) = (Instant::now() + LONGEST_WAIT, Vec::new(), [0; 1 << 14]);
    let is_whole = loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, timeout) != Ok(1) || text.len() > MOST_TEXT {
            break false;
        }
        match stdout.read(&mut room) {
            Ok(0) => break true,
            Ok(length) => text.extend_from_slice(&room[..length]),
            Err(_) => break false,
        }
    };
    if !is_whole {
        let _ = child.kill();
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    (is_whole && succeeded).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Processor time of programs that have ended.
fn used_by_children() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Duration::ZERO };
    [usage.user_time(), usage.system_time()].into_iter().map(duration).sum()
}

fn duration(time: TimeVal) -> Duration {
    let microseconds = u64::try_from(time.num_microseconds()).unwrap_or(0);
    Duration::from_micros(microseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_or_is_not_there_prints_nothing() {
        assert_eq!(output("/bin/sh", &["-c", "echo a; exit 1"]), None);
        assert_eq!(output("/nonexistent", &[]), None);
        assert_eq!(output("/bin/sh", &["-c", "echo a"]).as_deref(), Some("a\n"));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let start = Instant::now();
        assert_eq!(output("/bin/sh", &["-c", "exec sleep 100"]), None);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
