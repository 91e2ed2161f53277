//! Every drop is counted, once, where and why it happened.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    Test,
    support::{
        frames::{IPV4, Packet},
        inject::wire::Wire,
        is_guest, kernel,
        net::{Net, flood_all},
        udp_receiver,
        watch::{Reports, Stream, Watch},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("counts::a_closed_udp_port_gives_as_many_drops_as_datagrams", closed_udp_port),
    ("counts::two_reasons_at_one_location_stay_two_rows", two_reasons),
    ("counts::a_thousand_reports_lose_nothing_at_a_boundary", boundaries),
    ("counts::two_instances_at_once_agree", two_instances),
    ("counts::what_does_not_fit_is_in_the_ledger", full_map),
    ("counts::a_burst_is_seen_and_costs_no_count", burst),
    ("counts::a_slow_reader_loses_nothing", slow_reader),
    ("counts::ten_million_drops_from_all_cpus_are_counted_to_the_last_one", ten_million),
];

const NO_SOCKET: &str = "NO_SOCKET";

fn closed_udp_port() {
    let net = Net::new();
    let watch = Watch::start(&["-o", "json"]);
    net.drop_datagrams(123);
    let reports = watch.stop();
    assert_eq!(reports.at(udp_receiver(), NO_SOCKET), 123, "{reports:?}");
    let row = reports.rows().find(|row| row["location"]["symbol"] == udp_receiver()).expect("a row");
    assert_eq!(row["location"]["module"], "kernel");
    let (offset, size) = (row["location"]["offset"].as_u64(), row["location"]["size"].as_u64());
    assert!(offset > Some(0) && offset < size, "inside the function: {row}");
    assert!(reports.stderr.contains("Monitoring for dropped packets"), "{}", reports.stderr);
    assert!(reports.stderr.contains("Stopping dropped packet monitor"), "{}", reports.stderr);
}

fn two_reasons() {
    let wire = Wire::new();
    let watch = Watch::start(&["-o", "json"]);
    let from_loopback = Packet::udp([127, 1, 2, 3], [10, 99, 0, 2], 9).bytes();
    let to_nobody = Packet::udp([10, 99, 0, 1], [0, 0, 0, 0], 9).bytes();
    wire.deliver_copies(IPV4, &from_loopback, 17);
    wire.deliver_copies(IPV4, &to_nobody, 5);
    let reports = watch.stop();
    // Kernels that have no names for these two reasons have one row for both.
    if !kernel::has_reason("IP_LOCALNET") {
        assert_eq!(reports.at("ip_rcv_finish_core", "IP_LOCALNET"), 22, "{reports:?}");
        return;
    }
    assert_eq!(reports.with_reason("IP_LOCALNET"), 17, "{reports:?}");
    assert_eq!(reports.with_reason("IP_INVALID_DEST"), 5, "{reports:?}");
    let place =
        |reason| reports.rows().find(|row| row["reason"]["name"] == reason).map(|row| &row["location"]);
    assert_eq!(place("IP_LOCALNET"), place("IP_INVALID_DEST"), "{reports:?}");
}

fn boundaries() {
    // An emulated machine is too slow for a report every 10 ms, and says so in the reports that cover others.
    let enough = if is_guest() { 100 } else { 1000 };
    let net = Net::new();
    let stream = Stream::start(&["-i", "10ms"]);
    let start = Instant::now();
    let (mut sent, mut reports) = (0, Vec::new());
    while reports.len() < enough {
        assert!(start.elapsed() < Duration::from_secs(120), "{} reports", reports.len());
        net.drop_datagrams(100);
        sent += 100;
        thread::sleep(Duration::from_millis(10));
        reports.extend(stream.so_far());
    }
    let Reports { reports: last, stderr } = stream.stop();
    reports.extend(last);
    let reports = Reports { reports, stderr };
    assert_eq!(reports.at(udp_receiver(), NO_SOCKET), sent);
    assert_eq!(net.no_ports(), sent, "the kernel's own count");
    assert_consistent(&reports);
}

/// What holds between the figures of any run's reports.
fn assert_consistent(reports: &Reports) {
    let mut total = 0;
    for report in &reports.reports {
        let rows: u64 =
            report["rows"].as_array().expect("rows").iter().filter_map(|row| row["count"].as_u64()).sum();
        let drops = report["drops"].as_u64().expect("drops");
        assert_eq!(drops, rows + report["cut"]["drops"].as_u64().expect("cut"), "{report}");
        total += drops;
        assert_eq!(report["total"].as_u64(), Some(total), "{report}");
    }
}

