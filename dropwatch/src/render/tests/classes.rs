//! What is lost comes first, and what is harmless is one line.

use super::*;
use crate::model::class::Class;

/// A busy host: much that is harmless, some connections refused, a little lost.
fn busy() -> Report {
    let drops = |count, function, reason: &str| {
        row(count, [at(function, 0x2d5, Some(0x500), "kernel"), core(7, Some(reason))])
    };
    let rows = vec![
        drops(400, "ping_rcv", "NO_SOCKET"),
        drops(139, "tcp_v4_rcv", "NO_SOCKET"),
        drops(137, "sk_stream_kill_queues", "QUEUE_PURGE"),
        drops(52, "unix_release_sock", "SOCKET_CLOSE"),
        drops(9, "__udp_queue_rcv_one_skb", "SOCKET_RCVBUFF"),
        drops(3, "__udp_enqueue_schedule_skb", "SOCKET_RCVBUFF"),
        drops(2, "no_such_function", "NOT_SPECIFIED"),
        drops(1, "tcp_rcv_established", "TCP_OLD_DATA"),
    ];
    let drops = rows.iter().map(|row| row.count).sum();
    classified(Report { rows, drops, total: drops, ..report() })
}

fn columns(columns: u16) -> Style {
    Style { width: Width::Columns(columns), ..Style::default() }
}

#[test]
fn what_is_lost_is_shown_first_and_what_is_harmless_in_a_line() {
    for width in [40, 80, 100, 160] {
        let table = shown(&busy().arranged(USUAL), Format::Table, columns(width));
        insta::assert_snapshot!(format!("busy_{width}"), table);
    }
    insta::assert_snapshot!("busy", shown(&busy().arranged(USUAL), Format::Table, Style::default()));
    let coloured = Style { colour: true, ..columns(80) };
    insta::assert_snapshot!("busy_colour", shown(&busy().arranged(USUAL), Format::Table, coloured));
}

#[test]
fn all_shows_what_is_harmless_too_at_the_end() {
    let all = View { fold: false, ..USUAL };
    for width in [80, 160] {
        let table = shown(&busy().arranged(all), Format::Table, columns(width));
        insta::assert_snapshot!(format!("all_{width}"), table);
    }
}

#[test]
fn one_list_by_count_says_the_class_in_a_column() {
    for width in [40, 80, 160] {
        let table = shown(&busy().arranged(View::default()), Format::Table, columns(width));
        insta::assert_snapshot!(format!("by_count_{width}"), table);
    }
}

#[test]
fn what_is_cut_is_summed_and_is_what_matters_least() {
    let two = View { top: Some(2), ..USUAL };
    insta::assert_snapshot!("top", shown(&busy().arranged(two), Format::Table, columns(80)));
    let ten = View { min: 10, ..USUAL };
    insta::assert_snapshot!("min", shown(&busy().arranged(ten), Format::Table, columns(80)));
}

/// Lost by an interface of a namespace with a name, and by one of which nothing is known.
fn lost_by_interfaces() -> Report {
    let namespace = Namespace { inum: 4_026_532_300, cookie: 1 };
    let netns = Some(Netns { namespace, name: Some("my blue".into()), names: Vec::new() });
    let iface = |name: &str| {
        Value::Iface(Some(Iface {
            index: 2,
            name: Some(name.into()),
            altnames: Vec::new(),
            netns: netns.clone(),
        }))
    };
    let drops = |count, function, reason: &str, iface| {
        row(count, [at(function, 0x2d5, Some(0x500), "kernel"), core(7, Some(reason)), iface])
    };
    let rows = vec![
        drops(40, "neigh_timer_handler", "NEIGH_FAILED", Value::Iface(None)),
        drops(30, "ip_rcv_finish_core", "IP_RPFILTER", iface("eth0.5")),
        drops(20, "ip_rcv_finish_core", "IP_RPFILTER", iface("eth1")),
        drops(10, "no_such_function", "NO_SUCH_REASON", iface("eth1")),
        drops(9, "__udp_queue_rcv_one_skb", "SOCKET_RCVBUFF", iface("eth1")),
    ];
    let by = vec![Key::Location, Key::Reason, Key::Iface];
    classified(Report { by, rows, drops: 109, total: 109, ..report() })
}

#[test]
fn what_is_lost_is_explained_with_what_the_rows_say() {
    fn enter(netns: &Netns) -> Option<Vec<String>> {
        let name = netns.name.as_ref()?.text().into_owned();
        Some(["ip", "netns", "exec"].map(str::to_owned).into_iter().chain([name]).collect())
    }
    for width in [80, 160] {
        let style = Style { explain: Some(enter), ..columns(width) };
        let table = shown(&lost_by_interfaces().arranged(USUAL), Format::Table, style);
        insta::assert_snapshot!(format!("explained_{width}"), table);
        let table = shown(&busy().arranged(USUAL), Format::Table, style);
        insta::assert_snapshot!(format!("busy_explained_{width}"), table);
    }
    let style = Style { explain: Some(enter), colour: true, ..columns(80) };
    let mut nothing = busy();
    nothing.rows.retain(|row| row.class != Some(Class::Lost));
    let table = shown(&nothing.arranged(USUAL), Format::Table, style);
    assert!(!table.contains("lost:"), "{table}");
}

