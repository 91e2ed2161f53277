//! The command line, refused or explained before anything is loaded: needs no privilege.

use std::process::{Command, Output};

fn dropwatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dropwatch")).args(arguments).output().expect("dropwatch runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// A usage error with these words in its message.
fn assert_usage(arguments: &[&str], words: &[&str]) {
    let output = dropwatch(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    for word in words {
        assert!(message.contains(word), "{arguments:?}: {message}");
    }
    assert!(!message.contains("Monitoring"), "{message}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert_usage(&["-i", "9ms"], &["--interval", "9ms", "at least 10ms"]);
    assert_usage(&["-i", "0"], &["--interval"]);
    assert_usage(&["-i", "soon"], &["--interval", "soon", "500ms"]);
    assert_usage(&["-i", "-1"], &[]);
    assert_usage(&["-i", "1e300"], &["--interval"]);
    assert_usage(&["-i", "nan"], &["--interval"]);
    assert_usage(&["-n", "0"], &["--reports"]);
    assert_usage(&["-n", "many"], &["many"]);
    assert_usage(&["-d", "0s"], &["--duration"]);
    assert_usage(&["-t", "0"], &["--top"]);
    assert_usage(&["-o", "xml"], &["xml", "json"]);
    assert_usage(&["--max-rows", "0"], &["--max-rows"]);
    assert_usage(&["--max-rows", "4294967295"], &["--max-rows"]);
    assert_usage(&["--ready-file", "/nowhere/at/all"], &["--ready-file", "/nowhere/at/all"]);
    assert_usage(&["-l", "libbfd"], &["libbfd"]);
    assert_usage(&["--no-such-option"], &["--no-such-option"]);
    assert_usage(&["no-such-command"], &["no-such-command"]);
}

#[test]
fn what_makes_no_sense_for_a_trace_is_refused() {
    assert_usage(&["trace", "-n", "0"], &["--count"]);
    assert_usage(&["trace", "-c", "0"], &["--count"]);
    assert_usage(&["trace", "--rate", "0"], &["--rate"]);
    assert_usage(&["trace", "--snaplen", "0"], &["--snaplen", "262144"]);
    assert_usage(&["trace", "--snaplen", "262145"], &["--snaplen", "262144"]);
    assert_usage(&["trace", "-d", "soon"], &["--duration", "soon"]);
    assert_usage(&["trace", "-o", "table"], &["table", "json"]);
    assert_usage(&["trace", "-w", "/nowhere/at/all"], &["--write", "/nowhere/at/all"]);
    assert_usage(&["trace", "-f", "port http"], &["--filter", "http"]);
    assert_usage(&["trace", "-w", "-", "-o", "json"], &["--output", "-w -"]);
}

#[test]
fn an_interface_where_the_interval_belongs_gets_a_hint() {
    assert_usage(&["-i", "lo"], &["--interval", "-f 'iface lo'"]);
}

#[test]
fn the_help_names_every_option_and_loads_nothing() {
    for arguments in [&["--help"][..], &["watch", "--help"]] {
        let output = dropwatch(arguments);
        assert!(output.status.success());
        let help = String::from_utf8(output.stdout).expect("text");
        for option in [
            "--interval",
            "--reports",
            "--duration",
            "--output",
            "--top",
            "--min",
            "--max-rows",
            "--kallsyms",
            "--ready-file",
            "--cost",
            "--verbose",
        ] {
            assert!(help.contains(option), "{option}:\n{help}");
        }
    }
}

#[test]
fn the_help_of_trace_names_every_option() {
    let output = dropwatch(&["trace", "--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).expect("text");
    for option in [
        "--write",
        "--filter",
        "--count",
        "--duration",
        "--snaplen",
        "--rate",
        "--stack",
        "--output",
        "--kallsyms",
        "--ready-file",
        "--verbose",
    ] {
        assert!(help.contains(option), "{option}:\n{help}");
    }
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
