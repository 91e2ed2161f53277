//! What drops are worth: by where and why they happened, and by whom the packet was for.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::{Child, ChildStdin, Command, Output, Stdio},
    thread,
};

use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt::RcvBuf},
};
use serde_json::Value;

use crate::{
    Test,
    support::{
        self,
        frames::{self, IPV4, Packet},
        inject::wire::{Wire, on_one_cpu},
        kernel,
        net::Net,
        watch::{Reports, Watch},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("class::groups_of_a_link_are_harmless_and_others_are_lost", groups),
    ("class::a_host_that_comes_up_loses_nothing", link_up),
    ("class::frames_for_all_are_harmless_and_those_for_one_host_are_lost", not_ip),
    ("class::a_filter_by_class_leaves_what_it_says", filters),
    ("class::what_succeeds_loses_nothing_and_a_full_buffer_does", rules),
];

/// Drops of a class in a function, over all reports.
fn drops(reports: &Reports, class: &str, function: &str) -> u64 {
    let is_in = |row: &&Value| {
        let symbol = row["location"]["symbol"].as_str().and_then(|symbol| symbol.split('.').next());
        row["class"] == class && symbol == Some(function)
    };
    sum(reports.rows().filter(is_in))
}

fn sum<'a>(rows: impl Iterator<Item = &'a Value>) -> u64 {
    rows.map(|row| row["count"].as_u64().expect("a count")).sum()
}

/// The hardware address of a group.
fn hardware(group: Ipv4Addr) -> [u8; 6] {
    let [_, second, third, fourth] = group.octets();
    [0x01, 0x00, 0x5e, second & 0x7f, third, fourth]
}

/// Puts datagrams for a group on the wire.
fn deliver(wire: &Wire, group: Ipv4Addr, port: u16, count: usize) {
    let from = wire.a.hardware_address("va");
    let packet = Packet::udp([10, 99, 0, 1], group, port).bytes();
    let frame = frames::frame(hardware(group), from, IPV4, &packet);
    wire.deliver(std::iter::repeat_n(frame.as_slice(), count));
}

/// Two kinds of packets at one place, for one reason, are two rows.
fn groups() {
    const PLACE: &str = "ip_rcv_finish_core";
    let wire = Wire::new();
    let netns = format!("netns {}", wire.b.inum());
    let plain = Watch::start(&["-o", "json", "-i", "1h"]);
    let typed = Watch::start(&["-o", "json", "-i", "1h", "-f", &netns]);
    let by_class = Watch::start(&["-o", "json", "-i", "1h", "-b", "class", "-f", &netns]);
    let by_place = Watch::start(&["-o", "json", "-i", "1h", "-b", "location"]);
    deliver(&wire, Ipv4Addr::new(239, 1, 2, 3), 7002, 37);
    deliver(&wire, Ipv4Addr::new(224, 0, 0, 251), 5353, 23);
    let [plain, typed, by_class, by_place] = [plain, typed, by_class, by_place].map(Watch::stop);
    for reports in [&plain, &typed] {
        assert_eq!(drops(reports, "lost", PLACE), 37, "{reports:?}");
        assert_eq!(drops(reports, "harmless", PLACE), 23, "{reports:?}");
    }
    let of_class = |class: &str| sum(by_class.rows().filter(|row| row["class"] == class));
    assert_eq!(["lost", "refused", "harmless"].map(of_class), [37, 0, 23], "{by_class:?}");
    assert_eq!(by_place.all_at(PLACE), 60, "{by_place:?}");
    assert!(by_place.rows().all(|row| row.get("class").is_none()), "a reason is missing: {by_place:?}");
}

/// Routers and listeners of multicast are looked for on every new link.
/// Two kinds of packets at one place, of which a filter leaves one: counted, shown, limited and held against a rule.
fn filters() {
    let wire = Wire::new();
    let here = |filter: &str| format!("netns {} and udp and ({filter})", wire.b.inum());
    let watch = |filter: &str| Watch::start(&["-o", "json", "-i", "1h", "-b", "netns", "-f", &here(filter)]);
    let expressions = ["not class lost", "class lost or dst port 5353", "class lost and dst port 5353"];
    let watches = expressions.map(watch);
    let trace = |limit: [&str; 2], filter: &str| {
        let [option, limit] = limit;
        Watch::start(&["trace", "-o", "json", option, limit, "-f", &here(filter)])
    };
    // What is lost comes first, and takes nothing of what is left for the others.
    let counted = trace(["-c", "23"], "not class lost");
    let limited = trace(["--rate", "23"], "class harmless or dst port 1");
    let check = Check::start(&wire.b, &["-f", "class lost and udp and netns self", "--max", "36"]);
    deliver(&wire, Ipv4Addr::new(239, 1, 2, 3), 7002, 37);
    deliver(&wire, Ipv4Addr::new(224, 0, 0, 251), 5353, 23);
    let counts = watches.map(Watch::stop).map(|reports| sum(reports.rows()));
    assert_eq!(counts, [23, 60, 0], "{expressions:?}");
    limited.signal(Signal::SIGINT);
    for trace in [counted, limited] {
        let ended = trace.wait();
        let lines: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let (summary, drops) = lines.split_last().expect("a summary");
        assert_eq!((&summary["shown"], &summary["not_shown"]), (&23.into(), &0.into()), "{ended:?}");
        assert!(drops.iter().all(|drop| drop["class"] == "harmless"), "{ended:?}");
    }
    let (status, stderr) = check.end();
    assert_eq!(status, Some(4), "{stderr}");
    assert!(stderr.contains("37 drops seen, at most 36 allowed"), "{stderr}");
}

