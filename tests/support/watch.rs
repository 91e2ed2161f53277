//! The program under test, running: started once it is attached, read as JSON.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{PATIENCE, kernel};

/// A running `dropwatch watch`, attached.
pub struct Watch {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    /// What has come on standard error so far.
    said: Arc<Mutex<String>>,
    ready: PathBuf,
}

/// What a run left behind.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Watch {
    /// Starts it with these arguments, reading all it prints, and waits until it is attached.
    pub fn start(arguments: &[&str]) -> Self {
        let mut watch = Self::start_unread(arguments);
        let mut stdout = watch.child.stdout.take().expect("a pipe");
        watch.stdout = Some(thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("reports are text");
            text
        }));
        watch
    }

    /// Starts it, and leaves its standard output for the caller to read.
    pub fn start_unread(arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let ready = std::env::temp_dir().join(format!("dropwatch-ready-{}-{number}", std::process::id()));
        let _ = fs::remove_file(&ready);
        let mut child = Command::new(super::dropwatch())
            .args(arguments)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dropwatch starts");
        let mut pipe = BufReader::new(child.stderr.take().expect("a pipe"));
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let stderr = thread::spawn(move || {
            let mut line = String::new();
            while pipe.read_line(&mut line).expect("messages are text") > 0 {
                said_in(&heard).push_str(&line);
                line.clear();
            }
            said_in(&heard).clone()
        });
        let mut watch = Self { child, stdout: None, stderr: Some(stderr), said, ready };
        watch.await_ready();
        watch
    }

    fn await_ready(&mut self) {
        let start = Instant::now();
        while !self.ready.exists() {
            if let Some(status) = self.child.try_wait().expect("the child's status") {
                panic!("dropwatch ended before it was ready ({status}): {}", joined(&mut self.stderr));
            }
            assert!(start.elapsed() < PATIENCE, "dropwatch is not ready");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Whether it has said this on standard error.
    pub fn has_said(&self, text: &str) -> bool {
        said_in(&self.said).contains(text)
    }

    /// What it has said on standard error so far.
    pub fn said(&self) -> String {
        said_in(&self.said).clone()
    }

    /// Its standard output, until it has a reader.
    pub fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("standard output, unread")
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child's status") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "dropwatch does not end");
            thread::sleep(Duration::from_millis(2));
        };
        Ended { status, stdout: joined(&mut self.stdout), stderr: joined(&mut self.stderr) }
    }

    /// Ends it as Ctrl-C does, and reads its reports.
    pub fn stop(self) -> Reports {
        self.signal(Signal::SIGINT);
        self.reports()
    }

    /// Waits for its end, and reads its reports.
    pub fn reports(self) -> Reports {
        let ended = self.wait();
        assert!(ended.status.success(), "{ended:?}");
        Reports::parse(&ended.stdout, ended.stderr)
    }
}

/// Sends a process a signal.
pub fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("the signal is sent");
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.ready);
    }
}

fn said_in(said: &Mutex<String>) -> MutexGuard<'_, String> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

fn joined(thread: &mut Option<JoinHandle<String>>) -> String {
    thread.take().map(|thread| thread.join().expect("a reading thread")).unwrap_or_default()
}

/// Whether a row is about a function, by its name in the source: compilers add to it where they clone functions.
fn is_in(row: &Value, function: &str) -> bool {
    row["location"]["symbol"].as_str().and_then(|symbol| symbol.split('.').next()) == Some(function)
}

/// A running monitor whose reports are read while it runs.
pub struct Stream {
    watch: Watch,
    lines: Receiver<String>,
}

impl Stream {
    /// Starts one that reports as JSON, with these arguments as well.
    pub fn start(arguments: &[&str]) -> Self {
        let mut watch = Watch::start_unread(&[&["-o", "json"], arguments].concat());
        let stdout = BufReader::new(watch.take_stdout());
        let (sender, lines) = channel();
        watch.stdout = Some(thread::spawn(move || {
            // Until it ends, or the receiver has gone.
            stdout.lines().map_while(Result::ok).take_while(|line| sender.send(line.clone()).is_ok()).count();
            String::new()
        }));
        Self { watch, lines }
    }

    /// The next report.
    pub fn next_report(&self) -> Value {
        parsed(&self.lines.recv_timeout(PATIENCE).expect("a report"))
    }

    /// The reports that have arrived since the last call.
    pub fn so_far(&self) -> impl Iterator<Item = Value> {
        self.lines.try_iter().map(|line| parsed(&line))
    }

    /// All reports up to one that began after this call: none of what has happened so far is in a later one.
    pub fn catch_up(&self) -> Vec<Value> {
        let now = SystemTime::now();
        let mut reports = Vec::new();
        loop {
            // The first one that is made from now on may have been begun before.
            let began_after = reports.last().is_some_and(|last| ended(last) > now);
            reports.push(self.next_report());
            if began_after {
                return reports;
            }
        }
    }

    /// Ends it, which has to succeed: the last reports.
    pub fn stop(self) -> Reports {
        self.watch.signal(Signal::SIGINT);
        let ended = self.watch.wait();
        assert!(ended.status.success(), "{ended:?}");
        let lines: Vec<_> = self.lines.iter().collect();
        Reports::parse(&lines.join("\n"), ended.stderr)
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).expect("a line of JSON")
}

/// When a report's interval ended.
fn ended(report: &Value) -> SystemTime {
    humantime::parse_rfc3339(report["time"].as_str().expect("a time")).expect("a time")
}

/// The JSON reports of a run.
#[derive(Debug)]
pub struct Reports {
    pub reports: Vec<Value>,
    pub stderr: String,
}

impl Reports {
    pub fn parse(stdout: &str, stderr: String) -> Self {
        Self { reports: stdout.lines().map(parsed).collect(), stderr }
    }

    /// All rows of all reports.
    pub fn rows(&self) -> impl Iterator<Item = &Value> {
        self.reports.iter().flat_map(|report| report["rows"].as_array().expect("rows"))
    }

    /// Drops at a location, by its symbol, over all reports, with this reason or what the kernel has in its place.
    pub fn at(&self, symbol: &str, reason: &'static str) -> u64 {
        let reason = kernel::reason_here(reason);
        self.rows()
            .filter(|row| is_in(row, symbol))
            .filter(|row| match reason {
                Some(reason) => row["reason"]["name"] == reason,
                None => row["reason"].is_null(),
            })
            .map(|row| row["count"].as_u64().expect("a count"))
            .sum()
    }

    /// Drops at a location, by its symbol, whatever the reason.
    pub fn all_at(&self, symbol: &str) -> u64 {
        let rows = self.rows().filter(|row| is_in(row, symbol));
        rows.map(|row| row["count"].as_u64().expect("a count")).sum()
    }

    /// Drops in no row, over all reports, by the ledger's word for them.
    pub fn lost(&self, word: &str) -> u64 {
        self.reports.iter().map(|report| report["ledger"][word].as_u64().unwrap_or(0)).sum()
    }

    /// Drops with a reason, wherever they happened.
    pub fn with_reason(&self, reason: &str) -> u64 {
        self.rows()
            .filter(|row| row["reason"]["name"] == reason)
            .map(|row| row["count"].as_u64().expect("a count"))
            .sum()
    }
}
