//! Each drop with its packet: nothing is lost in silence, and what is written is what was on the wire.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use dropwatch_testing::{
    generator,
    packets::{Random, Sample},
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Test,
    live::kernels::without_type_information,
    support::{
        self, frames,
        inject::{
            needs::{self, Need},
            tc::{shoot, shot},
            wire::{Wire, eventually},
        },
        is_guest,
        net::{CLOSED, Net, flood_all},
        pcapng::{self, Captured},
        trial::trial,
        udp_receiver,
        watch::{Ended, Watch},
    },
};

/// Those that need nothing but root.
pub const TESTS: &[Test] = &[
    ("trace::large_packets_keep_their_length", large),
    ("trace::ends_after_so_many_drops", so_many),
    ("trace::chains_start_at_the_drop", chains),
    ("trace::shown_and_not_shown_add_up_in_a_flood", flood),
    ("trace::a_slow_reader_is_told_what_it_missed", slow_reader),
    ("trace::a_reader_that_goes_away_ends_it_quietly", closed_pipe),
    ("trace::a_rate_is_kept_and_the_rest_is_counted", rate),
    ("trace::any_of_the_signals_leaves_a_valid_file", signals),
    ("trace::without_type_information_is_refused", without_btf),
    ("trace::a_full_disk_keeps_what_was_before", full_disk),
];

/// Those with needs.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let tests: [(&str, Need, fn()); 2] = [
        ("trace::frames_come_back_byte_for_byte", needs::TC_BPF, byte_for_byte),
        ("trace::a_packet_without_a_link_header_gets_one", needs::NFT, no_link_header),
    ];
    let trial = |(name, need, body): (&str, Need, fn())| {
        trial(name.to_owned(), &[need], can_run, move || {
            body();
            Ok(())
        })
    };
    tests.into_iter().map(trial).collect()
}

/// What a run of `trace -o json` printed.
struct Trace {
    drops: Vec<Value>,
    summary: Value,
}

impl Trace {
    fn parse(ended: &Ended) -> Self {
        assert!(ended.status.success(), "{ended:?}");
        let mut drops: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let summary = drops.pop().expect("a summary");
        assert_eq!(summary["type"], "summary", "{summary}");
        assert!(drops.iter().all(|drop| drop["type"] == "drop"));
        assert_eq!(summary["shown"], drops.len(), "{summary}");
        Self { drops, summary }
    }

    fn stop(watch: Watch) -> Self {
        watch.signal(Signal::SIGINT);
        Self::parse(&watch.wait())
    }

    fn not_shown(&self) -> u64 {
        self.summary["not_shown"].as_u64().expect("a count")
    }

    /// The drops in a namespace.
    fn of(&self, net: &Net) -> impl Iterator<Item = &Value> {
        let inum = net.inum();
        self.drops.iter().filter(move |drop| drop["netns"]["inum"] == inum)
    }
}

/// A file in a directory of its own.
fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("drops.pcapng")
}

