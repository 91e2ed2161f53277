//! Which rule of a firewall dropped packets, among rules that look alike.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use serde_json::Value;

use crate::{
    Test,
    live::objects::send_from_process,
    support::{
        self,
        frames::{self, Packet, Tcp},
        inject::{
            needs::{self, Need},
            wire::{Wire, eventually},
        },
        is_guest, kernel,
        net::{CLOSED, Net},
        trial, udp_receiver,
        watch::{Reports, Stream, Watch},
    },
};

/// All of them: those of rules, and what this kernel does about tracing.
pub fn tests() -> Vec<Test> {
    // Tables with an owner came then.
    let tracing = if kernel::is_before(5, 12) { UNTRACED } else { TRACING };
    [RULES, tracing].concat()
}

const RULES: &[Test] = &[
    ("netfilter::of_two_rules_three_jumps_deep_the_one_that_counts_is_named", deep),
    ("netfilter::a_reject_a_policy_and_an_invalid_state_are_told_apart", alike),
    ("netfilter::an_output_rule_is_named_with_the_process_that_it_stops", output),
    ("netfilter::a_rule_of_iptables_is_found_by_its_counter", legacy),
    ("netfilter::of_segments_that_are_not_cut_yet_the_rule_that_refuses_their_length_is_named", uncut),
    ("netfilter::a_flood_in_another_namespace_hides_no_rule", beside_a_flood),
];

const TRACING: &[Test] = &[
    ("netfilter::a_traced_packet_tells_its_rule_and_leaves_no_trace", traced),
    ("netfilter::killed_while_it_traces_the_ruleset_is_as_before", killed),
];

const UNTRACED: &[Test] = &[("netfilter::tracing_is_refused_where_tables_have_no_owner", untraced)];

/// The wire's ends, and an address that B has no route to.
const B: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const IPV6_A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1);
const IPV6_B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2);
const PORT: u16 = 6500;

const DEEP: &str = "table inet filter {
    chain input {
        type filter hook input priority 0; policy accept;
        udp dport 6501 drop
        udp dport 6500 jump services
    }
    chain services {
        jump tenants
    }
    chain tenants {
        jump media
    }
    chain media {
        REST
        meta length 500-600 counter drop comment \"jumbo\"
        meta length 300-400 counter drop comment \"oversize media, ticket 4711\"
    }
}";

const ALIKE: &str = "table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        ip protocol udp accept
        ip protocol 201 reject
        ct state invalid counter drop
        ip protocol icmp counter accept
    }
}";

/// Whether this machine lacks something; says so.
fn lacks(needs: &[&Need]) -> bool {
    let lacking = needs.iter().find_map(|need| trial::lacking(need));
    lacking.is_some_and(|why| {
        dropwatch_testing::skip(why);
        true
    })
}

/// Loads a ruleset.
fn load(net: &Net, rules: &str) {
    net.command("nft", &[rules]);
}

fn ruleset(net: &Net) -> String {
    net.words("nft -s -a list ruleset")
}

/// The handle of the rule with this text.
fn handle(net: &Net, text: &str) -> u64 {
    let ruleset = ruleset(net);
    let line =
        ruleset.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {ruleset}"));
    line.rsplit_once("# handle ").and_then(|(_, handle)| handle.parse().ok()).expect("a handle")
}

fn explaining(keys: &str) -> Watch {
    explaining_those(keys, &[])
}

fn explaining_those(keys: &str, filter: &[&str]) -> Watch {
    let keys = format!("location,reason,netns{keys}");
    let arguments = ["-o", "json", "-i", "1h", "--explain", "--no-counters", "-b", &keys];
    Watch::start(&[&arguments, filter].concat())
}

/// What rows of a namespace say of rules, the first of each.
fn rules_of<'a>(reports: &'a Reports, net: &Net) -> Vec<(&'a Value, &'a Value)> {
    let rows = reports.rows().filter(|row| row["netns"]["inum"] == net.inum());
    let first = |row: &'a Value| {
        let evidence = row["evidence"].as_array().unwrap_or_else(|| panic!("no evidence: {reports:?}"));
        let rule = evidence.iter().find(|evidence| evidence["kind"] == "netfilter");
        (row, rule.unwrap_or_else(|| panic!("no rule: {row} {}", reports.stderr)))
    };
    rows.map(first).collect()
}

/// A datagram as long as `meta length` has it.
fn datagram(port: u16, length: usize) -> Packet {
    Packet::udp_with(STRANGER, B, port, &vec![0; length - 28])
}

