//! Losses that no tracepoint sees, by the kernel's own counters.

use std::{
    fs::File,
    io::Write as _,
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{Backlog, listen, setsockopt, sockopt::RcvBuf},
};
use serde_json::{Value, json};

use crate::{
    Test,
    support::{
        self,
        frames::{self, IPV4, Packet, SYN, Tcp},
        inject::{
            needs::{self, Need},
            sys::{self, Hook, Kind},
        },
        net::Net,
        trial::trial,
        watch::{Reports, Stream, Watch},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("counters::connections_refused_by_a_full_accept_queue_are_counted", full_accept_queue),
    ("counters::a_gate_fails_for_what_only_they_show", gate),
    ("counters::a_loss_that_has_a_row_is_not_listed_again", receive_buffer),
    ("counters::none_are_read_if_that_is_switched_off", switched_off),
    ("counters::a_full_packet_socket_lost_what_it_says_itself", packet_socket),
    ("counters::what_an_interface_dropped_in_rows_is_not_listed_again", unknown_ethertype),
    ("counters::a_namespace_goes_though_its_counters_are_read", namespace_goes),
];

/// Those that need something.
const WITH_NEEDS: &[(&[Need], Test)] = &[
    (&[needs::XDP], ("counters::frames_that_xdp_drops_on_a_veth_are_counted_by_its_driver", xdp_frames)),
    (&[needs::XDP], ("counters::packets_that_xdp_drops_on_a_veth_are_in_rows_alone", xdp_packets)),
    (
        &[needs::XDP, needs::TUN],
        ("counters::frames_that_xdp_drops_on_a_tap_device_are_counted_by_the_interface", xdp_tap),
    ),
    (&[needs::TBF], ("counters::what_a_queue_discipline_dropped_is_in_rows_alone", full_queue)),
];

/// The tests that need something, ignored out loud where it is lacking.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let trial = |&(needs, (name, body)): &(&[Need], Test)| {
        trial(name.to_owned(), needs, can_run, move || {
            body();
            Ok(())
        })
    };
    WITH_NEEDS.iter().map(trial).collect()
}

/// A process in a namespace, through which its counters can be read.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(net: &Net) -> Self {
        let child = net.run(|| Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn());
        Self(child.expect("a process in the namespace"))
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces with a wire between them.
fn wire() -> (Net, Net) {
    let (a, b) = (Net::quiet(), Net::quiet());
    a.join("va", "10.99.0.1/24", &b, "vb", "10.99.0.2/24");
    (a, b)
}

/// A listening socket whose accept queue is full.
fn full_listener(net: &Net, port: u16) -> (TcpListener, Vec<TcpStream>) {
    net.run(|| {
        let listener = TcpListener::bind(("10.99.0.2", port)).expect("a listener");
        listen(&listener, Backlog::new(4).expect("a backlog")).expect("a shorter queue");
        // A queue is full when it is longer than its limit.
        let connect = |_| TcpStream::connect(("10.99.0.2", port)).expect("a connection");
        let connections = (0..5).map(connect).collect();
        (listener, connections)
    })
}

/// The counters that a run listed for a namespace.
fn objects<'a>(reports: &'a Reports, net: &Net) -> impl Iterator<Item = &'a Value> {
    let inum = net.inum();
    let counters = reports.reports.iter().filter_map(|report| report["counters"].as_array()).flatten();
    counters.filter(move |counter| counter["netns"]["inum"] == inum)
}

/// The same: names, counts and meanings.
fn listed<'a>(reports: &'a Reports, net: &Net) -> Vec<(&'a str, u64, &'a str)> {
    objects(reports, net)
        .map(|counter| {
            let text = |field: &str| counter[field].as_str().expect(field);
            (text("name"), counter["count"].as_u64().expect("a count"), text("meaning"))
        })
        .collect()
}

/// Sends 225 connection requests to the full listener, and waits until it has lost them.
fn refuse_syns(a: &Net, b: &Net) {
    let lost = || b.counter("netstat", "TcpExt", "ListenDrops");
    let all = lost() + 225;
    let syn = Tcp { port: 8080, flags: SYN, ..Tcp::default() };
    let syn = Packet::tcp([10, 99, 0, 1], [10, 99, 0, 2], syn).bytes();
    frames::send(a, "va", b.hardware_address("vb"), IPV4, &syn, 225);
    while lost() < all {
        thread::yield_now();
    }
}

