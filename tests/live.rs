//! Real drops in private namespaces, counted exactly: needs root, and no other privilege of the machine.
//!
//! Without root, or with `DROPWATCH_NO_LIVE` set, every test is ignored, out loud; with `DROPWATCH_REQUIRE_LIVE` set
//! that is a failure.

mod live {
    pub mod check;
    pub mod counts;
    pub mod filter;
    pub mod injected;
    pub mod kernels;
    pub mod keys;
    pub mod modules;
    pub mod program;
    pub mod rival;
    pub mod scenarios;
    pub mod trace;
}
mod support;

use std::{fs::File, process::ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::fcntl::{Flock, FlockArg};

/// A live test's name and body.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Some(count) = live::check::drops_to_cause() {
        support::net::drop_datagrams_here(count);
        return ExitCode::SUCCESS;
    }
    if let Some(rival) = live::rival::program() {
        live::rival::compare(&rival);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let can_run = nix::unistd::geteuid().is_root() && std::env::var_os("DROPWATCH_NO_LIVE").is_none();
    if !can_run {
        eprintln!("LIVE TESTS ARE SKIPPED: they need root. Nothing below says that dropwatch counts right.");
        if std::env::var_os("DROPWATCH_REQUIRE_LIVE").is_some() {
            return ExitCode::FAILURE;
        }
    }
    let _alone = (can_run && !arguments.list).then(alone);
    let tests = [
        live::counts::TESTS,
        live::filter::TESTS,
        live::keys::TESTS,
        live::program::TESTS,
        live::check::TESTS,
        live::kernels::TESTS,
        live::trace::TESTS,
    ]
    .concat();
    let trials = tests.into_iter().map(|(name, body)| {
        Trial::test(name, move || {
            body();
            Ok::<(), Failed>(())
        })
        .with_ignored_flag(!can_run)
    });
    let trials = trials
        .chain(live::injected::trials(can_run))
        .chain(live::scenarios::trials(can_run))
        .chain(live::modules::trials(can_run));
    // One at a time: they share two CPUs, and some ask for all of them.
    let arguments = Arguments { test_threads: arguments.test_threads.or(Some(1)), ..arguments };
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    live::injected::finish();
    conclusion.exit_code()
}

/// Waits until no other run of these tests goes on: each would count the other's drops.
fn alone() -> Flock<File> {
    let file = || File::create(std::env::temp_dir().join("dropwatch-live.lock")).expect("a file to lock");
    Flock::lock(file(), FlockArg::LockExclusiveNonblock).unwrap_or_else(|_| {
        eprintln!("Waiting for another run of the live tests to end.");
        Flock::lock(file(), FlockArg::LockExclusive).expect("the lock")
    })
}