/// So many that they are not read for each report.
const OTHER_RULES: u8 = 250;

fn other_rules() -> String {
    let rules = (0..OTHER_RULES).map(|number| format!("ip saddr 10.77.0.{number} counter drop"));
    rules.collect::<Vec<_>>().join("\n")
}

fn deep() {
    if lacks(&[&needs::NFT]) {
        return;
    }
    let wire = Wire::new();
    let _name = wire.b.name("dropwatch-deep");
    load(&wire.b, &DEEP.replace("REST", &other_rules()));
    let right = handle(&wire.b, "oversize");
    let stream = Stream::start(&["-i", "100ms", "--explain", "--no-counters", "-b", "location,reason,netns"]);
    let packet = datagram(PORT, 328);
    for count in [61, 67] {
        stream.catch_up();
        wire.deliver_copies(packet.ethertype(), &packet.bytes(), count);
        let (seen, rule) = first_rule(&stream, &wire.b);
        assert_eq!((&rule["hook"], &rule["handle"]), (&"input".into(), &right.into()), "{rule}");
        assert_eq!(rule["candidates"], 1, "{rule}");
        let text = rule["rule"].as_str().expect("the rule's text");
        assert!(text.starts_with("meta length 300-400 counter drop comment"), "{rule}");
        assert_eq!(rule["comment"], "oversize media, ticket 4711");
        assert_eq!(rule["path"], serde_json::json!(["input", "services", "tenants", "media"]));
        assert_ne!(rule["certainty"], "possible", "{rule}");
        // What was counted before is not counted again.
        let moved = rule["packets"].as_u64().expect("a number");
        assert!((seen..=count as u64).contains(&moved), "{moved} of {count}: {rule}");
    }
    stream.stop();
}

/// How many packets the first row of a namespace has, and the first rule that is named for it.
fn first_rule(stream: &Stream, net: &Net) -> (u64, Value) {
    let is_of = |row: &Value| row["netns"]["inum"] == net.inum();
    let row = (0..100).find_map(|_| {
        let report = stream.next_report();
        report["rows"].as_array().expect("rows").iter().find(|row| is_of(row)).cloned()
    });
    let row = row.expect("a row");
    let rule = row["evidence"].as_array().and_then(|found| found.first().cloned());
    (row["count"].as_u64().expect("a count"), rule.unwrap_or_else(|| panic!("no rule: {row}")))
}

fn alike() {
    if lacks(&[&needs::NFT, &needs::CONNTRACK]) {
        return;
    }
    let wire = Wire::new();
    let _name = wire.b.name("dropwatch-alike");
    load(&wire.b, ALIKE);
    let watch = explaining(",ipproto");
    // It opens a connection and resets it, in one.
    let invalid = Tcp { port: 9, flags: frames::SYN | frames::RST, ..Tcp::default() };
    let [rejected, other] = [201, 202].map(|protocol| Packet::new(STRANGER, B, protocol, vec![0; 8]));
    for (packet, count) in [(rejected, 7), (Packet::tcp(STRANGER, B, invalid), 11), (other, 13)] {
        wire.deliver_copies(packet.ethertype(), &packet.bytes(), count);
    }
    let reports = watch.stop();
    let rules = rules_of(&reports, &wire.b);
    let rule = |count: u64| {
        let found = rules.iter().find(|(row, _)| row["count"] == count);
        found.unwrap_or_else(|| panic!("{count}: {reports:?}")).1
    };
    assert_eq!(rule(7)["verdict"], "reject", "{}", rule(7));
    // Versions of `nft` word what the sender is told differently.
    assert!(rule(7)["rule"].as_str().expect("a rule").starts_with("ip protocol 201 reject"), "{}", rule(7));
    assert!(rule(7)["text"].as_str().expect("text").contains("the sender was told"), "{}", rule(7));
    assert_eq!((&rule(11)["verdict"], &rule(11)["packets"]), (&"drop".into(), &11.into()), "{}", rule(11));
    assert_eq!(rule(11)["rule"], "ct state invalid counter drop");
    assert_eq!(
        (&rule(13)["verdict"], &rule(13)["chain"]),
        (&"policy".into(), &"input".into()),
        "{}",
        rule(13)
    );
}

