//! A command that runs beside this process, as if it had been started without it.

use std::{
    env,
    ffi::{CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
};

use nix::{
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp},
    sys::signal::{SigSet, Signal},
};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

/// A running command.
#[derive(Debug)]
pub struct RunningCommand {
    process: OwnedFd,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl RunningCommand {
    /// Starts a command, found as a shell does, with our environment, standard streams and terminal, and these
    /// signals blocked. It inherits no descriptor of ours: all are closed when a program is executed.
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn start(command: &[OsString], blocked: &SigSet) -> io::Result<Self> {
        match spawn(command, blocked) {
            // A script that does not say what runs it is the shell's, as everywhere.
            Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
                let shell: Vec<_> = [OsString::from("/bin/sh")].iter().chain(command).cloned().collect();
                spawn(&shell, blocked)
            }
            spawned => spawned,
        }
    }

    /// A descriptor to send it signals by, which never is another process's.
    ///
    /// # Errors
    /// There are no more descriptors to be had.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.process.try_clone()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The kernel does not say how it ended, as when our parent process ignores `SIGCHLD`.
    pub fn wait(self) -> io::Result<Exit> {
        loop {
            let waited = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
            let status = match waited {
                Err(rustix::io::Errno::INTR) => continue,
                waited => waited?.ok_or(io::ErrorKind::NotFound)?,
            };
            return match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => Ok(Exit::Status(status)),
                (None, Some(signal)) => Ok(Exit::Signal(signal)),
                (None, None) => continue,
            };
        }
    }
}

fn spawn(command: &[OsString], blocked: &SigSet) -> io::Result<RunningCommand> {
    let arguments = command.iter().map(|word| text(word)).collect::<io::Result<Vec<_>>>()?;
    let program = arguments.first().ok_or(io::ErrorKind::NotFound)?;
    let variables = env::vars_os().map(|(name, value)| {
        let mut variable = name.into_vec();
        variable.push(b'=');
        variable.extend(value.into_vec());
        Ok(CString::new(variable)?)
    });
    let variables = variables.collect::<io::Result<Vec<_>>>()?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(blocked)?;
    // Rust ignores it in this process from the start.
    attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    let pid = posix_spawnp(program, &PosixSpawnFileActions::init()?, &attributes, &arguments, &variables)?;
    // Nothing has waited for it, so the number is its own until there is a descriptor.
    let pid = Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::NotFound)?;
    Ok(RunningCommand { process: pidfd_open(pid, PidfdFlags::empty())? })
}

fn text(word: &OsStr) -> io::Result<CString> {
    Ok(CString::new(word.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> io::Result<Exit> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        RunningCommand::start(&words, &SigSet::empty())?.wait()
    }

    #[test]
    fn a_command_ends_with_its_status_or_its_signal() {
        assert_eq!(run(&["sh", "-c", "exit 7"]).expect("a shell"), Exit::Status(7));
        assert_eq!(run(&["sh", "-c", "kill -9 $$"]).expect("a shell"), Exit::Signal(9));
        // One of those that have no name.
        assert_eq!(run(&["sh", "-c", "kill -40 $$"]).expect("a shell"), Exit::Signal(40));
    }

    #[test]
    fn what_cannot_be_executed_is_an_error() {
        let error = |words: &[&str]| run(words).expect_err("no program").kind();
        assert_eq!(error(&["/no/such/program"]), io::ErrorKind::NotFound);
        assert_eq!(error(&["/etc/passwd"]), io::ErrorKind::PermissionDenied);
        assert_eq!(error(&["nul\0"]), io::ErrorKind::InvalidInput);
        assert_eq!(error(&[]), io::ErrorKind::NotFound);
    }
}
