//! Drops counted by anything a packet, a device or a call chain says.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IoSlice,
    iter,
    net::{Ipv6Addr, UdpSocket},
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
    thread,
};

use nix::sys::{
    signal::Signal,
    socket::{MsgFlags, MultiHeaders, sendmmsg, sendmsg},
};
use serde_json::{Value, json};

use crate::{
    Test,
    support::{
        frames::{IPV4, Packet, VLAN},
        inject::wire::Wire,
        is_guest,
        net::{CLOSED, Net, flood_all},
        pin, udp_receiver,
        watch::{Reports, Stream, Watch},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("keys::one_number_of_two_interfaces_is_two_rows", same_index),
    ("keys::one_name_of_two_interfaces_is_shown_with_the_namespace", same_name),
    ("keys::an_interface_that_has_gone_keeps_its_name", gone),
    ("keys::a_function_is_a_row_without_offsets", functions),
    ("keys::a_flow_is_a_row", flows),
    ("keys::what_a_packet_does_not_have_is_null", nulls),
    ("keys::a_tagged_frame_is_what_it_contains", tagged),
    ("keys::drops_are_counted_on_their_cpu", cpus),
    ("keys::call_chains_start_at_the_drop", chains),
    ("keys::folded_chains_add_up", folded),
    ("keys::keys_come_and_go_for_longer_than_the_map_is_large", churn),
    ("keys::keys_of_many_flows_are_counted_alike_with_and_without_a_filter", many_flows),
    ("keys::keys_in_buckets_are_replaced_in_a_flood_and_lose_nothing", buckets_replaced_in_a_flood),
    ("keys::rows_replaced_in_a_flood_lose_nothing", replaced_in_a_flood),
    ("keys::call_chains_are_replaced_with_their_rows", chains_come_and_go),
    ("keys::chains_replaced_in_a_flood_lose_nothing", chains_replaced_in_a_flood),
    ("keys::a_chain_does_not_fit_and_is_counted", max_rows_with_chains),
];

/// Drops in rows for which `is` holds.
fn count(reports: &Reports, is: impl Fn(&Value) -> bool) -> u64 {
    reports.rows().filter(|row| is(row)).map(|row| row["count"].as_u64().expect("a count")).sum()
}

fn watch_by(keys: &str) -> Watch {
    Watch::start(&["-o", "json", "-i", "1h", "-b", keys])
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
        let netns = &row["netns"];
        assert_eq!(row["iface"], json!({ "index": 1, "name": "lo", "netns": netns }), "{row}");
        assert_eq!(row["location"]["module"], "kernel");
        assert!(row.get("reason").is_none(), "only the chosen keys: {row}");
    }
}

/// Where the namespace is no key, it is shown as soon as two rows would look the same.
fn same_name() {
    let (one, other) = (Net::quiet(), Net::quiet());
    let both = format!("netns {} or netns {}", one.inum(), other.inum());
    let start = |format| Watch::start(&["-o", format, "-i", "1h", "-b", "reason,iface", "-f", &both]);
    let (json, text, table) = (start("json"), start("text"), start("table"));
    one.drop_datagrams(31);
    other.drop_datagrams(53);
    let reports = json.stop();
    let [text, table] = [text, table].map(|watch| {
        watch.signal(Signal::SIGINT);
        watch.wait().stdout
    });
    assert_eq!(reports.rows().count(), 2, "{reports:?}");
    for (net, drops) in [(&one, 31), (&other, 53)] {
        assert_eq!(count(&reports, |row| row["iface"]["netns"]["inum"] == net.inum()), drops, "{reports:?}");
        let has = |text: &str, start: &str, end: &str| {
            text.lines().any(|line| line.contains(start) && line.contains(end))
        };
        assert!(
            has(&text, &format!(" {drops} packets"), &format!(" iface lo netns {}", net.inum())),
            "{text}"
        );
        assert!(has(&table, &format!(" {drops}  "), &format!("  lo in {}", net.inum())), "{table}");
    }
}

