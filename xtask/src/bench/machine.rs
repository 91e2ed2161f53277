//! Where and when figures were measured: without it they say nothing.

use std::{fmt, fs, path::Path, process::Command, thread, time::SystemTime};

use anyhow::{Context, Result};
use nix::sys::utsname::uname;
use serde_json::{Value, json};

use crate::{command, workspace};

#[derive(Debug)]
pub struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    dropwatch: String,
    date: String,
    /// The load average of the minute before: what else was going on.
    load: String,
}

impl Machine {
    pub fn read(dropwatch: &Path) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let load = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
        let version = command::output(Command::new(dropwatch).arg("--version"))?;
        Ok(Self {
            processor: model(&cpuinfo).unwrap_or("unknown").to_owned(),
            cores: thread::available_parallelism().context("no number of processors")?.get(),
            kernel: uname().context("no name of the kernel")?.release().to_string_lossy().into_owned(),
            dropwatch: format!("{}{}", version.trim(), commit()),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }

    pub fn json(&self) -> Value {
        let Self { processor, cores, kernel, dropwatch, date, load } = self;
        json!({
            "processor": processor, "cores": cores, "kernel": kernel,
            "dropwatch": dropwatch, "date": date, "load": load,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, kernel, dropwatch, date, load } = self;
        writeln!(f, "machine: {processor}, {cores} cores, Linux {kernel}")?;
        writeln!(f, "{dropwatch}, {date}, load before the run {load}")
    }
}

/// The processor's name, where the kernel knows it.
fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// The commit that was built, if this is a repository.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]).current_dir(workspace::root());
    command::output(&mut git).map_or_else(|_| String::new(), |commit| format!(" at {}", commit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arm's kernels give no name at all.
    #[test]
    fn the_processor_is_named_if_it_can_be() {
        assert_eq!(model("processor\t: 0\nmodel name\t: A (R) B @ 2 GHz\n"), Some("A (R) B @ 2 GHz"));
        assert_eq!(model("processor\t: 0\nCPU part\t: 0xd0c\n"), None);
    }
}
