//! Return probes of other tracers on the function that frees packets: the tracepoint's location is their trampoline.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::names::{assert_verdict, check, count, stderr};
use crate::support::{
    inject::{
        needs::{self, Need},
        sys,
    },
    net::Net,
    trial::trial,
    udp_receiver,
    watch::Watch,
};

/// What a warning says of a location that stays hidden.
const OF_OTHERS: &str = "another tracer has a return probe";

/// All of them.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let trial_of = |name: &str, needs: &'static [Need], test: fn()| {
        let body = move || {
            test();
            Ok(())
        };
        trial(format!("return_probes::{name}"), needs, can_run, body)
    };
    vec![
        trial_of("a_location_behind_a_kretprobe_is_shown_or_told", &[needs::KRETPROBES], kretprobe),
        trial_of("a_location_behind_a_bpf_program_is_shown", &[needs::FEXIT], fexit),
    ]
}

fn kretprobe() {
    let probe = || sys::probe_return(needs::freeing_function()).expect("a return probe");
    if needs::unwinds_kretprobes() { shown(probe) } else { told(probe) }
}

fn fexit() {
    shown(|| needs::trace_return().expect("a program"));
    follows();
}

/// A program that is attached later is noticed: drops soon have their true location again.
fn follows() {
    let net = Net::quiet();
    let here = format!("netns {} and location {}", net.inum(), udp_receiver());
    let trace = Watch::start(&["trace", "-o", "json", "-c", "1", &here]);
    let _hiding = needs::trace_return().expect("a program");
    let is_over = AtomicBool::new(false);
    let traced = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                net.drop_datagrams(1);
            }
        });
        let traced = trace.wait();
        is_over.store(true, Ordering::Relaxed);
        traced
    });
    assert!(traced.status.success(), "{traced:?}");
}

/// Filters, rows, rules and records have the true location.
fn shown(probe: impl Fn() -> OwnedFd) {
    let net = Net::quiet();
    let here = format!("netns {} and location {}", net.inum(), udp_receiver());
    let rule = format!("location={}:0", udp_receiver());
    let is_shown = |row: &Value| row["location"]["symbol"] == udp_receiver();

    let hiding = probe();
    let watch = Watch::start(&["-o", "json", "-i", "1h", "-f", &here]);
    let trace = Watch::start(&["trace", "-o", "json", &here]);
    net.drop_datagrams(17);
    let reports = watch.stop();
    trace.signal(Signal::SIGINT);
    let traced = trace.wait();
    // The key without a filter is counted by another program.
    let plain = check(&["--max", &rule], || net.drop_datagrams(19));
    drop(hiding);
    assert_eq!(count(&reports, is_shown), 17, "{reports:?}");
    let records = traced.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    assert_eq!(records.filter(is_shown).count(), 17, "{traced:?}");
    assert_verdict(&plain, "19 drops seen, at most 0 allowed");
    for said in [&reports.stderr, &traced.stderr, &stderr(&plain)] {
        assert!(!said.contains(OF_OTHERS), "{said}");
    }
}

/// The unwinder is deceived as well: rows have the trampoline, and no rule passes that may be about them.
fn told(probe: impl Fn() -> OwnedFd) {
    let net = Net::quiet();
    let netns = format!("netns {}", net.inum());
    let is_hidden = |row: &Value| {
        let symbol = row["location"]["symbol"].as_str().unwrap_or_default();
        symbol.ends_with("_trampoline") || symbol == "return_to_handler"
    };
    let rule = format!("location={}:0", udp_receiver());
    let hiding = probe();
    let watch = Watch::start(&["-o", "json", "-i", "1h", "-f", &netns]);
    net.drop_datagrams(17);
    let reports = watch.stop();
    let output = check(&["--max", &rule, "-f", &netns], || net.drop_datagrams(19));
    drop(hiding);
    assert_eq!(count(&reports, is_hidden), 17, "{reports:?}");
    assert_eq!(reports.stderr.matches(OF_OTHERS).count(), 1, "{}", reports.stderr);
    assert_verdict(&output, "UNKNOWN --max");
    assert_verdict(&output, "19 more are at places that are not known");
    assert_verdict(&output, OF_OTHERS);
    let output = check(&["--max", &rule, "-f", &netns], || net.drop_datagrams(23));
    assert_verdict(&output, "23 drops seen, at most 0 allowed");
    assert!(!stderr(&output).contains(OF_OTHERS), "{}", stderr(&output));
}
