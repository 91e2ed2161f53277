//! What somebody on call meets, staged: what the program says by itself must name what to change.
//!
//! The words are those that a person needs to act, and come from how the incident was staged.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command},
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use nix::sys::{
    signal::Signal,
    socket::{Backlog, listen, setsockopt, sockopt::RcvBuf},
};

use crate::support::{
    self,
    frames::{self, IPV4, Packet, SYN, Tcp},
    inject::{
        self, Case,
        needs::{self, Need},
        wire::{Wire, eventually},
    },
    is_guest, kernel,
    net::Net,
    trial::trial,
    watch::Watch,
};

/// An incident that a case of the library of drops causes.
struct Incident {
    name: &'static str,
    case: &'static str,
    keys: &'static str,
    /// What one row of the report has: whose packets they are.
    row: &'static [&'static str],
    /// What the explanation of the row's reason and function says, on every kernel.
    explained: &'static [&'static str],
}

const INCIDENTS: &[Incident] = &[
    Incident {
        name: "a_rule_drops_what_conntrack_calls_invalid",
        case: "nft_conntrack_invalid",
        keys: "location,reason,ipproto,dport",
        row: &["tcp", "9"],
        explained: &["ct state invalid", "nft -a list ruleset"],
    },
    Incident {
        name: "the_ttl_runs_out_in_a_routing_loop",
        case: "time_to_live_ends",
        keys: "location,reason,iface,saddr,daddr",
        row: &["ip_forward", "vb", "10.98.0.7", "10.88.0.1"],
        explained: &["TTL", "routing loop", "ip route get {daddr}", "IpInHdrErrors"],
    },
    Incident {
        name: "a_control_groups_program_drops_for_a_container",
        case: "cgroup_ingress",
        keys: "location,reason,dport",
        row: &["7001"],
        explained: &["control group", "bpftool cgroup tree"],
    },
    Incident {
        name: "a_multicast_group_is_not_joined",
        case: "ospf_hello_to_a_group_not_joined",
        keys: "location,reason,iface,daddr",
        row: &["vb", "224.0.0.5"],
        explained: &["joined", "ip maddress show dev {iface}"],
    },
    Incident {
        name: "a_router_has_no_ipv6_route",
        case: "ipv6_no_route",
        keys: "location,reason,iface,daddr",
        row: &["vb", "fd00:88::1"],
        explained: &["route", "ip -6 route get {daddr}"],
    },
    Incident {
        name: "a_blackhole_route_discards",
        case: "blackhole_route",
        keys: "location,reason,daddr",
        row: &["ip_error", "10.88.0.1"],
        explained: &["blackhole", "ip route show table all type blackhole"],
    },
    Incident {
        name: "a_host_that_should_be_a_router_does_not_forward",
        case: "forwarding_is_off",
        keys: "location,reason,daddr",
        row: &["ip_error", "10.88.0.1"],
        explained: &["net.ipv4.ip_forward"],
    },
];

/// A test for each.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let cases = INCIDENTS.iter().map(|incident| {
        let case = inject::cases().find(|case| case.name == incident.case).expect("a case of the library");
        trial(format!("incidents::{}", incident.name), case.needs, can_run, || {
            look_at(incident, case);
            Ok(())
        })
    });
    let others = OTHERS.iter().map(|(name, needs, body)| {
        trial(format!("incidents::{name}"), needs, can_run, || {
            body();
            Ok(())
        })
    });
    cases.chain(others).collect()
}

/// What a run prints that is ended as by Ctrl-C once `act` has caused the drops of this namespace.
fn screen_of(net: u64, arguments: &[&str], act: impl FnOnce()) -> String {
    let filter = format!("netns {net}");
    screen(&[&["-f", &filter], arguments].concat(), act)
}

/// What a run prints that is ended as by Ctrl-C after `act`.
fn screen(arguments: &[&str], act: impl FnOnce()) -> String {
    let watch = Watch::start(&[&["-i", "1h"], arguments].concat());
    act();
    thread::sleep(Duration::from_millis(if is_guest() { 2000 } else { 200 }));
    watch.signal(Signal::SIGINT);
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    ended.stdout
}

