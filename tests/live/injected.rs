//! Every case of the library of drops, each counted exactly.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    path::Path,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dropwatch::internals::ip_protocol;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::support::{
    inject::{self, Case, Expected, Flow},
    is_guest, kernel,
    trial::trial,
    watch::Stream,
};

/// A test for each case. What the machine cannot do is ignored, out loud, and never passed.
pub fn trials(can_run: bool) -> Vec<Trial> {
    assert_distinct();
    let trial =
        |case: &'static Case| trial(format!("inject::{}", case.name), case.needs, can_run, || run(case));
    let end = Trial::test("inject::nothing_is_lost_beside", || {
        end();
        Ok(())
    });
    inject::cases().map(trial).chain([end.with_ignored_flag(!can_run)]).collect()
}

fn assert_distinct() {
    let mut counts = BTreeMap::new();
    for case in inject::cases() {
        if let Some(other) = counts.insert(case.count, case.name) {
            panic!("{other} and {} cause equally many drops: {}", case.name, case.count);
        }
    }
}

/// What the program is started with: reports of everything, so frequent that no test waits for one, but for an emulated
/// machine, which would do little else.
fn arguments() -> [&'static str; 6] {
    ["-i", if is_guest() { "150ms" } else { "50ms" }, "--max-rows", "4096", "--by", KEYS]
}

/// What each drop is looked at for.
const KEYS: &str = "location,reason,iface,netns,ipproto,saddr,daddr,sport,dport";

/// The monitor of all cases: starting one takes longer than most cases do.
static MONITOR: Mutex<Option<Stream>> = Mutex::new(None);

fn monitor() -> MutexGuard<'static, Option<Stream>> {
    MONITOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_or_start() -> Stream {
    monitor().take().unwrap_or_else(|| Stream::start(&arguments()))
}

/// Ends the monitor, if there still is one.
pub fn finish() {
    drop(monitor().take());
}

/// After all cases: the monitor ends well, and has lost nothing.
fn end() {
    assert!(
        RUN.load(Ordering::Relaxed) > 0,
        "no case ran before: this says something of them, and nothing alone"
    );
    let end = take_or_start().stop();
    let lost = LOST.load(Ordering::Relaxed) + end.reports.iter().map(lost_in).sum::<u64>();
    assert_eq!(lost, 0, "drops in no row: {end:?}");
}

/// How many cases were run.
static RUN: AtomicU64 = AtomicU64::new(0);

/// Drops in the ledgers of all cases' reports.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Drops that a report has in its ledger.
fn lost_in(report: &Value) -> u64 {
    report["ledger"].as_object().expect("a ledger").values().filter_map(Value::as_u64).sum()
}

fn run(case: &Case) -> Result<(), Failed> {
    RUN.fetch_add(1, Ordering::Relaxed);
    let prepared = (case.prepare)(case.count);
    let stream = take_or_start();
    let like = prepared.expected.as_ref().map(Like::new);
    let drops = during(&stream, &*prepared.act, |drops| {
        like.as_ref().is_some_and(|like| like.count_in(drops) >= like.count)
    });
    // A case that panics takes its monitor with it.
    *monitor() = Some(stream);
    let like: Vec<_> = match &like {
        Some(like) => drops.0.iter().filter(|drop| like.matches(drop)).collect(),
        // What must not be seen at all would be seen as often as it was tried, beside a few drops of others.
        None => drops.0.iter().filter(|drop| (case.count..case.count * 2).contains(&drop.count)).collect(),
    };
    let seen: u64 = like.iter().map(|drop| drop.count).sum();
    let expected = prepared.expected.as_ref().map_or(0, |expected| expected.count);
    let places: Vec<_> = like.iter().map(|drop| format!(" {} @ {}", drop.reason(), drop.symbol)).collect();
    println!("case {}: seen {seen} expected {expected}{}", case.name, places.join(","));
    if seen == expected {
        return Ok(());
    }
    let all: Vec<_> = drops.0.iter().map(|drop| format!("\n  {drop:?}")).collect();
    let (expected, all) = (&prepared.expected, all.concat());
    Err(format!("seen {seen}, expected {expected:?}; all drops:{all}").into())
}

/// The drops from the start of `act` until they are `enough`, or until no packet can be in flight.
fn during(stream: &Stream, act: &dyn Fn(), enough: impl Fn(&Drops) -> bool) -> Drops {
    stream.catch_up();
    act();
    let mut drops = Drops::default();
    let deadline = Instant::now() + settled();
    while !enough(&drops) && Instant::now() < deadline {
        drops.add(&stream.next_report());
    }
    // What is more than enough comes now.
    stream.catch_up().iter().for_each(|report| drops.add(report));
    drops
}

/// How long packets may be under way.
fn settled() -> Duration {
    Duration::from_millis(if is_guest() { 2000 } else { 300 })
}

/// What some reports have together.
#[derive(Default)]
struct Drops(Vec<Drop>);

