//! Every case of the library of drops, each counted exactly.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::support::{
    inject::{self, Case, Expected, needs::Need},
    watch::{Reports, Watch},
};

/// A test for each case. What the machine cannot do is ignored, out loud, and never passed.
pub fn trials(root: bool) -> Vec<Trial> {
    assert_distinct();
    let strict = std::env::var_os("DROPWATCH_REQUIRE_ALL_CASES").is_some();
    let mut known = BTreeMap::new();
    let trial = |case: &'static Case| {
        let lacking: Vec<_> =
            case.needs.iter().filter(|_| root).filter_map(|need| lacking(need, &mut known)).collect();
        let lacking = lacking.join(", ");
        if !lacking.is_empty() && !strict {
            eprintln!("IGNORED inject::{}: this machine lacks {lacking}.", case.name);
        }
        let ignored = !root || (!lacking.is_empty() && !strict);
        Trial::test(format!("inject::{}", case.name), move || run(case, &lacking)).with_ignored_flag(ignored)
    };
    inject::cases().map(trial).collect()
}

/// Why the machine lacks something, found out once.
fn lacking(need: &Need, known: &mut BTreeMap<&'static str, Option<String>>) -> Option<String> {
    known.entry(need.name).or_insert_with(|| need.lacking()).clone()
}

fn assert_distinct() {
    let mut counts = BTreeMap::new();
    for case in inject::cases() {
        if let Some(other) = counts.insert(case.count, case.name) {
            panic!("{other} and {} cause equally many drops: {}", case.name, case.count);
        }
    }
}

/// What the program is started with for a case.
fn arguments() -> [&'static str; 2] {
    ["-o", "json"]
}

fn run(case: &Case, lacking: &str) -> Result<(), Failed> {
    if !lacking.is_empty() {
        return Err(format!("this machine lacks {lacking}").into());
    }
    let prepared = (case.prepare)(case.count);
    let watch = Watch::start(&arguments());
    (prepared.act)();
    thread::sleep(settled());
    let reports = watch.stop();
    let (seen, expected) = match &prepared.expected {
        Some(expected) => (seen(&reports, expected), expected.count),
        None => (suspects(&reports, case.count), 0),
    };
    println!("case {}: seen {seen} expected {expected}", case.name);
    if seen == expected {
        return Ok(());
    }
    let rows: Vec<_> = reports.rows().map(|row| format!("\n  {row}")).collect();
    Err(format!("seen {seen}, expected {expected}: {:?}{}", prepared.expected, rows.concat()).into())
}

/// How long packets may be under way; guests are emulated, and slower.
fn settled() -> Duration {
    Duration::from_millis(if std::env::var_os("DROPWATCH_BIN").is_some() { 1000 } else { 100 })
}

/// Drops like those expected.
fn seen(reports: &Reports, expected: &Expected) -> u64 {
    let locations = known_functions(expected.locations);
    let reasons = reasons(expected);
    let like = |row: &&Value| {
        let symbol = row["location"]["symbol"].as_str().map(base);
        let here = locations.is_empty() || symbol.is_some_and(|symbol| locations.contains(&symbol));
        here && (row["reason"].is_null()
            || row["reason"]["name"].as_str().is_some_and(|name| reasons.contains(&name)))
    };
    reports.rows().filter(like).filter_map(|row| row["count"].as_u64()).sum()
}

/// The reasons that stand for the expected one on this kernel.
fn reasons(expected: &Expected) -> Vec<&'static str> {
    let mut reasons = vec![expected.reason];
    reasons.extend(expected.older);
    if !kernel_has_reason(expected.reason) {
        reasons.push("NOT_SPECIFIED");
    }
    reasons
}

/// Whether the kernel's types name the reason.
fn kernel_has_reason(name: &str) -> bool {
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    memchr::memmem::find(&types, format!("SKB_DROP_REASON_{name}\0").as_bytes()).is_some()
}

/// Those of the functions that the kernel has; the others are inlined, or of other kernels.
fn known_functions(names: &[&'static str]) -> Vec<&'static str> {
    if names.is_empty() {
        return Vec::new();
    }
    let kallsyms = fs::read_to_string("/proc/kallsyms").expect("/proc/kallsyms");
    let functions: std::collections::HashSet<_> =
        kallsyms.lines().filter_map(|line| line.split_whitespace().nth(2)).map(base).collect();
    names.iter().copied().filter(|name| functions.contains(name)).collect()
}

/// A symbol without what compilers append to the parts of a function.
fn base(symbol: &str) -> &str {
    symbol.split('.').next().unwrap_or(symbol)
}

/// Drops in rows large enough to be what must not be seen.
fn suspects(reports: &Reports, attempts: u64) -> u64 {
    reports.rows().filter_map(|row| row["count"].as_u64()).filter(|count| *count >= attempts).sum()
}
