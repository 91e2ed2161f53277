//! What this process may do. Once drops are counted that is little, and it can never be more again.
//!
//! Capabilities belong to threads, and a thread has those of the one that started it. So what is kept is decided before
//! any long-lived thread is started: each such thread drops the rest when it starts, and so does the main thread
//! as soon as it needs no more.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// What is kept, once that is decided.
static KEPT: OnceLock<Kept> = OnceLock::new();

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// By the threads of this process.
    pub here: CapsHashSet,
    /// By the programs that they run, at most.
    pub by_programs: CapsHashSet,
}

/// What this thread may use now, none if the kernel does not say.
#[must_use]
pub fn held() -> CapsHashSet {
    caps::read(None, CapSet::Effective).unwrap_or_default()
}

/// Decides what is kept, as far as there is anything of it.
pub fn keep(kept: Kept) {
    // It is decided once in the life of a process.
    let _ = KEPT.set(kept);
}

/// Drops what is not kept, in this thread and irrevocably. Before that is decided, nothing happens.
///
/// # Errors
/// The kernel refuses, which it never should.
pub fn give_up() -> Result<()> {
    KEPT.get().map_or(Ok(()), give_up_all_but)
}

/// The same at the start of a thread that may be there before the main thread has done it.
pub fn give_up_in_thread() {
    if let Err(error) = give_up() {
        log::warn!("{error:#}");
    }
}

/// Drops all other capabilities in this thread, irrevocably, and the ways to gain more by executing a program.
///
/// # Errors
/// The kernel refuses, which it never should.
pub fn give_up_all_but(kept: &Kept) -> Result<()> {
    let give_up = || -> Result<(), caps::errors::CapsError> {
        let permitted = caps::read(None, CapSet::Permitted)?;
        if held().contains(&Capability::CAP_SETPCAP) {
            for capability in caps::read(None, CapSet::Bounding)?.difference(&kept.by_programs).copied() {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
        let kept: CapsHashSet = permitted.intersection(&kept.here).copied().collect();
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    };
    give_up().context("cannot drop privileges")?;
    prctl::set_no_new_privs().context("cannot drop privileges")
}

/// The result of `try_it` in this thread without any capability.
pub fn without<T>(try_it: impl FnOnce() -> T) -> T {
    let held = held();
    let is_lowered = caps::clear(None, CapSet::Effective).is_ok();
    let result = try_it();
    if is_lowered {
        // All of them are permitted still.
        let _ = caps::set(None, CapSet::Effective, &held);
    }
    result
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    #[test]
    fn what_is_given_up_is_gone_for_this_thread_and_those_it_starts() {
        let before = held();
        let all = || {
            [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable].map(|set| caps::read(None, set).ok())
        };
        let kept: CapsHashSet = before.iter().take(1).copied().collect();
        let (here, started) = thread::spawn({
            let kept = Kept { here: kept.clone(), ..Kept::default() };
            move || {
                give_up_all_but(&kept).expect("given up");
                (all(), thread::spawn(all).join().expect("a thread"))
            }
        })
        .join()
        .expect("a thread");
        assert_eq!(here, [Some(kept.clone()), Some(kept), Some(HashSet::new())]);
        assert_eq!(here, started);
        assert_eq!(held(), before, "another thread keeps its own");
    }

    #[test]
    fn what_is_tried_without_capabilities_has_none() {
        let before = held();
        assert_eq!(without(held), CapsHashSet::new());
        assert_eq!(held(), before);
    }
}
