//! Modules that come and go while drops in them are counted: where modules can be loaded at all.

use std::{fs, process::Command, thread, time::Duration};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    Test,
    support::{
        inject::{
            ip::gre,
            needs::{self},
            wire::Wire,
        },
        is_guest, kernel,
        net::Net,
        openvswitch::Switch,
        trial::trial,
        watch::{Reports, Watch},
    },
};

const TESTS: &[Test] = &[
    ("modules::a_module_loaded_later_has_its_name", loaded_later),
    ("modules::a_module_unloaded_before_the_report_keeps_its_name", unloaded),
    ("modules::a_module_loaded_again_has_its_name_in_both_places", reloaded),
    ("modules::a_symbol_of_two_modules_is_told_apart", same_symbol),
    ("modules::reasons_of_a_module_have_names", own_reasons),
    ("modules::reasons_of_a_module_loaded_later_have_names", own_reasons_later),
];

/// The tests, ignored out loud where the kernel loads no modules.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let trial = |&(name, body): &Test| {
        trial(name.to_owned(), &[needs::MODULES], can_run, move || {
            // Others load them as well.
            unload(&["ip_gre", "gre"]);
            body();
            Ok(())
        })
    };
    TESTS.iter().map(trial).collect()
}

fn load(module: &str) -> bool {
    Command::new("modprobe").args(["-q", module]).status().is_ok_and(|status| status.success())
}

fn is_loaded(module: &str) -> bool {
    fs::read_to_string("/proc/modules")
        .is_ok_and(|modules| modules.lines().any(|line| line.split(' ').next() == Some(module)))
}

/// Takes them away, if they are there.
fn unload(modules: &[&str]) {
    for module in modules {
        if is_loaded(module) {
            let done = Command::new("rmmod").arg(module).status().expect("rmmod");
            assert!(done.success(), "{module} cannot be unloaded");
        }
    }
}

/// Longer than packets are under way, and than the monitor takes to hear of a module.
fn settle() {
    thread::sleep(Duration::from_secs(if is_guest() { 3 } else { 1 }));
}

fn watch() -> Watch {
    Watch::start(&["-o", "json", "-i", "1h"])
}

/// Drops in `gre_rcv` of a module.
fn in_module(reports: &Reports, module: &str) -> u64 {
    let is_there =
        |row: &&Value| row["location"]["symbol"] == "gre_rcv" && row["location"]["module"] == module;
    reports.rows().filter(is_there).map(|row| row["count"].as_u64().expect("a count")).sum()
}

/// A version that no module knows: dropped in `gre`.
const UNKNOWN: u16 = 3;

fn loaded_later() {
    let wire = Wire::new();
    let watch = watch();
    settle();
    assert!(load("gre"), "gre cannot be loaded");
    wire.send(&gre(UNKNOWN), 7);
    settle();
    let reports = watch.stop();
    unload(&["ip_gre", "gre"]);
    assert_eq!(in_module(&reports, "gre"), 7, "{reports:?}");
}

fn unloaded() {
    let wire = Wire::new();
    assert!(load("gre"), "gre cannot be loaded");
    let watch = watch();
    settle();
    wire.send(&gre(UNKNOWN), 11);
    settle();
    unload(&["ip_gre", "gre"]);
    settle();
    let reports = watch.stop();
    assert_eq!(in_module(&reports, "gre"), 11, "{reports:?}");
}

fn reloaded() {
    let wire = Wire::new();
    assert!(load("gre"), "gre cannot be loaded");
    let watch = watch();
    settle();
    wire.send(&gre(UNKNOWN), 13);
    settle();
    unload(&["ip_gre", "gre"]);
    assert!(load("gre"), "gre cannot be loaded again");
    settle();
    wire.send(&gre(UNKNOWN), 17);
    settle();
    let reports = watch.stop();
    unload(&["ip_gre", "gre"]);
    assert_eq!(in_module(&reports, "gre"), 30, "{reports:?}");
}

fn same_symbol() {
    let wire = Wire::new();
    assert!(load("ip_gre"), "ip_gre cannot be loaded");
    let watch = watch();
    settle();
    wire.send(&gre(UNKNOWN), 19);
    wire.send(&gre(0), 23);
    settle();
    let reports = watch.stop();
    unload(&["ip_gre", "gre"]);
    assert_eq!(in_module(&reports, "gre"), 19, "{reports:?}");
    assert_eq!(in_module(&reports, "ip_gre"), 23, "{reports:?}");
}

fn own_reasons() {
    assert!(load("openvswitch"), "openvswitch cannot be loaded");
    let watch = watch();
    settle();
    drop_in_switch(watch, 29);
}

fn own_reasons_later() {
    unload(&["openvswitch"]);
    let watch = watch();
    settle();
    assert!(load("openvswitch"), "openvswitch cannot be loaded");
    drop_in_switch(watch, 31);
}

/// Drops in a switch, whose reasons only its own module can name.
fn drop_in_switch(watch: Watch, count: u64) {
    let net = Net::quiet();
    let switch = Switch::new(&net);
    switch.drop_packets(count);
    settle();
    let reports = watch.stop();
    drop(switch);
    unload(&["openvswitch"]);
    let rows: Vec<_> = reports.rows().filter(|row| row["location"]["module"] == "openvswitch").collect();
    // Before it had reasons, the switch consumed what it had no use for.
    if !kernel::has_reason("SUBSYS_OPENVSWITCH") {
        assert!(rows.is_empty(), "{reports:?}");
        return;
    }
    let [row] = rows[..] else { panic!("not one row: {reports:?}") };
    assert_eq!(row["count"], count, "{reports:?}");
    assert_eq!(row["reason"]["subsystem"], "openvswitch", "{row}");
    assert_eq!(row["reason"]["name"], "OVS_DROP_LAST_ACTION", "{row}");
}