fn gone() {
    let wire = Wire::new();
    let watch = watch_by("iface,netns");
    let unwanted = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], CLOSED).bytes();
    wire.deliver_copies(IPV4, &unwanted, 41);
    wire.a.ip("link del va");
    let reports = watch.stop();
    let here = |row: &Value| row["netns"]["inum"] == wire.b.inum() && row["iface"]["name"] == "vb";
    assert_eq!(count(&reports, here), 41, "{reports:?}");
}

fn functions() {
    let net = Net::quiet();
    let watch = watch_by("function,netns");
    net.drop_datagrams(37);
    let reports = watch.stop();
    let here = |row: &Value| {
        row["function"] == json!({ "symbol": udp_receiver(), "module": "kernel" })
            && row["netns"]["inum"] == net.inum()
    };
    assert_eq!(count(&reports, here), 37, "{reports:?}");
    assert!(reports.rows().all(|row| row.get("location").is_none()), "only the chosen keys: {reports:?}");
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
    let wire = Wire::new();
    let watch = watch_by("netns,iface,protocol,ipproto,saddr,daddr,sport,dport");
    let from_nobody = [10, 98, 0, 7];
    // The second part of a datagram has no ports.
    let part = Packet { fragment: 0x2001, ..Packet::udp(from_nobody, [10, 77, 0, 1], CLOSED) };
    wire.deliver_copies(IPV4, &part.bytes(), 11);
    let unknown = 0x88b5;
    wire.deliver_copies(unknown, &[0; 46], 13);
    // Not of the version that the frame says it is.
    let mut wrong = Packet::udp(from_nobody, [10, 99, 0, 2], CLOSED).bytes();
    wrong[0] = 0x65;
    wire.deliver_copies(IPV4, &wrong, 17);
    // No packet of a network at all.
    let unread: Vec<_> = wire.a.run(|| (0..19).map(|_| UnixDatagram::pair().expect("sockets")).collect());
    for (one, other) in unread {
        one.send(b"x").expect("sent");
        drop(other);
    }
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
    assert_eq!(row(&wire.b, part), 11, "{reports:?}");
    assert_eq!(row(&wire.b, with("protocol", "0x88b5".into())), 13, "{reports:?}");
    assert_eq!(row(&wire.b, with("protocol", "ipv4".into())), 17, "{reports:?}");
    let mut unix = with("protocol", Value::Null);
    unix["iface"] = Value::Null;
    assert_eq!(row(&wire.a, unix), 19, "{reports:?}");
}