fn full_accept_queue() {
    let (a, b) = wire();
    let _inhabitant = Inhabitant::of(&b);
    let _queue = full_listener(&b, 8080);
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    refuse_syns(&a, &b);
    let reports = watch.stop();
    let listed = listed(&reports, &b);
    let [("TcpExtListenDrops", 225, meaning)] = listed[..] else { panic!("{reports:?}") };
    assert_eq!(meaning, "accept queue full");
    let listeners = &objects(&reports, &b).next().expect("an object")["listeners"];
    let process = json!({"pid": std::process::id(), "comm": own_name()});
    let full = json!([{"local": "10.99.0.2:8080", "queue": 5, "limit": 4, "drops": 225, "process": process}]);
    assert_eq!(*listeners, full);
}

/// What this process is called.
fn own_name() -> String {
    std::fs::read_to_string("/proc/self/comm").expect("our name").trim_end().to_owned()
}

/// What a check that allows no loss in `net` says and ends with, if `while_it_runs` happens beside its command.
fn check_nothing_lost(net: &Net, while_it_runs: impl FnOnce()) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let [started, done] = ["started", "done"].map(|name| directory.path().join(name));
    let script = "touch \"$0\"; until [ -e \"$1\" ]; do sleep 0.05; done";
    let mut check = Command::new(support::dropwatch());
    check.args([
        "check",
        "--max",
        "lost:0",
        "-f",
        &format!("netns {}", net.inum()),
        "--",
        "sh",
        "-c",
        script,
    ]);
    let check = check.args([&started, &done]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let check = check.expect("dropwatch runs");
    let begin = Instant::now();
    while !started.exists() {
        assert!(begin.elapsed() < support::PATIENCE, "the command does not start");
        thread::sleep(Duration::from_millis(2));
    }
    while_it_runs();
    File::create(&done).expect("a file");
    let output = check.wait_with_output().expect("its end");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn gate() {
    let (a, b) = wire();
    let _inhabitant = Inhabitant::of(&b);
    let _queue = full_listener(&b, 8080);
    let (status, said) = check_nothing_lost(&b, || {});
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = check_nothing_lost(&b, || refuse_syns(&a, &b));
    assert_eq!(status, Some(4), "{said}");
    let verdict = "0 drops seen and 225 lost that only the kernel's counters show, at most 0 allowed";
    assert!(said.contains(verdict), "{said}");
    let cause = "accept queue full: 10.99.0.2:8080 5/4";
    assert!(said.contains("TcpExtListenDrops") && said.contains(cause), "{said}");
}

fn receive_buffer() {
    let net = Net::quiet();
    let _inhabitant = Inhabitant::of(&net);
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    net.run(|| {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        setsockopt(&receiver, RcvBuf, &4096).expect("a small buffer");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let to = receiver.local_addr().expect("its address");
        for _ in 0..50 {
            sender.send_to(&[0; 1000], to).expect("a datagram");
        }
    });
    let lost = net.counter("snmp", "Udp", "RcvbufErrors");
    assert!(lost > 0, "the buffer was never full");
    let reports = watch.stop();
    assert_eq!(listed(&reports, &net), [], "{reports:?}");
}

fn switched_off() {
    let (a, b) = wire();
    let _inhabitant = Inhabitant::of(&b);
    let _queue = full_listener(&b, 8081);
    let watch = Watch::start(&["-o", "json", "-i", "1h", "--no-counters"]);
    let syn = Tcp { port: 8081, flags: SYN, ..Tcp::default() };
    let syn = Packet::tcp([10, 99, 0, 1], [10, 99, 0, 2], syn).bytes();
    frames::send(&a, "va", b.hardware_address("vb"), IPV4, &syn, 7);
    while b.counter("netstat", "TcpExt", "ListenDrops") < 7 {
        thread::yield_now();
    }
    assert_eq!(listed(&watch.stop(), &b), []);
}

/// More frames than the smallest buffer holds.
const FILL: u64 = 20;
/// A port that somebody listens to, so that nothing else drops what comes.
const OPEN: u16 = 7002;

fn packet_socket() {
    const ARRIVING: u64 = 97;
    const LEAVING: u64 = 41;
    let (a, b) = wire();
    let _inhabitant = Inhabitant::of(&b);
    let receiver = b.run(|| UdpSocket::bind(("10.99.0.2", OPEN))).expect("a socket");
    sys::set_option(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &10_000_000);
    let packet = Packet::udp([10, 99, 0, 3], [10, 99, 0, 2], OPEN).bytes();
    // A busy machine takes the last ones from the wire late.
    let arrive = |count| {
        let arrived = || b.counter("snmp", "Ip", "InReceives");
        let all = arrived() + count;
        frames::send(&a, "va", b.hardware_address("vb"), IPV4, &packet, count);
        while arrived() < all {
            thread::yield_now();
        }
    };
    let capture = b.run(sys::packet_socket).expect("a packet socket");
    setsockopt(&capture, RcvBuf, &0).expect("the smallest buffer");
    arrive(FILL);
    sys::frames_refused(&capture);
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    arrive(ARRIVING);
    let other = a.run(|| UdpSocket::bind(("10.99.0.1", OPEN))).expect("a socket");
    b.neighbour("10.99.0.1", a.hardware_address("va"), "vb");
    let refused = u64::from(sys::frames_refused(&capture));
    assert_eq!(refused, ARRIVING, "all are refused");
    for _ in 0..LEAVING {
        receiver.send_to(b"x", ("10.99.0.1", OPEN)).expect("a datagram");
    }
    assert_eq!(u64::from(sys::frames_refused(&capture)), LEAVING, "all are refused");
    let reports = watch.stop();
    drop((other, capture));
    // What leaves is a copy of the socket's own, which has a row.
    assert_eq!(reports.at("packet_rcv", "PACKET_SOCK_ERROR"), LEAVING);
    let listed = listed(&reports, &b);
    let [("PacketSocketDrops", ARRIVING, _)] = listed[..] else { panic!("{reports:?}") };
    let process = json!({"pid": std::process::id(), "comm": own_name()});
    let sockets = json!([{"drops": ARRIVING + LEAVING, "process": process}]);
    assert_eq!(objects(&reports, &b).next().expect("an object")["sockets"], sockets);
}

fn unknown_ethertype() {
    const UNKNOWN: u16 = 0x88b5;
    let net = Net::quiet();
    let _inhabitant = Inhabitant::of(&net);
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    frames::send(&net, "lo", [0; 6], UNKNOWN, &[0; 46], 53);
    let reports = watch.stop();
    let dropped = net.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).expect("devices");
    assert!(dropped.contains(" 53 "), "the interface has counted them: {dropped}");
    assert_eq!(listed(&reports, &net), []);
}

