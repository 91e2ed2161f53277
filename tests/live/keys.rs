//! Drops counted by anything a packet, a device or a call chain says.

use std::{
    iter,
    net::{Ipv6Addr, UdpSocket},
    os::unix::net::UnixDatagram,
    thread,
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Test,
    support::{
        frames::{self, IPV4, Packet, VLAN},
        is_guest,
        net::{CLOSED, Net, flood_all},
        udp_receiver,
        watch::{Reports, Stream, Watch},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("one_number_of_two_interfaces_is_two_rows", same_index),
    ("an_interface_that_has_gone_keeps_its_name", gone),
    ("a_flow_is_a_row", flows),
    ("what_a_packet_does_not_have_is_null", nulls),
    ("a_tagged_frame_is_what_it_contains", tagged),
    ("drops_are_counted_on_their_cpu", cpus),
    ("call_chains_start_at_the_drop", chains),
    ("folded_chains_add_up", folded),
    ("keys_come_and_go_for_longer_than_the_map_is_large", churn),
    ("rows_replaced_in_a_flood_lose_nothing", replaced_in_a_flood),
    ("a_chain_does_not_fit_and_is_counted", max_rows_with_chains),
];

/// Drops in rows for which `is` holds.
fn count(reports: &Reports, is: impl Fn(&Value) -> bool) -> u64 {
    reports.rows().filter(|row| is(row)).map(|row| row["count"].as_u64().expect("a count")).sum()
}

fn watch_by(keys: &str) -> Watch {
    Watch::start(&["-o", "json", "-i", "1h", "-b", keys])
}

/// Two namespaces with a wire between them: what is sent on `va` arrives at `vb`.
fn wire() -> (Net, Net, [u8; 6]) {
    let (a, b) = (Net::quiet(), Net::quiet());
    a.join("va", "10.99.0.1/24", &b, "vb", "10.99.0.2/24");
    let to = b.hardware_address("vb");
    (a, b, to)
}

fn same_index() {
    let (one, other) = (Net::quiet(), Net::quiet());
    let watch = watch_by("location,iface,netns");
    one.drop_datagrams(31);
    other.drop_datagrams(53);
    let reports = watch.stop();
    for (net, drops) in [(&one, 31), (&other, 53)] {
        let here = |row: &Value| row["netns"]["inum"] == net.inum();
        assert_eq!(count(&reports, here), drops, "{reports:?}");
        let row = reports.rows().find(|row| here(row)).expect("a row");
        assert_eq!(row["iface"], json!({ "index": 1, "name": "lo" }), "{row}");
        assert_eq!(row["location"]["module"], "kernel");
        assert!(row.get("reason").is_none(), "only the chosen keys: {row}");
    }
}

fn gone() {
    let (a, b, to) = wire();
    let watch = watch_by("iface,netns");
    let nobody = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], CLOSED).bytes();
    frames::send(&a, "va", to, IPV4, &nobody, 41);
    thread::sleep(Duration::from_millis(100));
    a.ip("link del va");
    let reports = watch.stop();
    let here = |row: &Value| row["netns"]["inum"] == b.inum() && row["iface"]["name"] == "vb";
    assert_eq!(count(&reports, here), 41, "{reports:?}");
}

fn flows() {
    let net = Net::new();
    let watch = watch_by("dport,saddr,daddr,sport,ipproto,protocol,netns");
    let mut ports = Vec::new();
    net.run(|| {
        for (source, destination, drops) in
            [("127.0.0.1", "127.0.0.1", 3), ("127.0.0.2", "127.0.0.3", 5), ("::1", "::1", 7)]
        {
            let socket = UdpSocket::bind((source, 0)).expect("a socket");
            ports.push((source, destination, socket.local_addr().expect("an address").port(), drops));
            for _ in 0..drops {
                while socket.send_to(b"x", (destination, CLOSED)).is_err() {}
            }
        }
    });
    let reports = watch.stop();
    for (source, destination, port, drops) in ports {
        let flow = |row: &Value| {
            row["saddr"] == source
                && row["daddr"] == destination
                && row["sport"] == port
                && row["dport"] == CLOSED
                && row["ipproto"] == "udp"
                && row["protocol"] == if source.contains(':') { "ipv6" } else { "ipv4" }
                && row["netns"]["inum"] == net.inum()
        };
        assert_eq!(count(&reports, flow), drops, "{source}: {reports:?}");
    }
}