fn output() {
    if lacks(&[&needs::NFT]) {
        return;
    }
    let net = Net::quiet();
    let _name = net.name("dropwatch-output");
    net.words("nft add table ip t");
    net.command("nft", &["add chain ip t c { type filter hook output priority 0 ; }"]);
    net.words("nft add rule ip t c oifname lo udp dport 514 drop");
    net.words("nft add rule ip t c oifname eth0 udp dport 514 drop");
    net.words(&format!("nft add rule ip t c udp dport {CLOSED} drop"));
    let all = explaining(",process");
    // Rows that stand for what one process sends, though they do not show it.
    let filter = format!("netns {} and process {}", net.inum(), std::process::id());
    let ours =
        Watch::start(&["-o", "json", "-i", "1h", "--explain", "-b", "location,reason,netns", "-f", &filter]);
    send_from_process(&net, 19, None);
    let _socket = net.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..43 {
            let _ = socket.send_to(b"x", "127.0.0.1:514");
        }
        socket
    });
    let (all, ours) = (all.stop(), ours.stop());
    let is_ours = |(row, _): &(&Value, &Value)| row["process"]["pid"] == std::process::id();
    let by_process: Vec<_> = rules_of(&all, &net).into_iter().filter(is_ours).collect();
    for rows in [by_process, rules_of(&ours, &net)] {
        let [(row, rule)] = rows[..] else { panic!("one row: {all:?} {ours:?}") };
        assert_eq!(row["count"], 43, "{row}");
        assert_eq!((&rule["hook"], &rule["candidates"]), (&"output".into(), &1.into()), "{rule}");
        assert_eq!(rule["handle"], handle(&net, "\"lo\""), "{rule}");
    }
}

fn legacy() {
    if lacks(&[&needs::IPTABLES]) {
        return;
    }
    let wire = Wire::new();
    let _name = wire.b.name("dropwatch-legacy");
    wire.b.words("iptables-legacy -w -A INPUT -p udp --dport 6500 -m length --length 500:600 -j DROP");
    wire.b.words("iptables-legacy -w -A INPUT -p udp --dport 6500 -m length --length 300:400 -j DROP");
    let watch = explaining("");
    let packet = datagram(PORT, 328);
    wire.deliver_copies(packet.ethertype(), &packet.bytes(), 31);
    let reports = watch.stop();
    let [(row, rule)] = rules_of(&reports, &wire.b)[..] else { panic!("one row: {reports:?}") };
    assert_eq!((&row["count"], &rule["packets"]), (&31.into(), &31.into()), "{row}");
    assert!(rule["rule"].as_str().expect("a rule").contains("--length 300:400 -j DROP"), "{rule}");
    assert_eq!((&rule["certainty"], &rule["hook"]), (&"counted".into(), &"input".into()), "{rule}");
}

/// Rules that differ in the length, or in the port.
const LENGTHS: &str = "table inet filter {
    chain input {
        type filter hook input priority 0; policy accept;
        tcp dport 6505 meta length > 66000 counter drop
        tcp dport 6505 meta length > 1500 counter drop comment \"no jumbo frames\"
        tcp dport 6506 meta length > 1500 counter drop
    }
}";

/// What its sender leaves to the card to cut is longer than any frame, and counts once.
fn uncut() {
    const PORT: u16 = 6505;
    if lacks(&[&needs::NFT]) {
        return;
    }
    let wire = Wire::new();
    let _name = wire.b.name("dropwatch-uncut");
    load(&wire.b, LENGTHS);
    let right = handle(&wire.b, "no jumbo");
    let listener = wire.b.run(|| TcpListener::bind((B, PORT))).expect("a listener");
    // Without the reset that ends it.
    let watch = explaining_those(",dport", &["-f", "greater 1501"]);
    let mut sender = wire.a.run(|| TcpStream::connect((B, PORT))).expect("a connection");
    sender.write_all(&[0; 14_000]).expect("room for it");
    let counted = || {
        let rules = wire.b.words("nft -a list ruleset");
        let line = rules.lines().find(|line| line.contains("no jumbo")).expect("the rule");
        let mut words = line.split(' ').skip_while(|word| *word != "packets").skip(1);
        words.next().and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    eventually("the rule counts", || counted() > 0);
    // Ends it with a reset: nothing is sent again.
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&sender, sockopt::Linger, &at_once).expect("an end without delay");
    drop(sender);
    let reports = watch.stop();
    drop(listener);
    let [(row, rule)] = rules_of(&reports, &wire.b)[..] else { panic!("one row: {reports:?}") };
    assert_eq!((&row["dport"], &row["count"]), (&PORT.into(), &counted().into()), "{row}");
    assert_eq!((&rule["handle"], &rule["packets"]), (&right.into(), &row["count"]), "{rule}");
    assert_eq!((&rule["candidates"], &rule["comment"]), (&1.into(), &"no jumbo frames".into()), "{rule}");
}