/// A program that answers `verdict` to what comes to a device, in its driver.
fn xdp(net: &Net, device: &str, verdict: u8) -> OwnedFd {
    const DRIVER: u32 = 1 << 2;
    net.run(|| {
        let index = if_nametoindex(device).expect("the device's index");
        sys::attach(Kind::Xdp, Hook::Xdp, index, DRIVER, verdict).expect("an XDP program")
    })
}

/// Waits until a driver has counted so many, over its queues: packets cross to another CPU on the way.
fn await_xdp_drops(net: &Net, device: &str, count: u64) {
    let start = Instant::now();
    let sum = || {
        let said = net.words(&format!("ethtool -S {device}"));
        let numbers = said.lines().filter_map(|line| line.trim().split_once("_xdp_drops: "));
        numbers.map(|(_, number)| number.parse::<u64>().expect("a number")).sum::<u64>()
    };
    while sum() < count {
        assert!(start.elapsed() < support::PATIENCE, "the driver has counted {} of {count}", sum());
        thread::sleep(Duration::from_millis(5));
    }
}

const DROP: u8 = 1;
const SEND_BACK: u8 = 3;

fn xdp_frames() {
    const FRAMES: u64 = 43;
    let (a, b) = wire();
    let _inhabitant = Inhabitant::of(&a);
    // What B's program sends back is no packet yet when A's program drops it.
    let _programs = (xdp(&b, "vb", SEND_BACK), xdp(&a, "va", DROP));
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    let packet = Packet::udp([10, 99, 0, 3], [10, 99, 0, 2], OPEN).bytes();
    frames::send(&a, "va", b.hardware_address("vb"), IPV4, &packet, FRAMES);
    await_xdp_drops(&a, "va", FRAMES);
    let reports = watch.stop();
    let all: Vec<_> = objects(&reports, &a).collect();
    let [counter] = all[..] else { panic!("{all:?}") };
    assert_eq!((counter["count"].as_u64(), counter["iface"]["name"].as_str()), (Some(FRAMES), Some("va")));
    let name = counter["name"].as_str().expect("a name");
    assert!(name.starts_with("rx_queue_") && name.ends_with("_xdp_drops"), "{counter}");
}

