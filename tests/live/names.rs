//! Names of interfaces and namespaces stand for what bears them when the drop happens.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt as _,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Test,
    support::{
        PATIENCE, dropwatch,
        frames::{self, IPV4, Packet},
        kernel,
        net::{CLOSED, Net},
        watch::{Reports, Watch},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("names::a_renamed_interface_has_its_new_name_from_then_on", renamed),
    ("names::a_filter_by_interface_follows_a_renamed_one", renamed_in_a_filter),
    ("names::an_interface_with_controls_in_its_name_is_attributed", controls),
    ("names::a_reused_inode_number_is_another_row", reused_numbers),
    ("names::a_name_stays_with_the_namespace_that_had_it", names_of_reused_numbers),
    ("names::a_filter_by_name_counts_from_the_first_drop_on", filter_by_names_that_come_and_go),
    ("names::trace_follows_a_name", trace_by_a_name),
    ("names::not_a_name_is_every_other_namespace", not_a_name),
    ("names::the_hosts_own_namespace_is_called_host", host),
    ("names::check_follows_a_name_to_the_namespace_that_has_it", check_made_again),
    ("names::check_never_passes_for_a_name_that_came_and_went", check_of_a_moment),
    ("names::check_takes_names_that_do_not_exist_yet", check_named_before),
    ("names::check_fails_where_a_name_never_appeared", check_never_there),
    ("names::check_follows_a_renamed_interface", check_renamed),
    ("names::check_fails_where_headers_cannot_be_read", check_unreadable),
];

/// How long a namespace keeps its name: time to look at it, on a busy machine too.
const HELD: Duration = Duration::from_millis(50);

/// A name that no other namespace has.
pub(super) fn unique(what: &str) -> String {
    format!("dropwatch-{}-{what}", std::process::id())
}

/// Whether the kernel gives each namespace a cookie when it is made (Linux 5.12).
fn has_cookies() -> bool {
    !kernel::is_before(5, 12)
}

/// Drops in rows for which `is` holds.
pub(super) fn count(reports: &Reports, is: impl Fn(&Value) -> bool) -> u64 {
    reports.rows().filter(|row| is(row)).map(|row| row["count"].as_u64().expect("a count")).sum()
}

pub(super) fn watch(arguments: &[&str]) -> Watch {
    Watch::start(&[&["-o", "json", "-i", "1h"], arguments].concat())
}

/// Two namespaces with a wire between them: what is sent on `va` is dropped at `vb`, which has an address and no use
/// for it.
pub(super) struct Wire {
    pub a: Net,
    pub b: Net,
    to: [u8; 6],
}

impl Wire {
    pub fn new() -> Self {
        let (a, b) = (Net::quiet(), Net::quiet());
        a.join("va", "10.99.0.1/24", &b, "vb", "10.99.0.2/24");
        let to = b.hardware_address("vb");
        Self { a, b, to }
    }

    pub fn rename(&self, from: &str, to: &str) {
        self.b.ip(&format!("link set {from} down"));
        self.b.ip(&format!("link set {from} name {to}"));
        self.b.ip(&format!("link set {to} up"));
        while !self.b.is_up(to) || !self.a.is_up("va") {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn drop(&self, count: u64) {
        let nobody = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], CLOSED).bytes();
        frames::send(&self.a, "va", self.to, IPV4, &nobody, count);
        thread::sleep(Duration::from_millis(100));
    }
}

fn renamed() {
    let wire = Wire::new();
    let watch = watch(&["-b", "iface,netns"]);
    wire.drop(41);
    wire.rename("vb", "r1");
    wire.drop(43);
    let reports = watch.stop();
    let on = |name: &str| {
        count(&reports, |row| row["netns"]["inum"] == wire.b.inum() && row["iface"]["name"] == name)
    };
    assert_eq!((on("vb"), on("r1")), (41, 43), "{reports:?}");
}

fn renamed_in_a_filter() {
    let wire = Wire::new();
    let watch = watch(&["-f", "iface r1"]);
    wire.drop(41);
    wire.rename("vb", "r1");
    wire.drop(43);
    assert_eq!(count(&watch.stop(), |_| true), 43);
}

