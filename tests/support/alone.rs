//! One run of tests that drop packets at a time.

use std::fs::File;

use nix::fcntl::{Flock, FlockArg};

/// Waits until no other run of these tests is active: each would count the other's drops.
pub fn alone() -> Flock<File> {
    let file = || File::create(std::env::temp_dir().join("dropwatch-live.lock")).expect("a file to lock");
    Flock::lock(file(), FlockArg::LockExclusiveNonblock).unwrap_or_else(|_| {
        eprintln!("Waiting for another run of the live tests to end.");
        Flock::lock(file(), FlockArg::LockExclusive).expect("the lock")
    })
}
