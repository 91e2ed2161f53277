//! Names that their owners chose to deceive a reader: each is one word of one line, wherever it is printed.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::sys::{prctl, signal::Signal};

use crate::{
    Test, live,
    support::{self, kernel, net::drop_datagrams_here, pcapng, watch::Watch},
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("hostile::names_are_printed_escaped", printed),
    ("hostile::names_leave_the_documents_of_a_check_whole", documents),
];

/// Set in the environment of the process with a hostile name.
const PROCESS: &str = "DROPWATCH_TEST_HOSTILE";

/// What the interface is called: a quote, a backslash, DEL, a C1 control, a bidirectional override, a letter, a byte
/// that is not UTF-8, and two controls.
const IFACE: &[u8] = b"q\"\\\x7f\xc2\x9b\xe2\x80\xae\xc3\xbc\xff\x01\x1b";
const IFACE_PRINTED: &str = r#"q"\\\x7f\u{9b}\u{202e}ü\xff\x01\x1b"#;
const COMMAND_PRINTED: &str = r"a\x1b]0;hi\x07\x0ab";
const MOUNTED: &str = "n\n\u{202e}\u{1b}[31m2026 ü";
const MOUNTED_PRINTED: &str = r"n\x0a\u{202e}\x1b[31m2026 ü";
/// How many drops are caused.
const DROPS: u64 = 3;

/// Whether this is the process with the hostile name.
pub fn is_the_process() -> bool {
    std::env::var_os(PROCESS).is_some()
}

/// Takes the name, and causes drops for the line that is sent to it.
pub fn be_the_process() {
    prctl::set_name(c"a\x1b]0;hi\x07\nb").expect("any name will do");
    let iface = OsStr::from_bytes(IFACE);
    ip(&["link", "set", "lo", "down"].map(OsStr::new));
    ip(&[OsStr::new("link"), OsStr::new("set"), OsStr::new("lo"), OsStr::new("name"), iface]);
    ip(&[OsStr::new("link"), OsStr::new("set"), iface, OsStr::new("up")]);
    println!("ready");
    let mut lines = std::io::stdin().lines();
    let _ = lines.next();
    drop_datagrams_here(DROPS);
    println!("dropped");
    // Until the other end is closed.
    let _ = lines.next();
}

fn ip(arguments: &[&OsStr]) {
    assert!(Command::new("ip").args(arguments).status().expect("ip").success(), "{arguments:?}");
}

/// A process in namespaces of its own, as any user can start one.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new("unshare")
            .arg("-Urn")
            .arg(std::env::current_exe().expect("this program"))
            .env(PROCESS, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut process = Self { child, stdin, stdout };
        process.await_line("ready\n");
        process
    }

    fn await_line(&mut self, expected: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, expected);
    }

    fn cause_drops(&mut self) {
        self.stdin.write_all(b"\n").expect("it reads");
        self.await_line("dropped\n");
    }

    /// The inode number of its network namespace.
    fn netns(&self) -> String {
        let link = fs::read_link(format!("/proc/{}/ns/net", self.child.id())).expect("a namespace");
        link.to_str().expect("letters").trim_matches(|c: char| !c.is_ascii_digit()).to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing that a terminal obeys, by bytes, as it sees them.
fn assert_safe(output: &str) {
    let bytes = output.as_bytes();
    assert!(bytes.iter().all(|&byte| byte >= b' ' && byte != 0x7f || b"\n\t".contains(&byte)), "{output:?}");
    assert!(!bytes.windows(2).any(|pair| pair[0] == 0xc2 && pair[1] < 0xa0), "{output:?}");
    assert!(!output.contains(['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}']), "{output:?}");
    let is_bidirectional =
        |c: char| ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c);
    assert!(!output.contains(is_bidirectional), "{output:?}");
}