fn explain(name: &str) -> String {
    let explained = Command::new(support::dropwatch()).args(["explain", name]).output();
    let explained = explained.expect("dropwatch runs");
    assert!(explained.status.success(), "{name}: {explained:?}");
    String::from_utf8(explained.stdout).expect("text")
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is not in:\n{text}");
    }
}

fn look_at(incident: &Incident, case: &Case) {
    let prepared = (case.prepare)(case.count);
    let netns = prepared.expected.and_then(|expected| expected.netns).expect("a namespace");
    // Borrowed: what it keeps is needed until the last packet is through.
    let text = screen_of(netns, &["-o", "text", "-b", incident.keys], &*prepared.act);
    let row = row_of(&text, &format!("{} packets", case.count));
    assert_says(row, incident.row);
    assert_says(&explain(&subject(row)), incident.explained);
}

/// The row of so many packets.
fn row_of<'a>(text: &'a str, drops: &str) -> &'a str {
    let drops = format!(" {drops} dropped");
    text.lines().find(|line| line.contains(&drops)).unwrap_or_else(|| panic!("no{drops}:\n{text}"))
}

/// What a row of text is to be explained by: its reason and function.
fn subject(row: &str) -> String {
    let words: Vec<_> = row.split(' ').collect();
    let after = |word: &str| words.iter().position(|&found| found == word).map(|at| words[at + 1]);
    let location = after("at").expect("a location");
    let function = location.split(['+', '.']).next().expect("a function");
    match after("reason") {
        Some("-") | None => function.to_owned(),
        Some(reason) => format!("{reason}@{function}"),
    }
}

type Other = (&'static str, &'static [Need], fn());

const OTHERS: &[Other] = &[
    ("syns_are_dropped_while_a_listener_does_not_accept", &[], full_accept_queue),
    ("syns_are_dropped_by_a_full_syn_queue", &[], full_syn_queue),
    ("an_applications_group_is_not_joined_amid_announcements", &[], group_amid_announcements),
    ("ipsec_comes_in_without_what_its_policy_requires", &[needs::XFRM], template_mismatch),
    ("ipsec_goes_out_while_the_key_daemon_is_down", &[needs::XFRM], no_states),
    ("a_few_lost_datagrams_amid_what_is_no_loss", &[], few_amid_many),
    ("a_stale_neighbour_entry_has_the_wrong_address", &[], wrong_address),
    ("a_reject_and_a_policy_drop", &[needs::NFT], rejected_and_dropped),
];

const ADDRESS: &str = "10.99.0.2";

fn syn(source: Ipv4Addr, port: u16) -> Packet {
    Packet::tcp(source, Ipv4Addr::new(10, 99, 0, 2), Tcp { port, flags: SYN, ..Tcp::default() })
}

/// A process in a namespace, through which its counters can be read.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(net: &Net) -> Self {
        let child = net.run(|| Command::new("sleep").arg("1000").spawn());
        Self(child.expect("a process in the namespace"))
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a run of all namespaces says of this one, once `act` has caused losses there that no drop tells of.
fn counted(net: &Net, act: impl FnOnce()) -> String {
    let _inhabitant = Inhabitant::of(net);
    let text = screen(&["-o", "text", "-b", "location,reason,netns"], act);
    let inum = net.inum().to_string();
    text.lines().filter(|line| line.contains(&inum)).collect::<Vec<_>>().join("\n")
}

