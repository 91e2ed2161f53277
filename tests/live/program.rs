//! The program's manners: schedule, signals, pipes, privileges, names from files.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use dropwatch_common::names;
use nix::sys::signal::Signal;

use crate::{
    Test,
    support::{self, is_guest, net::Net, udp_receiver, watch::Watch},
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("program::an_interval_without_drops_is_reported", heartbeat),
    ("program::reports_end_after_so_many", so_many_reports),
    ("program::a_duration_ends_with_a_partial_interval", duration),
    ("program::any_of_the_signals_ends_it_with_the_last_interval", signals),
    ("program::a_second_interrupt_ends_it_at_once", second_interrupt),
    ("program::a_reader_that_goes_away_ends_it_quietly", closed_pipe),
    ("program::a_full_disk_is_a_failure", full_disk),
    ("program::a_report_that_missed_its_time_says_so", late),
    ("program::a_kill_leaves_nothing_in_the_kernel", killed),
    ("program::it_says_which_privileges_it_lacks", unprivileged),
    ("program::a_saved_kallsyms_gives_the_same_names", saved_kallsyms),
    ("program::an_unslid_system_map_gives_the_same_names", system_map),
    ("program::a_system_map_of_another_kernel_is_refused", foreign_system_map),
    ("program::the_probe_measures_itself", cost),
    ("program::words_on_standard_input_end_it_for_old_scripts", words),
    ("program::classic_prints_what_c_dropwatch_prints", classic),
    ("program::text_prints_a_line_for_each_row", text),
    ("program::a_table_ends_with_the_whole_run", whole_run),
    ("program::symbols_are_read_for_rows_that_name_functions", symbols_if_needed),
];

