//! Limits of this process that it cannot run with, refused with their cure before they are met.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::failure::Refusal;

/// What the main thread's stack needs, in bytes: arguments are read and programs loaded on it. Half of it is enough
/// for a build with debug assertions.
const STACK: u64 = 512 << 10;
/// Descriptors for maps, programs, events, symbols and output, with room for those that were inherited.
const FILES: u64 = 64;

/// Refuses a stack that could overflow, which would end the process without a word.
///
/// # Errors
/// The limit, and how to raise it.
pub fn stack() -> Result<(), Refusal> {
    enough(Resource::RLIMIT_STACK, STACK, |limit| {
        format!(
            "the stack of this process is limited to {} kB (RLIMIT_STACK), and it needs {}: raise it with \
             `ulimit -s 8192`",
            limit >> 10,
            STACK >> 10
        )
    })
}

/// Refuses a limit of open files that is too low for what is opened.
///
/// # Errors
/// The limit, and how to raise it.
pub fn files() -> Result<(), Refusal> {
    enough(Resource::RLIMIT_NOFILE, FILES, |limit| {
        format!(
            "this process may have {limit} files open (RLIMIT_NOFILE), and it needs {FILES}: raise it with \
             `ulimit -n 1024`"
        )
    })
}

fn enough(resource: Resource, needed: u64, refusal: impl FnOnce(u64) -> String) -> Result<(), Refusal> {
    match getrlimit(resource) {
        Ok((limit, _)) if limit != RLIM_INFINITY && limit < needed => Err(Refusal::new(refusal(limit))),
        // A limit that cannot be read is met when it is met.
        _ => Ok(()),
    }
}