fn printed() {
    let mut process = Process::start();
    let (netns, pid) = (process.netns(), process.child.id());
    let (here, directory) = (format!("netns {netns}"), tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("drops.pcapng");
    let by = |keys: &'static str, format: &'static str| {
        Watch::start(&["-f", &here, "-i", "1h", "-b", keys, "-o", format])
    };
    let text = by("location,iface,netns", "text");
    let table = by("iface,netns,reason", "table");
    let json = by("iface,netns", "json");
    let folded = by("iface,netns,stack", "folded");
    let classic = by("location", "classic");
    let lines = Watch::start(&["trace", "-i", "any", "-w", path.to_str().expect("letters"), &here]);
    let objects = Watch::start(&["trace", "-f", &here, "-o", "json"]);
    process.cause_drops();
    let ends = [text, table, json, folded, classic, lines, objects].map(|watch| {
        watch.signal(Signal::SIGINT);
        let ended = watch.wait();
        assert!(ended.status.success(), "{ended:?}");
        assert_safe(&ended.stdout);
        assert_safe(&ended.stderr);
        ended.stdout
    });
    let [text, table, json, folded, classic, lines, objects] = ends;
    let named = format!("{netns}({COMMAND_PRINTED}[{pid}])");
    let both = format!(" iface {IFACE_PRINTED} netns {named}");
    assert!(text.lines().all(|line| line.ends_with(&both)), "{text}");
    assert_eq!(
        (text.lines().count(), classic.lines().count(), folded.lines().count()),
        (1, 1, 1),
        "{folded}"
    );
    assert!(table.contains(IFACE_PRINTED) && table.contains(&named), "{table}");
    let frames = format!("{IFACE_PRINTED};{};", named.replace(';', r"\x3b"));
    assert!(folded.starts_with(&frames), "{folded}");
    assert_eq!(lines.lines().count(), 3, "one drop is one line: {lines}");
    let packet = "length 29: IP 127.0.0.1.";
    let is_whole = |line: &str| {
        let class = |class| line.contains(&format!("{both} class {class} {packet}"));
        class("refused") || class("lost") && kernel::is_before(5, 17)
    };
    assert!(lines.lines().all(is_whole), "{lines}");
    let report: serde_json::Value = serde_json::from_str(&json).expect("one line of JSON");
    assert_eq!(report["rows"][0]["count"], DROPS);
    assert_eq!(report["rows"][0]["netns"]["name"], format!("a\u{1b}]0;hi\u{7}\nb[{pid}]"));
    let objects: Vec<serde_json::Value> =
        objects.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(objects.len() as u64, DROPS + 1);
    assert_eq!(objects[0]["iface"]["name"], IFACE_PRINTED, "JSON has no bytes");
    let packets = pcapng::read(&path);
    assert_eq!(packets.len() as u64, DROPS);
    for packet in packets {
        assert_eq!(packet.iface, IFACE_PRINTED);
        assert_eq!(packet.description.split(", ").next(), Some(&*format!("netns {named}")));
    }
}

/// A namespace that `ip netns` has mounted, while it is held.
struct Mounted;

impl Mounted {
    fn new() -> Self {
        ip(&["netns", "add", MOUNTED].map(OsStr::new));
        ip(&["-n", MOUNTED, "link", "set", "lo", "up"].map(OsStr::new));
        Self
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        ip(&["netns", "del", MOUNTED].map(OsStr::new));
    }
}

fn documents() {
    let (_mounted, directory) = (Mounted::new(), tempfile::tempdir().expect("a directory"));
    let check = |document: &Path| {
        let rule = format!("netns={MOUNTED}:0");
        let this = std::env::current_exe().expect("this program");
        let mut check = Command::new(support::dropwatch());
        check
            .args(["check", "--max", &rule, "--report"])
            .arg(document)
            .args(["--", "ip", "netns", "exec", MOUNTED]);
        check.arg(this).env(live::check::DROPS, "1");
        let output = check.output().expect("dropwatch runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert_safe(&said);
        let verdict = format!("dropwatch check: FAILED  --max netns={MOUNTED_PRINTED}:0: 1 drop seen");
        assert!(said.lines().any(|line| line.starts_with(&verdict)), "{said}");
        let text = fs::read_to_string(document).expect("a document");
        assert_safe(&text);
        text
    };
    let xml = check(&directory.path().join("report.xml"));
    assert!(xml.contains(&format!("name=\"--max netns={MOUNTED_PRINTED}:0\"")), "{xml}");
    let json: serde_json::Value =
        serde_json::from_str(&check(&directory.path().join("report.json"))).expect("a document");
    assert_eq!(json["rules"][0]["rule"], format!("--max netns={MOUNTED}:0"));
}