fn argument(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The packets of a capture that were on an interface of a namespace.
fn captured_on(path: &Path, iface: &str, net: &Net) -> Vec<Captured> {
    let mut packets = pcapng::read(path);
    let here = format!("netns {}", net.inum());
    packets.retain(|packet| packet.iface == iface && packet.description.starts_with(&here));
    packets
}

fn byte_for_byte() {
    let wire = Wire::new();
    shoot(&wire, "vb", "ingress");
    let mut runner = TestRunner::deterministic();
    let sent: Vec<Vec<u8>> =
        (0..500).map(|_| generator::frame().new_tree(&mut runner).expect("a frame").current()).collect();
    // And the broken ones that filters are tried on.
    let mut random = Random::new(7);
    let broken = (0..500).map(|_| Sample::any(&mut random).frame(wire.to));
    let whole = sent.len();
    let sent: Vec<_> = sent.into_iter().chain(broken).collect();

    let directory = directory();
    let path = file(&directory);
    let filter = format!("netns {} and iface vb", wire.b.inum());
    let watch = Watch::start(&["trace", "-o", "json", "-w", argument(&path), "-f", &filter]);
    frames::send_all(&wire.a, "va", sent.iter().map(Vec::as_slice));
    eventually("all frames are shot", || shot(&wire, "vb") == sent.len() as u64);
    let trace = Trace::stop(watch);
    assert_eq!(trace.not_shown(), 0);

    let captured = captured_on(&path, "vb", &wire.b);
    assert_eq!(captured.len(), sent.len());
    for (captured, sent) in captured.iter().zip(&sent) {
        assert_eq!(&captured.bytes, sent);
        assert_eq!(captured.original_length as usize, sent.len());
        assert!(captured.comment.contains(" at "), "{captured:?}");
        assert!(!captured.comment.contains("made up"), "{captured:?}");
    }
    assert_eq!(trace.of(&wire.b).count(), sent.len());
    let Some(lines) = pcapng::tcpdump(&path) else { return };
    assert_eq!(lines.len(), sent.len());
    for (drop, line) in trace.of(&wire.b).zip(&lines).take(whole) {
        assert_agree(&drop["packet"], line);
    }
}

/// Our facts are in tcpdump's line: addresses, ports, flags.
fn assert_agree(packet: &Value, line: &str) {
    let text = |key: &str| packet[key].as_str().map(str::to_owned);
    // The line of an ARP reply does not name its receiver.
    let keys = if packet["protocol"] == "arp" { &["saddr"][..] } else { &["saddr", "daddr"] };
    for &key in keys {
        assert!(text(key).is_none_or(|address| line.contains(&address)), "{packet}: {line}");
    }
    if let (Some(source), Some(destination)) = (packet["sport"].as_u64(), packet["dport"].as_u64()) {
        let (from, to) = (text("saddr").expect("an address"), text("daddr").expect("an address"));
        let beside = format!("{from}.{source} > {to}.{destination}: ");
        let behind = format!(" {source} > {destination}: ");
        assert!(line.contains(&beside) || line.contains(&behind), "{packet}: {line}");
    }
    if let Some(flags) = packet["tcp"]["flags"].as_str() {
        let flags = if flags.is_empty() { "none" } else { flags };
        assert!(line.contains(&format!("Flags [{flags}]")), "{packet}: {line}");
    }
}

fn no_link_header() {
    let net = Net::quiet();
    net.words("nft add table ip t");
    net.command("nft", &["add chain ip t c { type filter hook output priority 0 ; }"]);
    net.words("nft add rule ip t c udp dport 9 drop");
    let directory = directory();
    let path = file(&directory);
    let watch = Watch::start(&["trace", "-w", argument(&path)]);
    net.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        assert!(socket.send_to(b"hello", ("127.0.0.1", CLOSED)).is_err(), "it does not leave");
    });
    watch.signal(Signal::SIGTERM);
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    let packets = pcapng::read(&path);
    let packet = packets.iter().find(|packet| packet.bytes.ends_with(b"hello")).expect("the datagram");
    assert_eq!(packet.bytes[..12], [0; 12]);
    assert_eq!(packet.bytes[12..15], [0x08, 0x00, 0x45]);
    assert_eq!(packet.bytes.len(), 14 + 20 + 8 + 5);
    assert!(packet.comment.contains("no link header"), "{}", packet.comment);
    let line = ended.stdout.lines().find(|line| line.contains("UDP, length 5")).expect("a line");
    assert!(line.contains(&format!("netns {}", net.inum())) && line.contains(" length 33: "), "{line}");
}

/// Packets of all sizes up to the largest there is, in as many sizes of records.
fn large() {
    let net = Net::quiet();
    let directory = directory();
    let path = file(&directory);
    let sizes = [0, 1, 60, 100, 200, 550, 600, 1400, 1500, 4000, 4100, 16_000, 16_400, 40_000, 65_507];
    let watch = Watch::start(&["trace", "-o", "json", "-w", argument(&path)]);
    net.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for size in sizes {
            let data: Vec<u8> = (0..=250).cycle().take(size).collect();
            while socket.send_to(&data, ("127.0.0.1", CLOSED)).is_err() {}
        }
    });
    let trace = Trace::stop(watch);
    let captured = captured_on(&path, "lo", &net);
    assert_eq!(captured.len(), sizes.len());
    for ((captured, drop), size) in captured.iter().zip(trace.of(&net)).zip(sizes) {
        assert_eq!(drop["length"], 28 + size);
        assert_eq!(captured.original_length as usize, 42 + size);
        // What is not linear is not captured; what is captured is true.
        let data = &captured.bytes[42..];
        assert!(data.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251), "{size}");
        assert!(size > 4000 || data.len() == size, "{} of {size}", data.len());
    }
}