fn tagged() {
    let wire = Wire::new();
    let watch = watch_by("netns,iface,protocol,daddr,dport");
    // Tags that stay on until the kernel takes them off at the receiver, which has no such VLAN.
    let inner = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], 77).bytes();
    let mut frame = vec![0, 42];
    frame.extend(IPV4.to_be_bytes());
    frame.extend(inner);
    wire.deliver_copies(VLAN, &frame, 23);
    let reports = watch.stop();
    let seen = |row: &Value| {
        row["netns"]["inum"] == wire.b.inum()
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
        net.drop_datagrams_on(cpu, 100 + cpu as u64);
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
        // Outwards: from the protocol to the device to the sender.
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
    watch.signal(Signal::SIGINT);
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

/// Each way into the kernel is a chain of its own, and there are more of them than there is room for at a time.
fn chains_come_and_go() {
    const EACH: u64 = 7;
    /// For twice as many chains.
    const ROOM: usize = 4;
    let net = Net::new();
    let filter = format!("netns {} and udp dst port {CLOSED}", net.inum());
    let room = ROOM.to_string();
    let watch = Stream::start(&["-i", "20ms", "-b", "stack", "--max-rows", &room, "-f", &filter]);
    let mut seen = Vec::new();
    let mut drop_by = |address: &str, send: fn(&UdpSocket) -> bool| {
        net.run(|| {
            let socket = UdpSocket::bind((address, 0)).expect("a socket");
            socket.connect((address, CLOSED)).expect("a peer");
            // The answer to an earlier one, "connection refused", is not an error of this one.
            (0..EACH).for_each(|_| while !send(&socket) {});
        });
        seen.extend(watch.catch_up());
    };
    let families = ["127.0.0.1", "::1"];
    for (address, send) in families.iter().flat_map(|address| WAYS.map(|send| (address, send))) {
        drop_by(address, send);
    }
    // An early one comes back.
    drop_by(families[0], WAYS[0]);
    let mut reports = watch.stop();
    seen.append(&mut reports.reports);
    reports.reports = seen;
    let waves = (families.len() * WAYS.len() + 1) as u64;
    assert_eq!(count(&reports, |_| true), waves * EACH, "{}", reports.stderr);
    for word in ["map_full", "stack_failed"] {
        assert_eq!(reports.lost(word), 0, "{word}: {}", reports.stderr);
    }
    let stacks: BTreeSet<_> = reports.rows().map(|row| row["stack"].to_string()).collect();
    assert!(stacks.len() > 2 * ROOM, "all differ: {stacks:#?}");
    assert!(reports.rows().all(|row| row["stack"].as_array().is_some_and(|frames| !frames.is_empty())));
    // As large as all that its chain has counted, though the kernel has begun anew since.
    let row = reports.rows().last().expect("a row");
    let of_chain = count(&reports, |other| other["stack"] == row["stack"]);
    assert_eq!(row["total"], of_chain, "{row}");
    // An interrupt makes another chain of the odd one.
    assert!(of_chain > EACH, "{row}");
}

/// Ways to send a datagram: whether it was sent.
const WAYS: [fn(&UdpSocket) -> bool; 5] = [
    |socket| socket.send(b"x").is_ok(),
    |socket| nix::unistd::write(socket, b"x").is_ok(),
    |socket| nix::sys::uio::writev(socket, &[IoSlice::new(b"x")]).is_ok(),
    |socket| {
        let (flags, payload) = (MsgFlags::empty(), [IoSlice::new(b"x")]);
        sendmsg::<()>(socket.as_raw_fd(), &payload, &[], flags, None).is_ok()
    },
    |socket| {
        let payload = [IoSlice::new(b"x")];
        let mut headers = MultiHeaders::<()>::preallocate(1, None);
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, [&payload], [None], [], MsgFlags::empty());
        sent.map_or(0, Iterator::count) == 1
    },
];

/// Counts a flood on all CPUs by these keys, with room for two rows, so that every report begins a fresh generation. Every
/// drop is in a row or in the ledger.
fn replaced_by(keys: &str, each: usize) -> Reports {
    let cpus = thread::available_parallelism().map_or(2, usize::from);
    let nets: Vec<_> = (0..cpus).map(|_| Net::quiet()).collect();
    let namespaces = nets.iter().map(|net| format!("netns {}", net.inum())).collect::<Vec<_>>().join(" or ");
    // What the oracle counts: a full backlog drops datagrams to the same port before that.
    let filter = format!("location {} and ({namespaces})", udp_receiver());
    let watch = Watch::start(&["-o", "json", "-i", "10ms", "-b", keys, "--max-rows", "2", "-f", &filter]);
    let drops = flood_all(&nets, each);
    let reports = watch.stop();
    let lost: u64 =
        ["map_full", "update_failed", "recursion_missed"].map(|word| reports.lost(word)).iter().sum();
    let counted = count(&reports, |row| row["dport"] == CLOSED);
    assert_eq!(counted + lost, drops, "{lost} in the ledger");
    reports
}

/// All that tells one flow from another.
const FLOW: &str = "location,reason,saddr,daddr,sport,dport,ipproto,protocol";

/// Sends so many rounds of datagrams to each of these ports, which are closed, on each CPU at once; the source ports.
fn send_flows(net: &Net, to: &str, ports: u16, rounds: usize) -> Vec<u16> {
    let cpus = thread::available_parallelism().map_or(2, usize::from);
    let send = |cpu| {
        pin(cpu);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for port in (0..rounds).flat_map(|_| 1..=ports) {
            while socket.send_to(b"x", (to, port)).is_err() {}
        }
        socket.local_addr().expect("an address").port()
    };
    thread::scope(|scope| {
        let send = &send;
        let senders: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || net.run(|| send(cpu)))).collect();
        senders.into_iter().map(|sender| sender.join().expect("a sender")).collect()
    })
}