fn two_instances() {
    let net = Net::new();
    let fast = Watch::start(&["-o", "json", "-i", "20ms"]);
    let slow = Watch::start(&["-o", "json", "-i", "700ms"]);
    // A busy machine loses some on their way, elsewhere; not most.
    let oracle = net.flood(200_000);
    let (fast, slow) = (fast.stop(), slow.stop());
    assert!(oracle > 100_000, "{oracle} datagrams got there");
    assert_eq!(fast.at(udp_receiver(), NO_SOCKET), oracle);
    assert_eq!(slow.at(udp_receiver(), NO_SOCKET), oracle);
}

fn full_map() {
    let wire = Wire::new();
    let all = Watch::start(&["-o", "json"]);
    let one_row = Watch::start(&["-o", "json", "--max-rows", "1"]);
    wire.b.drop_datagrams(10);
    let unknown = 0x88b5;
    wire.deliver_copies(unknown, &[0; 46], 33);
    let one_row = one_row.stop();
    let all = all.stop();
    let seen: u64 = all.reports.iter().filter_map(|report| report["drops"].as_u64()).sum();
    let shown: u64 = one_row.reports.iter().filter_map(|report| report["drops"].as_u64()).sum();
    let lost = one_row.lost("map_full");
    assert!(shown > 0 && lost > 0, "{one_row:?}");
    // The host may have dropped something between the two starts or the two ends: nothing else differs.
    let foreign = seen - 43;
    assert!(
        (43..=43 + foreign).contains(&(shown + lost)),
        "{shown} shown, {lost} lost, {seen} seen: {all:?}"
    );
    let warning =
        if lost == 1 { "1 drop is in no row".into() } else { format!("{lost} drops are in no row") };
    assert!(one_row.stderr.contains(&warning), "{}", one_row.stderr);
}

/// Drops that come at once and then none: the peak is far above the rate, by whatever they are counted.
fn burst() {
    let net = Net::new();
    let here = format!("netns {}", net.inum());
    let start = |by: &str| Watch::start(&["-o", "json", "-i", "1h", "--peak", "10ms", "-b", by, "-f", &here]);
    let watches = ["location,reason", "reason,iface,dport"].map(start);
    let plain = Watch::start(&["-o", "json", "-i", "1h", "--peak", "10ms"]);
    net.drop_datagrams(400);
    // Longer than a slow machine needs for them.
    thread::sleep(Duration::from_millis(if is_guest() { 2000 } else { 500 }));
    net.drop_datagrams(1);
    assert_eq!(plain.stop().at(udp_receiver(), NO_SOCKET), 401);
    for reports in watches.map(Watch::stop) {
        let row = reports.rows().find(|row| row["count"] == 401).unwrap_or_else(|| panic!("{reports:?}"));
        let (rate, peak) = (row["rate"].as_f64().expect("a rate"), row["peak"].as_f64().expect("a peak"));
        assert!(peak > 2.0 * rate, "{rate}/s, {peak}/s: {row}");
        // No more than all of them within one step.
        assert!(peak <= 40_000.0, "{peak}/s");
        assert!(reports.reports[0]["peak"].as_f64() >= Some(peak), "{reports:?}");
        assert_consistent(&reports);
    }
}

fn slow_reader() {
    let net = Net::new();
    let mut watch = Watch::start_unread(&["-o", "json", "-i", "10ms"]);
    // Reports of many rows would fill the pipe sooner; so many intervals do as well.
    for _ in 0..300 {
        net.drop_datagrams(10);
        thread::sleep(Duration::from_millis(10));
    }
    let mut stdout = watch.take_stdout();
    let reader = thread::spawn(move || std::io::read_to_string(&mut stdout).expect("reports are text"));
    thread::sleep(Duration::from_millis(50));
    watch.signal(Signal::SIGINT);
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    let reports = Reports::parse(&reader.join().expect("the reader"), ended.stderr);
    assert_eq!(reports.at(udp_receiver(), NO_SOCKET), 3000);
    assert_consistent(&reports);
}

fn ten_million() {
    const ALL: usize = 10_000_000;
    // Emulated machines are slower by a factor of thirty.
    let all = if is_guest() { ALL / 100 } else { ALL };
    let cpus = thread::available_parallelism().map_or(2, usize::from);
    let nets: Vec<_> = (0..cpus).map(|_| Net::new()).collect();
    let watch = Watch::start(&["-o", "json", "-i", "10ms"]);
    let oracle = flood_all(&nets, all / cpus);
    let reports = watch.stop();
    // A busy machine loses some on their way, elsewhere; not most.
    assert!(oracle > all as u64 / 2, "{oracle} of {all} datagrams got there");
    let lost: u64 =
        ["map_full", "update_failed", "recursion_missed"].map(|word| reports.lost(word)).iter().sum();
    assert_eq!(reports.at(udp_receiver(), NO_SOCKET) + lost, oracle, "{lost} in the ledger");
    assert_consistent(&reports);
}
