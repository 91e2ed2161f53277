//! Signals end every command, whatever it is doing, and what is meant for a check's command reaches it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    Test,
    support::{
        self, is_guest,
        net::{CLOSED, Net},
        udp_receiver,
        watch::{Watch, send},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("signals::any_ends_a_start_quietly", while_starting),
    ("signals::none_ends_a_start_of_a_check_with_success", while_a_check_starts),
    ("signals::two_close_together_keep_the_last_report", two_close_together),
    ("signals::a_second_one_ends_it_though_nobody_reads", second_one),
    ("signals::inherited_ignores_stay", inherited_ignores),
    ("signals::usr1_reports_now_and_usr2_does_nothing", user_signals),
    ("signals::usr1_has_a_trace_say_how_many_so_far", user_signals_of_a_trace),
    ("signals::any_ends_a_check_that_settles", settling_check),
    ("signals::a_checks_command_starts_as_without_it", command_state),
    ("signals::a_checks_command_gets_what_is_sent_and_ends_by_it", command_signals),
];

fn spawn(arguments: &[&str]) -> Child {
    Command::new(support::dropwatch())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dropwatch starts")
}

/// Its end, which has to come soon.
fn ended(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().expect("the child's status").is_none() {
        if start.elapsed() > Duration::from_secs(if is_guest() { 60 } else { 15 }) {
            let _ = child.kill();
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("its output")
}

/// How long a start takes here: signals are sent at times spread over it.
fn start_time() -> Duration {
    let start = Instant::now();
    drop(Watch::start(&["-b", "saddr,sport"]));
    start.elapsed()
}

fn while_starting() {
    let starts = if is_guest() { 12 } else { 30 };
    let time = start_time();
    for number in 0..starts {
        let arguments = if number % 2 == 0 { &["-b", "saddr,sport"][..] } else { &["trace"] };
        let child = spawn(arguments);
        thread::sleep(time * number / starts);
        let signal = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP][number as usize % 3];
        // Before our first instruction, a signal has its default effect.
        let is_ours = fs::read_to_string(format!("/proc/{}/status", child.id())).is_ok_and(|status| {
            status.lines().any(|line| line.starts_with("Threads:") && !line.ends_with("\t1"))
        });
        send(&child, signal);
        let output = ended(child);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() || !is_ours && output.status.signal() == Some(signal as i32),
            "{output:?}"
        );
        assert!(!stderr.contains("error"), "{number}: {stderr}");
    }
}

fn while_a_check_starts() {
    let starts = if is_guest() { 8 } else { 20 };
    let time = start_time() * 2;
    for number in 0..starts {
        // A command that nothing else runs.
        let seconds = (1_000_000 + std::process::id()).to_string();
        let child = spawn(&["check", "--max", "dport=53:1000000", "--", "sleep", &seconds]);
        thread::sleep(time * number / starts);
        send(&child, Signal::SIGTERM);
        let output = ended(child);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let is_killed = output.status.code() == Some(143) || output.status.signal() == Some(15);
        assert!(is_killed, "{number}: {output:?}");
        assert!(!stderr.contains("error"), "{number}: {stderr}");
        assert!(!is_running(&format!("sleep {seconds}")), "{number}: the command is left behind");
    }
}

/// Whether there is a process with this command line.
fn is_running(command: &str) -> bool {
    let words = command.replace(' ', "\0") + "\0";
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .any(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|cmdline| cmdline == words))
}

fn two_close_together() {
    let net = Net::new();
    let start = Instant::now();
    let mut number = 0;
    while number < 30 {
        assert!(start.elapsed() < Duration::from_secs(600), "two signals are never close together here");
        let watch = Watch::start(&["-o", "json", "-i", "1h"]);
        net.drop_datagrams(3);
        let first = Instant::now();
        watch.signal(Signal::SIGINT);
        // As timeout(1): to the process, and at once to its group. Apart enough to be two.
        thread::sleep(Duration::from_micros(number * 100));
        watch.signal(Signal::SIGINT);
        let are_together = first.elapsed() < Duration::from_millis(50);
        let reports = watch.reports();
        // An emulated machine may take its time between the two: then they are what they are not to be here.
        if are_together {
            assert_eq!(reports.reports.len(), 1, "{number}");
            assert_eq!(reports.at(udp_receiver(), "NO_SOCKET"), 3, "{number}");
            number += 1;
        }
    }
}

fn second_one() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        // The pipe is full long before the queue of intervals is.
        let watch = Watch::start_unread(&["-o", "json", "-i", "10ms", "-b", "location,reason,cpu"]);
        thread::sleep(Duration::from_secs(4));
        watch.signal(signal);
        thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        watch.signal(signal);
        assert!(watch.wait().status.success());
        assert!(start.elapsed() < Duration::from_secs(2), "{signal}");
    }
}

/// A watch that is started with these signals ignored, as by nohup(1) or in a script's background.
fn ignoring(signals: &str) -> Child {
    let ready = std::env::temp_dir().join(format!("dropwatch-ignoring-{}", std::process::id()));
    let _ = fs::remove_file(&ready);
    let script = format!("trap '' {signals}; exec \"$0\" -o json -i 1h --ready-file {}", ready.display());
    let child = Command::new("sh")
        .args(["-c", &script])
        .arg(support::dropwatch())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let start = Instant::now();
    while !ready.exists() {
        assert!(start.elapsed() < support::PATIENCE, "it is not ready");
        thread::sleep(Duration::from_millis(5));
    }
    let _ = fs::remove_file(ready);
    child
}

