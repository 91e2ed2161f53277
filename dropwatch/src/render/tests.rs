//! What people and programs read, kept as snapshots: a change of format is a change of a file.

mod classes;
mod tables;

use std::time::{Duration, SystemTime};

use dropwatch_common::socket::{SocketKey, SocketSeen, form};
use proptest::{array, prelude::*};

use super::{Format, Style, Width, renderer};
use crate::escape::tests::{assert_safe, hostile};
use crate::knowledge::Meanings;
use crate::model::{
    class::{Class, Destination, Split},
    container::Container,
    counter::{self, Counter, Listener, Part, Qdisc, SlowSocket},
    evidence::{self, Evidence},
    keys::Key,
    location::{Location, SourceLine, Symbol},
    namespace::Namespace,
    reason::Reason,
    report::{Cut, Function, Iface, Netns, Order, Report, Row, Value, View},
    snapshot::Ledger,
    socket::{Ownership, Process, Socket},
};

const FORMATS: [(&str, Format); 4] =
    [("table", Format::Table), ("text", Format::Text), ("json", Format::Json), ("classic", Format::Classic)];

fn at(name: &str, offset: u64, size: Option<u64>, module: &str) -> Value {
    let symbol = Symbol { name: name.into(), offset, size, module: module.into() };
    let location = Location { address: 0xffff_ffff_814a_104a, symbol: Some(symbol) };
    Value::Location { location, source: None }
}

fn core(code: u32, name: Option<&str>) -> Value {
    Value::Reason(Some(Reason { code, subsystem: Some("core".into()), name: name.map(Into::into) }))
}

pub fn row<const N: usize>(count: u64, values: [Value; N]) -> Row {
    Row { total: Some(count * 10), ..Row::counting(count, values.into()) }
}

/// Rows as they come from a kernel with reasons: a module's, one without a size, one without any name.
fn report() -> Report {
    let location = Location { address: 0xffff_ffff_c099_411a, symbol: None };
    let nowhere = Value::Location { location, source: None };
    let foreign =
        Reason { code: 0x2_0005, subsystem: Some("openvswitch".into()), name: Some("OVS_DROP_METER".into()) };
    let rows = vec![
        row(1200, [at("tcp_v4_rcv", 0xaa, Some(0x8d0), "kernel"), core(3, Some("NO_SOCKET"))]),
        row(60, [at("gre_rcv", 0x1e, None, "ip_gre"), core(2, Some("NOT_SPECIFIED"))]),
        row(6, [nowhere, core(177, None)]),
        row(1, [at("ovs_dp_process_packet", 0x10, Some(0x100), "openvswitch"), Value::Reason(Some(foreign))]),
    ];
    Report {
        elapsed: Duration::from_millis(5001),
        drops: 1267,
        total: 12670,
        rows,
        ledger: Ledger { recursion_missed: Some(0), ..Ledger::default() },
        ..Report::empty(
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_298_405_020),
            &[Key::Location, Key::Reason],
        )
    }
}

/// By location alone, as `classic` has it.
fn by_location(mut report: Report) -> Report {
    report.by.truncate(1);
    for row in &mut report.rows {
        row.values.truncate(1);
    }
    report
}

/// The same, with the classes of its rows.
fn classified(mut report: Report) -> Report {
    let mut meanings = Meanings::default();
    let mut split = Split::default();
    for row in &mut report.rows {
        let tells = |is_it: fn(&Key) -> bool| report.by.iter().any(is_it);
        let tells =
            tells(|key| *key == Key::Reason) && tells(|key| matches!(key, Key::Location | Key::Function));
        let class =
            meanings.entry(&row.values).map_or(Class::Lost, |entry| entry.class_of(Destination::Unknown));
        row.class = tells.then_some(class);
        row.class.into_iter().for_each(|class| split.add(class, row.count));
    }
    report.split = (split != Split::default()).then_some(split);
    report
}

/// What a table shows by default.
const USUAL: View = View { top: None, min: 0, order: Order::Class, fold: true };

fn rendered(report: &Report, format: Format, style: Style) -> String {
    let report = classified(report.clone());
    let report = match format {
        Format::Classic => by_location(report),
        Format::Table => report.arranged(USUAL),
        _ => report,
    };
    shown(&report, format, style)
}