fn controls() {
    for name in ["ifb-pp\u{1}", "\u{1b}]0;x\u{7}", "\u{7f}\u{c2}\u{85}"] {
        let wire = Wire::new();
        wire.rename("vb", name);
        let watch = watch(&["-b", "iface,netns"]);
        wire.drop(47);
        let reports = watch.stop();
        let here = |row: &Value| row["netns"]["inum"] == wire.b.inum() && row["iface"]["name"] == name;
        assert_eq!(count(&reports, here), 47, "{reports:?}");
    }
}

/// Inode numbers come back at once, and what comes back is another namespace.
fn reused_numbers() {
    const NAMESPACES: u64 = 300;
    let watch = watch(&["-b", "netns"]);
    let mut numbers = Vec::new();
    for _ in 0..NAMESPACES {
        let net = Net::quiet();
        net.drop_datagrams(3);
        numbers.push(net.inum());
    }
    let reports = watch.stop();
    let ours: Vec<_> = reports
        .rows()
        .filter(|row| numbers.iter().any(|number| row["netns"]["inum"] == *number))
        .map(|row| row["count"].as_u64().expect("a count"))
        .collect();
    assert_eq!(ours.iter().sum::<u64>(), 3 * NAMESPACES, "{reports:?}");
    numbers.sort_unstable();
    numbers.dedup();
    assert!((numbers.len() as u64) < NAMESPACES, "no number has come back: nothing is tested");
    let rows = if has_cookies() { NAMESPACES } else { numbers.len() as u64 };
    assert_eq!(ours.len() as u64, rows, "a row for each of them: {ours:?}");
    if has_cookies() {
        assert!(ours.iter().all(|count| *count == 3), "{ours:?}");
    }
}

/// Short-lived namespaces with a name each: none is shown with the name of another, whichever number it has.
fn names_of_reused_numbers() {
    const NAMESPACES: u64 = 200;
    let watch = watch(&["-b", "netns"]);
    let mut numbers = Vec::new();
    for number in 0..NAMESPACES {
        let net = Net::quiet();
        let name = (number % 2 == 0).then(|| net.name(&unique(&number.to_string())));
        net.drop_datagrams(number + 1);
        numbers.push(net.inum());
        thread::sleep(HELD);
        drop(name);
    }
    let reports = watch.stop();
    let is_ours = |row: &&Value| numbers.iter().any(|number| row["netns"]["inum"] == *number);
    let mut counts: Vec<_> = reports
        .rows()
        .filter(is_ours)
        .map(|row| {
            (row["count"].as_u64().expect("a count"), row["netns"]["name"].as_str().map(str::to_owned))
        })
        .collect();
    counts.sort_unstable();
    if !has_cookies() {
        // There a number is all that a namespace is known by, which the documentation says.
        let all: u64 = counts.iter().map(|(count, _)| count).sum();
        return assert_eq!(all, NAMESPACES * (NAMESPACES + 1) / 2, "{counts:?}");
    }
    let expected: Vec<_> = (0..NAMESPACES)
        .map(|number| (number + 1, (number % 2 == 0).then(|| unique(&number.to_string()))))
        .collect();
    assert_eq!(counts, expected);
    numbers.sort_unstable();
    numbers.dedup();
    assert!((numbers.len() as u64) < NAMESPACES, "no number has come back: nothing is tested");
}

/// The first drop comes right after the name; then the namespace goes, and another gets its name.
fn filter_by_names_that_come_and_go() {
    const NAMESPACES: u64 = 60;
    let name = unique("again");
    let watch = watch(&["-f", &format!("netns {name} and udp port {CLOSED}")]);
    let other = Net::quiet();
    for number in 0..NAMESPACES {
        let net = Net::quiet();
        let name = net.name(&name);
        net.drop_datagrams(number + 1);
        other.drop_datagrams(7);
        thread::sleep(HELD);
        drop(name);
    }
    let reports = watch.stop();
    let expected = NAMESPACES * (NAMESPACES + 1) / 2;
    assert_eq!(count(&reports, |_| true), expected, "{}", reports.stderr);
    assert_eq!(reports.lost("undecided"), 0, "{}", reports.stderr);
    assert!(reports.stderr.contains(&format!("no network namespace '{name}' now")), "{}", reports.stderr);
}

