//! Real drops in private namespaces, counted exactly: needs root, and no other privilege of the machine.
//!
//! Without root, or with `DROPWATCH_NO_LIVE` set, every test is ignored, out loud; with `DROPWATCH_REQUIRE_LIVE` set
//! that is a failure.

mod live {
    pub mod altnames;
    pub mod capture;
    pub mod check;
    pub mod class;
    pub mod counters;
    pub mod counts;
    pub mod dig;
    pub mod evidence;
    pub mod evidence_net;
    pub mod explain;
    pub mod files;
    pub mod filter;
    pub mod healthy;
    pub mod hostile;
    pub mod incidents;
    pub mod injected;
    pub mod kernels;
    pub mod keys;
    pub mod lines;
    pub mod modules;
    pub mod names;
    pub mod netfilter;
    pub mod objects;
    pub mod page;
    pub mod pane;
    pub mod privileges;
    pub mod processors;
    pub mod program;
    pub mod return_probes;
    pub mod rival;
    pub mod scenarios;
    pub mod serve;
    pub mod signals;
    pub mod table;
    pub mod top;
    pub mod trace;
}
mod support;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A live test's name and body.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    if plays_a_part() {
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
    let _alone = (can_run && !arguments.list).then(support::alone::alone);
    let tests = [
        live::counts::TESTS,
        live::counters::TESTS,
        live::filter::TESTS,
        live::keys::TESTS,
        live::names::TESTS,
        live::altnames::TESTS,
        live::objects::TESTS,
        live::evidence::TESTS,
        &live::netfilter::tests(),
        live::program::TESTS,
        live::signals::TESTS,
        live::privileges::TESTS,
        live::files::TESTS,
        live::check::TESTS,
        live::class::TESTS,
        live::explain::TESTS,
        live::kernels::TESTS,
        live::table::TESTS,
        live::trace::TESTS,
        &live::dig::tests(),
        &live::lines::tests(),
        live::capture::TESTS,
        live::hostile::TESTS,
        live::page::TESTS,
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
        .chain(live::counters::trials(can_run))
        .chain(live::scenarios::trials(can_run))
        .chain(live::healthy::trials(can_run))
        .chain(live::incidents::trials(can_run))
        .chain(live::pane::trials(can_run))
        .chain(live::evidence_net::trials(can_run))
        .chain(live::dig::trials(can_run))
        .chain(live::serve::trials(can_run))
        // They end without the modules that cases before them need.
        .chain(live::modules::trials(can_run))
        .chain(live::return_probes::trials(can_run))
        .chain(live::processors::trials(can_run))
        .chain(live::trace::trials(can_run))
        .chain(live::top::trials(can_run));
    // One at a time: they share two CPUs, and some need all of them.
    let arguments = Arguments { test_threads: arguments.test_threads.or(Some(1)), ..arguments };
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    live::injected::finish();
    conclusion.exit_code()
}

/// Whether this program was started for something else than to run tests, and has done it.
fn plays_a_part() -> bool {
    if let Some(count) = live::check::drops_to_cause() {
        support::net::drop_datagrams_here(count);
        return true;
    }
    if live::objects::is_the_sender() {
        live::objects::be_the_sender();
        return true;
    }
    if live::hostile::is_the_process() {
        live::hostile::be_the_process();
        return true;
    }
    if let Some(rival) = live::rival::program() {
        live::rival::compare(&rival);
        return true;
    }
    if live::top::is_to_panic() {
        live::top::panic_on_the_terminal();
        return true;
    }
    if let Some(file) = live::page::picture() {
        live::page::take(&file);
        return true;
    }
    false
}
