//! What shows the cause of lost rows: the right object among others that look like it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    process::{Command, Stdio},
};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, setsockopt, sockopt};
use serde_json::{Value, json};

use crate::{
    Test,
    support::{
        self,
        inject::{
            bpf::Group,
            needs,
            sys::{self, Hook},
            wire::eventually,
        },
        kernel,
        net::Net,
        trial,
        watch::{Reports, Watch},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("evidence::the_full_socket_of_two_on_one_port_is_shown", full_socket),
    ("evidence::a_broken_rule_says_what_shows_the_cause", gate),
    ("evidence::a_filter_and_a_program_of_a_cgroup_are_told_apart", filters),
];

/// Counts lost drops of a namespace, by location, reason and these keys, with what shows their cause.
fn watch(net: &Net, more: &str) -> Watch {
    let (keys, filter) = (format!("location,reason{more}"), format!("netns {}", net.inum()));
    Watch::start(&["-o", "json", "-i", "1h", "--explain", "-b", &keys, "-f", &filter])
}

/// A bound socket with little room, whose port others may share.
fn bound(address: &str) -> UdpSocket {
    let SocketAddr::V4(address) = address.parse().expect("an address") else { unreachable!() };
    let bound = socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let bound = bound.expect("a socket");
    setsockopt(&bound, sockopt::ReusePort, &true).expect("a shared port");
    setsockopt(&bound, sockopt::RcvBuf, &4096).expect("little room");
    socket::bind(bound.as_raw_fd(), &SockaddrIn::from(address)).expect("bound");
    UdpSocket::from(bound)
}

fn send(net: &Net, to: &str, count: usize) {
    net.run(|| {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..count {
            sender.send_to(&[0; 700], to).expect("sent");
        }
    });
}

fn inode(socket: &UdpSocket) -> u64 {
    fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).expect("the socket's file").ino()
}

/// The only row of this port, or of all.
fn row(reports: &Reports, port: Option<u16>) -> &Value {
    let is_it = |row: &&Value| port.is_none_or(|port| row["dport"] == port);
    let rows: Vec<_> = reports.rows().filter(is_it).collect();
    let [row] = rows[..] else { panic!("one row: {reports:?}") };
    row
}

/// What a row has of a kind.
fn of_kind<'a>(row: &'a Value, kind: &str) -> Vec<&'a Value> {
    let evidence = row["evidence"].as_array().unwrap_or_else(|| panic!("it was looked at: {row}"));
    evidence.iter().filter(|object| object["kind"] == kind).collect()
}

fn full_socket() {
    const ADDRESS: &str = "127.0.0.1:5140";
    let net = Net::quiet();
    let _name = net.name(&format!("dw-evidence-{}", std::process::id()));
    let watch = watch(&net, "");
    let (one, other) = net.run(|| (bound(ADDRESS), bound(ADDRESS)));
    send(&net, ADDRESS, 97);
    let lost = || net.counter("snmp", "Udp", "RcvbufErrors");
    eventually("all are dropped that do not fit", || lost() > 80);
    one.set_nonblocking(true).expect("no waiting");
    // One flow is for one of the two.
    let full = if one.peek(&mut [0; 1]).is_ok() { &one } else { &other };
    let reports = watch.stop();
    let row = row(&reports, None);
    assert_eq!(row["count"], lost(), "{row}");
    if !kernel::tells_socket() {
        assert_eq!(of_kind(row, "socket"), [&Value::Null; 0], "the packet is not the receiver's yet: {row}");
        return;
    }
    let [socket] = of_kind(row, "socket")[..] else { panic!("one socket: {row}") };
    assert_eq!((&socket["inode"], &socket["local"]), (&json!(inode(full)), &json!(ADDRESS)), "{socket}");
    assert_eq!(socket["process"]["pid"], std::process::id(), "{socket}");
    assert_eq!(
        (&socket["certainty"], &socket["receive_size"]),
        (&json!("certain"), &json!(8192)),
        "{socket}"
    );
    assert_eq!(socket["drops"], lost(), "{socket}");
    let text = socket["text"].as_str().expect("text");
    assert!(text.contains(&format!("[{}]: receive buffer ", std::process::id())), "{text}");
    assert_eq!(socket["source"], "ss -uanpm 'sport = :5140'");
}