fn xdp_packets() {
    const PACKETS: u64 = 47;
    let (a, b) = wire();
    let _inhabitant = Inhabitant::of(&b);
    let _program = xdp(&b, "vb", DROP);
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    let packet = Packet::udp([10, 99, 0, 3], [10, 99, 0, 2], OPEN).bytes();
    frames::send(&a, "va", b.hardware_address("vb"), IPV4, &packet, PACKETS);
    await_xdp_drops(&b, "vb", PACKETS);
    let reports = watch.stop();
    let rows: u64 =
        ["veth_xdp_rcv_skb", "veth_poll", "veth_xdp_rcv"].map(|place| reports.all_at(place)).iter().sum();
    assert_eq!(rows, PACKETS);
    assert_eq!(listed(&reports, &b), []);
}

fn xdp_tap() {
    const FRAMES: usize = 59;
    let net = Net::quiet();
    let _inhabitant = Inhabitant::of(&net);
    let tap = net.run(|| sys::tap("tap")).expect("a tap device");
    net.ip("link set tap up");
    let _program = xdp(&net, "tap", DROP);
    let packet = Packet::udp([10, 99, 0, 3], [10, 99, 0, 2], OPEN).bytes();
    let frame = frames::frame(net.hardware_address("tap"), [2, 0, 0, 0, 0, 1], IPV4, &packet);
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    for _ in 0..FRAMES {
        (&tap).write_all(&frame).expect("the frame is written");
    }
    let reports = watch.stop();
    let all: Vec<_> = objects(&reports, &net).collect();
    let [counter] = all[..] else { panic!("{reports:?}") };
    let said = (counter["name"].as_str(), counter["count"].as_u64(), counter["iface"]["name"].as_str());
    assert_eq!(said, (Some("rx_dropped"), Some(FRAMES as u64), Some("tap")));
}

fn full_queue() {
    let (_a, b) = wire();
    let _inhabitant = Inhabitant::of(&b);
    b.words("tc qdisc add dev vb root handle 10: tbf rate 8kbit burst 1600 limit 3000");
    b.words("tc qdisc add dev vb parent 10:1 handle 20: pfifo limit 1");
    b.neighbour("10.99.0.1", [2, 0, 0, 0, 0, 1], "vb");
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    let socket = b.run(|| UdpSocket::bind("10.99.0.2:0")).expect("a socket");
    for _ in 0..61 {
        let _ = socket.send_to(&[0; 1000], ("10.99.0.1", 9));
    }
    let said = b.words("tc -j -s qdisc show dev vb");
    let queues: Vec<Value> = serde_json::from_str(&said).expect("JSON of tc");
    let dropped: Vec<_> = queues.iter().map(|queue| queue["drops"].as_u64().expect("a count")).collect();
    assert!(dropped.len() == 2 && dropped[0] > 50 && dropped[0] == dropped[1], "{said}");
    assert_eq!(listed(&watch.stop(), &b), []);
}

fn namespace_goes() {
    let (stays, goes) = wire();
    let name = format!("dropwatch-goes-{}", std::process::id());
    let named = goes.name(&name);
    let stream = Stream::start(&["-i", "1s"]);
    stream.next_report();
    stream.next_report();
    assert!(stays.is_up("va"));
    drop((named, goes));
    let start = Instant::now();
    // The device goes with the namespace that the other end of the wire is in.
    while stays.words("ip -o link show").contains("va") {
        assert!(start.elapsed() < support::PATIENCE, "the namespace is still there");
        thread::sleep(Duration::from_millis(20));
    }
    let said = stream.stop().stderr;
    assert!(said.contains("a network namespace has ended, and its counters with it"), "{said}");
}