impl Drops {
    fn add(&mut self, report: &Value) {
        LOST.fetch_add(lost_in(report), Ordering::Relaxed);
        for row in report["rows"].as_array().expect("rows") {
            let drop = Drop::new(row);
            match self.0.iter_mut().find(|other| other.is_like(&drop)) {
                Some(other) => other.count += drop.count,
                None => self.0.push(drop),
            }
        }
    }
}

/// A row of a report.
#[derive(Debug)]
struct Drop {
    count: u64,
    address: String,
    symbol: String,
    module: String,
    /// Not on kernels that give none.
    reason: Option<String>,
    iface: Option<String>,
    netns: Option<u64>,
    flow: Seen,
}

/// The flow, as far as a report has it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    protocol: Option<String>,
    addresses: (Option<IpAddr>, Option<IpAddr>),
    ports: (Option<u64>, Option<u64>),
}

impl Seen {
    fn new(row: &Value) -> Self {
        let address = |key: &str| row[key].as_str().map(|text| text.parse().expect("an address"));
        Self {
            protocol: row["ipproto"].as_str().map(str::to_owned),
            addresses: (address("saddr"), address("daddr")),
            ports: (row["sport"].as_u64(), row["dport"].as_u64()),
        }
    }

    fn is(&self, flow: &Flow) -> bool {
        let ports = flow.ports.map(|(source, destination)| (source.into(), destination.into()));
        self.addresses == (Some(flow.source), Some(flow.destination))
            && self.protocol.as_deref() == Some(&ip_protocol(flow.protocol))
            && self.ports == ports.unzip()
    }
}

impl Drop {
    fn new(row: &Value) -> Self {
        let location = &row["location"];
        let word = |name: &str| location[name].as_str().unwrap_or_else(|| panic!("no {name}: {row}"));
        let reason = row["reason"]["name"].as_str().map(str::to_owned);
        Self {
            count: row["count"].as_u64().expect("a count"),
            address: word("address").to_owned(),
            symbol: base(word("symbol")).to_owned(),
            module: word("module").to_owned(),
            reason,
            iface: row["iface"]["name"].as_str().map(str::to_owned),
            netns: row["netns"]["inum"].as_u64(),
            flow: Seen::new(row),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        (&self.address, &self.reason, &self.iface, self.netns, &self.flow)
            == (&other.address, &other.reason, &other.iface, other.netns, &other.flow)
    }

    fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("-")
    }
}

/// Which rows are the expected drops.
struct Like {
    count: u64,
    /// None on kernels that give none.
    reasons: Vec<&'static str>,
    locations: Vec<&'static str>,
    module: Option<&'static str>,
    placed: bool,
    iface: Option<&'static str>,
    netns: Option<u64>,
    flow: Option<Flow>,
}

impl Like {
    fn new(expected: &Expected) -> Self {
        let mut reasons = vec![expected.reason];
        reasons.extend(expected.older);
        reasons.retain(|reason| kernel::has_reason(reason));
        if !kernel::has_reason(expected.reason) {
            reasons.extend(kernel::reason_here("NOT_SPECIFIED"));
        }
        let locations = expected.locations.iter().copied().filter(|name| has_function(name)).collect();
        // What is not a module is part of the kernel.
        let module =
            expected.module.filter(|module| Path::new("/sys/module").join(module).join("initstate").exists());
        let Expected { count, placed, iface, netns, flow, .. } = *expected;
        Self { count, reasons, locations, module, placed, iface, netns, flow }
    }

    fn count_in(&self, drops: &Drops) -> u64 {
        drops.0.iter().filter(|drop| self.matches(drop)).map(|drop| drop.count).sum()
    }

    /// Whether the drop is on that device of that namespace, of a packet of that flow.
    fn is_from(&self, drop: &Drop) -> bool {
        if !self.placed {
            return drop.iface.is_none()
                && drop.netns.is_none()
                && self.flow.is_none_or(|flow| drop.flow.is(&flow));
        }
        self.iface.is_none_or(|iface| drop.iface.as_deref() == Some(iface))
            && self.netns.is_none_or(|netns| drop.netns == Some(netns))
            && self.flow.is_none_or(|flow| drop.flow.is(&flow))
    }

    fn matches(&self, drop: &Drop) -> bool {
        let module = self.module.is_none_or(|module| drop.module == module);
        let here = self.locations.is_empty() || self.locations.contains(&drop.symbol.as_str());
        let here = here && module && self.is_from(drop);
        match &drop.reason {
            Some(reason) => here && self.reasons.contains(&reason.as_str()),
            None if !self.reasons.is_empty() => false,
            // With neither reason nor place, a number that no other case has.
            None if self.locations.is_empty() => drop.count == self.count,
            None => here,
        }
    }
}

/// Whether the kernel or a module has a function. Others are inlined, or of other kernels.
fn has_function(name: &str) -> bool {
    /// Read once: what needs modules has them loaded before the first case runs.
    static FUNCTIONS: LazyLock<HashSet<Vec<u8>>> = LazyLock::new(kernel::functions);
    FUNCTIONS.contains(name.as_bytes())
}

/// A symbol without what compilers append to the parts of a function.
fn base(symbol: &str) -> &str {
    symbol.split('.').next().unwrap_or(symbol)
}