fn so_many() {
    let net = Net::quiet();
    let watch = Watch::start(&["trace", "-o", "json", "-c", "7"]);
    net.drop_datagrams(100);
    let trace = Trace::parse(&watch.wait());
    assert_eq!(trace.drops.len(), 7);
}

fn chains() {
    let net = Net::quiet();
    let here = format!("netns {}", net.inum());
    let watch = Watch::start(&["trace", "-o", "json", "--stack", "-f", &here]);
    net.drop_datagrams(5);
    let trace = Trace::stop(watch);
    assert_eq!(trace.of(&net).count(), 5);
    for drop in trace.of(&net) {
        let stack = drop["stack"].as_array().expect("a chain");
        assert_eq!(stack[0]["address"], drop["location"]["address"], "{drop}");
        assert_eq!(stack[0]["symbol"], udp_receiver());
        assert!(stack.iter().any(|frame| frame["symbol"] == "udp_sendmsg"), "{drop}");
    }
}

/// Datagrams to closed ports from all CPUs; how many there were.
fn flood_from_all(each: usize) -> (Vec<Net>, u64) {
    let cpus = thread::available_parallelism().map_or(2, usize::from);
    let nets: Vec<_> = (0..cpus).map(|_| Net::quiet()).collect();
    let drops = flood_all(&nets, each);
    (nets, drops)
}

/// So many datagrams, fewer where all is slower.
fn many(all: usize) -> usize {
    if is_guest() { all / 50 } else { all }
}

/// The counts of a `watch` beside it, which are exact, bound what others have dropped meanwhile.
fn flood() {
    let watch = Watch::start(&["-o", "json", "-i", "100ms"]);
    let tracing = Watch::start(&["trace", "-o", "json"]);
    let (nets, drops) = flood_from_all(many(500_000));
    let trace = Trace::stop(tracing);
    let reports = watch.stop();
    assert_eq!(reports.at(udp_receiver(), "NO_SOCKET"), drops, "the counts of a watch beside it");
    let all: u64 = reports.reports.iter().filter_map(|report| report["drops"].as_u64()).sum();
    let ours: usize = nets.iter().map(|net| trace.of(net).count()).sum();
    let sum = trace.drops.len() as u64 + trace.not_shown();
    eprintln!("{drops} drops, {ours} shown, {} not shown, {} of others", trace.not_shown(), all - drops);
    assert!((drops..=all).contains(&sum), "{sum} of {drops} to {all}: {}", trace.summary);
    assert!(ours > 1000, "{}", trace.summary);
}

fn slow_reader() {
    let watch = Watch::start(&["-o", "json", "-i", "100ms"]);
    // Records with room for a chain fill the ring buffer soonest.
    let mut tracing = Watch::start_unread(&["trace", "--stack"]);
    // More than the batches under way hold.
    let (_nets, drops) = flood_from_all(many(500_000).max(40_000));
    // Nothing has been read up to here.
    thread::sleep(Duration::from_millis(1200));
    let mut stdout = tracing.take_stdout();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("text");
        text
    });
    tracing.signal(Signal::SIGINT);
    let ended = tracing.wait();
    assert!(ended.status.success(), "{ended:?}");
    let all: u64 = watch.stop().reports.iter().filter_map(|report| report["drops"].as_u64()).sum();
    let text = reader.join().expect("the reader");
    let (mut shown, mut not_shown) = (0, 0);
    for line in text.lines().filter(|line| !line.starts_with('\t')) {
        match line.strip_prefix("… ").and_then(|rest| rest.strip_suffix(" drops not shown")) {
            Some(number) => not_shown += number.parse::<u64>().expect("a number"),
            None => shown += 1,
        }
    }
    assert!(not_shown > 0, "the pipe and the ring buffer are smaller than the flood");
    assert!((drops..=all).contains(&(shown + not_shown)), "{shown} + {not_shown} of {drops} to {all}");
    let said = format!("{shown} drops shown, {not_shown} not shown");
    assert!(ended.stderr.contains(&said), "{said}: {}", ended.stderr);
}

