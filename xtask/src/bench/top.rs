//! What the full-screen view costs while it shows hundreds of rows, beside `watch` with the same ones.

use std::{
    path::Path,
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use super::{monitor::Monitor, sender::Sender, table::Figure};
use crate::command;

/// Rows that have drops in every interval.
const ROWS: usize = 200;
/// More than the view shows: some rows are below the screen.
const SIZE: [&str; 2] = ["120", "40"];
/// So long after the start, all that a start requires is over.
const SETTLED: Duration = Duration::from_secs(5);
/// How long is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// A row is a pair of ports.
const BY: [&str; 2] = ["-b", "sport,dport"];

/// A terminal without a window, with `dropwatch top` on it; both go when this is dropped.
struct Terminal(String);

impl Terminal {
    fn start(dropwatch: &Path) -> Result<Self> {
        let terminal = Self(format!("dropwatch-bench-{}", process::id()));
        let directory = tempfile::tempdir().context("no directory for the ready file")?;
        let (ready, program) = (directory.path().join("ready"), dropwatch.display());
        let top = format!(
            "exec env LC_ALL=C.UTF-8 {program} top -i 1s {} --ready-file {}",
            BY.join(" "),
            ready.display()
        );
        let [columns, lines] = SIZE;
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", lines, &top])?;
        let start = Instant::now();
        while !ready.exists() {
            ensure!(start.elapsed() < PATIENCE, "top is not ready after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        command::output(Command::new("tmux").args(["-L", &self.0]).args(arguments))
            .context("tmux, which gives `top` a terminal")
    }

    fn pid(&self) -> Result<Pid> {
        let pid = self.tmux(&["display-message", "-p", "#{pane_pid}"])?;
        Ok(Pid::from_raw(pid.trim().parse().context("no process on the terminal")?))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

/// Of all threads of a process, since it started.
fn processor_time(pid: Pid) -> Result<Duration> {
    let clock = clock_getcpuclockid(pid).context("no clock of dropwatch's processor time")?;
    Ok(clock_gettime(clock).context("no processor time of dropwatch")?.into())
}

/// The share of a processor that a process uses while each of the rows has a drop every second, in percent.
fn share(pid: Pid, sender: &Sender, rows: usize) -> Result<f64> {
    let second = |begun: Instant, seconds: u32| -> Result<()> {
        if rows > 0 {
            sender.spread(rows)?;
        }
        thread::sleep((begun + Duration::from_secs(1) * seconds).saturating_duration_since(Instant::now()));
        Ok(())
    };
    let seconds = |time: Duration| -> Result<()> {
        let begun = Instant::now();
        (1..=u32::try_from(time.as_secs())?).try_for_each(|number| second(begun, number))
    };
    seconds(SETTLED)?;
    let (before, begun) = (processor_time(pid)?, Instant::now());
    seconds(MEASURED)?;
    let used = processor_time(pid)?.saturating_sub(before);
    Ok(used.as_secs_f64() * 100.0 / begun.elapsed().as_secs_f64())
}

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    let sender = Sender::start()?;
    let mut figures = Vec::new();
    for rows in [0, ROWS] {
        eprintln!("top: {rows} rows");
        let terminal = Terminal::start(dropwatch)?;
        let name = format!("top, {rows} rows with drops every second, {}x{}", SIZE[0], SIZE[1]);
        figures.push(Figure::new(
            format!("top.{rows}"),
            &name,
            share(terminal.pid()?, &sender, rows)?,
            "% of a CPU",
        ));
    }
    eprintln!("top: watch");
    let monitor = Monitor::start(dropwatch, "1s", &BY)?;
    let name = format!("watch -o json, the same {ROWS} rows");
    figures.push(Figure::new("top.watch", &name, share(monitor.pid(), &sender, ROWS)?, "% of a CPU"));
    Ok(figures)
}
