//! What the tests that cause real drops share: private namespaces, floods, and the program under test.
//!
//! Everything happens in network namespaces of its own; the host drops packets too, so a test asserts on
//! rows that only it can have caused.

pub mod alone;
pub mod browser;
pub mod frames;
pub mod inject;
pub mod kernel;
pub mod net;
pub mod openvswitch;
pub mod pcapng;
pub mod screen;
pub mod trial;
pub mod watch;

use std::{path::PathBuf, time::Duration};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Longer than anything here takes, on a busy machine and under emulation too.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The program under test: in a guest, where nothing is built, the environment names it.
pub fn dropwatch() -> PathBuf {
    std::env::var_os("DROPWATCH_BIN").map_or_else(|| env!("CARGO_BIN_EXE_dropwatch").into(), PathBuf::from)
}

/// Whether this is a guest: an emulated machine, slower by a factor of thirty.
pub fn is_guest() -> bool {
    std::env::var_os("DROPWATCH_BIN").is_some()
}

/// Keeps this thread on a processor.
pub fn pin(processor: usize) {
    let mut only = CpuSet::new();
    only.set(processor).expect("a processor");
    sched_setaffinity(Pid::from_raw(0), &only).expect("a thread stays on its processor");
}

/// The function in which a datagram for a closed port is dropped; where it is part of its only caller, that one.
pub fn udp_receiver() -> &'static str {
    if kernel::has_function("__udp4_lib_rcv") { "__udp4_lib_rcv" } else { "udp_rcv" }
}