/// A few packets that a rule drops, while many find no socket in another namespace, where a rule looks the same. To look at
/// the rules takes longer than from one report to the next, and nothing is missing for that.
fn beside_a_flood() {
    const FLOOD: usize = 20_000;
    const FEW: u64 = 3;
    if lacks(&[&needs::NFT]) {
        return;
    }
    let (wire, other) = (Wire::new(), Net::quiet());
    let _names = [wire.b.name("dropwatch-few"), other.name("dropwatch-flooded")];
    let rules = DEEP.replace("REST", &other_rules());
    load(&other, &rules.replace("ticket 4711", "ticket 42"));
    load(&wire.b, &rules);
    let right = handle(&wire.b, "oversize");
    let filter = format!("netns {} or netns {}", wire.b.inum(), other.inum());
    let arguments = ["--explain", "--no-counters", "-b", "location,reason,netns", "-f", &filter];
    let table = Watch::start(&[&["-i", "1h", "-o", "table"], &arguments[..]].concat());
    let stream = Stream::start(&[&["-i", "20ms"], &arguments[..]].concat());
    let packet = datagram(PORT, 328);
    let flooded = thread::scope(|scope| {
        let flood = scope.spawn(|| other.flood(FLOOD));
        for _ in 0..FEW {
            wire.deliver_copies(packet.ethertype(), &packet.bytes(), 1);
        }
        flood.join().expect("a flood")
    });
    table.signal(Signal::SIGINT);
    let mut all = stream.catch_up();
    let last = stream.stop();
    all.extend(last.reports);
    let reports = Reports { reports: all, stderr: last.stderr };
    let of = |net: &Net| {
        let inum = net.inum();
        reports.rows().filter(move |row| row["netns"]["inum"] == inum)
    };
    let count = |row: &Value| row["count"].as_u64().expect("a count");
    // A busy machine loses some before they are looked at for a socket.
    let is_refused = |row: &&Value| row["location"]["symbol"] == udp_receiver();
    let few: u64 = of(&wire.b).map(count).sum();
    let refused: u64 = of(&other).filter(is_refused).map(count).sum();
    assert_eq!((few, refused), (FEW, flooded), "{}", reports.stderr);
    for row in of(&wire.b) {
        let found = row["evidence"].as_array().into_iter().flatten();
        let rules: Vec<_> = found.filter(|found| found["kind"] == "netfilter").collect();
        let [rule] = rules[..] else { panic!("one rule: {row}") };
        assert_eq!((&rule["handle"], &rule["candidates"]), (&right.into(), &1.into()), "{rule}");
        assert_eq!(rule["comment"], "oversize media, ticket 4711");
    }
    let text = table.wait().stdout;
    assert!(text.contains("ticket 4711") && !text.contains("ticket 42"), "{text}");
    if kernel::has_reason("NO_SOCKET") {
        // What the queue of a busy CPU refused is a loss of the flood, and there may be more of those.
        let row = |of: &str| {
            text.lines().position(|line| line.contains(of)).unwrap_or_else(|| panic!("{of}: {text}"))
        };
        assert!(row("NETFILTER_DROP") < row("NO_SOCKET"), "{text}");
    }
}

/// Sends these datagrams, all the while.
fn sending<T: Send>(wire: &Wire, packets: &[Packet], work: impl FnOnce() -> T + Send) -> T {
    /// Ends it also where `work` panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = End(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for packet in packets {
                    wire.send(packet, 1);
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        work()
    })
}

fn untraced() {
    let arguments = ["-o", "table", "--explain", "--nft", "-n", "1"];
    let ended = Command::new(support::dropwatch()).args(arguments).output().expect("it runs");
    let message = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(3), "{message}");
    assert!(message.contains("--nft requires Linux 5.12"), "{message}");
}

/// Of two rules each, which differ in what no header tells, the second one drops.
const TRACED: &str = "
    table ip four { chain input { type filter hook input priority 0;
        udp dport 6500 meta mark 7 drop
        udp dport 6500 drop
    }; }
    table ip6 six { chain input { type filter hook input priority 0;
        udp dport 6501 meta mark 7 drop
        udp dport 6501 drop
    }; }
    table bridge across { chain pre { type filter hook prerouting priority 0;
        udp dport 6502 meta mark 7 drop
        udp dport 6502 drop
    }; }
    table netdev early { chain ingress { type filter hook ingress device \"vb\" priority 0;
        udp dport 6503 meta mark 7 drop
        udp dport 6503 drop
        udp dport 6504 meta mark 7 drop
        udp dport 6504 drop
    }; }";
