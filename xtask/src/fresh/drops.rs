//! Whether a program counts to the last drop where it was brought.

use std::{net::UdpSocket, process::Command, thread};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::system::Monitor;
use crate::command;

/// How many datagrams are dropped.
const DROPS: u64 = 1234;

/// What the program is started with.
pub const ARGUMENTS: [&str; 5] = ["watch", "-o", "json", "-f", "netns self and udp dst port 9"];

/// Sends datagrams to a port without a socket, in a namespace of their own, between the start and the end of a monitor there.
pub fn counted(
    start: impl FnOnce() -> Result<Monitor> + Send,
    end: impl FnOnce(Monitor) -> Result<String> + Send,
) -> Result<()> {
    // The namespace is the thread's alone, and ends with it.
    let done = thread::scope(|scope| scope.spawn(|| in_namespace(start, end)).join());
    done.map_err(|_| anyhow!("the thread that drops packets failed"))?
}

fn in_namespace(
    start: impl FnOnce() -> Result<Monitor>,
    end: impl FnOnce(Monitor) -> Result<String>,
) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("no network namespace")?;
    command::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let monitor = start()?;
    let socket = UdpSocket::bind("127.0.0.1:0").context("a socket")?;
    for _ in 0..DROPS {
        socket.send_to(b"x", "127.0.0.1:9").context("a datagram")?;
    }
    let reports = end(monitor)?;
    let counted = sum(&reports)?;
    ensure!(counted == DROPS, "it counted {counted} of {DROPS} drops:\n{reports}");
    println!("    {counted} of {DROPS} drops counted");
    Ok(())
}

/// The drops in a stream of reports that were for want of a socket.
fn sum(reports: &str) -> Result<u64> {
    let mut sum = 0;
    for line in reports.lines() {
        let report: Value = serde_json::from_str(line).with_context(|| format!("no report: {line}"))?;
        let rows = report["rows"].as_array().into_iter().flatten();
        sum += rows
            .filter(|row| row["reason"]["name"] == "NO_SOCKET")
            .filter_map(|row| row["count"].as_u64())
            .sum::<u64>();
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over all reports, one reason alone.
    #[test]
    fn drops_are_added_up() {
        let row = r#"{"count":7,"reason":{"name":"NO_SOCKET"}},{"count":2,"reason":{"name":"OTHER"}}"#;
        let report = format!("{{\"type\":\"report\",\"rows\":[{row}]}}\n");
        assert_eq!(sum(&report.repeat(2)).unwrap(), 14);
        assert!(sum("no JSON").is_err());
    }
}
