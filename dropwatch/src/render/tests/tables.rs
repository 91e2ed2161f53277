//! Tables on terminals of all widths, and what a run ends with.

use std::sync::atomic::{AtomicU16, Ordering};

use super::*;

/// The reports that are laid out for terminals of all widths.
fn wide_reports() -> [(&'static str, Report); 4] {
    let mut flows = flows();
    for row in &mut flows.rows {
        row.values.push(at("__netif_receive_skb_core.constprop.0", 0x4bc, Some(0xd00), "kernel"));
        row.values[2] = Value::Protocol(Some(0x86dd));
    }
    flows.by.push(Key::Location);
    flows.cut = Cut { rows: 1, drops: 1 };
    let mut lines = report();
    if let Value::Location { source, .. } = &mut lines.rows[0].values[0] {
        *source = Some(SourceLine { file: "net/ipv4/tcp_ipv4.c".into(), line: 2210 });
    }
    [("ordinary", report()), ("flows", flows), ("stacks", stacks()), ("lines", lines)]
}

#[test]
fn a_table_fits_the_terminal_and_cuts_no_word() {
    for (name, report) in wide_reports() {
        let full = rendered(&report, Format::Table, Style::default());
        for width in 1..=220 {
            let style = Style { width: Width::Columns(width), ..Style::default() };
            let table = rendered(&report, Format::Table, style);
            for line in table.lines() {
                let fits = line.chars().count() <= usize::from(width);
                let is_one_word = line.split_whitespace().count() == 1;
                assert!(fits || is_one_word || width < 40, "{name}: {width} columns: {line:?}");
            }
            let mut words = table.split(|c: char| c.is_whitespace() || "()[],".contains(c));
            let is_known = |word: &str| {
                full.contains(word)
                    || full.contains(&word.to_uppercase())
                    || ["in", "every", "row:", "at"].contains(&word)
            };
            assert!(words.all(is_known), "{name}: {width} columns:\n{table}");
            for function in
                ["tcp_v4_rcv", "gre_rcv", "ovs_dp_process_packet", "__netif_receive_skb_core.constprop.0"]
            {
                let shown = |text: &str| text.matches(function).count();
                assert_eq!(shown(&table), shown(&full), "{name}: {width} columns: {function}\n{table}");
            }
            for row in &report.rows {
                assert!(table.contains(&row.count.to_string()), "{name}: {width} columns:\n{table}");
            }
        }
    }
}

#[test]
fn tables_on_narrow_terminals() {
    for (name, report) in wide_reports() {
        for width in [40, 80, 120] {
            let style = Style { width: Width::Columns(width), ..Style::default() };
            insta::assert_snapshot!(format!("{name}_{width}_table"), rendered(&report, Format::Table, style));
        }
    }
}

#[test]
fn a_table_has_the_width_that_the_terminal_has_now() {
    static COLUMNS: AtomicU16 = AtomicU16::new(120);
    let style = Style { width: Width::Of(|| Some(COLUMNS.load(Ordering::Relaxed))), ..Style::default() };
    let mut table = renderer(Format::Table, style);
    let mut widest = || {
        let mut out = Vec::new();
        table.report(&report(), &mut out).expect("a vector takes everything");
        let text = String::from_utf8(out).expect("text");
        text.lines().map(|line| line.chars().count()).max()
    };
    let before = widest();
    COLUMNS.store(60, Ordering::Relaxed);
    assert!(before > Some(60) && widest() <= Some(60));
}

/// A table of several reports, with its end.
fn run(reports: &[Report], style: Style) -> String {
    let (mut out, mut table) = (Vec::new(), renderer(Format::Table, style));
    for report in reports {
        let report = &classified(report.clone()).arranged(USUAL);
        table.report(report, &mut Vec::new()).expect("a vector takes everything");
    }
    table.end(&mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("text")
}

pub fn later(report: Report, seconds: u64) -> Report {
    Report { time: report.time + Duration::from_secs(seconds), ..report }
}

#[test]
fn a_run_ends_with_all_of_it() {
    let heartbeat = later(Report { rows: vec![], drops: 0, ..report() }, 5);
    let mut last = later(report(), 10);
    last.rows.truncate(2);
    last.drops = 1260;
    let reports = [report(), heartbeat, last];
    insta::assert_snapshot!("end_table", run(&reports, Style::default()));
    let narrow = Style { width: Width::Columns(40), ..Style::default() };
    insta::assert_snapshot!("end_40_table", run(&reports, narrow));
    let next_day = [report(), later(report(), 24 * 60 * 60)];
    insta::assert_snapshot!("end_days_table", run(&next_day, Style::default()));
    assert_eq!(run(&reports[..1], Style::default()).lines().count(), 1, "one report has said it all");
    assert_eq!(run(&[], Style::default()).lines().count(), 1);
    let mut json = Vec::new();
    renderer(Format::Json, Style::default()).end(&mut json).expect("a vector takes everything");
    assert!(json.is_empty(), "programs can add");
}

#[test]
fn interfaces_of_one_name_stay_two_rows_to_the_end() {
    let reports = [namesakes(), later(namesakes(), 5)];
    insta::assert_snapshot!("end_namesakes_table", run(&reports, Style::default()));
    let narrow = Style { width: Width::Columns(80), ..Style::default() };
    insta::assert_snapshot!("end_namesakes_80_table", run(&reports, narrow));
}

#[test]
fn a_row_of_which_only_a_bound_is_known_is_explained_too() {
    let lost = |port: u16| {
        let place = at("udp_queue_rcv_one_skb", 1, Some(0x500), "kernel");
        row(10, [place, core(6, Some("SOCKET_RCVBUFF")), Value::Port(Some(port))])
    };
    let by = vec![Key::Location, Key::Reason, Key::Dport];
    let style = Style { explain: Some(|_| None), ..Style::default() };
    let (mut out, mut table) = (Vec::new(), renderer(Format::Table, style));
    for number in 0..10_u16 {
        let rows: Vec<_> = (0..1500).map(|port| lost(number * 1500 + port)).collect();
        let report = Report { by: by.clone(), rows, drops: 15_000, ..report() };
        let report = classified(later(report, number.into()));
        table.report(&report.arranged(USUAL), &mut Vec::new()).expect("a vector takes everything");
    }
    // More than any that has been forgotten.
    let mut late = lost(9);
    late.count = 100_000;
    let report = classified(later(Report { by, rows: vec![late], drops: 100_000, ..report() }, 20));
    table.report(&report.arranged(USUAL), &mut Vec::new()).expect("a vector takes everything");
    table.end(&mut out).expect("a vector takes everything");
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("\n>=100000 lost: UDP receive buffer full"), "{text}");
}

#[test]
fn rows_that_come_and_go_for_months_are_forgotten_and_counted() {
    let (mut out, mut table) = (Vec::new(), renderer(Format::Table, Style::default()));
    for number in 0..10_u16 {
        let steady = row(10, [Value::Port(Some(9))]);
        let ports = (0..3000).map(|port| row(1, [Value::Port(Some(10_000 + number * 3000 + port))]));
        let rows: Vec<_> = [steady].into_iter().chain(ports).collect();
        let report = Report { by: vec![Key::Dport], rows, drops: 3010, ..report() };
        table.report(&later(report, number.into()), &mut Vec::new()).expect("a vector takes everything");
    }
    table.end(&mut out).expect("a vector takes everything");
    insta::assert_snapshot!("end_forgetful_table", String::from_utf8(out).expect("text"));
}
