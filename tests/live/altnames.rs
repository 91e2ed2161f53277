//! Alternative names of interfaces stand for what bears them when the drop happens.

use std::process::Command;

use nix::sys::signal::Signal;

use super::names::{Wire, assert_verdict, check, count, unique, watch};
use crate::{Test, support::watch::Watch};

/// All of them.
pub const TESTS: &[Test] = &[
    ("altnames::a_filter_follows_a_name_wherever_it_goes", filter_follows),
    ("altnames::a_filter_tells_names_apart", filter_tells_apart),
    ("altnames::trace_follows_a_name", trace_follows),
    ("altnames::check_follows_a_name_wherever_it_goes", check_follows),
    ("altnames::check_never_passes_where_names_cannot_be_read", check_unreadable),
    ("altnames::check_fails_where_a_name_never_appeared", check_never_there),
    ("altnames::a_filter_warns_of_an_interface_that_is_not_there", warns),
];

/// The longest that the kernel takes.
fn longest() -> String {
    format!("{:x<127}", unique("port-1-of-the-upper-switch-"))
}

impl Wire {
    /// Gives `vb` another name, for as long as what is returned lives.
    fn also_called<'a>(&'a self, name: &'a str) -> AlsoCalled<'a> {
        self.b.ip(&format!("link property add dev vb altname {name}"));
        AlsoCalled { wire: self, name }
    }
}

struct AlsoCalled<'a> {
    wire: &'a Wire,
    name: &'a str,
}

impl Drop for AlsoCalled<'_> {
    fn drop(&mut self) {
        self.wire.b.ip(&format!("link property del dev vb altname {}", self.name));
    }
}

/// Drops on `vb` of which those count that happen while it has the name: 5 + 7 on one interface, 11 on another.
fn come_and_go(name: &str) {
    let (one, other) = (Wire::new(), Wire::new());
    one.drop(3);
    let called = one.also_called(name);
    let _more = one.also_called("short0");
    one.drop(5);
    one.rename("vb", "r1");
    one.drop(7);
    one.rename("r1", "vb");
    drop(called);
    one.drop(13);
    let _called = other.also_called(name);
    other.drop(11);
    one.drop(17);
}

fn filter_follows() {
    for name in [&longest(), "alt7"] {
        let watch = watch(&["-f", &format!("iface {name}")]);
        come_and_go(name);
        let reports = watch.stop();
        assert_eq!(count(&reports, |_| true), 5 + 7 + 11, "{reports:?}");
        assert_eq!(reports.lost("names_unreadable"), 0, "{}", reports.stderr);
    }
}

fn filter_tells_apart() {
    let wire = Wire::new();
    let long = longest();
    // One that begins like it, and is longer than what an interface's own name can be.
    let _called = [long.as_str(), &long[..126], "alt7"].map(|name| wire.also_called(name));
    for (filter, expected) in [
        (format!("iface {long}"), 4),
        (format!("iface {}", &long[..126]), 4),
        (format!("iface {}", &long[..125]), 0),
        (format!("iface vb and iface alt7 and not iface {}", &long[..15]), 4),
        (format!("iface {} or iface alt8", &long[..15]), 0),
    ] {
        let watch = watch(&["-b", "netns", "-f", &filter]);
        wire.drop(4);
        let here = count(&watch.stop(), |row| row["netns"]["inum"] == wire.b.inum());
        assert_eq!(here, expected, "{filter}");
    }
}

fn trace_follows() {
    let name = longest();
    let watch = Watch::start(&["trace", "-o", "json", "-i", &name]);
    come_and_go(&name);
    watch.signal(Signal::SIGINT);
    let ended = watch.wait();
    let shown = ended.stdout.lines().filter(|line| line.contains("\"type\":\"drop\"")).count();
    assert_eq!(shown, 5 + 7 + 11, "{ended:?}");
}

fn check_follows() {
    let name = longest();
    for arguments in
        [&["--max", &format!("iface={name}:0")][..], &["--max", "0", "-f", &format!("iface {name}")]]
    {
        let output = check(arguments, || come_and_go(&name));
        assert_verdict(&output, "23 drops seen, at most 0 allowed");
    }
    let wire = Wire::new();
    let _called = wire.also_called("alt7");
    let output = check(&["--max", "iface=vb,iface=alt7:3", "--max", "iface=alt7:4"], || wire.drop(4));
    assert_verdict(&output, "FAILED  --max iface=vb,iface=alt7:3: 4 drops seen");
    assert_verdict(&output, "ok      --max iface=alt7:4: 4 drops seen");
}

fn check_unreadable() {
    let wire = Wire::new();
    let names: Vec<_> = (0..65).map(|number| format!("altname name-{number}")).collect();
    wire.b.ip(&format!("link property add dev vb {}", names.join(" ")));
    for arguments in [&["--max", "iface=name-64:0"][..], &["--max", "0", "-f", "iface name-64"]] {
        let output = check(arguments, || wire.drop(6));
        assert_verdict(&output, "UNKNOWN --max");
        assert_verdict(&output, "not all alternative names of the interfaces of 6 drops could be read");
    }
    wire.b.ip("link property del dev vb altname name-0");
    assert_verdict(&check(&["--max", "iface=name-64:0"], || wire.drop(6)), "6 drops seen, at most 0 allowed");
}

fn check_never_there() {
    let wire = Wire::new();
    let _name = wire.b.name(&unique("altname"));
    let name = longest();
    let rule = format!("iface={name}:0");
    let output = check(&["--max", &rule], || wire.drop(3));
    assert_verdict(&output, "UNKNOWN --max");
    assert_verdict(&output, &format!("interface '{name}' was never there"));
    let _called = wire.also_called(&name);
    assert_verdict(&check(&["--max", &rule], || {}), &format!("ok      --max {rule}"));
}

/// A namespace that only a process shows is looked into as well.
fn warns() {
    let wire = Wire::new();
    let _called = wire.also_called("alt7");
    let mut process = wire.b.run(|| Command::new("sleep").arg("600").spawn().expect("a process"));
    for start in [&["-f"][..], &["trace", "-f"]] {
        for (filter, missing) in [("iface lo or iface alt7", None), ("iface alt7 or iface vb7", Some("vb7"))]
        {
            let watch = Watch::start(&[start, &[filter]].concat());
            watch.signal(Signal::SIGINT);
            let said = watch.wait().stderr;
            let warning =
                missing.map(|name| format!("there is no interface '{name}' now, and the filter waits for"));
            match warning {
                Some(warning) => assert!(said.contains(&warning), "{said}"),
                None => assert!(!said.contains("there is no interface"), "{said}"),
            }
        }
    }
    process.kill().expect("the process is there");
    process.wait().expect("its end");
}