/// More flows than the buckets in front of the map have room for. Without a filter, plain packets are counted by a way of
/// their own.
fn many_flows() {
    const TO: &str = "127.77.33.5";
    const ROUNDS: usize = 3;
    let ports = if is_guest() { 500 } else { 2500 };
    let net = Net::quiet();
    let (plain, filter) = (watch_by(FLOW), format!("dst host {TO}"));
    let filtered = Watch::start(&["-o", "json", "-i", "1h", "-b", FLOW, "-f", &filter]);
    let sources = send_flows(&net, TO, ports, ROUNDS);
    let flows = |watch: Watch| {
        let reports = watch.stop();
        let flow = |row: &Value| {
            let number = |name: &str| row[name].as_u64().and_then(|port| u16::try_from(port).ok());
            let here = row["daddr"] == TO && row["saddr"] == "127.0.0.1" && row["ipproto"] == "udp";
            let here = here && row["protocol"] == "ipv4" && row["location"]["symbol"] == udp_receiver();
            here.then(|| (number("sport"), number("dport"), row["reason"].to_string(), row["count"].as_u64()))
        };
        let mut flows: Vec<_> = reports.rows().filter_map(flow).collect();
        flows.sort();
        flows
    };
    let (plain, filtered) = (flows(plain), flows(filtered));
    assert_eq!(plain, filtered);
    let counted = plain.iter().map(|(sport, dport, _, count)| (*sport, *dport, *count));
    let mut expected: Vec<_> = sources
        .iter()
        .flat_map(|source| (1..=ports).map(|port| (Some(*source), Some(port), Some(ROUNDS as u64))))
        .collect();
    expected.sort();
    assert_eq!(counted.collect::<Vec<_>>(), expected);
}

/// So few rows that each report begins a fresh generation, and enough for some of them to have buckets.
fn buckets_replaced_in_a_flood() {
    const TO: &str = "127.77.33.6";
    const PORTS: u16 = 80;
    let rounds = if is_guest() { 20 } else { 500 };
    let net = Net::quiet();
    let filter = format!("dst host {TO} and location {}", udp_receiver());
    let room = (PORTS as usize * 2 * thread::available_parallelism().map_or(2, usize::from) - 1).to_string();
    let watch =
        Watch::start(&["-o", "json", "-i", "10ms", "-b", "sport,dport", "--max-rows", &room, "-f", &filter]);
    let sources = send_flows(&net, TO, PORTS, rounds);
    let reports = watch.stop();
    for word in ["map_full", "update_failed", "recursion_missed"] {
        assert_eq!(reports.lost(word), 0, "{word}: {}", reports.stderr);
    }
    let mut flows: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    for row in reports.rows() {
        let number = |name: &str| row[name].as_u64().expect(name);
        let (counted, total) = flows.entry((number("sport"), number("dport"))).or_default();
        *counted += number("count");
        *total = number("total");
    }
    assert_eq!(flows.len(), usize::from(PORTS) * sources.len());
    for (flow, counted) in flows {
        assert_eq!(counted, (rounds as u64, rounds as u64), "{flow:?}");
    }
}

fn chains_replaced_in_a_flood() {
    let reports = replaced_by("stack,dport", if is_guest() { 2_000 } else { 20_000 });
    let without = count(&reports, |row| row["stack"].is_null());
    assert!(without <= reports.lost("stack_failed"), "{without} in rows without a chain: {reports:?}");
}

fn replaced_in_a_flood() {
    let reports = replaced_by("dport", if is_guest() { 20_000 } else { 500_000 });
    let row = reports.rows().last().expect("a row");
    assert_eq!(row["total"].as_u64(), Some(count(&reports, |row| row["dport"] == CLOSED)), "{row}");
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