/// Runs it to its end.
fn run(arguments: &[&str]) -> Output {
    Command::new(support::dropwatch()).args(arguments).output().expect("dropwatch runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("reports are text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are text")
}

fn symbols_if_needed() {
    let net = Net::new();
    let reads_symbols = |by| {
        let watch = Watch::start(&["-v", "-o", "json", "-i", "1h", "-b", by]);
        net.drop_datagrams(3);
        // Longer than reading them takes: a program that does not wait for them might end before.
        thread::sleep(Duration::from_millis(if is_guest() { 4000 } else { 500 }));
        watch.stop().stderr.contains("functions read")
    };
    assert!(reads_symbols("location"));
    assert!(!reads_symbols("iface,reason"));
}

/// However it ends; and what was started is said in the line after the one that scripts wait for.
fn whole_run() {
    let net = Net::new();
    let filter = format!("netns {}", net.inum());
    let watch = Watch::start(&["-o", "table", "-i", "200ms", "-f", &filter]);
    net.drop_datagrams(3);
    thread::sleep(Duration::from_millis(500));
    net.drop_datagrams(4);
    watch.signal(Signal::SIGTERM);
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    let (_, end) = ended.stdout.split_once("--- in all: 7 packets dropped in ").expect("a summary");
    let row = end.lines().find(|line| line.contains(&format!("{}+", udp_receiver()))).expect("a row");
    assert!(row.trim_start().starts_with("7  100.0%  "), "{end}");
    let mut said = ended.stderr.lines();
    assert_eq!(said.next(), Some("Monitoring for dropped packets"));
    assert_eq!(
        said.next(),
        Some(&*format!("every 200 ms, those that match '{filter}'; first report in 200 ms"))
    );
}

fn heartbeat() {
    let output = run(&["-i", "50ms", "-n", "3", "-o", "json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 3);
}

fn so_many_reports() {
    let start = Instant::now();
    let reports = Watch::start(&["-o", "json", "-i", "100ms", "-n", "4"]).reports().reports;
    assert_eq!(reports.len(), 4);
    assert!(start.elapsed() >= Duration::from_millis(400));
}

fn duration() {
    // A busy machine may be later than a short interval is long.
    let unit = 1000;
    let run = |duration: u32| {
        let [interval, duration] = [unit, duration].map(|milliseconds| format!("{milliseconds}ms"));
        Watch::start(&["-o", "json", "-i", &interval, "-d", &duration]).reports().reports
    };
    let reports = run(unit * 5 / 2);
    assert_eq!(reports.len(), 3);
    let last = reports[2]["elapsed_s"].as_f64().expect("a time");
    let whole = f64::from(unit) / 1000.0;
    assert!((0.2 * whole..0.95 * whole).contains(&last), "the last interval is a partial one: {last}");
    assert_eq!(run(unit * 2).len(), 2, "none is empty of time");
}

fn signals() {
    let net = Net::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let watch = Watch::start(&["-o", "json", "-i", "1h"]);
        net.drop_datagrams(5);
        watch.signal(signal);
        let reports = watch.reports();
        assert_eq!(reports.reports.len(), 1, "{signal}");
        assert_eq!(reports.at(udp_receiver(), "NO_SOCKET"), 5, "{signal}");
    }
}

fn second_interrupt() {
    // There is no reader, and the pipe is full long before the queue of intervals is.
    let watch = Watch::start_unread(&["-o", "json", "-i", "10ms"]);
    thread::sleep(Duration::from_secs(4));
    watch.signal(Signal::SIGINT);
    thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    watch.signal(Signal::SIGINT);
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

fn closed_pipe() {
    let mut watch = Watch::start_unread(&["-i", "50ms"]);
    let mut lines = BufReader::new(watch.take_stdout()).lines();
    lines.next().expect("a heartbeat").expect("text");
    drop(lines);
    let ended = watch.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
}

fn full_disk() {
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = Command::new(support::dropwatch())
        .args(["-i", "50ms", "-o", "text"])
        .stdout(full)
        .output()
        .expect("dropwatch runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("cannot write the report: No space left"), "{}", stderr(&output));
}

fn late() {
    let net = Net::new();
    let watch = Watch::start(&["-o", "json", "-i", "100ms"]);
    watch.signal(Signal::SIGSTOP);
    net.drop_datagrams(7);
    thread::sleep(Duration::from_millis(750));
    watch.signal(Signal::SIGCONT);
    thread::sleep(Duration::from_millis(150));
    let reports = watch.stop();
    assert_eq!(reports.at(udp_receiver(), "NO_SOCKET"), 7);
    assert!(reports.stderr.contains("this report is late"), "{}", reports.stderr);
    let longest =
        reports.reports.iter().filter_map(|report| report["elapsed_s"].as_f64()).fold(0.0, f64::max);
    assert!(longest > 0.6, "the report covers what it missed: {longest}");
}

/// The programs of the default key: with and without whom a packet was for.
const OURS: [&str; 2] = [names::COUNT_KIND, names::COUNT_DROP];

/// The probes like ours that are loaded now, by the kernel's numbers for them, which it does not give again soon.
fn probes() -> HashSet<u32> {
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| program.name_as_str().is_some_and(|name| OURS.contains(&name)))
        .map(|program| program.id())
        .collect()
}

fn killed() {
    // Those of runs before may still be on their way out: the kernel takes its time.
    let before = probes();
    let watch = Watch::start(&["-o", "json"]);
    let ours: Vec<_> = probes().difference(&before).copied().collect();
    assert_eq!(ours.len(), 1, "one probe more than {before:?}");
    watch.signal(Signal::SIGKILL);
    assert!(!watch.wait().status.success());
    let start = Instant::now();
    while probes().contains(&ours[0]) {
        assert!(start.elapsed() < support::PATIENCE, "the probe outlives the program");
        thread::sleep(Duration::from_millis(10));
    }
}

fn unprivileged() {
    const NOBODY: u32 = 65534;
    let program = copy_for_everybody();
    let output = Command::new(&program).uid(NOBODY).gid(NOBODY).output().expect("dropwatch runs");
    let _ = fs::remove_file(program);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let message = stderr(&output);
    assert!(message.contains("CAP_BPF") && message.contains("CAP_PERFMON"), "{message}");
    assert!(message.contains("sudo"), "{message}");
    assert!(!message.contains("Monitoring"), "{message}");
    assert!(output.stdout.is_empty());
}

/// The program where any user can run it.
fn copy_for_everybody() -> PathBuf {
    let path = std::env::temp_dir().join(format!("dropwatch-unprivileged-{}", std::process::id()));
    fs::copy(support::dropwatch(), &path).expect("a copy of the program");
    path
}

/// Seven drops, named from a file with this text.
fn seven_drops_with(kallsyms: &str) -> u64 {
    let net = Net::new();
    let file = std::env::temp_dir().join(format!("dropwatch-kallsyms-{}", std::process::id()));
    fs::write(&file, kallsyms).expect("a file");
    let watch = Watch::start(&["-o", "json", "--kallsyms", file.to_str().expect("text")]);
    net.drop_datagrams(7);
    let reports = watch.stop();
    fs::remove_file(file).expect("the file is there");
    reports.at(udp_receiver(), "NO_SOCKET")
}

fn saved_kallsyms() {
    assert_eq!(seven_drops_with(&fs::read_to_string("/proc/kallsyms").expect("kallsyms")), 7);
}

/// A line of a symbol table.
fn line(address: u64, rest: &str) -> String {
    format!("{address:016x} {rest}\n")
}

/// The running kernel's symbols as its `System.map` has them: where they were linked.
fn unslid() -> String {
    const LINKED: u64 = 0xffff_ffff_8100_0000;
    let kallsyms = fs::read_to_string("/proc/kallsyms").expect("kallsyms");
    let symbols = || {
        kallsyms.lines().filter(|line| !line.ends_with(']')).filter_map(|line| {
            let (address, rest) = line.split_once(' ')?;
            Some((u64::from_str_radix(address, 16).ok()?, rest))
        })
    };
    let start = symbols().find(|(_, rest)| *rest == "T _stext").expect("_stext").0;
    symbols()
        .filter(|(address, _)| *address >= start)
        .fold(String::new(), |map, (address, rest)| map + &line(address - start + LINKED, rest))
}

fn system_map() {
    assert_eq!(seven_drops_with(&unslid()), 7);
}

fn foreign_system_map() {
    // A kernel in which every other function is a little longer.
    let mut shift = 0;
    let foreign: String = unslid().lines().filter_map(|line| line.split_once(' ')).fold(
        String::new(),
        |map, (address, rest)| {
            shift += 16;
            map + &line(u64::from_str_radix(address, 16).expect("an address") + shift, rest)
        },
    );
    let file = std::env::temp_dir().join(format!("dropwatch-foreign-{}", std::process::id()));
    fs::write(&file, foreign).expect("a file");
    let output = run(&["-n", "1", "-i", "10ms", "--kallsyms", file.to_str().expect("text")]);
    fs::remove_file(file).expect("the file is there");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        !stderr(&output).contains("Monitoring"),
        "refused before anything is loaded: {}",
        stderr(&output)
    );
}

fn cost() {
    let net = Net::new();
    let watch = Watch::start(&["-o", "json", "-i", "1h", "--cost"]);
    net.drop_datagrams(500);
    let reports = watch.stop();
    let line = reports.stderr.lines().find(|line| line.starts_with("cost: ")).expect("a line on the cost");
    let runs: u64 = line.split(' ').nth(1).and_then(|runs| runs.parse().ok()).expect("a number of runs");
    assert!(runs >= 500 && line.contains(" ns each"), "{line}");
}

/// Runs it with these arguments, and these words on standard input.
fn with_words(arguments: &[&str], words: &[&[u8]]) -> Output {
    let mut child = Command::new("timeout")
        .args(["-s", "INT", "60"])
        .arg(support::dropwatch())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("timeout runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    for word in words {
        stdin.write_all(word).expect("it is read, or there is room");
        thread::sleep(Duration::from_millis(300));
    }
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn words() {
    let start = Instant::now();
    let output = with_words(&["-l", "kas", "-i", "1h", "-o", "json"], &[b"start\nexit\n"]);
    assert!(start.elapsed() < Duration::from_secs(50) && output.status.success(), "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 1);

    // The end of the input ends nothing, and without `-l` no word does.
    let output = with_words(&["-l", "kas", "-i", "200ms", "-n", "4"], &[b"start\n"]);
    assert!(output.status.success() && stdout(&output).lines().count() >= 4, "{output:?}");
    let output = with_words(&["-i", "200ms", "-n", "4"], &[b"exit\n"]);
    assert!(output.status.success() && stdout(&output).lines().count() >= 4, "{output:?}");
}

fn classic() {
    let net = Net::new();
    let watch = Watch::start(&["-o", "classic", "-l", "kas"]);
    net.drop_datagrams(6);
    watch.signal(Signal::SIGINT);
    let ended = watch.wait();
    let line = ended.stdout.lines().find(|line| line.contains(udp_receiver())).expect("a row");
    let rest = line.strip_prefix(&format!("6 drops at {}+", udp_receiver())).expect("count and symbol");
    let (offset, rest) = rest.split_once(" (0x").expect("offset");
    assert!(u64::from_str_radix(offset, 16).is_ok(), "{line}");
    assert!(rest.ends_with(") [software]"), "{line}");
}

fn text() {
    let net = Net::new();
    let watch = Watch::start(&["-o", "text"]);
    net.drop_datagrams(6);
    watch.signal(Signal::SIGINT);
    let ended = watch.wait();
    let line = ended.stdout.lines().find(|line| line.contains(udp_receiver())).expect("a row");
    let (time, rest) = line.split_once(' ').expect("a time");
    assert!(time.ends_with('Z') && time.len() == "2026-11-21T22:00:05Z".len(), "{line}");
    assert!(rest.starts_with(&format!("6 packets dropped at {}+0x", udp_receiver())), "{line}");
    assert!(rest.contains(" [kernel] reason "), "{line}");
}