/// The number of a program that is attached by a link.
fn program_id(link: &OwnedFd) -> u64 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd())).expect("the link");
    let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")).expect("its program");
    id.trim().parse().expect("a number")
}

/// Both are the same reason at the same place, in a namespace that has no name and no process, and is not entered.
fn filters() {
    if let Some(why) = trial::lacking(&needs::CGROUP) {
        return dropwatch_testing::skip(why);
    }
    let (net, group) = (Net::quiet(), Group::new());
    let watch = watch(&net, ",dport");
    let filtered = net.run(|| bound("127.0.0.1:5141"));
    sys::refuse_all(&filtered);
    let confined = group.socket(&net, 5142);
    let program = group.refuse(Hook::CgroupIngress);
    send(&net, "127.0.0.1:5141", 31);
    send(&net, "127.0.0.1:5142", 37);
    let reports = watch.stop();
    let told = [(5141, 31, &filtered), (5142, 37, &confined)].map(|(port, count, socket)| {
        let row = row(&reports, Some(port));
        assert_eq!(row["count"], count, "{row}");
        if !kernel::tells_socket() {
            assert_eq!(row["evidence"], Value::Null, "the packet is not the receiver's yet: {row}");
            return None;
        }
        let (sockets, programs) = (of_kind(row, "socket"), of_kind(row, "program"));
        assert_eq!(sockets.len(), 1, "{row}");
        assert_eq!(sockets[0]["inode"], inode(socket), "its own: {row}");
        let [program] = programs[..] else { panic!("one program: {row}") };
        assert_eq!(program["certainty"], "certain", "{program}");
        Some([&program["attached"], &program["id"]])
    });
    let expected =
        [[json!("socket_filter"), Value::Null], [json!("cgroup_inet_ingress"), json!(program_id(&program))]];
    if let [Some(one), Some(other)] = told {
        assert_eq!([one.map(Clone::clone), other.map(Clone::clone)], expected);
    }
}

/// The command is up once it has echoed what it was sent, and ends with its input.
fn gate() {
    const ADDRESS: &str = "127.0.0.1:5143";
    let (net, directory) = (Net::quiet(), tempfile::tempdir().expect("a directory"));
    let _name = net.name(&format!("dw-evidence-{}", std::process::id()));
    let report = directory.path().join("report.json");
    let filter = format!("netns {}", net.inum());
    let mut check = Command::new(support::dropwatch())
        .args(["check", "--max", "lost:0", "--settle", "0", "-f", &filter, "--report"])
        .arg(&report)
        .args(["--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = check.stdin.take().expect("a pipe");
    input.write_all(b"x").expect("cat reads");
    check.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("cat runs");
    let full = net.run(|| bound(ADDRESS));
    send(&net, ADDRESS, 97);
    eventually("all are dropped that do not fit", || net.counter("snmp", "Udp", "RcvbufErrors") > 80);
    drop(input);
    let ended = check.wait_with_output().expect("it ends");
    let said = String::from_utf8(ended.stderr).expect("text");
    assert_eq!(ended.status.code(), Some(4), "{said}");
    let document = fs::read_to_string(report).expect("the report");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let rows = document["rows"].as_array().expect("rows");
    let [row] = &rows[..] else { panic!("one row: {document}") };
    assert!(said.contains(&format!("{} lost: ", row["count"])), "it is explained: {said}");
    let sockets = of_kind(row, "socket");
    if !kernel::tells_socket() {
        assert_eq!(sockets.len(), 0, "the packet is not the receiver's yet: {row}");
        return;
    }
    assert_eq!(sockets.len(), 1, "{row}");
    assert_eq!(sockets[0]["inode"], inode(&full), "{row}");
    assert!(said.contains(&format!("  -> udp {ADDRESS} of ")), "{said}");
}
