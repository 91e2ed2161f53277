//! What every thread may still do once drops are counted, and that it is enough.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, sys::signal::Signal};

use crate::{
    Test,
    support::{
        self, kernel,
        net::Net,
        watch::{Watch, send},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("privileges::every_thread_keeps_what_is_needed_and_no_more", every_thread),
    ("privileges::a_check_gives_up_its_own_and_not_its_commands", of_a_check),
    ("privileges::what_is_kept_is_said", said),
    ("privileges::symbols_are_not_read_where_no_function_is_named", without_symbols),
    ("privileges::a_file_can_be_removed_where_the_user_may_not_write", foreign_directory),
];

const READ: u64 = 1 << 2;
const KILL: u64 = 1 << 5;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const SYSLOG: u64 = 1 << 34;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
/// What `top` keeps: it opens probes, and looks at what drops packets, as long as it runs.
pub const OF_TOP: u64 = BPF | PERFMON | SYSLOG | SYS_PTRACE | SYS_ADMIN | READ | NET_ADMIN;

/// The lines of a thread's status that say what it may do, in hexadecimal. Nothing if it has ended.
fn rights(status: &Path) -> Option<BTreeMap<String, u64>> {
    let text = match fs::read_to_string(status) {
        Ok(text) => text,
        Err(error) if has_ended(&error) => return None,
        Err(error) => panic!("{}: {error}", status.display()),
    };
    let rights = text
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .filter(|(name, _)| name.starts_with("Cap") || *name == "NoNewPrivs")
        .map(|(name, value)| (name.to_owned(), u64::from_str_radix(value, 16).expect("a mask")))
        .collect();
    Some(rights)
}

/// Whether a thread that was listed ended before its file was opened or read.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// Whether this kernel requires the privilege for every use of a map (before Linux 5.19).
fn asks_always() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(5), Some(19))
}

/// Waits until the main thread keeps `kept` and no thread more.
pub fn assert_kept(pid: u32, kept: u64) {
    // Programs are run to list rules, where rules are looked at; those of iptables-legacy require more.
    let by_programs = if kept & NET_ADMIN == 0 { 0 } else { NET_ADMIN | NET_RAW };
    let optional = if asks_always() { BPF } else { 0 } | by_programs;
    let start = Instant::now();
    loop {
        let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
            .expect("threads")
            .map(|entry| entry.expect("a thread").path())
            .filter_map(|thread| Some((thread.ends_with(pid.to_string()), rights(&thread.join("status"))?)))
            .collect();
        let holds = |(is_main, rights): &(bool, BTreeMap<String, u64>)| {
            let effective = rights["CapEff"];
            let is_enough = !is_main || effective & kept == kept;
            is_enough
                && effective & !(kept | optional) == 0
                && rights["CapPrm"] == effective
                && [rights["CapInh"], rights["CapAmb"], rights["CapBnd"] & !by_programs] == [0; 3]
                && rights["NoNewPrivs"] == 1
        };
        if threads.len() >= 3 && threads.iter().all(holds) {
            return;
        }
        assert!(start.elapsed() < support::PATIENCE, "{kept:#x}: {threads:x?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn every_thread() {
    let closed = foreign_directory_of_mode(0o700);
    let cases = [
        (&["-i", "1h"][..], SYSLOG | SYS_PTRACE | SYS_ADMIN | READ),
        (&["-i", "1h", "--no-counters"], SYSLOG),
        (&["-i", "1h", "--explain", "-o", "json"], SYSLOG | SYS_PTRACE | SYS_ADMIN | READ | NET_ADMIN),
        (&["-b", "function", "-i", "100ms"], SYSLOG),
        (&["-b", "reason,cpu", "-i", "100ms"], BPF),
        (&["-b", "socket,process,container", "-i", "100ms"], BPF),
        (&["-b", "netns,location", "-f", "location kfree_skb or port 53"], BPF | SYSLOG | SYS_PTRACE),
        (
            &["-b", "function", "-i", "100ms", "--debug-dir", closed.path().to_str().expect("text")],
            SYSLOG | READ,
        ),
        (&["-f", "netns self or iface lo"], BPF | SYSLOG),
        (&["trace"], SYSLOG | SYS_PTRACE),
        (&["trace", "-f", "location kfree_skb or port 53"], SYSLOG | SYS_PTRACE),
    ];
    for (arguments, kept) in cases {
        let watch = Watch::start(arguments);
        assert_kept(watch.id(), kept);
        watch.signal(Signal::SIGINT);
        let ended = watch.wait();
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
    }
}

fn of_a_check() {
    let file = std::env::temp_dir().join(format!("dropwatch-rights-{}", std::process::id()));
    let script = "cat /proc/self/status > $0.new; mv $0.new $0; exec sleep 100";
    let child = Command::new(support::dropwatch())
        .args(["check", "--max", "dport=53:1000000", "--", "sh", "-c", script])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("dropwatch starts");
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < support::PATIENCE, "the command has not started");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rights(&file), rights(Path::new("/proc/self/status")));
    let _ = fs::remove_file(file);
    assert_kept(child.id(), BPF | SYSLOG | SYS_PTRACE | KILL | SYS_ADMIN | READ | NET_ADMIN);
    send(&child, Signal::SIGTERM);
    assert_eq!(child.wait_with_output().expect("dropwatch ends").status.code(), Some(143));
}

fn said() {
    let watch = Watch::start(&["-v", "-b", "netns", "-i", "1h"]);
    watch.signal(Signal::SIGINT);
    let stderr = watch.wait().stderr;
    for words in ["CAP_BPF is kept: ", "CAP_SYS_PTRACE is kept: ", "all other privileges are"] {
        assert!(stderr.contains(words), "{stderr}");
    }
    assert!(!stderr.contains("CAP_SYSLOG is kept"), "{stderr}");
}

/// A reason of a module comes and goes with it, and no symbol has to be read for that.
fn without_symbols() {
    const READ: &str = " functions read in ";
    let start =
        |arguments: &[&str]| Watch::start(&[&["-vv", "--no-counters", "-i", "1h"], arguments].concat());
    let said = |watch: Watch| {
        watch.signal(Signal::SIGINT);
        watch.wait().stderr
    };
    let filter = if kernel::has_reason("NO_SOCKET") { "reason NO_SOCKET" } else { "udp" };
    let watch = start(&["-b", "iface,reason", "-f", filter]);
    assert_kept(watch.id(), BPF | SYS_PTRACE);
    let stderr = said(watch);
    assert!(!stderr.contains(READ), "{stderr}");
    let with_functions = said(start(&["-b", "iface", "-f", "location kfree_skb"]));
    assert!(with_functions.contains(READ), "{with_functions}");
}

/// A directory of another user.
fn foreign_directory_of_mode(mode: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("its mode");
    std::os::unix::fs::chown(directory.path(), Some(65534), Some(65534)).expect("its owner");
    directory
}

/// Root without its capabilities may not write there.
fn foreign_directory() {
    let directory = foreign_directory_of_mode(0o755);
    let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    let net = Net::new();
    let run = |arguments: &[&str]| {
        let output =
            net.run(|| Command::new(support::dropwatch()).args(arguments).output().expect("it runs"));
        assert!(output.status.success(), "{output:?}");
    };
    run(&["check", "--report", &path("report.json"), "--", "true"]);
    run(&["trace", "-w", &path("capture"), "--ready-file", &path("ready"), "-d", "10ms"]);
    let names: std::collections::BTreeSet<_> = fs::read_dir(directory.path())
        .expect("entries")
        .map(|entry| entry.expect("one").file_name())
        .collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["capture", "report.json"]);
}
