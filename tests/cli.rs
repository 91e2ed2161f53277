//! The command line, refused or explained before anything is loaded: needs no privilege.

use std::{
    fmt::Write as _,
    process::{Command, Output, Stdio},
};

/// Runs it where there is no terminal whose width or colour could show.
fn dropwatch(arguments: &[&str]) -> Output {
    // What is taken for a command line without a fault would run until it is stopped.
    Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_dropwatch")])
        .args(arguments)
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .expect("dropwatch runs")
}

/// Faulty command lines, blanks between the words, with the status of each.
const FAULTS: &[(i32, &[&str])] = &[
    (
        2,
        &[
            "-i 9ms",
            "-i 0",
            "-i soon",
            "-i -1",
            "-i 1e300",
            "-i nan",
            "-i lo",
            "-n 0",
            "-n many",
            "-d 0s",
            "-t 0",
            "--sort class -o json",
            "--sort size",
            "--peak 9ms",
            "--peak 5s",
            "-i 20ms --peak 1",
            "--peak often",
            "--peak 10ms -o classic",
            "--explain -o text",
            "--explain -o table -b iface,reason",
            "-b port",
            "-b reason,reason",
            "-o xml",
            "-o folded -b reason",
            "-o classic -b reason",
            "--max-rows 0",
            "--max-rows 4294967295",
            "--ready-file /nowhere/at/all",
            "-l libbfd",
            "-f host",
            "--interface eth0",
            "--filter-netns blue",
            "start",
            "tcp port 80",
            "--no-such-option",
            "no-such-command",
            "watch -i soon",
        ],
    ),
    (
        2,
        &[
            "trace -n 0",
            "trace -c 0",
            "trace --rate 0",
            "trace --snaplen 0",
            "trace --snaplen 262145",
            "trace -d soon",
            "trace -o table",
            "trace -w /nowhere/at/all",
            "trace -f port",
            "trace -w - -o json",
            "trace -s 0",
            "trace tcp dport",
            "trace -f tcp udp)",
            "trace -f tcp) or (udp",
            "trace -f tcp -i lo host",
            "trace -A",
            "trace --explain",
            "trace --nft",
            "trace -nnX",
            "trace -r drops.pcap",
            "trace -ttt",
            "dig -c 0",
            "dig --depth 0",
            "dig --depth 17",
            "dig -d soon",
            "dig tcp dport",
            "dig -f port",
            "dig -o table",
            "watch -A",
        ],
    ),
    (
        2,
        &[
            "explain",
            "explain NO_SOKET",
            "explain NO_SOCKET core:12 0xffffffff814a104a",
            "explain --list xyzzy",
            "explain -o xml NO_SOCKET",
        ],
    ),
    (
        2,
        &[
            "serve -b saddr",
            "serve -b reason,stack",
            "serve -b reason,reason",
            "serve -b port",
            "serve -l here",
            "serve -l unix:",
            "serve --max-series 0",
            "serve --max-series 1000001",
            "serve -i 9ms",
            "serve -f host",
            "serve --web-config /nowhere/at/all",
            "serve --web-config /dev/null",
            "serve --no-such-option",
        ],
    ),
    (
        125,
        &[
            "check",
            "check true",
            "check --max 0 ls -l",
            "check --max dport=9,dport=53:0 -- true",
            "check --max saddr=10.0.0.1,daddr=::1:0 -- true",
            "check --max dport=9:3 --expect dport=9:4 -- true",
            "check --max 0",
            "check --max -- true",
            "check --max many -- true",
            "check --max port=53:0 -- true",
            "check --max dport=many:0 -- true",
            "check --settle soon -- true",
            "check --report /nowhere/at/all.xml -- true",
            "check --report report.pdf -- true",
            "check -f host -- true",
            "check --no-such-option -- true",
            "check --explain -- true",
            "check --nft -- true",
            "-v check -- true",
        ],
    ),
];

#[test]
fn faulty_command_lines_are_refused() {
    let mut said = String::new();
    for (status, lines) in FAULTS {
        for line in *lines {
            let output = dropwatch(&line.split(' ').collect::<Vec<_>>());
            let message = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(*status), "{line}: {message}");
            assert!(output.stdout.is_empty(), "{line}");
            assert!(!message.contains("Monitoring"), "{line}: {message}");
            writeln!(said, "$ dropwatch {line}\n{message}").expect("a text grows");
        }
    }
    insta::assert_snapshot!("faults", said);
}

#[test]
fn help_is_printed() {
    for command in ["", "watch", "trace", "dig", "check", "explain", "serve"] {
        let mut said = String::new();
        for option in ["-h", "--help"] {
            let words: Vec<_> = [command, option].into_iter().filter(|word| !word.is_empty()).collect();
            let output = dropwatch(&words);
            assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
            let help = String::from_utf8(output.stdout).expect("text");
            writeln!(said, "$ dropwatch {}\n{help}", words.join(" ")).expect("a text grows");
        }
        let name = if command.is_empty() { "dropwatch" } else { command };
        insta::assert_snapshot!(format!("help_{name}"), said);
    }
}