fn inherited_ignores() {
    let net = Net::new();
    for (ignored, end) in [
        (Signal::SIGHUP, Signal::SIGTERM),
        (Signal::SIGINT, Signal::SIGTERM),
        (Signal::SIGTERM, Signal::SIGINT),
    ] {
        let mut child = ignoring(ignored.as_str().trim_start_matches("SIG"));
        send(&child, ignored);
        net.drop_datagrams(2);
        thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait().expect("its status").is_none(), "{ignored} ended it");
        send(&child, end);
        let output = ended(child);
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        assert!(stdout.contains(udp_receiver()), "{stdout}");
    }
}

fn user_signals() {
    let net = Net::new();
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    net.drop_datagrams(4);
    watch.signal(Signal::SIGUSR2);
    thread::sleep(Duration::from_millis(100));
    watch.signal(Signal::SIGUSR1);
    thread::sleep(Duration::from_millis(300));
    net.drop_datagrams(5);
    let reports = watch.stop();
    let counts: Vec<_> = reports
        .reports
        .iter()
        .map(|report| {
            let rows = report["rows"].as_array().expect("rows").iter();
            rows.filter(|row| row["location"]["symbol"] == udp_receiver())
                .filter_map(|row| row["count"].as_u64())
                .sum::<u64>()
        })
        .collect();
    assert_eq!(counts, [4, 5]);
}

/// As tcpdump does: how many so far.
fn user_signals_of_a_trace() {
    let net = Net::new();
    let filter = format!("netns {} and udp port {CLOSED}", net.inum());
    let mut watch = Watch::start_unread(&["trace", "-f", &filter]);
    let mut lines = BufReader::new(watch.take_stdout()).lines();
    for _ in 0..2 {
        net.drop_datagrams(5);
        assert_eq!(lines.by_ref().take(5).count(), 5);
        watch.signal(Signal::SIGUSR1);
        thread::sleep(Duration::from_millis(300));
    }
    watch.signal(Signal::SIGUSR2);
    watch.signal(Signal::SIGINT);
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    let said: Vec<_> = ended.stderr.lines().filter(|line| line.contains(" shown")).collect();
    let expected = [
        "5 drops shown, 0 not shown so far",
        "10 drops shown, 0 not shown so far",
        "10 drops shown, 0 not shown",
    ];
    assert_eq!(said, expected, "{}", ended.stderr);
}

fn settling_check() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let file = std::env::temp_dir().join(format!("dropwatch-settling-{}", std::process::id()));
        let _ = fs::remove_file(&file);
        let child = spawn(&[
            "check",
            "--max",
            "1000000000",
            "--settle",
            "1h",
            "--",
            "touch",
            file.to_str().expect("text"),
        ]);
        let start = Instant::now();
        while !file.exists() {
            assert!(start.elapsed() < support::PATIENCE, "the command has not run");
            thread::sleep(Duration::from_millis(5));
        }
        // The command has to end, and that has to be noticed.
        thread::sleep(Duration::from_millis(500));
        send(&child, signal);
        let output = ended(child);
        let _ = fs::remove_file(file);
        let message = String::from_utf8_lossy(&output.stderr);
        let status = 128 + signal as i32;
        assert_eq!(output.status.code(), Some(status), "{message}");
        let last = message.lines().last().unwrap_or_default();
        assert!(
            last.starts_with(&format!("dropwatch check: exit status {status}: ended by {signal}")),
            "{message}"
        );
    }
}

/// What a process has of its parent, with `prefix` or without.
fn state(prefix: &[&str]) -> (Vec<String>, Vec<String>) {
    let output = |command: &[&str]| {
        let words = [prefix, command].concat();
        let program = if prefix.is_empty() { words[0].into() } else { support::dropwatch() };
        let arguments = if prefix.is_empty() { &words[1..] } else { &words[..] };
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let wanted =
        ["SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
    let mut status = output(&["cat", "/proc/self/status"]);
    status.retain(|line| wanted.iter().any(|name| line.starts_with(name)));
    (status, output(&["ls", "/proc/self/fd"]))
}

fn command_state() {
    let (status, descriptors) = state(&["check", "-f", "location kfree_skb", "--"]);
    let (own_status, own_descriptors) = state(&[]);
    assert!(own_status.len() == 9 && own_descriptors.len() >= 3, "{own_status:?} {own_descriptors:?}");
    assert_eq!(status, own_status);
    assert_eq!(descriptors, own_descriptors);
}

fn command_signals() {
    // Not a shell, which unblocks signals itself.
    let seconds = (2_000_000 + std::process::id()).to_string();
    let child = spawn(&["check", "--", "sleep", &seconds]);
    let start = Instant::now();
    while !is_running(&format!("sleep {seconds}")) {
        assert!(start.elapsed() < support::PATIENCE, "the command has not started");
        thread::sleep(Duration::from_millis(5));
    }
    send(&child, Signal::SIGUSR1);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(128 + Signal::SIGUSR1 as i32), "{output:?}");

    // A trap shows that it came once.
    let script = "trap 'echo once; exit 3' USR2; echo started; while :; do sleep 0.1; done";
    let mut child = spawn(&["check", "--", "sh", "-c", script]);
    child.stdout.as_mut().expect("a pipe").read_exact(&mut [0; 8]).expect("it has started");
    send(&child, Signal::SIGUSR2);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "once\n");
}
