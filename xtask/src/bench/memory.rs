//! The memory of a monitor that has worked for a while, and that of its maps in the kernel.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::{
    fdinfo::{self, field},
    monitor::Monitor,
    sender::Sender,
    table::Figure,
};

const REPORTS: u64 = 20;

pub fn measure(dropwatch: &Path) -> Result<Vec<Figure>> {
    eprintln!("memory: {REPORTS} reports");
    let sender = Sender::start()?;
    let mut monitor = Monitor::start(dropwatch, "100ms", &[])?;
    let mut drops = 0;
    for _ in 0..REPORTS {
        sender.drop_packets(1)?;
        drops = monitor.report()?["total"].as_u64().context("dropwatch's report has no total")?;
    }
    ensure!(drops > 0, "dropwatch reported no drop");
    let process = format!("/proc/{}", monitor.pid());
    let status =
        fs::read_to_string(format!("{process}/status")).context("cannot read the monitor's status")?;
    let maps = map_bytes(&format!("{process}/fdinfo"))?;
    monitor.stop()?;
    let kib = |field| kib(&status, field).with_context(|| format!("the kernel does not tell {field}"));
    Ok(vec![
        Figure::new("memory.resident", "resident memory", kib("VmRSS")?, "KiB"),
        Figure::new("memory.anonymous", "of that, its own (not of files)", kib("RssAnon")?, "KiB"),
        Figure::new("memory.peak", "resident memory, peak", kib("VmHWM")?, "KiB"),
        Figure::new("memory.maps", "BPF maps in the kernel", maps / 1024.0, "KiB"),
    ])
}

/// A field of `/proc/PID/status` in kibibytes.
fn kib(status: &str, name: &str) -> Option<f64> {
    field::<String>(status, name)?.strip_suffix(" kB")?.parse().ok()
}

/// What the maps of a process take, each counted once however many descriptors it has.
fn map_bytes(fdinfo: &str) -> Result<f64> {
    let maps: BTreeMap<_, _> =
        fdinfo::texts(Path::new(fdinfo))?.iter().filter_map(|text| map(text)).collect();
    ensure!(!maps.is_empty(), "dropwatch has no BPF map open");
    Ok(maps.values().sum())
}

/// The number of a map and its bytes, if that is what the descriptor is of.
fn map(fdinfo: &str) -> Option<(u64, f64)> {
    Some((field(fdinfo, "map_id")?, field(fdinfo, "memlock")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program has `memlock`, too, and is no map.
    #[test]
    fn maps_and_programs_are_distinguished() {
        assert_eq!(map("pos:\t0\nmap_type:\t5\nmemlock:\t1573120\nmap_id:\t41\n"), Some((41, 1_573_120.0)));
        assert_eq!(map("pos:\t0\nprog_type:\t17\nmemlock:\t4096\nprog_id:\t9\n"), None);
    }

    /// Names that begin alike are other fields.
    #[test]
    fn status_fields_are_read_whole() {
        let status = "VmRSSX:\t     1 kB\nVmRSS:\t   29112 kB\n";
        assert_eq!(kib(status, "VmRSS"), Some(29_112.0));
        assert_eq!(kib(status, "VmHWM"), None);
    }
}
