//! Lines of source, from a file that says it is the running kernel: it has its build id, and one function that is all
//! one line.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use dropwatch_testing::skip;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Test,
    support::{self, is_guest, net::Net, udp_receiver, watch::Watch},
};

/// All of them, except in guests, which have no compiler.
pub fn tests() -> Vec<Test> {
    let all: [Test; 4] = [
        ("lines::are_in_the_first_report", first_report),
        ("lines::are_in_text", text),
        ("lines::are_in_a_trace", trace),
        ("lines::a_directory_without_lines_is_a_warning", without),
    ];
    if is_guest() { Vec::new() } else { all.into() }
}

/// How far the running kernel is from where the file has it.
const SLIDE: u64 = 0x0020_0000;

/// The build id of the running kernel, in hexadecimal digits.
fn build_id() -> Option<String> {
    let mut notes = &fs::read("/sys/kernel/notes").ok()?[..];
    loop {
        let number = |at: usize| Some(u32::from_le_bytes(*notes.get(at..)?.first_chunk()?) as usize);
        let (name, size, kind) = (number(0)?, number(4)?, number(8)?);
        let contents = 12 + name.next_multiple_of(4);
        if kind == 3 && notes.get(12..16)? == b"GNU\0" {
            let bytes = notes.get(contents..contents + size)?;
            let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            return Some(digits.concat());
        }
        notes = notes.get(contents + size.next_multiple_of(4)..)?;
    }
}

fn address(name: &str) -> u64 {
    let kallsyms = fs::read_to_string("/proc/kallsyms").expect("/proc/kallsyms");
    let line = kallsyms.lines().find(|line| line.split(' ').nth(2) == Some(name)).expect("the symbol");
    u64::from_str_radix(line.split(' ').next().unwrap(), 16).expect("an address")
}

/// A directory with debug information for the function in which datagrams are dropped; none if it cannot be made.
fn debug_dir(build_id: &str) -> Option<TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let receiver = udp_receiver();
    let source = format!(
        "#line 2539 \"net/ipv4/udp.c\"\n\
         __attribute__((section(\".receiver\"))) void {receiver}(void) {{ __asm__ volatile(\".skip 8192\"); }}\n\
         __attribute__((section(\".start\"))) void _stext(void) {{ }}\n\
         #line 900 \"init/main.c\"\n\
         __attribute__((section(\".start\"))) void start_kernel(void) {{ }}\n"
    );
    let script = format!(
        "SECTIONS {{ . = {:#x}; .start : {{ *(.start) }} . = {:#x}; .receiver : {{ *(.receiver) }} }}",
        address("_stext") - SLIDE,
        address(receiver) - SLIDE
    );
    fs::write(path("kernel.c"), source).expect("a file");
    fs::write(path("kernel.lds"), script).expect("a file");
    let compiled = run("gcc", &["-g", "-O1", "-c", "-o", &path("kernel.o"), &path("kernel.c")]);
    let linked = compiled && {
        let id = format!("--build-id=0x{build_id}");
        let (script, object) = (path("kernel.lds"), path("kernel.o"));
        run("ld", &["-static", &id, "-e", "_stext", "-T", &script, "-o", &path("vmlinux"), &object])
    };
    linked.then_some(directory)
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

/// Debug information of the running kernel.
fn running() -> Option<TempDir> {
    debug_dir(&build_id()?)
}

fn arguments<'a>(directory: &'a TempDir, others: &[&'a str]) -> Vec<&'a str> {
    let directory: &Path = directory.path();
    [others, &["--debug-dir", directory.to_str().expect("a name in UTF-8")]].concat()
}

/// One report of seven datagrams without a socket.
fn seven_drops(directory: &TempDir, format: &str) -> (Watch, Net) {
    let net = Net::new();
    let filter = format!("netns {}", net.inum());
    let watch = Watch::start(&arguments(directory, &["-o", format, "-n", "1", "-i", "500ms", "-f", &filter]));
    net.drop_datagrams(7);
    (watch, net)
}

fn first_report() {
    let Some(directory) = running() else { return skip("no gcc, no ld, or a kernel without a build id") };
    let (watch, _net) = seven_drops(&directory, "json");
    let reports = watch.reports();
    assert_eq!(reports.all_at(udp_receiver()), 7);
    let row = reports.rows().find(|row| row["count"] == 7).expect("the row");
    assert_eq!(row["location"]["source"], json!({ "file": "net/ipv4/udp.c", "line": 2539 }));
    assert!(!reports.stderr.contains("debug information"), "no warning: {}", reports.stderr);
}

fn text() {
    let Some(directory) = running() else { return skip("no gcc, no ld, or a kernel without a build id") };
    let (watch, _net) = seven_drops(&directory, "text");
    let ended = watch.wait();
    assert!(ended.stdout.contains("] source net/ipv4/udp.c:2539"), "{ended:?}");
}

fn trace() {
    let Some(directory) = running() else { return skip("no gcc, no ld, or a kernel without a build id") };
    let net = Net::new();
    let filter = format!("netns {}", net.inum());
    for (format, expected) in [
        ("text", "] source net/ipv4/udp.c:2539 iface lo "),
        ("json", "\"source\":{\"file\":\"net/ipv4/udp.c\",\"line\":2539}"),
    ] {
        let traced = arguments(&directory, &["trace", "-o", format, "-c", "3", "-f", &filter]);
        let watch = Watch::start(&traced);
        net.drop_datagrams(3);
        let ended = watch.wait();
        assert_eq!(ended.stdout.matches(expected).count(), 3, "{ended:?}");
    }
}

fn without() {
    let Some(directory) = debug_dir("0123456789abcdef") else { return skip("no gcc or ld") };
    let (watch, _net) = seven_drops(&directory, "json");
    let reports = watch.reports();
    let row = reports.rows().find(|row| row["count"] == 7).expect("the row");
    assert_eq!(row["location"]["source"], Value::Null);
    assert!(reports.stderr.contains("debug information of this very kernel is not installed"), "{reports:?}");

    let output: Output =
        Command::new(support::dropwatch()).args(["--debug-dir", "/nonexistent"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("'--debug-dir': there is no such directory"));
}
