//! What people and programs read, kept as snapshots: a change of format is a change of a file.

use std::time::{Duration, SystemTime};

use super::{Format, Style, renderer};
use crate::{
    keys::Key,
    reasons::Reason,
    report::{Cut, Iface, Netns, Report, Row, Value},
    snapshot::Ledger,
    source_lines::SourceLine,
    symbols::{Location, Symbol},
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

fn row<const N: usize>(count: u64, values: [Value; N]) -> Row {
    Row { count, total: Some(count * 10), values: values.into() }
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
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_298_405_020),
        elapsed: Duration::from_millis(5001),
        by: vec![Key::Location, Key::Reason],
        drops: 1267,
        total: 12670,
        rows,
        cut: Cut::default(),
        ledger: Ledger { recursion_missed: Some(0), ..Ledger::default() },
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

fn rendered(report: &Report, format: Format, style: Style) -> String {
    let by_location = by_location(report.clone());
    let report = if format == Format::Classic { &by_location } else { report };
    let mut out = Vec::new();
    renderer(format, style).report(report, &mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("text")
}

fn snapshots(name: &str, report: &Report, style: Style) {
    for (format_name, format) in FORMATS {
        insta::assert_snapshot!(format!("{name}_{format_name}"), rendered(report, format, style));
    }
}

#[test]
fn an_ordinary_report() {
    snapshots("ordinary", &report(), Style::default());
}

/// What is known of a flow, and what is not, of a packet that has no addresses.
fn flows() -> Report {
    let iface = |name: Option<&str>| Value::Iface(Some(Iface { index: 2, name: name.map(Into::into) }));
    let netns =
        |name: Option<&str>| Value::Netns(Some(Netns { inum: 4_026_532_300, name: name.map(Into::into) }));
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
    report.ledger = Ledger { map_full: 5, update_failed: 2, stack_failed: 3, recursion_missed: Some(1) };
    insta::assert_snapshot!("losses_json", rendered(&report, Format::Json, Style::default()));
}

#[test]
fn a_table_fits_the_terminal() {
    for width in [20, 40, 60, 80, 200] {
        let style = Style { width: Some(width), ..Style::default() };
        let table = rendered(&report(), Format::Table, style);
        if width >= 60 {
            for line in table.lines() {
                assert!(line.chars().count() <= usize::from(width), "{width} columns: {line:?}");
            }
        }
        assert_eq!(
            table.lines().count(),
            1 + 1 + 4 + 1 + 1,
            "no row is wrapped at {width} columns:\n{table}"
        );
    }
}

#[test]
fn a_narrow_table() {
    let style = Style { width: Some(72), ..Style::default() };
    insta::assert_snapshot!("narrow_table", rendered(&report(), Format::Table, style));
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