#[test]
fn a_run_repeats_no_explanation_but_at_its_end() {
    let found = |text: &str, time| {
        let source = "ip neighbour get 10.0.0.2 dev eth0";
        let found = Evidence::new(evidence::Kind::Neighbour, evidence::Certainty::Certain, text, source);
        Some(vec![Evidence { time, ..found }])
    };
    let mut first = lost_by_interfaces();
    first.rows[0].evidence = found("10.0.0.2 on eth0 is FAILED now", first.time);
    let mut new_row = tables::later(first.clone(), 10);
    new_row.drops -= new_row.rows.remove(1).count;
    new_row = classified(new_row);
    let mut changed = tables::later(first.clone(), 15);
    changed.rows[0].evidence = found("10.0.0.2 on eth0 is INCOMPLETE now", changed.time);
    let reports = [first.clone(), tables::later(first, 5), new_row, changed];
    let (mut out, style) = (Vec::new(), Style { explain: Some(|_| None), ..columns(80) });
    let mut table = renderer(Format::Table, style);
    for report in reports {
        table.report(&report.arranged(USUAL), &mut out).expect("a vector takes everything");
    }
    table.end(&mut out).expect("a vector takes everything");
    insta::assert_snapshot!("explained_once", String::from_utf8(out).expect("text"));
}

#[test]
fn what_looks_harmless_is_explained_if_evidence_says_that_it_is_lost() {
    let mut other_host =
        row(7, [at("ip_rcv_core", 0x2d5, Some(0x500), "kernel"), core(7, Some("OTHERHOST"))]);
    let text = "the neighbour entry of its sender is stale";
    let found =
        Evidence::new(evidence::Kind::Link, evidence::Certainty::Certain, text, "ip -d link show dev eth0");
    let style = Style { explain: Some(|_| None), ..Style::default() };
    let mut table = |evidence: Vec<Evidence>| {
        other_host.evidence = Some(evidence);
        let rows = vec![other_host.clone()];
        let report = Report { by: vec![Key::Location, Key::Reason], rows, drops: 7, ..report() };
        shown(&classified(report).arranged(USUAL), Format::Table, style)
    };
    let heading = "7 look harmless, and may be lost: A frame for another host's hardware address";
    assert!(!table(vec![]).contains(heading));
    let told = table(vec![found]);
    let lines = [heading, &format!("  -> {text}"), "    ip neighbour show"];
    assert!(lines.iter().all(|line| told.contains(line)), "{told}");
}

#[test]
fn bursts_have_a_column() {
    let mut report = busy();
    report.peak = Some(40_100.0);
    for (row, peak) in report.rows.iter_mut().zip([Some(40_000.0), Some(30.5), None, Some(0.01)]) {
        row.peak = peak;
    }
    let all = View { fold: false, ..USUAL };
    for width in [80, 160] {
        let table = shown(&report.clone().arranged(all), Format::Table, columns(width));
        insta::assert_snapshot!(format!("peaks_{width}"), table);
    }
    for (name, format) in [("text", Format::Text), ("json", Format::Json)] {
        insta::assert_snapshot!(format!("peaks_{name}"), shown(&report, format, Style::default()));
    }
    let mut later = report.clone();
    later.time += Duration::from_secs(5);
    later.rows[0].peak = Some(80_000.0);
    let (mut out, mut table) = (Vec::new(), renderer(Format::Table, columns(160)));
    for report in [report, later] {
        table.report(&report.arranged(all), &mut Vec::new()).expect("a vector takes everything");
    }
    table.end(&mut out).expect("a vector takes everything");
    insta::assert_snapshot!("peaks_end", String::from_utf8(out).expect("text"));
}

#[test]
fn a_run_ends_in_the_same_order() {
    let end = |view: View| {
        let (mut out, mut table) = (Vec::new(), renderer(Format::Table, columns(160)));
        let mut later = busy();
        later.time += Duration::from_secs(5);
        for report in [busy(), later] {
            table.report(&report.arranged(view), &mut Vec::new()).expect("a vector takes everything");
        }
        table.end(&mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    };
    insta::assert_snapshot!("busy_end", end(USUAL));
    insta::assert_snapshot!("by_count_end", end(View::default()));
    insta::assert_snapshot!("top_end", end(View { top: Some(2), ..USUAL }));
}

proptest! {
    /// Whatever is shown, in whatever order, the figures of its lines add up.
    #[test]
    fn the_lines_of_a_table_add_up(
        counts in proptest::collection::vec(1_u64..1000, 8),
        top in proptest::option::of(1_usize..9),
        min in 0_u64..1000,
        by_class: bool,
        fold: bool,
        width in 90_u16..200,
    ) {
        let mut report = busy();
        report.rows.iter_mut().zip(&counts).for_each(|(row, count)| row.count = *count);
        report.drops = counts.iter().sum();
        let order = if by_class { Order::Class } else { Order::Count };
        let report = classified(report).arranged(View { top, min, order, fold });
        let table = shown(&report, Format::Table, columns(width));
        let figure = |line: &str| line.strip_prefix(' ')?.split_whitespace().next()?.parse::<u64>().ok();
        let figures: Vec<_> = table.lines().filter(|line| !line.starts_with("        ")).filter_map(figure).collect();
        let (total, lines) = figures.split_last().expect("a total");
        prop_assert_eq!(lines.iter().sum::<u64>(), *total, "{}", table);
        prop_assert_eq!(*total, counts.iter().sum::<u64>());
        let named = Class::ALL.map(|class| format!("{} {class}", report.split.unwrap_or_default().of(class)));
        prop_assert!(named.iter().all(|words| table.contains(words.as_str())), "{}", table);
    }
}