fn closed_pipe() {
    let net = Net::quiet();
    let directory = directory();
    let path = file(&directory);
    for arguments in [&["trace", "-w", argument(&path)][..], &["trace", "-w", "-"]] {
        let mut watch = Watch::start_unread(arguments);
        let mut stdout = BufReader::new(watch.take_stdout());
        net.drop_datagrams(10);
        assert!(!stdout.fill_buf().expect("something").is_empty());
        drop(stdout);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            if is_guest() {
                // A processor that QEMU emulates can run into the tracepoint while the kernel is taking the probe off
                // it (seen once: "Oops: int3"): there, drops come in pauses.
                net.drop_datagrams(10);
                thread::sleep(Duration::from_millis(100));
            } else {
                net.drop_datagrams(1000);
            }
        }
        let ended = watch.wait();
        assert!(ended.status.success(), "{ended:?}");
        assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
    }
    let captured = captured_on(&path, "lo", &net);
    assert!(captured.len() >= 10, "{} packets", captured.len());
}

fn rate() {
    let watch = Watch::start(&["-o", "json", "-i", "100ms"]);
    let tracing = Watch::start(&["trace", "-o", "json", "--rate", "50"]);
    let net = Net::quiet();
    let (start, mut drops) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(3500) {
        drops += net.flood(1000);
    }
    let trace = Trace::stop(tracing);
    let all: u64 = watch.stop().reports.iter().filter_map(|report| report["drops"].as_u64()).sum();
    let sum = trace.drops.len() as u64 + trace.not_shown();
    assert!((drops..=all).contains(&sum), "{sum} of {drops} to {all}: {}", trace.summary);
    assert!((50..=250).contains(&trace.drops.len()), "{}", trace.summary);
    // The seconds of the limit are the kernel's: any second of ours has parts of two of them.
    let mut tenths: BTreeMap<String, usize> = BTreeMap::new();
    for drop in &trace.drops {
        let time = drop["time"].as_str().expect("a time");
        *tenths.entry(time[..19].to_owned()).or_default() += 1;
    }
    assert!(tenths.values().all(|count| *count <= 100), "{tenths:?}");
}

fn signals() {
    let net = Net::quiet();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let directory = directory();
        let path = file(&directory);
        let watch = Watch::start(&["trace", "-o", "json", "-w", argument(&path)]);
        net.drop_datagrams(23);
        watch.signal(signal);
        let trace = Trace::parse(&watch.wait());
        assert_eq!(trace.of(&net).count(), 23, "{signal}");
        assert_eq!(captured_on(&path, "lo", &net).len(), 23, "{signal}");
        assert_eq!(pcapng::read(&path).len(), trace.drops.len(), "{signal}");
    }
}

fn without_btf() {
    let trace = || Command::new(support::dropwatch()).arg("trace").output().expect("dropwatch runs");
    let Output { status, stderr, .. } = without_type_information(trace);
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("CONFIG_DEBUG_INFO_BTF=y"), "{said}");
}

/// A file system of 64 kilobytes, while it is held.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Self {
        let directory = directory();
        let path = argument(directory.path()).to_owned();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs", &path]).status();
        assert!(mounted.expect("mount").success());
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn full_disk() {
    let net = Net::quiet();
    let disk = SmallDisk::new();
    let path = file(&disk.0);
    let watch = Watch::start(&["trace", "-w", argument(&path)]);
    net.drop_datagrams(5000);
    let ended = watch.wait();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
    let length = fs::metadata(&path).expect("a file").len();
    let packets = pcapng::read(&path);
    assert!(packets.len() > 100 && length > 50_000, "{} packets in {length} bytes", packets.len());
    assert!(packets.iter().all(|packet| !packet.bytes.is_empty()));

    let full = Command::new(support::dropwatch()).args(["trace", "-w", "/dev/full"]).output();
    let Output { status, stderr, .. } = full.expect("dropwatch runs");
    assert_eq!(status.code(), Some(1), "{}", String::from_utf8_lossy(&stderr));
}