fn full_accept_queue() {
    let wire = Wire::new();
    let listener = wire.b.run(|| TcpListener::bind((ADDRESS, 8080))).expect("a listener");
    wire.b.run(|| listen(&listener, Backlog::new(4).expect("a backlog"))).expect("a shorter queue");
    let connect = |_| wire.b.run(|| TcpStream::connect((ADDRESS, 8080))).expect("a connection");
    let _connections: Vec<_> = (0..5).map(connect).collect();
    let text = counted(&wire.b, || {
        wire.send(&syn(Ipv4Addr::new(10, 99, 0, 1), 8080), 225);
        eventually("225 SYNs are dropped", || wire.b.counter("netstat", "TcpExt", "ListenDrops") == 225);
    });
    assert_says(&text, &["225 TcpExtListenDrops", "accept queue full"]);
}

fn full_syn_queue() {
    const BACKLOG: u16 = 8;
    const SYNS: u16 = 395;
    let wire = Wire::new();
    wire.b.sysctl("net/ipv4/tcp_syncookies", "0");
    wire.b.ip("route add 10.98.0.0/16 via 10.99.0.1");
    let listener = wire.b.run(|| TcpListener::bind((ADDRESS, 8080))).expect("a listener");
    wire.b.run(|| listen(&listener, Backlog::new(BACKLOG).expect("a backlog"))).expect("a short queue");
    let text = counted(&wire.b, || {
        let frames: Vec<_> = (0..SYNS)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                let packet = syn(Ipv4Addr::new(10, 98, high, low), 8080);
                frames::frame(wire.to, [2, 0, 0, 0, 0, 1], IPV4, &packet.bytes())
            })
            .collect();
        wire.deliver(frames.iter().map(Vec::as_slice));
    });
    let dropped = wire.b.counter("netstat", "TcpExt", "ListenDrops");
    assert!(dropped > 0 && wire.b.counter("netstat", "TcpExt", "TCPReqQFullDrop") > 0);
    assert_says(
        &text,
        &[&format!("{dropped} TcpExtListenDrops"), "SYN queue full", "net.ipv4.tcp_syncookies"],
    );
}

/// Datagrams to a group that a program should have joined, between what every host sends.
fn group_amid_announcements() {
    let wire = Wire::new();
    let from = wire.a.hardware_address("va");
    let to_group = |group: [u8; 4], port| {
        let [_, b, c, d] = group;
        let to = [1, 0, 0x5e, b & 0x7f, c, d];
        frames::frame(
            to,
            from,
            IPV4,
            &Packet::udp(Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::from(group), port).bytes(),
        )
    };
    let (ours, mdns) = (to_group([239, 1, 2, 3], 7002), to_group([224, 0, 0, 251], 5353));
    let text = screen_of(wire.b.inum(), &["-o", "table", "-b", "location,reason,iface,daddr,dport"], || {
        let frames = std::iter::repeat_n(&mdns, 30).chain(std::iter::repeat_n(&ours, 7));
        wire.deliver(frames.map(Vec::as_slice));
    });
    assert_says(&text, &["7 lost", "30 harmless", "239.1.2.3", "7002", "vb", "joined"]);
    assert!(!text.contains("224.0.0.251"), "{text}");
}

fn template_mismatch() {
    let wire = Wire::new();
    let template = "tmpl src 10.98.0.7 dst 10.99.0.2 proto esp mode transport";
    wire.b.ip(&format!("xfrm policy add dir in src 10.98.0.0/16 dst 10.99.0.2/32 {template}"));
    let socket = wire.b.run(|| UdpSocket::bind((ADDRESS, 7000))).expect("a socket");
    let text = screen_of(wire.b.inum(), &["-o", "text", "-b", "location,reason,saddr"], || {
        let packet = Packet::udp(Ipv4Addr::new(10, 98, 0, 7), Ipv4Addr::new(10, 99, 0, 2), 7000);
        wire.deliver_copies(IPV4, &packet.bytes(), 7);
    });
    drop(socket);
    assert_eq!(wire.b.xfrm("XfrmInTmplMismatch"), 7);
    let row = row_of(&text, "7 packets");
    assert_says(row, &["10.98.0.7"]);
    assert_says(&explain(&subject(row)), &["IPsec", "XfrmInTmplMismatch", "ip xfrm policy show"]);
}