fn link_up() {
    let (a, b) = (Net::new(), Net::new());
    let here = |net: &Net| format!("netns {}", net.inum());
    let filter = format!("{} or {}", here(&a), here(&b));
    let watch = Watch::start(&["-o", "json", "-i", "1h", "-b", "function,reason,daddr", "-f", &filter]);
    a.ip("link add br0 type bridge");
    a.ip("link set br0 up");
    a.join("va", "10.99.0.1/24", &b, "vb", "10.99.0.2/24");
    support::inject::wire::eventually("an address of the link", || {
        [(&a, "va"), (&b, "vb"), (&a, "br0")].iter().all(|(net, device)| {
            let addresses = net.words(&format!("ip -6 addr show dev {device}"));
            addresses.contains("fe80:") && !addresses.contains("tentative")
        })
    });
    let reports = watch.stop();
    let harmless = sum(reports.rows().filter(|row| row["class"] == "harmless"));
    assert!(harmless > 0, "nothing was dropped: {reports:?}");
    let others: Vec<_> = reports.rows().filter(|row| row["class"] != "harmless").collect();
    assert!(others.is_empty(), "{others:#?}");
}

/// Switches send LLDP to all; what is sent to one host is meant for it.
fn not_ip() {
    const PLACE: &str = "__netif_receive_skb_core";
    let wire = Wire::new();
    let watch = Watch::start(&["-o", "json", "-i", "1h"]);
    let from = wire.a.hardware_address("va");
    let lldp = frames::frame([0x01, 0x80, 0xc2, 0, 0, 0x0e], from, 0x88cc, &[0; 46]);
    wire.deliver(std::iter::repeat_n(lldp.as_slice(), 29));
    wire.deliver_copies(0x88b5, &[0; 46], 31);
    let reports = watch.stop();
    if !kernel::has_reason("UNHANDLED_PROTO") {
        // Where the kernel does not say why, the place has no meaning of its own.
        assert_eq!(drops(&reports, "lost", PLACE), 60, "{reports:?}");
        return;
    }
    assert_eq!(drops(&reports, "harmless", PLACE), 29, "{reports:?}");
    assert_eq!(drops(&reports, "lost", PLACE), 31, "{reports:?}");
}

/// A check whose command runs until it is stopped.
struct Check {
    child: Child,
    input: ChildStdin,
}

impl Check {
    /// Starts it in a namespace, and waits until the command runs.
    fn start(net: &Net, rules: &[&str]) -> Self {
        let mut check = Command::new(support::dropwatch());
        check.arg("check").args(rules).args(["--", "cat"]);
        check.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = net.run(|| check.spawn().expect("dropwatch starts"));
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(b"x").expect("the command reads");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("the command runs");
        Self { child, input }
    }

    fn end(self) -> (Option<i32>, String) {
        drop(self.input);
        let Output { status, stderr, .. } = self.child.wait_with_output().expect("dropwatch ends");
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }
}

/// A connection on which something is said, and that both ends close. On one CPU: the packets of two overtake each other,
/// and an acknowledgement that comes late is refused for its timestamp.
fn converse() {
    on_one_cpu(talk);
}

fn talk() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let to = listener.local_addr().expect("an address");
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(to).expect("a connection");
        stream.write_all(b"question").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.read_exact(&mut [0; 8]).expect("a question");
    stream.write_all(b"answer").expect("sent");
    drop(stream);
    assert_eq!(client.join().expect("the client"), "answer");
}

/// Sends datagrams to a socket that nobody reads until one does not fit; how many did not.
fn overflow(net: &Net) -> u64 {
    let dropped = || net.counter("snmp", "Udp", "RcvbufErrors");
    let before = dropped();
    let socket = net.run(|| UdpSocket::bind("127.0.0.1:0")).expect("a socket");
    setsockopt(&socket, RcvBuf, &4096).expect("a small buffer");
    let sender = net.run(|| UdpSocket::bind("127.0.0.1:0")).expect("a socket");
    let to = socket.local_addr().expect("an address");
    while dropped() == before {
        sender.send_to(&[0; 1024], to).expect("sent");
    }
    dropped() - before
}

fn rules() {
    let net = Net::new();
    let rules = ["--max", "lost,netns=self:0", "--max", "class=refused,netns=self:6"];
    let check = Check::start(&net, &rules);
    net.run(converse);
    net.command("ping", &["-c", "1", "-W", "5", "127.0.0.1"]);
    if kernel::has_reason("NO_SOCKET") {
        net.drop_datagrams(6);
    }
    let (status, stderr) = check.end();
    assert_eq!(status, Some(0), "{stderr}");
    let check = Check::start(&net, &["--max", "lost,netns=self:0"]);
    let lost = overflow(&net);
    let (status, stderr) = check.end();
    assert_eq!(status, Some(4), "{stderr}");
    let said = format!("FAILED  --max lost,netns=self:0: {lost} drop");
    assert!(stderr.contains(&said), "{stderr}");
    if kernel::has_reason("NO_SOCKET") {
        let check = Check::start(&net, &["--max", "refused,netns=self:6"]);
        net.drop_datagrams(7);
        let (status, stderr) = check.end();
        assert_eq!(status, Some(4), "{stderr}");
    }
}