fn nulls() {
    let (a, b, to) = wire();
    b.ip("-6 addr flush dev vb");
    let watch = watch_by("netns,iface,protocol,ipproto,saddr,daddr,sport,dport");
    let from_nobody = [10, 98, 0, 7];
    // The second part of a datagram has no ports.
    let part = Packet { fragment: 0x2001, ..Packet::udp(from_nobody, [10, 77, 0, 1], CLOSED) };
    frames::send(&a, "va", to, IPV4, &part.bytes(), 11);
    let unknown = 0x88b5;
    frames::send(&a, "va", to, unknown, &[0; 46], 13);
    // Not of the version that the frame says it is.
    let mut wrong = Packet::udp(from_nobody, [10, 99, 0, 2], CLOSED).bytes();
    wrong[0] = 0x65;
    frames::send(&a, "va", to, IPV4, &wrong, 17);
    // No packet of a network at all.
    let unread: Vec<_> = a.run(|| (0..19).map(|_| UnixDatagram::pair().expect("sockets")).collect());
    for (one, other) in unread {
        one.send(b"x").expect("sent");
        drop(other);
    }
    thread::sleep(Duration::from_millis(100));
    let reports = watch.stop();
    let row = |netns: &Net, rest: Value| {
        let same = move |row: &Value| {
            row["netns"]["inum"] == netns.inum()
                && rest.as_object().expect("keys").iter().all(|(key, value)| &row[key] == value)
        };
        count(&reports, same)
    };
    let nothing = json!({ "ipproto": null, "saddr": null, "daddr": null, "sport": null, "dport": null });
    let with = |key: &str, value: Value| {
        let mut keys = nothing.clone();
        keys[key] = value;
        keys
    };
    let part = json!({ "protocol": "ipv4", "ipproto": "udp", "saddr": "10.98.0.7", "daddr": "10.77.0.1",
                       "sport": null, "dport": null });
    assert_eq!(row(&b, part), 11, "{reports:?}");
    assert_eq!(row(&b, with("protocol", "0x88b5".into())), 13, "{reports:?}");
    assert_eq!(row(&b, with("protocol", "ipv4".into())), 17, "{reports:?}");
    let mut unix = with("protocol", Value::Null);
    unix["iface"] = Value::Null;
    assert_eq!(row(&a, unix), 19, "{reports:?}");
}

fn tagged() {
    let (a, b, to) = wire();
    let watch = watch_by("netns,iface,protocol,daddr,dport");
    // Tags that nobody takes off on the way: the kernel does at the receiver, which has no such VLAN.
    let inner = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], 77).bytes();
    let mut frame = vec![0, 42];
    frame.extend(IPV4.to_be_bytes());
    frame.extend(inner);
    frames::send(&a, "va", to, VLAN, &frame, 23);
    thread::sleep(Duration::from_millis(100));
    let reports = watch.stop();
    let seen = |row: &Value| {
        row["netns"]["inum"] == b.inum()
            && row["protocol"] == "ipv4"
            && row["daddr"] == "10.99.0.2"
            && row["dport"] == 77
    };
    assert_eq!(count(&reports, seen), 23, "{reports:?}");
}

fn cpus() {
    let net = Net::quiet();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let watch = watch_by("cpu,netns");
    for cpu in 0..cpus {
        net.run(|| {
            let mut set = CpuSet::new();
            set.set(cpu).expect("a CPU");
            sched_setaffinity(Pid::from_raw(0), &set).expect("this thread stays there");
            crate::support::net::drop_datagrams_here(100 + cpu as u64);
        });
    }
    let reports = watch.stop();
    for cpu in 0..cpus {
        let here = |row: &Value| row["cpu"] == cpu && row["netns"]["inum"] == net.inum();
        assert_eq!(count(&reports, here), 100 + cpu as u64, "{reports:?}");
    }
}

fn chains() {
    let net = Net::quiet();
    let watch = watch_by("stack,netns,dport");
    net.drop_datagrams(64);
    let reports = watch.stop();
    let here = |row: &Value| row["netns"]["inum"] == net.inum() && row["dport"] == CLOSED;
    assert_eq!(count(&reports, here), 64, "{reports:?}");
    assert_eq!(reports.lost("stack_failed"), 0);
    for row in reports.rows().filter(|row| here(row)) {
        let frames = row["stack"].as_array().expect("frames");
        let functions: Vec<_> = frames
            .iter()
            .map(|frame| frame["symbol"].as_str().unwrap_or("?").split('.').next().expect("a part"))
            .collect();
        assert_eq!(functions[0], udp_receiver(), "the drop comes first: {functions:?}");
        // Outwards: from the protocol to the device to the one who sent it.
        let order = ["process_backlog", "net_rx_action", "ip_send_skb", "udp_sendmsg", "__sys_sendto"];
        let mut found = functions.iter();
        for function in order {
            assert!(found.any(|frame| *frame == function), "{function} in {functions:?}");
        }
        let ours = functions.iter().any(|frame| frame.starts_with("bpf_"));
        assert!(!ours, "{functions:?}");
    }
}