/// What a drop means is explained without root, and without a kernel to look at.
#[test]
fn explain_needs_nothing() {
    let output = dropwatch(&["explain", "IP_INHDR@ip_forward"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("TTL") && text.contains("refused"), "{text}");
    // Where no terminal is, there is no colour, and a paragraph is a line.
    assert!(!text.contains('\u{1b}') && text.lines().any(|line| line.len() > 120), "{text}");

    let output = dropwatch(&["explain", "-o", "json", "nft_do_chain+0x3e8/0x610", "[kernel]"]);
    let text = String::from_utf8(output.stdout).expect("text");
    for line in text.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("an object");
        assert_eq!(object["class"], "lost", "{line}");
    }
    assert!(!text.is_empty());
}

/// What is typed reaches the terminal escaped.
#[test]
fn a_name_with_escape_sequences_is_refused_in_print() {
    let output = dropwatch(&["explain", "\u{1b}]0;hi\u{7}"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(message.contains("\\x1b]0;hi\\x07"), "{message}");
}

/// A reader that goes away is not a failure.
#[test]
fn an_explanation_may_be_cut_short() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dropwatch"))
        .args(["explain", "--list", "-o", "markdown"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("dropwatch runs");
    drop(child.stdout.take());
    assert!(child.wait().expect("dropwatch ends").success());
}

#[test]
fn the_version_is_the_packages() {
    let output = dropwatch(&["--version"]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).expect("text"),
        format!("dropwatch {}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// Runs it by a shell that has set a limit before.
fn limited(limit: &str, arguments: &str) -> (Option<i32>, String) {
    let script = format!("ulimit {limit} && exec {} {arguments}", env!("CARGO_BIN_EXE_dropwatch"));
    let output = Command::new("timeout")
        .args(["60", "sh", "-c", &script])
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// A stack that would overflow is refused, instead of an abort.
#[test]
fn a_small_stack_is_refused_with_the_cure() {
    for (arguments, status) in
        [("-n 1", 3), ("trace -c 1", 3), ("check -- true", 125), ("explain NO_SOCKET", 3)]
    {
        for size in [64, 128, 256] {
            let (code, message) = limited(&format!("-s {size}"), arguments);
            assert_eq!(code, Some(status), "{arguments}: {message}");
            assert!(message.contains(&format!("limited to {size} kB")), "{arguments}: {message}");
            assert!(message.contains("ulimit -s 8192"), "{arguments}: {message}");
        }
    }
    let (code, message) = limited("-s 512", "explain NO_SOCKET");
    assert_eq!(code, Some(0), "the named limit is enough: {message}");
}

/// Too few open files are refused at once, whatever would have been opened last.
#[test]
fn too_few_open_files_are_refused_with_the_cure() {
    for (arguments, status) in [("-n 1", 3), ("-b stack -n 1", 3), ("trace -c 1", 3), ("check -- true", 125)]
    {
        for files in [8, 12, 20, 63] {
            let (code, message) = limited(&format!("-n {files}"), arguments);
            assert_eq!(code, Some(status), "{arguments}: {message}");
            assert!(message.contains(&format!("{files} files open")), "{arguments}: {message}");
            assert!(message.contains("ulimit -n 1024"), "{arguments}: {message}");
        }
    }
    assert_eq!(limited("-n 12", "explain NO_SOCKET").0, Some(0), "what opens nothing needs none");
}

#[test]
fn files_that_are_no_regular_ones_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    let options = |name: &str| {
        let check = ["check", "--report", &path(&format!("{name}.xml")), "--", "true"].map(str::to_owned);
        let file = path(name);
        [
            (["--ready-file", &file].map(str::to_owned).to_vec(), 2),
            (["trace", "--ready-file", &file].map(str::to_owned).to_vec(), 2),
            (["trace", "-w", &file].map(str::to_owned).to_vec(), 2),
            (check.to_vec(), 125),
        ]
    };
    for name in ["fifo", "link"] {
        let words = if name == "fifo" { "regular file" } else { "symbolic link" };
        for file in [path(name), path(&format!("{name}.xml"))] {
            if name == "fifo" {
                nix::unistd::mkfifo(&*file, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
            } else {
                std::os::unix::fs::symlink("nowhere", file).expect("a link");
            }
        }
        for (arguments, status) in options(name) {
            let output = Command::new("timeout")
                .args(["-s", "KILL", "20", env!("CARGO_BIN_EXE_dropwatch")])
                .args(&arguments)
                .output()
                .expect("timeout runs");
            assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", message(&output));
            assert!(message(&output).contains(words), "{arguments:?}: {}", message(&output));
        }
    }
    let device = dropwatch(&["--ready-file", "/dev/null"]);
    assert_eq!(device.status.code(), Some(2), "{}", message(&device));
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