/// The families of these rules, and the hooks, by ports.
const TRACED_PORTS: [(u16, &str, &str); 5] = [
    (6500, "ip", "input"),
    (6501, "ip6", "input"),
    (6502, "bridge", "prerouting"),
    (6503, "netdev", "ingress"),
    (6504, "netdev", "ingress"),
];

fn traced() {
    if lacks(&[&needs::NFT, &needs::IPV6, &needs::BRIDGE]) {
        return;
    }
    let wire = Wire::with_ipv6();
    let _name = wire.b.name("dropwatch-traced");
    wire.b.ip("addr flush dev vb");
    wire.b.ip("link add br0 type bridge");
    wire.b.ip("link set vb master br0");
    wire.b.ip("link set br0 up address 02:00:00:00:00:b0");
    wire.b.ip("addr add 10.99.0.2/24 dev br0");
    wire.b.ip("addr add fd00:99::2/64 dev br0 nodad");
    let wire = Wire { to: wire.b.hardware_address("br0"), ..wire };
    load(&wire.b, TRACED);
    let before = ruleset(&wire.b);
    let packets = TRACED_PORTS.map(|(port, family, _)| match family {
        "ip6" => Packet::udp(IPV6_A, IPV6_B, port),
        _ => datagram(port, 328),
    });
    let mut rules = BTreeMap::new();
    sending(&wire, &packets, || {
        let keys = "location,reason,netns,dport";
        let stream = Stream::start(&["-i", "300ms", "--explain", "--nft", "--no-counters", "-b", keys]);
        // A loaded machine that emulates another takes its time for each trace.
        for _ in 0..if is_guest() { 400 } else { 100 } {
            let report = stream.next_report();
            let rows = report["rows"].as_array().expect("rows").clone();
            for row in rows.into_iter().filter(|row| row["netns"]["inum"] == wire.b.inum()) {
                let found = row["evidence"].as_array().into_iter().flatten();
                let traced: Vec<_> = found.filter(|rule| rule["source"] == "nft monitor trace").collect();
                if let [rule, others @ ..] = &traced[..] {
                    assert!(others.is_empty(), "one flow, one rule: {row}");
                    rules.insert(row["dport"].as_u64().expect("a port"), (*rule).clone());
                }
            }
            if rules.len() == TRACED_PORTS.len() {
                break;
            }
        }
        stream.stop();
    });
    for (port, family, hook) in TRACED_PORTS {
        let rule = rules.get(&port.into()).unwrap_or_else(|| panic!("{port}: {rules:?}"));
        let text = format!("udp dport {port} drop");
        assert_eq!((&rule["family"], &rule["hook"]), (&family.into(), &hook.into()), "{rule}");
        assert_eq!(rule["certainty"], "certain", "{rule}");
        assert_eq!(rule["handle"], handle(&wire.b, &text), "{rule}");
        // Under emulation, nft takes more of the processor for five texts than it may.
        if !is_guest() || !rule["rule"].is_null() {
            assert_eq!(rule["rule"], text.as_str(), "{rule}");
        }
    }
    assert_eq!(ruleset(&wire.b), before);
}

/// Of its flow, the rules that are there drop one packet and no more: nothing is traced, and tracing goes on. It is killed
/// as soon as there is a table that traces, and at moments before and after that.
fn killed() {
    if lacks(&[&needs::NFT]) {
        return;
    }
    let wire = Wire::new();
    let _name = wire.b.name("dropwatch-killed");
    wire.b.words("nft add table ip t");
    wire.b.command("nft", &["add chain ip t c { type filter hook input priority 0 ; }"]);
    wire.b.command("nft", &["add rule ip t c udp dport 6500 limit rate 1/day burst 3 packets drop"]);
    let before = ruleset(&wire.b);
    let packet = datagram(PORT, 328);
    let arguments = ["-i", "50ms", "--explain", "--nft", "-o", "json", "-b", "location,reason,netns"];
    for after in [None, Some(0), Some(40)] {
        let watch = Watch::start(&arguments);
        wire.send(&packet, 1);
        if let Some(after) = after {
            eventually("a table that traces", || ruleset(&wire.b).contains("nftrace"));
            thread::sleep(Duration::from_millis(after));
        }
        watch.signal(Signal::SIGKILL);
        watch.wait();
        eventually("the ruleset is as before", || ruleset(&wire.b) == before);
    }
}