fn folded() {
    let net = Net::quiet();
    let watch = Watch::start(&["-o", "folded", "-i", "1h", "-b", "netns,stack"]);
    net.drop_datagrams(77);
    watch.signal(nix::sys::signal::Signal::SIGINT);
    let ended = watch.wait();
    let inum = net.inum().to_string();
    let mut sum = 0;
    for line in ended.stdout.lines().filter(|line| line.starts_with(&inum)) {
        let (frames, count) = line.rsplit_once(' ').expect("frames and a count");
        let innermost = frames.rsplit(';').next().expect("a frame");
        assert_eq!(innermost.split('.').next(), Some(udp_receiver()), "{line}");
        sum += count.parse::<u64>().expect("a number");
    }
    assert_eq!(sum, 77, "{ended:?}");
}

fn churn() {
    const PORTS: u16 = 6000;
    /// New keys until a report has been seen: with as many again of an interval before it there is still room.
    const AT_ONCE: u16 = 400;
    let net = Net::quiet();
    let watch = Stream::start(&["-i", "50ms", "-b", "dport,netns", "--max-rows", "1000"]);
    let send_to = |ports: Vec<u16>| {
        net.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            for port in ports {
                while socket.send_to(b"x", ("127.0.0.1", port)).is_err() {}
            }
        });
    };
    let mut seen = Vec::new();
    for first in (1..=PORTS).step_by(usize::from(AT_ONCE)) {
        let ports = first..first + AT_ONCE;
        send_to(ports.flat_map(|port| iter::repeat_n(port, if port % 100 == 1 { 3 } else { 1 })).collect());
        seen.extend(watch.catch_up());
    }
    // An early one comes back.
    send_to(vec![1]);
    let mut reports = watch.stop();
    seen.append(&mut reports.reports);
    reports.reports = seen;
    let here = |row: &Value| row["netns"]["inum"] == net.inum();
    assert_eq!(count(&reports, here), u64::from(PORTS) + 2 * u64::from(PORTS / 100) + 1);
    assert_eq!(reports.lost("map_full"), 0, "{}", reports.stderr);
    for port in [1, 2, 101, PORTS] {
        let expected = u64::from(port % 100 == 1) * 2 + 1 + u64::from(port == 1);
        let rows = || reports.rows().filter(|row| here(row) && row["dport"] == port);
        assert_eq!(rows().filter_map(|row| row["count"].as_u64()).sum::<u64>(), expected, "port {port}");
        assert_eq!(rows().last().expect("a row")["total"], expected, "its total, port {port}");
    }
}

/// With room for two rows, every report puts a fresh map in place of the one that all CPUs count in.
fn replaced_in_a_flood() {
    let each = if is_guest() { 20_000 } else { 500_000 };
    let nets: Vec<_> =
        (0..thread::available_parallelism().map_or(2, usize::from)).map(|_| Net::quiet()).collect();
    let filter = nets.iter().map(|net| format!("netns {}", net.inum())).collect::<Vec<_>>().join(" or ");
    let watch = Watch::start(&["-o", "json", "-i", "10ms", "-b", "dport", "--max-rows", "2", "-f", &filter]);
    let drops = flood_all(&nets, each);
    let reports = watch.stop();
    let lost: u64 =
        ["map_full", "update_failed", "recursion_missed"].map(|word| reports.lost(word)).iter().sum();
    assert_eq!(count(&reports, |row| row["dport"] == CLOSED) + lost, drops, "{lost} in the ledger");
    let row = reports.rows().last().expect("a row");
    assert_eq!(row["total"].as_u64().map(|total| total + lost), Some(drops), "{row}");
}

fn max_rows_with_chains() {
    let net = Net::quiet();
    let watch = Watch::start(&["-o", "json", "-i", "1h", "-b", "stack,dport,netns", "--max-rows", "4"]);
    net.run(|| {
        let socket =
            UdpSocket::bind(("::1", 0)).or_else(|_| UdpSocket::bind("127.0.0.1:0")).expect("a socket");
        let to = |port| -> std::net::SocketAddr {
            if socket.local_addr().expect("an address").is_ipv6() {
                (Ipv6Addr::LOCALHOST, port).into()
            } else {
                ([127, 0, 0, 1], port).into()
            }
        };
        for port in 1..=20 {
            while socket.send_to(b"x", to(port)).is_err() {}
        }
    });
    let reports = watch.stop();
    let seen: u64 = reports.reports.iter().filter_map(|report| report["drops"].as_u64()).sum();
    assert!(seen + reports.lost("map_full") >= 20, "{reports:?}");
    assert!(reports.lost("map_full") >= 16, "{reports:?}");
}
