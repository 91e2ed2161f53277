//! What `trace` shows and writes, as users of tcpdump expect it.

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use nix::sys::signal::Signal;

use crate::{
    Test,
    support::{self, net::Net, pcapng, watch::Watch},
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("capture::trace_takes_an_expression_an_interface_and_tcpdumps_letters", letters),
    ("capture::trace_without_a_drop_writes_a_capture_that_tcpdump_reads", no_drops),
    ("capture::trace_captures_nothing_of_local_sockets", local_sockets),
    ("capture::trace_tells_the_time_in_a_time_namespace", time_namespace),
    ("capture::trace_samples_a_flood_from_its_first_second_on", first_second),
];

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

fn ended(watch: Watch) -> support::watch::Ended {
    watch.signal(Signal::SIGINT);
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    ended
}

fn letters() {
    let net = Net::quiet();
    let here = format!("netns {}", net.inum());
    // The words of the expression are joined; -f and the interface apply as well.
    let all =
        Watch::start(&["trace", "-nn", "-e", "-q", "-s", "64", "-i", "lo", "-f", &here, "udp", "port", "9"]);
    let none = [
        Watch::start(&["trace", "-i", "other0", "-f", &here]),
        Watch::start(&["trace", "-f", &here, "tcp", "or", "udp", "port", "10"]),
    ];
    net.drop_datagrams(7);
    let lines = ended(all).stdout;
    assert_eq!(lines.lines().count(), 7, "{lines}");
    for line in lines.lines() {
        let link = ": 00:00:00:00:00:00 > 00:00:00:00:00:00, IPv4, length 43: 127.0.0.1.";
        assert!(line.contains(link) && line.ends_with(" > 127.0.0.1.9: UDP, length 1"), "{line}");
    }
    for watch in none {
        assert_eq!(ended(watch).stdout, "");
    }
}

fn no_drops() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("drops.pcapng");
    let net = Net::quiet();
    ended(Watch::start(&["trace", "-w", text(&path), "-f", &format!("netns {}", net.inum())]));
    assert!(pcapng::read(&path).is_empty());
    if let Some(lines) = pcapng::tcpdump(&path) {
        assert!(lines.is_empty(), "{lines:?}");
    }
}

fn local_sockets() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("drops.pcapng");
    let watch = Watch::start(&["trace", "-w", text(&path)]);
    // What has not been read when its socket is closed is dropped.
    for _ in 0..5 {
        let (from, to) = UnixDatagram::pair().expect("sockets");
        from.send(b"a local secret").expect("it is sent");
        drop(to);
    }
    let net = Net::quiet();
    net.drop_datagrams(3);
    let ended = ended(watch);
    let local = ended.stdout.lines().filter(|line| line.contains("protocol 0x0000, length 14")).count();
    assert_eq!(local, 5, "{}", ended.stdout);
    let packets = pcapng::read(&path);
    assert!(!packets.iter().any(|packet| packet.bytes.ends_with(b"a local secret")), "a made-up frame");
    let here = format!("netns {}", net.inum());
    assert_eq!(packets.iter().filter(|packet| packet.description.starts_with(&here)).count(), 3);
    let left_out: usize = ended
        .stderr
        .lines()
        .find_map(|line| line.split_once(" drops of local sockets")?.0.parse().ok())
        .expect("a number");
    assert_eq!(packets.len() + left_out, ended.stdout.lines().count(), "{}", ended.stderr);
}

/// How far the monotonic clock of the namespace is ahead: ten days.
const AHEAD: &str = "864000";

fn time_namespace() {
    if !Path::new("/proc/self/timens_offsets").exists() {
        dropwatch_testing::skip(format_args!("no time namespaces before Linux 5.6"));
        return;
    }
    let net = Net::quiet();
    let here = format!("netns {}", net.inum());
    let ready = tempfile::tempdir().expect("a directory");
    let file = ready.path().join("ready");
    // A process of its own in the namespace: before Linux 6.1 one that made a namespace can start no thread.
    let mut trace = Command::new("unshare")
        .args(["-T", "--fork", "--monotonic", AHEAD])
        .arg(support::dropwatch())
        .args(["trace", "-o", "json", "-c", "3", "-f", &here, "--ready-file", text(&file)])
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare starts");
    while !file.exists() {
        assert_eq!(trace.try_wait().expect("a status"), None, "it ended before it was ready");
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = SystemTime::now();
    net.drop_datagrams(3);
    let after = SystemTime::now();
    let output = trace.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).expect("text");
    let drops = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let mut seen = 0;
    for drop in drops.filter(|drop| drop["type"] == "drop") {
        let time = humantime::parse_rfc3339(drop["time"].as_str().expect("a time")).expect("a time");
        // The clocks are read one after the other.
        let slack = Duration::from_millis(100);
        assert!((before - slack..=after + slack).contains(&time), "{drop}: {before:?} to {after:?}");
        seen += 1;
    }
    assert_eq!(seen, 3, "{lines}");
}

/// The limit of a second.
const RATE: usize = 40;

fn first_second() {
    let net = Net::quiet();
    let here = format!("netns {}", net.inum());
    let watch = Watch::start(&["trace", "-o", "json", "--rate", &RATE.to_string(), "-f", &here]);
    let (start, mut drops) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(950) {
        drops += net.flood(500);
    }
    let lines = ended(watch).stdout;
    let times: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|drop| drop["type"] == "drop")
        .map(|drop| humantime::parse_rfc3339(drop["time"].as_str().expect("a time")).expect("a time"))
        .collect();
    assert!(drops > 20 * RATE as u64, "{drops} drops are no flood");
    assert!((RATE / 2..=2 * RATE).contains(&times.len()), "{} of {drops}", times.len());
    let first = times[0];
    let mut tenths = [0; 10];
    for time in &times {
        let since = time.duration_since(first).unwrap_or_default().as_millis();
        tenths[usize::try_from(since / 100).expect("a tenth").min(9)] += 1;
    }
    // A quarter may come at once, and the others as the second goes by.
    assert!(tenths.iter().all(|&shown| shown <= RATE * 2 / 5), "{tenths:?}");
    assert!(tenths.iter().filter(|&&shown| shown > 0).count() >= 6, "{tenths:?}");
}
