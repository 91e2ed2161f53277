//! C dropwatch and ours over the same drops, as rows of a table: where its kernel module can be loaded, in guests.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    inject::{self, Prepared, garbage, wire},
    net::{Net, flood_all},
    pin,
    watch::Stream,
};

/// Where C dropwatch is, if this program is to compare.
pub fn program() -> Option<PathBuf> {
    std::env::var_os("DROPWATCH_RIVAL").map(PathBuf::from)
}

/// Prints a row for each way to drop packets.
pub fn compare(rival: &Path) {
    // Not each namespace of each case needs tunnels.
    let _ = fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "1");
    for module in garbage::MODULES.iter().chain(&["drop_monitor"]) {
        // What cannot be loaded drops nothing.
        let _ = Command::new("modprobe").args(["-q", module]).status();
    }
    println!("| drops | caused | in | dropwatch | C dropwatch |");
    println!("| --- | --- | --- | --- | --- |");
    for name in ["nft_input", "tc_ingress", "tcp_checksum", "tap_queue_full", "no_route"] {
        one_case(rival, name);
    }
    flood(rival);
    many_places(rival);
}

/// Prints a row: how many drops `act` caused, which is read afterwards, and what each of the two saw.
fn row(name: &str, rival: &Path, act: impl FnOnce(), caused: impl FnOnce() -> u64) {
    let mut took = Duration::ZERO;
    let (ours, theirs) = watched(rival, || {
        let start = Instant::now();
        act();
        took = start.elapsed();
    });
    let told = |counts: &Counts| {
        let places = counts.keys().filter(|at| **at > 0).count();
        let places = if places == 1 { "1 location".into() } else { format!("{places} locations") };
        format!("{} at {places}", counts.values().sum::<u64>())
    };
    println!("| {name} | {} | {} ms | {} | {} |", caused(), took.as_millis(), told(&ours), told(&theirs));
}

fn one_case(rival: &Path, name: &str) {
    let case = inject::cases().find(|case| case.name == name).expect("a case");
    assert!(can_run(case), "{name}");
    let prepared = (case.prepare)(case.count);
    row(&format!("`{name}`"), rival, || (prepared.act)(), || count(&prepared));
}

fn can_run(case: &inject::Case) -> bool {
    case.needs.iter().all(|need| need.lacking().is_none())
}

/// The drops that this causes.
fn count(prepared: &Prepared) -> u64 {
    prepared.expected.as_ref().map_or(0, |expected| expected.count)
}

fn flood(rival: &Path) {
    let nets = [Net::new(), Net::new()];
    let send = || {
        flood_all(&nets, 50_000);
    };
    row("a flood on two CPUs", rival, send, || nets.iter().map(Net::no_ports).sum());
}

/// All cases at once on one CPU, and garbage: C dropwatch has room for 64 locations on a CPU in a second.
fn many_places(rival: &Path) {
    const EACH: u64 = 3;
    // These drop something of their own besides, then or later, or share something with another one.
    const ALONE: [&str; 9] = [
        "bridge_port_blocked",
        "cgroup_ingress",
        "conntrack_table_full",
        "fragment_alone",
        "fragments_that_overlap",
        "neighbour_never_answers",
        "neighbour_queue_full",
        "pfifo_over_its_limit",
        "tbf_over_its_limit",
    ];
    let together = |case: &&inject::Case| {
        !ALONE.contains(&case.name) && !case.name.starts_with("nothing_") && can_run(case)
    };
    let mut prepared: Vec<_> = inject::cases().filter(together).map(|case| (case.prepare)(EACH)).collect();
    prepared.push(garbage::prepare(EACH));
    row(
        "many cases at once, on one CPU",
        rival,
        || on_one_cpu(&prepared),
        || prepared.iter().map(count).sum(),
    );
}

/// Causes drops, in a thread that stays on one CPU.
fn on_one_cpu(prepared: &[Prepared]) {
    let all = || {
        pin(0);
        for prepared in prepared {
            (prepared.act)();
        }
    };
    thread::scope(|scope| scope.spawn(all).join().expect("drops"));
}

/// Drops by address.
type Counts = BTreeMap<u64, u64>;

/// What each of the two counts while `act` causes drops.
fn watched(rival: &Path, act: impl FnOnce()) -> (Counts, Counts) {
    let ours = Stream::start(&["-i", "200ms"]);
    let theirs = Rival::start(rival);
    ours.catch_up();
    act();
    // It hears of drops a second after the first of them.
    thread::sleep(Duration::from_secs(4));
    let mut counts = Counts::new();
    for report in ours.catch_up() {
        for row in report["rows"].as_array().expect("rows") {
            let address = row["location"]["address"].as_str().expect("an address");
            let address = u64::from_str_radix(address.trim_start_matches("0x"), 16).expect("an address");
            *counts.entry(address).or_default() += row["count"].as_u64().expect("a count");
        }
    }
    (counts, theirs.stop())
}

/// A running C dropwatch. It reads commands, and prints its counts at the latest when it ends.
struct Rival(Child);

impl Rival {
    fn start(program: &Path) -> Self {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("C dropwatch starts");
        writeln!(child.stdin.as_mut().expect("a pipe"), "start").expect("it reads");
        // The kernel's module is in use while it watches.
        wire::eventually("C dropwatch watches", || {
            let users = fs::read_to_string("/sys/module/drop_monitor/refcnt").unwrap_or_default();
            !users.is_empty() && users.trim() != "0"
        });
        Self(child)
    }

    fn stop(mut self) -> Counts {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT).expect("the signal is sent");
        writeln!(self.0.stdin.take().expect("a pipe"), "exit").expect("it reads");
        let text = std::io::read_to_string(self.0.stdout.take().expect("a pipe")).expect("text");
        let mut counts = Counts::new();
        for (address, count) in text.lines().filter_map(alert) {
            *counts.entry(address).or_default() += count;
        }
        counts
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads `3 drops at location 0xffffffff81f601f8 [software]`.
fn alert(line: &str) -> Option<(u64, u64)> {
    let (count, rest) = line.trim().split_once(" drops at ")?;
    let address = rest.split("0x").nth(1)?.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    Some((u64::from_str_radix(address, 16).ok()?, count.parse().ok()?))
}
