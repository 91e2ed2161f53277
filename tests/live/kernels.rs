//! What differs between kernels: nesting, and what a kernel without type information cannot name.

use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{setsockopt, sockopt},
};

use crate::{
    Test,
    support::{
        inject::{
            sys,
            wire::{self, Wire},
        },
        kernel,
        net::Net,
        pin, udp_receiver,
        watch::Watch,
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("kernels::a_drop_inside_another_one_is_counted", nested),
    ("kernels::without_type_information_drops_are_counted_by_location", without_btf),
    ("kernels::without_type_information_the_losses_are_told", without_btf_is_told),
];

/// How many packets wait in a queue whose timer interrupts whatever runs on this CPU to send each of them.
const QUEUED: u64 = 1400;

/// When they all are under way: half a millisecond each, and some; less than what the scheduler leaves to one thread.
const EMPTY: Duration = Duration::from_millis(850);

/// Drops of a process, and drops of packets that a timer's interrupts send, on one CPU: some of the latter land in
/// the counting of the former, of the same key. They are counted, or in the ledger where the kernel's guard skips
/// them.
///
/// Nothing else may run there meanwhile: the kernels of some sandboxes run no BPF program at all,
/// while their init process is what an interrupt has found, so a drop in that interrupt is seen by none.
fn nested() {
    let wire = Wire::new();
    wire.a.words("tc qdisc add dev va root tbf rate 16mbit burst 1600 limit 100000000");
    drop_here(&wire.a, "output", 10);
    drop_here(&wire.b, "input", 9);
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    wire.a.run(|| {
        pin(0);
        sys::run_alone();
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        setsockopt(&socket, sockopt::SndBufForce, &1_000_000_000).expect("room for all of them");
        for _ in 0..QUEUED {
            socket.send_to(&[0; 960], ("10.99.0.2", 9)).expect("the datagram is queued");
        }
        let start = Instant::now();
        while start.elapsed() < EMPTY {
            socket.send_to(b"x", ("10.99.0.2", 10)).expect_err("not permitted");
        }
    });
    wire::eventually("the queue is empty", || rule_counter(&wire.b) == QUEUED);
    let reports = watch.stop();
    let oracle = rule_counter(&wire.a) + rule_counter(&wire.b);
    let here = if reports.all_at("nft_do_chain") > 0 { "nft_do_chain" } else { "nf_hook_slow" };
    let (seen, missed) = (reports.at(here, "NETFILTER_DROP"), reports.lost("recursion_missed"));
    println!("case nested: seen {} expected {oracle} ({missed} of them in the ledger)", seen + missed);
    assert_eq!(seen + missed, oracle, "{missed} in the ledger: {reports:?}");
}

/// A rule that drops what goes to a port, and counts it.
fn drop_here(net: &Net, hook: &str, port: u16) {
    net.words("nft add table ip t");
    let chain = format!("add chain ip t c {{ type filter hook {hook} priority 0 ; }}");
    net.command("nft", &[&chain]);
    net.words(&format!("nft add rule ip t c udp dport {port} counter drop"));
}

/// How many packets the rule has dropped.
fn rule_counter(net: &Net) -> u64 {
    let rules = net.words("nft list table ip t");
    let count = rules.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).expect("a counter")
}

/// A monitor that finds no type information.
fn blind() -> Watch {
    without_type_information(|| Watch::start(&["-o", "json", "-i", "1h"]))
}

/// Works where there is no type information: not of the kernel, not of its modules.
pub fn without_type_information<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let hidden = thread::spawn(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("mounts of our own");
        mount(Some("none"), "/sys/kernel/btf", Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .expect("something over /sys/kernel/btf");
        assert_eq!(fs::read_dir("/sys/kernel/btf").expect("a directory").count(), 0);
        work()
    });
    hidden.join().expect("the thread without type information")
}

fn without_btf() {
    let net = Net::new();
    let watch = blind();
    net.drop_datagrams(37);
    let reports = watch.stop();
    assert_eq!(reports.all_at(udp_receiver()), 37, "{reports:?}");
    let row = reports.rows().find(|row| row["location"]["symbol"] == udp_receiver()).expect("a row");
    // The number is passed on all the same by kernels that have one.
    assert_eq!(row["reason"].is_null(), !kernel::has_reason("NO_SOCKET"), "{row}");
}

fn without_btf_is_told() {
    let reports = blind().stop();
    let told = ["only the reasons of the network core have names", "reasons are printed as numbers"];
    let is_told = told.iter().any(|words| reports.stderr.contains(words));
    assert_eq!(is_told, kernel::has_reason("NO_SOCKET"), "{}", reports.stderr);
}