fn not_a_name() {
    let (named, other) = (Net::quiet(), Net::quiet());
    let name = unique("not");
    let watch = watch(&["-b", "netns", "-f", &format!("not netns {name} and udp port {CLOSED}")]);
    let _name = named.name(&name);
    named.drop_datagrams(11);
    other.drop_datagrams(13);
    named.drop_datagrams(17);
    other.drop_datagrams(19);
    let reports = watch.stop();
    let of = |net: &Net| count(&reports, |row| row["netns"]["inum"] == net.inum());
    assert_eq!((of(&named), of(&other)), (0, 32), "{reports:?}");
}

fn trace_by_a_name() {
    let name = unique("trace");
    let filter = format!("netns {name}");
    let watch = Watch::start(&["trace", "-o", "json", "-f", &filter]);
    let other = Net::quiet();
    for round in 0..10 {
        let net = Net::quiet();
        let name = net.name(&name);
        net.drop_datagrams(round + 1);
        other.drop_datagrams(3);
        thread::sleep(HELD);
        drop(name);
    }
    watch.signal(nix::sys::signal::Signal::SIGINT);
    let ended = watch.wait();
    let shown = ended.stdout.lines().filter(|line| line.contains("\"type\":\"drop\"")).count();
    assert_eq!(shown, 55, "{ended:?}");
    assert!(ended.stdout.contains("\"not_shown\":0"), "{ended:?}");
}

/// The oldest process of the host is in it, which is not what it is for.
fn host() {
    let own = fs::metadata("/proc/self/ns/net").expect("the own namespace");
    let of_threads = fs::metadata("/proc/2/ns/net").expect("that of the kernel's threads");
    assert_eq!(own.ino(), of_threads.ino(), "these tests run on the host");
    let watch = watch(&["-b", "netns", "-f", &format!("netns host and udp port {CLOSED}")]);
    crate::support::net::drop_datagrams_here(5);
    thread::sleep(Duration::from_millis(100));
    let reports = watch.stop();
    let here = |row: &Value| row["netns"]["name"] == "host" && row["netns"]["inum"] == own.ino();
    assert_eq!(count(&reports, here), 5, "{reports:?}");
}

