//! What is known of the running kernel's reasons, as its own type information has them.

use std::{collections::BTreeSet, fs, net::UdpSocket, process::Command};

use dropwatch::internals::ENTRIES;

use crate::{
    Test,
    support::{self, inject::needs, kernel, net::Net, watch::Watch},
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("explain::every_reason_of_this_kernel_is_explained", every_reason),
    ("explain::rows_have_the_class_of_what_happened", classes),
    ("explain::every_counter_that_is_named_is_one_of_this_kernel", every_counter),
];

/// Where subsystems that are modules have their reasons, and how the names of all of them begin.
const TYPES: [&str; 3] = ["vmlinux", "openvswitch", "mac80211"];
const PREFIXES: [&str; 4] = ["SKB_DROP_REASON_", "OVS_DROP_", "___RX_DROP_", "QDISC_DROP_"];

/// Values of those enums that are no reasons.
fn is_marker(name: &str) -> bool {
    name.starts_with("SKB_DROP_REASON_SUBSYS_") || name.ends_with("_MAX") || name == "QDISC_DROP_UNSPEC"
}

/// The names in the type information of the kernel and of those modules that are loaded: strings that end in a zero.
fn reasons() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in TYPES {
        // Built in, or absent here: what is there is read.
        let _ = Command::new("modprobe").args(["-q", file]).output();
        let types = fs::read(format!("/sys/kernel/btf/{file}")).unwrap_or_default();
        let strings = types.split(|&byte| byte == 0).filter_map(|string| str::from_utf8(string).ok());
        let found = strings.filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        names.extend(found.filter(|name| !is_marker(name)).map(str::to_string));
    }
    names
}

/// A kernel without reasons has the tracepoint without them: there is nothing to explain, and that is checked.
fn every_reason() {
    let reasons = reasons();
    let kernel_gives_reasons = kernel::has_reason("NO_SOCKET");
    assert_eq!(reasons.len() > 10, kernel_gives_reasons, "{reasons:?}");
    println!("{} reasons", reasons.len());
    for reason in reasons {
        let explained = Command::new(support::dropwatch()).args(["explain", &reason]).output();
        let explained = explained.expect("dropwatch runs");
        assert!(explained.status.success(), "{reason}: {}", String::from_utf8_lossy(&explained.stderr));
    }
}

/// Counters that only newer kernels have, and the first that has them.
const NEWER: [(&str, (u32, u32)); 9] = [
    ("UdpMemErrors", (5, 11)),
    ("Udp6MemErrors", (5, 11)),
    ("TcpExtTCPAOBad", (6, 7)),
    ("TcpExtTCPAOKeyNotFound", (6, 7)),
    ("TcpExtTCPAORequired", (6, 7)),
    ("TcpExtPAWSOldAck", (6, 14)),
    ("TcpExtTSEcrRejected", (6, 15)),
    ("TcpExtPAWSTimewait", (6, 16)),
    ("TcpExtBeyondWindow", (6, 17)),
];

/// How the names of the counters of MPTCP begin.
const MPTCP: &str = "MPTcpExt";

/// What `nstat` would name: counters of a new namespace, by group and name.
fn counters() -> BTreeSet<String> {
    let read = |file: &str| {
        let path = format!("/proc/thread-self/net/{file}");
        Net::new().run(|| fs::read_to_string(path)).unwrap_or_default()
    };
    let mut names = BTreeSet::new();
    for text in [read("snmp"), read("netstat")] {
        for line in text.lines().step_by(2) {
            let (group, counters) = line.split_once(": ").expect("a group's names");
            names.extend(counters.split(' ').map(|counter| format!("{group}{counter}")));
        }
    }
    for text in [read("snmp6"), read("xfrm_stat")] {
        names.extend(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_string));
    }
    names
}

fn every_counter() {
    // Loaded for what it counts, where it is a module.
    let _ = needs::XFRM.lacking();
    let known = counters();
    let named = ENTRIES.iter().flat_map(|entry| entry.counters.iter().copied());
    let asked = ENTRIES.iter().flat_map(|entry| entry.check);
    let asked = asked.filter_map(|check| check.run.strip_prefix("nstat -az ")).flat_map(|run| run.split(' '));
    // What is in no file of names and values has a name of ours.
    let named: BTreeSet<_> = named.chain(asked).filter(|name| !name.contains(':')).collect();
    assert!(named.len() > 100, "{named:?}");
    // Debian's 5.10 is built without it.
    let has_mptcp = known.iter().any(|name| name.starts_with(MPTCP));
    let wrong: Vec<_> = named
        .into_iter()
        .filter(|name| has_mptcp || !name.starts_with(MPTCP))
        .filter(|name| {
            let newer = NEWER.iter().find(|(newer, _)| newer == name);
            let is_newer = newer.is_some_and(|&(_, (major, minor))| kernel::is_before(major, minor));
            known.contains(*name) == is_newer
        })
        .collect();
    assert!(wrong.is_empty(), "not as this kernel has them: {wrong:?}");
}

/// Datagrams to a closed port are refused, those that a rule drops are lost; a kernel without reasons cannot tell.
fn classes() {
    let net = Net::new();
    net.words("nft add table ip t");
    net.command("nft", &["add chain ip t c { type filter hook input priority 0 ; }"]);
    net.words("nft add rule ip t c udp dport 53 drop");
    let watch = Watch::start(&["-o", "json", "-i", "1h", "-f", &format!("netns {}", net.inum())]);
    net.drop_datagrams(37);
    net.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..23 {
            socket.send_to(b"x", "127.0.0.1:53").expect("sent");
        }
    });
    let reports = watch.stop();
    let counted = |class: &str| -> u64 {
        let rows = reports.rows().filter(|row| row["class"] == class);
        rows.map(|row| row["count"].as_u64().expect("a count")).sum()
    };
    let gives_reasons = kernel::has_reason("NO_SOCKET");
    let (refused, lost) = if gives_reasons { (37, 23) } else { (0, 37 + 23) };
    assert_eq!((counted("refused"), counted("lost"), counted("harmless")), (refused, lost, 0), "{reports:?}");
}
