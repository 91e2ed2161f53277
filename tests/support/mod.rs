//! What the tests that cause real drops share: private namespaces, floods, and the program under test.
//!
//! Everything happens in network namespaces of its own; the host drops packets too, so a test asserts on
//! rows that only it can have caused.

pub mod frames;
pub mod net;
pub mod watch;

use std::path::PathBuf;

/// The program under test: in a guest, where nothing is built, the environment names it.
pub fn dropwatch() -> PathBuf {
    std::env::var_os("DROPWATCH_BIN").map_or_else(|| env!("CARGO_BIN_EXE_dropwatch").into(), PathBuf::from)
}

/// Whether this is a guest: an emulated machine, slower by a factor of thirty.
pub fn is_guest() -> bool {
    std::env::var_os("DROPWATCH_BIN").is_some()
}
