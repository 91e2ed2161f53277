//! Files that are written: when, with which mode, and what happens to what was there.

use std::{
    fs,
    io::{Read as _, Seek as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{
    Test,
    support::{self, net::Net, watch::Watch},
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("files::a_start_that_fails_leaves_the_old_capture_and_no_ready_file", failed_start),
    ("files::only_the_owner_reads_captures_and_reports", modes),
    ("files::another_users_file_is_replaced_and_not_written", foreign_file),
    ("files::the_text_of_an_error_is_printed_once", error_text),
    ("files::a_ready_file_is_there_while_it_runs", ready_file),
];

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("a file").mode() & 0o7777
}

/// Runs it in a user namespace of its own, where it has every capability but cannot load programs.
fn in_a_user_namespace(arguments: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.arg("-Ur").arg(support::dropwatch()).args(arguments).output().expect("unshare runs")
}

fn failed_start() {
    let directory = directory();
    let (capture, ready) = (directory.path().join("capture.pcapng"), directory.path().join("ready"));
    fs::write(&capture, "yesterday").expect("a file");
    fs::write(&ready, "1\n").expect("a file");
    let output =
        in_a_user_namespace(&["trace", "-w", text(&capture), "--ready-file", text(&ready), "-d", "1ms"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Monitoring"), "{output:?}");
    assert_eq!(fs::read(&capture).expect("the capture"), b"yesterday");
    assert!(!ready.exists(), "it says that something is ready");
}

fn modes() {
    let directory = directory();
    let path = |name| directory.path().join(name);
    let run = |arguments: &[&str]| {
        let output = Command::new(support::dropwatch()).args(arguments).output().expect("dropwatch runs");
        assert!(output.status.success(), "{output:?}");
    };
    run(&["trace", "-w", text(&path("capture")), "-d", "10ms"]);
    assert_eq!(mode(&path("capture")), 0o600);
    for name in ["report.json", "report.xml"] {
        // One that everybody could read before.
        fs::write(path(name), "").expect("a file");
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o666)).expect("its mode");
        run(&["check", "--report", text(&path(name)), "--", "true"]);
        assert_eq!(mode(&path(name)), 0o600);
        assert!(fs::read_to_string(path(name)).expect("a report").ends_with('\n'));
    }
    assert_eq!(fs::read_dir(directory.path()).expect("entries").count(), 3, "nothing is left over");
    run(&["trace", "-w", "/dev/null", "-d", "10ms"]);
    assert!(!Path::new("/dev/null").metadata().expect("the device").is_file());
}

fn foreign_file() {
    const NOBODY: u32 = 65534;
    let directory = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).expect("its mode");
    let capture = directory.path().join("capture");
    fs::write(&capture, "theirs").expect("a file");
    fs::set_permissions(&capture, fs::Permissions::from_mode(0o666)).expect("its mode");
    chown(&capture, Some(NOBODY), Some(NOBODY)).expect("its owner");
    let mut theirs = fs::File::open(&capture).expect("the file");
    let net = Net::new();
    let watch = Watch::start(&["trace", "-w", text(&capture)]);
    net.drop_datagrams(3);
    let ended = {
        watch.signal(nix::sys::signal::Signal::SIGINT);
        watch.wait()
    };
    assert!(ended.status.success(), "{ended:?}");
    let mut seen = String::new();
    theirs.rewind().and_then(|()| theirs.read_to_string(&mut seen)).expect("their file");
    assert_eq!(seen, "theirs");
    let made = capture.metadata().expect("the capture");
    assert_eq!((made.uid(), made.mode() & 0o7777), (0, 0o600));
    assert!(made.len() > 100);
}

fn ready_file() {
    let directory = directory();
    let ready = directory.path().join("ready");
    for (arguments, signals) in [(&["-i", "1h"][..], 1), (&["trace"], 1), (&["-i", "10ms"], 2)] {
        let mut child = Command::new(support::dropwatch())
            .args(arguments)
            .args(["--ready-file", text(&ready)])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("dropwatch starts");
        while !ready.exists() {
            assert!(child.try_wait().expect("its status").is_none(), "{arguments:?} has ended");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(fs::read_to_string(&ready).expect("the file"), format!("{}\n", child.id()));
        assert_eq!(mode(&ready), 0o644);
        if signals == 2 {
            // There is no reader: it needs both signals.
            std::thread::sleep(std::time::Duration::from_secs(2));
        }
        for _ in 0..signals {
            support::watch::send(&child, nix::sys::signal::Signal::SIGTERM);
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        assert!(child.wait().expect("its status").success());
        assert!(!ready.exists(), "{arguments:?}");
    }
}

fn error_text() {
    let full = || fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    for arguments in [&["trace", "-w", "/dev/full", "-d", "10ms"][..], &["trace", "-o", "json", "-d", "10ms"]]
    {
        let output =
            Command::new(support::dropwatch()).args(arguments).stdout(full()).output().expect("it runs");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert_eq!(message.matches("No space left on device").count(), 1, "{arguments:?}: {message}");
    }
}