fn no_states() {
    let wire = Wire::new();
    let template = "tmpl src 10.99.0.2 dst 10.99.0.1 proto esp mode transport";
    wire.b.ip(&format!("xfrm policy add dir out src 10.99.0.2/32 dst 10.99.0.1/32 {template}"));
    let text = counted(&wire.b, || {
        let socket = wire.b.run(|| UdpSocket::bind((ADDRESS, 0))).expect("a socket");
        for _ in 0..5 {
            let _ = socket.send_to(b"x", "10.99.0.1:7000");
        }
    });
    assert_eq!(wire.b.xfrm("XfrmOutNoStates"), 5);
    assert_says(&text, &["5 XfrmOutNoStates", "security association", "key daemon"]);
}

/// Nine datagrams that a full buffer loses, between answers to ping and connections that are refused.
fn few_amid_many() {
    let net = Net::quiet();
    let receiver = net.run(|| UdpSocket::bind("127.0.0.1:6343")).expect("a socket");
    setsockopt(&receiver, RcvBuf, &4096).expect("a small buffer");
    let send = |times| {
        net.run(|| {
            let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            for _ in 0..times {
                sender.send_to(&[0; 1000], "127.0.0.1:6343").expect("a datagram");
            }
        });
    };
    let lost = || net.counter("snmp", "Udp", "RcvbufErrors");
    while lost() == 0 {
        send(1);
    }
    let before = lost();
    let text = screen_of(net.inum(), &["-o", "table", "-b", "location,reason,dport"], || {
        net.drop_datagrams(139);
        send(9);
    });
    assert_eq!(lost() - before, 9);
    let mut rows = text.lines().filter(|line| line.contains("udp"));
    // What has no reason can be neither told apart nor put first.
    if kernel::has_reason("NO_SOCKET") {
        assert_says(&text, &["9 lost", "139 refused"]);
        assert_says(rows.next().expect("a row"), &[" 9 ", "6343", "receive buffer"]);
    } else {
        assert!(rows.any(|row| row.contains(" 9 ") && row.contains("6343")), "{text}");
    }
}

/// The frame's address is the interface's of an earlier host.
fn wrong_address() {
    let wire = Wire::new();
    let packet = Packet::udp(Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 99, 0, 2), 7000);
    let frame = frames::frame([2, 0, 0, 0, 0, 0x99], wire.a.hardware_address("va"), IPV4, &packet.bytes());
    let filter = format!("netns {}", wire.b.inum());
    let watch = Watch::start(&["trace", "-e", "-c", "3", "-f", &filter]);
    wire.deliver(std::iter::repeat_n(frame.as_slice(), 3));
    let text = watch.wait().stdout;
    let line = text.lines().next().expect("a line");
    assert_says(line, &["02:00:00:00:00:99", "10.99.0.2"]);
    if kernel::has_reason("OTHERHOST") {
        assert_says(&explain("OTHERHOST"), &["stale ARP", "ip neighbour show"]);
    }
}

/// Both are the same to the kernel, and only one of them tells the client.
fn rejected_and_dropped() {
    let net = Net::quiet();
    net.words("nft add table ip t");
    net.command("nft", &["add chain ip t c { type filter hook input priority 0 ; policy drop ; }"]);
    net.words("nft add rule ip t c tcp flags & rst == rst accept");
    net.words("nft add rule ip t c tcp dport 7001 reject with tcp reset");
    let text = screen_of(net.inum(), &["-o", "text", "-b", "location,reason,dport"], || {
        net.run(|| {
            let refused = TcpStream::connect("127.0.0.1:7001").expect_err("a reset");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            for _ in 0..5 {
                socket.send_to(b"x", "127.0.0.1:7002").expect("sent");
            }
        });
    });
    for (drops, port) in [("1 packets", "7001"), ("5 packets", "7002")] {
        let row = row_of(&text, drops);
        assert_says(row, &[port, "class lost"]);
        assert_says(&explain(&subject(row)), &["reject", "policy drop", "nft -a list ruleset"]);
    }
}
