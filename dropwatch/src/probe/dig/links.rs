//! What keeps programs attached to functions.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use crate::{
    kernel::code::FunctionProbes,
    sys::{self, Ends},
};

/// The kernel refuses a list that has an address which is no start of a function that can be traced. Half of a list is
/// attached at a time then, down to the ones that are refused: so many are left out before it is given up.
const MOST_REFUSED: usize = 64;
/// The number of this kind of events, where functions have probes of their own.
const KIND: &str = "/sys/bus/event_source/devices/kprobe/type";

/// The programs that run where a function is called, and where it returns.
#[derive(Debug)]
pub enum Programs {
    /// Where the kernel has no sessions.
    Two { call: OwnedFd, returned: OwnedFd },
    /// One, which says at each call whether its return matters.
    Session(OwnedFd),
}

impl Programs {
    /// All of them, and what they report.
    pub fn all(&self) -> Vec<(&'static str, &OwnedFd)> {
        match self {
            Self::Two { call, returned } => vec![("calls", call), ("returns", returned)],
            Self::Session(both) => vec![("calls and returns", both)],
        }
    }
}

/// Links to functions, until this is dropped.
#[derive(Debug, Default)]
pub struct Links {
    links: Vec<OwnedFd>,
    /// Functions that have links of their own, or are refused them.
    tried: HashSet<(u64, u64)>,
}

impl Links {
    /// Links to functions, by address and cookie, where there are none yet; how many are left out because the kernel
    /// refuses them.
    ///
    /// # Errors
    /// The kernel does not attach to functions.
    pub fn attach(
        &mut self,
        how: FunctionProbes,
        programs: &Programs,
        functions: &[(u64, u64)],
    ) -> io::Result<usize> {
        match (programs, how) {
            (Programs::Session(both), _) => self.many(both, functions, Ends::Both),
            (Programs::Two { call, returned }, FunctionProbes::AtOnce) => {
                // First where they end: a call that is seen has a return that is seen.
                self.many(returned, functions, Ends::Return)?;
                self.many(call, functions, Ends::Start)
            }
            (Programs::Two { call, returned }, FunctionProbes::Each) => self.each(call, returned, functions),
        }
    }

    /// How many calls and returns the kernel did not report to links of many functions.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn missed(&self) -> io::Result<u64> {
        self.links.iter().map(|link| sys::missed_calls(link.as_fd())).sum()
    }

    fn many(&mut self, program: &OwnedFd, functions: &[(u64, u64)], ends: Ends) -> io::Result<usize> {
        let mut left = MOST_REFUSED;
        self.halves(program.as_fd(), functions, ends, &mut left)?;
        Ok(MOST_REFUSED - left)
    }

    fn each(&mut self, call: &OwnedFd, returned: &OwnedFd, functions: &[(u64, u64)]) -> io::Result<usize> {
        let kind = fs::read_to_string(KIND)?.trim().parse().map_err(io::Error::other)?;
        let mut refused = 0;
        for &function in functions {
            if !self.tried.insert(function) {
                continue;
            }
            let link =
                |program: &OwnedFd, at_end| sys::attach_function(program.as_fd(), kind, function, at_end);
            let both = link(returned, true).and_then(|returned| Ok([returned, link(call, false)?]));
            match both {
                Ok(both) => self.links.extend(both),
                Err(error) if is_about_one(&error) && refused < MOST_REFUSED => {
                    log::debug!("the kernel does not attach to {:#x}: {error}", function.0);
                    refused += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    /// Attaches a program to functions; those that the kernel refuses are left out, as long as there are few.
    fn halves(
        &mut self,
        program: BorrowedFd<'_>,
        functions: &[(u64, u64)],
        ends: Ends,
        refusals: &mut usize,
    ) -> io::Result<()> {
        let error = match sys::attach_functions(program, functions, ends) {
            Ok(link) => {
                self.links.push(link);
                return Ok(());
            }
            Err(error) => error,
        };
        if !is_about_one(&error) || *refusals == 0 {
            return Err(error);
        }
        if let [(address, _)] = functions {
            log::debug!("the kernel does not attach to {address:#x}: {error}");
            *refusals -= 1;
            return Ok(());
        }
        let (first, second) = functions.split_at(functions.len() / 2);
        self.halves(program, first, ends, refusals)?;
        self.halves(program, second, ends, refusals)
    }
}

/// Whether an error is about a function rather than about attaching to functions at all.
fn is_about_one(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::ESRCH))
}
