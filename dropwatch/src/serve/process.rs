//! What this process uses, under the names that all exporters have for it.

use std::{fs, sync::LazyLock, time::Duration};

use nix::{
    sys::resource::{Resource, UsageWho, getrlimit, getrusage},
    unistd::{SysconfVar, sysconf},
};

use super::metrics::{Kind, Metric, Number};

/// What it uses now; what the system does not say is left out.
pub fn metrics() -> Vec<Metric> {
    let measure = |name, help, kind, value: f64| Metric::single(name, help, kind, Number::Measure(value));
    let count = |name, help, value| Metric::single(name, help, Kind::Gauge, Number::Count(value));
    let memory = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = |field: usize| Some(memory.split(' ').nth(field)?.parse::<u64>().ok()? * page_size()?);
    let cpu = cpu().map(|used| {
        measure("process_cpu_seconds", "CPU time that was used", Kind::Counter, used.as_secs_f64())
    });
    let (virtual_, resident) = (pages(0), pages(1));
    let open = fs::read_dir("/proc/self/fd").map(|files| (files.count() as u64).saturating_sub(1)).ok();
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(limit, _)| limit).ok();
    let threads = fs::read_dir("/proc/self/task").map(|threads| threads.count() as u64).ok();
    let start = START.map(|start| {
        let help = "When the process started, since the epoch";
        measure("process_start_time_seconds", help, Kind::Gauge, start)
    });
    let metrics = [
        cpu,
        resident.map(|bytes| count("process_resident_memory_bytes", "Memory that is resident", bytes)),
        virtual_.map(|bytes| count("process_virtual_memory_bytes", "Memory that is mapped", bytes)),
        open.map(|files| count("process_open_fds", "File descriptors that are open", files)),
        limit.map(|files| count("process_max_fds", "File descriptors that may be open", files)),
        threads.map(|threads| count("process_threads", "Threads of the process", threads)),
        start,
    ];
    metrics.into_iter().flatten().collect()
}

fn cpu() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let times = [usage.user_time(), usage.system_time()].into_iter();
    times
        .map(|time| {
            Some(Duration::new(time.tv_sec().try_into().ok()?, u32::try_from(time.tv_usec()).ok()? * 1000))
        })
        .sum()
}

fn page_size() -> Option<u64> {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?.try_into().ok()
}

/// When this process started, in seconds since the epoch.
static START: LazyLock<Option<f64>> = LazyLock::new(|| {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may have anything in it; the fields behind it have not.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let kernel = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = kernel.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let hertz = i32::try_from(sysconf(SysconfVar::CLK_TCK).ok().flatten()?).ok()?;
    Some(boot + ticks / f64::from(hertz))
});

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn this_process_is_described() {
        let metrics = metrics();
        let value = |name: &str| {
            let metric = metrics.iter().find(|metric| metric.name == name);
            match metric.unwrap_or_else(|| panic!("{name}")).samples[0].1 {
                Number::Count(count) => f64::from(u32::try_from(count >> 10).expect("small")) * 1024.0,
                Number::Measure(value) => value,
            }
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_cpu_seconds") > 0.0);
    }
}