fn shown(report: &Report, format: Format, style: Style) -> String {
    let mut out = Vec::new();
    renderer(format, style).report(report, &mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("text")
}

fn snapshots(name: &str, report: &Report, style: Style) {
    for (format_name, format) in FORMATS {
        insta::assert_snapshot!(format!("{name}_{format_name}"), rendered(report, format, style));
    }
}

/// Losses that the kernel counts: in a namespace with a name, and of the whole host.
fn with_counters(mut report: Report) -> Report {
    let namespace = Namespace { inum: 4_026_532_176, cookie: 0 };
    let counter = |name: &str, count, netns, meaning: &str| Counter {
        name: name.into(),
        count,
        netns,
        part: Part::default(),
        meaning: meaning.into(),
        is_loss: true,
    };
    report.counters = vec![
        counter(
            "TcpExtListenDrops",
            225,
            Some(Netns { namespace, name: Some("web".into()), names: Vec::new() }),
            "accept queue full: the server accepts too slowly",
        ),
        counter("SoftnetDropped", 7, None, "a CPU's backlog was full"),
        Counter {
            is_loss: false,
            ..counter("SoftnetSqueezed", 12, None, "not a loss: the CPU ended its turn with packets left")
        },
    ];
    report
}

/// Losses of interfaces and sockets, with a hostile name.
fn with_parts(mut report: Report) -> Report {
    let namespace = Namespace { inum: 4_026_532_176, cookie: 0 };
    let netns = Netns { namespace, name: Some("web".into()), names: Vec::new() };
    let iface = Some(Iface { index: 2, name: Some("eth0".into()), netns: None, altnames: Vec::new() });
    let process = Some(counter::Process { pid: 19_000, comm: "py thon\u{1b}[2J".into() });
    let local = "10.77.0.2:8080".parse().expect("an address");
    let listener = Listener { local, queue: 5, limit: 4, drops: 225, process: process.clone() };
    let unknown =
        Listener { local: "[::]:80".parse().expect("an address"), process: None, ..listener.clone() };
    let qdisc = Some(Qdisc { kind: "pfifo".into(), handle: 0x20_0000, parent: 0x10_0001 });
    let parts = [
        ("TcpExtListenDrops", Part { listeners: vec![listener, unknown], ..Part::default() }),
        ("PacketSocketDrops", Part { sockets: vec![SlowSocket { drops: 96, process }], ..Part::default() }),
        ("rx_missed_errors", Part { iface: iface.clone(), ..Part::default() }),
        ("qdisc_drops", Part { iface, qdisc, ..Part::default() }),
    ];
    let counter = |(name, part): (&str, Part)| Counter {
        name: name.into(),
        count: 7,
        netns: Some(netns.clone()),
        part,
        meaning: "why".into(),
        is_loss: true,
    };
    report.counters = parts.map(counter).into();
    report
}

#[test]
fn counters_name_what_is_at_fault() {
    let report = Report { rows: Vec::new(), drops: 0, ..with_parts(report()) };
    snapshots("counters_at_fault", &report, Style::default());
}

#[test]
fn counters_stand_below_the_rows() {
    snapshots("counters", &with_counters(report()), Style::default());
}

#[test]
fn counters_are_listed_without_rows() {
    let report = Report { rows: Vec::new(), drops: 0, ..with_counters(report()) };
    snapshots("counters_alone", &report, Style::default());
}

#[test]
fn one_is_no_plural() {
    let rows = vec![row(1, [at("tcp_v4_rcv", 0xaa, Some(0x8d0), "kernel"), core(3, Some("NO_SOCKET"))])];
    let report = Report { rows, drops: 2, total: 2, cut: Cut { rows: 1, drops: 1 }, ..report() };
    snapshots("one", &report, Style { host: "router1", ..Style::default() });
}

#[test]
fn an_ordinary_report() {
    snapshots("ordinary", &report(), Style::default());
}

/// What is known of a flow, and what is not, of a packet that has no addresses.
fn flows() -> Report {
    let iface = |name: Option<&str>| {
        Value::Iface(Some(Iface { index: 2, name: name.map(Into::into), altnames: Vec::new(), netns: None }))
    };
    let netns = |name: Option<&str>| {
        Value::Netns(Some(Netns {
            namespace: Namespace { inum: 4_026_532_300, cookie: 1 },
            name: name.map(Into::into),
            names: Vec::new(),
        }))
    };
    let address = |text: &str| Value::Address(Some(text.parse().expect("an address")));
    let rows = vec![
        row(
            900,
            [
                iface(Some("eth0")),
                netns(Some("blue")),
                Value::Protocol(Some(0x800)),
                Value::IpProto(Some(17)),
                address("10.0.0.1"),
                Value::Port(Some(5353)),
                Value::Cpu(3),
            ],
        ),
        Row {
            total: None,
            ..row(
                40,
                [
                    iface(None),
                    netns(None),
                    Value::Protocol(Some(0x86dd)),
                    Value::IpProto(Some(253)),
                    address("2001:db8::1"),
                    Value::Port(None),
                    Value::Cpu(0),
                ],
            )
        },
        row(
            2,
            [
                Value::Iface(None),
                Value::Netns(None),
                Value::Protocol(None),
                Value::IpProto(None),
                Value::Address(None),
                Value::Port(None),
                Value::Cpu(1),
            ],
        ),
    ];
    let by = vec![Key::Iface, Key::Netns, Key::Protocol, Key::IpProto, Key::Saddr, Key::Sport, Key::Cpu];
    Report { by, rows, drops: 942, total: 9420, ..report() }
}

#[test]
fn what_a_packet_says() {
    for (name, format) in FORMATS.into_iter().filter(|(_, format)| *format != Format::Classic) {
        insta::assert_snapshot!(format!("flows_{name}"), rendered(&flows(), format, Style::default()));
    }
}

/// Sockets of two processes, one of the kernel, what is left of one, and none.
fn objects() -> Report {
    let key = SocketKey {
        cookie: 4098,
        inode: 654_757,
        family: 2,
        kind: 2,
        protocol: 17,
        local_port: 5140,
        ..SocketKey::default()
    };
    let seen = SocketSeen {
        number: 1,
        uid: 101,
        receive_used: 15_360,
        receive_size: 16_384,
        state: 7,
        ..SocketSeen::default()
    };
    let socket = |key, seen| Value::Socket(Some(Box::new(Socket { key, seen })));
    let process = |comm: &str, others| {
        Value::Process(Ownership::Process(Process { pid: 812, comm: comm.into(), others }))
    };
    let container =
        |path: &str| Value::Container { container: Some(Container::of(&path.into(), None)), is_known: true };
    let none = || Value::Container { container: None, is_known: true };
    let id = "4f5e6d7c".repeat(8);
    let connected = SocketKey {
        kind: 1,
        protocol: 6,
        local: std::array::from_fn(|index| u8::from(index == 15)),
        remote: std::array::from_fn(|index| u8::from(index == 15)),
        remote_port: 80,
        family: 10,
        cookie: 0,
        ..key
    };
    let left = SocketKey { form: form::TIME_WAIT, ..connected };
    let own = SocketKey { of_kernel: 1, kind: 3, protocol: 6, ..key };
    let rows = vec![
        row(48, [socket(key, seen), process("rsyslogd", 0), container("/system.slice/rsyslog.service")]),
        row(
            9,
            [
                socket(connected, SocketSeen { state: 1, number: 2, ..seen }),
                process("a b", 2),
                container(&format!(
                    "/kubepods.slice/kubepods-pod{}.slice/crio-{id}.scope",
                    "0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9"
                )),
            ],
        ),
        row(3, [socket(own, seen), Value::Process(Ownership::Kernel), none()]),
        row(2, [socket(left, SocketSeen { state: 6, ..seen }), Value::Process(Ownership::Nobody), none()]),
        row(1, [Value::Socket(None), Value::Process(Ownership::Unknown), none()]),
    ];
    Report { by: vec![Key::Socket, Key::Process, Key::Container], rows, drops: 63, total: 630, ..report() }
}

#[test]
fn whose_a_packet_was() {
    for (name, format) in FORMATS.into_iter().filter(|(_, format)| *format != Format::Classic) {
        insta::assert_snapshot!(format!("objects_{name}"), rendered(&objects(), format, Style::default()));
    }
}

/// Two chains of one function, and a drop without one.
fn stacks() -> Report {
    let frame = |name: &str, offset, module: &str| {
        let symbol = Symbol { name: name.into(), offset, size: Some(0x100), module: module.into() };
        Location { address: 0xffff_ffff_8100_0000 + offset, symbol: Some(symbol) }
    };
    let chain = |offset| {
        let unknown = Location { address: 0xffff_ffff_c000_0010, symbol: None };
        let frames = [frame("gre_rcv", 0x1e, "ip_gre"), frame("ip_rcv", offset, "kernel"), unknown];
        Value::Stack(Some(frames.into()))
    };
    let rows = vec![
        row(7, [core(3, Some("NO_SOCKET")), chain(0x10)]),
        row(5, [core(3, Some("NO_SOCKET")), chain(0x20)]),
        row(1, [core(2, Some("NOT_SPECIFIED")), Value::Stack(None)]),
    ];
    let cut = Cut { rows: 2, drops: 2 };
    Report { by: vec![Key::Reason, Key::Stack], rows, cut, drops: 15, total: 150, ..report() }
}

/// Two interfaces of one name, in two namespaces.
fn namesakes() -> Report {
    let iface = |inum, name: Option<&str>| {
        let namespace = Namespace { inum, cookie: inum.into() };
        let netns = Some(Netns { namespace, name: name.map(Into::into), names: Vec::new() });
        Value::Iface(Some(Iface { index: 2, name: Some("eth0".into()), altnames: Vec::new(), netns }))
    };
    let rows = vec![
        row(40, [core(3, Some("NO_SOCKET")), iface(4_026_532_300, Some("blue"))]),
        row(9, [core(3, Some("NO_SOCKET")), iface(4_026_532_301, None)]),
    ];
    Report { by: vec![Key::Reason, Key::Iface], rows, drops: 49, total: 49, ..report() }
}

#[test]
fn interfaces_that_look_the_same_are_shown_with_their_namespaces() {
    for (name, format) in FORMATS.into_iter().filter(|(_, format)| *format != Format::Classic) {
        insta::assert_snapshot!(
            format!("namesakes_{name}"),
            rendered(&namesakes(), format, Style::default())
        );
    }
    let mut other = namesakes();
    other.rows[1].values[0] = core(2, Some("NOT_SPECIFIED"));
    for (name, format) in [("table", Format::Table), ("text", Format::Text)] {
        insta::assert_snapshot!(format!("no_namesakes_{name}"), rendered(&other, format, Style::default()));
    }
}

#[test]
fn call_chains() {
    for (name, format) in FORMATS.into_iter().filter(|(_, format)| *format != Format::Classic) {
        insta::assert_snapshot!(format!("stacks_{name}"), rendered(&stacks(), format, Style::default()));
    }
    insta::assert_snapshot!("stacks_folded", rendered(&stacks(), Format::Folded, Style::default()));
}

#[test]
fn chains_alone() {
    let mut report = stacks();
    report.by.remove(0);
    for row in &mut report.rows {
        row.values.remove(0);
    }
    insta::assert_snapshot!("chains_alone_table", rendered(&report, Format::Table, Style::default()));
    let heartbeat = Report { rows: vec![], drops: 0, cut: Cut::default(), ..report };
    assert_eq!(rendered(&heartbeat, Format::Folded, Style::default()), "", "folded has no heartbeat");
}

#[test]
fn an_interval_without_drops() {
    let report = Report { rows: vec![], drops: 0, ..report() };
    snapshots("heartbeat", &report, Style::default());
}

#[test]
fn rows_that_are_cut_are_summed() {
    let mut report = report();
    report.rows.truncate(1);
    report.cut = Cut { rows: 3, drops: 67 };
    snapshots("cut", &report, Style::default());
}

#[test]
fn everything_can_be_cut() {
    let report = Report { rows: vec![], cut: Cut { rows: 4, drops: 1267 }, ..report() };
    snapshots("all_cut", &report, Style::default());
}

#[test]
fn intervals_under_a_second_have_milliseconds() {
    let style = Style { milliseconds: true, ..Style::default() };
    snapshots("short", &report(), style);
}

#[test]
fn a_kernel_without_reasons() {
    let mut report = report();
    for row in &mut report.rows {
        row.values[1] = Value::Reason(None);
    }
    report.ledger.recursion_missed = None;
    snapshots("no_reasons", &report, Style::default());
}

#[test]
fn losses_are_in_the_ledger() {
    let mut report = report();
    report.ledger = Ledger {
        map_full: 5,
        update_failed: 2,
        stack_failed: 3,
        recursion_missed: Some(1),
        ..Ledger::default()
    };
    insta::assert_snapshot!("losses_json", rendered(&report, Format::Json, Style::default()));
}

#[test]
fn a_table_in_colour() {
    let style = Style { colour: true, ..Style::default() };
    insta::assert_snapshot!("colour_table", rendered(&report(), Format::Table, style));
}

#[test]
fn a_table_with_lines_of_source() {
    let mut report = report();
    if let Value::Location { source, .. } = &mut report.rows[0].values[0] {
        *source = Some(SourceLine { file: "net/ipv4/tcp_ipv4.c".into(), line: 2210 });
    }
    snapshots("source_lines", &report, Style::default());
}

/// A report in which every name is hostile, one row of every kind of value.
fn hostile_report(names: &[Vec<u8>; 6]) -> Report {
    let [symbol, module, iface, netns, reason, file] = names;
    let netns = |inum| Netns {
        namespace: Namespace { inum, cookie: 1 },
        name: Some(netns.clone().into()),
        names: Vec::new(),
    };
    let location = || Location {
        address: 0xffff_ffff_814a_104a,
        symbol: Some(Symbol {
            name: symbol.clone().into(),
            offset: 1,
            size: Some(2),
            module: module.clone().into(),
        }),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let values = [
        Value::Location { location: location(), source: Some(SourceLine { file: file[..].into(), line: 7 }) },
        Value::Function(Some(Function { symbol: symbol.clone().into(), module: module.clone().into() })),
        Value::Reason(Some(Reason { code: 3, subsystem: None, name: Some(text(reason).into()) })),
        Value::Reason(Some(Reason { code: 3, subsystem: Some(text(reason).into()), name: None })),
        Value::Iface(Some(Iface {
            index: 2,
            name: Some(iface.clone().into()),
            altnames: vec![iface.clone().into()],
            netns: Some(netns(4_026_532_300)),
        })),
        Value::Netns(Some(netns(4_026_532_300))),
        Value::Stack(Some(vec![location()])),
    ];
    let by = vec![Key::Location, Key::Function, Key::Reason, Key::Reason, Key::Iface, Key::Netns, Key::Stack];
    let counters = vec![Counter {
        name: "Drops".into(),
        count: 1,
        netns: Some(netns(1)),
        part: Part::default(),
        meaning: "why".into(),
        is_loss: true,
    }];
    Report { by, rows: vec![row(6, values)], drops: 6, total: 6, counters, ..report() }
}

proptest! {
    #[test]
    fn no_name_reaches_a_terminal_as_it_is(names in array::uniform6(hostile())) {
        let report = hostile_report(&names);
        for (format, lines) in
            [(Format::Text, 2), (Format::Json, 1), (Format::Classic, 1), (Format::Folded, 1), (Format::Table, 9)]
        {
            assert_safe(rendered(&report, format, Style::default()).as_bytes(), lines);
            for width in [1, 40, 80].map(Width::Columns) {
                let text = rendered(&report, format, Style { width, ..Style::default() });
                // A narrow table has as many lines as it needs.
                let lines = if format == Format::Table { text.matches('\n').count() } else { lines };
                assert_safe(text.as_bytes(), lines);
            }
        }
        // Locations have the one blank before their module, as always; the class is the last two words.
        let text = rendered(&report, Format::Text, Style::default());
        let words: Vec<_> = text.lines().map(|line| line.split(' ').count()).collect();
        prop_assert_eq!(words, [7 + 14 + 2, 6], "{}", text);
        let folded = rendered(&report, Format::Folded, Style::default());
        prop_assert_eq!(folded.split(';').count(), 7, "{}", folded);
        let json: serde_json::Value = serde_json::from_str(&rendered(&report, Format::Json, Style::default())).unwrap();
        if let Ok(name) = std::str::from_utf8(&names[2]) {
            prop_assert_eq!(&json["rows"][0]["iface"]["name"], name);
        }
    }
}