/// A check of what this does meanwhile.
pub(super) fn check(arguments: &[&str], work: impl FnOnce()) -> Output {
    let ready = std::env::temp_dir().join(unique("check"));
    let _ = fs::remove_file(&ready);
    let child = Command::new(dropwatch())
        .arg("check")
        .args(arguments)
        .args(["--", "sh", "-c", "touch $0; read line", ready.to_str().expect("text")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("dropwatch starts");
    let start = Instant::now();
    while !ready.exists() && child.try_wait().expect("a status").is_none() {
        assert!(start.elapsed() < PATIENCE, "the command has not started");
        thread::sleep(Duration::from_millis(5));
    }
    work();
    // Its end is the end of the command.
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("dropwatch ends");
    let _ = fs::remove_file(&ready);
    output
}

pub(super) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `read` fails at the end of its input, hence the status of the command.
pub(super) fn assert_verdict(output: &Output, words: &str) {
    assert!(stderr(output).contains(words), "{}", stderr(output));
}

fn check_made_again() {
    let name = unique("made-again");
    let rule = format!("netns={name}:0");
    let filter = format!("netns {name}");
    for arguments in [&["--max", rule.as_str()][..], &["--max", "0", "-f", filter.as_str()]] {
        let first = Net::quiet();
        let first_name = first.name(&name);
        let output = check(arguments, || {
            drop((first_name, first));
            let second = Net::quiet();
            let _name = second.name(&name);
            second.drop_datagrams(4);
            thread::sleep(HELD);
        });
        assert_verdict(&output, "4 drops seen, at most 0 allowed");
    }
}

fn check_named_before() {
    let name = unique("before");
    let rule = format!("netns={name}:3");
    let filter = format!("netns {name}");
    for arguments in [&["--max", rule.as_str()][..], &["--max", "3", "-f", filter.as_str()]] {
        for (drops, word) in [(3, "ok      --max"), (4, "FAILED  --max")] {
            let output = check(arguments, || {
                let net = Net::quiet();
                let _name = net.name(&name);
                net.drop_datagrams(drops);
                Net::quiet().drop_datagrams(5);
                thread::sleep(HELD);
            });
            assert_verdict(&output, word);
        }
    }
}

fn check_never_there() {
    let arguments = [
        (
            &["--max", "netns=no-such-namespace:0"][..],
            "network namespace 'no-such-namespace' was never there",
        ),
        (
            &["--max", "0", "-f", "netns no-such-namespace"],
            "network namespace 'no-such-namespace' was never there",
        ),
        (&["--max", "iface=no-such-iface:0"], "interface 'no-such-iface' was never there"),
        (&["--max", "0", "-f", "iface no-such-iface"], "interface 'no-such-iface' was never there"),
    ];
    for (arguments, words) in arguments {
        let output = check(arguments, || Net::quiet().drop_datagrams(3));
        assert_verdict(&output, "UNKNOWN --max");
        assert_verdict(&output, words);
    }
    let net = Net::quiet();
    let _name = net.name(&unique("there"));
    net.ip("link add late0 type veth peer name late1");
    assert_verdict(&check(&["--max", "iface=late0:0"], || {}), "ok      --max iface=late0:0");
}

fn check_renamed() {
    let wire = Wire::new();
    let drops = || {
        wire.drop(3);
        wire.rename("vb", "r1");
        wire.drop(4);
        wire.rename("r1", "vb");
    };
    assert_verdict(&check(&["--max", "iface=r1:0"], drops), "4 drops seen, at most 0 allowed");
    assert_verdict(&check(&["--max", "0", "-f", "iface r1"], drops), "4 drops seen, at most 0 allowed");
}

/// A packet socket puts no more than the link header of a large frame into the packet's linear part.
fn check_unreadable() {
    let wire = Wire::new();
    wire.a.ip("link set va mtu 9000");
    wire.b.ip("link set vb mtu 9000");
    let large =
        Packet::new(Ipv4Addr::new(10, 98, 0, 7), Ipv4Addr::new(10, 99, 0, 2), frames::UDP, vec![0; 5000])
            .bytes();
    let drops = || {
        frames::send(&wire.a, "va", [2, 0, 0, 0, 0, 9], IPV4, &large, 6);
        thread::sleep(Duration::from_millis(100));
    };
    for filter in ["udp port 53", "not udp[8:2] = 1", "ether[12:4] = 1"] {
        let filter = format!("netns {} and {filter}", wire.b.inum());
        // Rows by socket are counted by a program of their own.
        for rules in [&["--max", "0"][..], &["--max", "6", "--expect", "process=1:1"]] {
            let output = check(&[rules, &["-f", &filter]].concat(), drops);
            assert_verdict(&output, "UNKNOWN --max");
            assert_verdict(&output, "the headers of 6 packets could not be read");
        }
    }
    // `trace` says it as it goes on, of so many at a time.
    let filter = format!("netns {} and udp port 53", wire.b.inum());
    let trace = Watch::start(&["trace", "-f", &filter]);
    drops();
    trace.signal(nix::sys::signal::Signal::SIGINT);
    let ended = trace.wait();
    let unreadable = ended.stderr.lines().filter_map(|line| {
        let (_, count) = line.split_once("the headers of ")?;
        count.split(' ').next()?.parse::<u64>().ok()
    });
    assert_eq!((unreadable.sum::<u64>(), ended.stdout.as_str()), (6, ""), "{ended:?}");
    // What needs none of these bytes is decided.
    for (filter, verdict) in [
        ("ether[5] = 9", "6 drops seen, at most 0 allowed"),
        ("len < 100 and ether[40] = 1", "ok      --max"),
    ] {
        let filter = format!("netns {} and {filter}", wire.b.inum());
        assert_verdict(&check(&["--max", "0", "-f", &filter], drops), verdict);
    }
}

/// Names of no duration: whether they were looked at or not, the gate does not pass.
fn check_of_a_moment() {
    let name = unique("moment");
    let rule = format!("netns={name}:0");
    for _ in 0..5 {
        let output = check(&["--max", &rule], || {
            let net = Net::quiet();
            let name = net.name(&name);
            net.drop_datagrams(4);
            drop(name);
        });
        let said = stderr(&output);
        assert!(said.contains("4 drops seen") || said.contains("too shortly"), "{said}");
        assert!(!said.contains("ok      --max"), "{said}");
    }
}
