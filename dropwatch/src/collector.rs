//! From the probe to intervals: takes snapshots, and says at once what was lost.

use std::time::{Instant, SystemTime};

use anyhow::Result;

use crate::{
    aggregate::{Differ, Interval, merge},
    console::{say, warn},
    keys::Key,
    probe::{Probe, ProbeConfig},
    snapshot::Ledger,
    sys::ProgramStats,
};

/// Takes snapshots of a probe and turns them into intervals.
pub struct Collector {
    probe: Probe,
    config: ProbeConfig,
    differ: Differ,
    total: u64,
    since: Instant,
    /// The last statistics, if the probe's cost is measured.
    statistics: Option<ProgramStats>,
}

impl Collector {
    /// A collector for a probe that has just been attached.
    #[must_use]
    pub fn new(probe: Probe, config: ProbeConfig, cost: bool) -> Self {
        let statistics = cost.then(ProgramStats::default);
        Self { probe, config, differ: Differ::default(), total: 0, since: Instant::now(), statistics }
    }

    /// The end of the last interval, or the start of the first.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What happened since the last call.
    pub fn interval(&mut self) -> Result<Interval> {
        let mut snapshot = self.probe.snapshot()?;
        let (now, ended) = (Instant::now(), SystemTime::now());
        let elapsed = now - std::mem::replace(&mut self.since, now);
        if self.counts_finer() {
            self.probe.resolver().number_chains(&mut snapshot.counts)?;
            snapshot.counts = merge(&snapshot.counts, &self.config.by);
        }
        let (counts, ledger) = self.differ.advance(&snapshot);
        let references = self.probe.resolver().references(&counts)?;
        self.say_lost(ledger);
        self.say_cost()?;
        self.total += counts.iter().map(|count| count.count).sum::<u64>();
        Ok(Interval { ended, elapsed, counts, total: self.total, ledger, references })
    }

    /// Whether the kernel tells more keys apart than were asked for.
    fn counts_finer(&self) -> bool {
        let by = &self.config.by;
        by.contains(&Key::Stack)
            || self.config.is_plain() && !(by.contains(&Key::Location) && by.contains(&Key::Reason))
    }

    /// What happened since the last call, up to now: no drop is counted any more.
    pub fn last_interval(&mut self) -> Result<Interval> {
        self.probe.detach();
        self.interval()
    }

    /// Any loss is a warning in the interval in which it happens.
    fn say_lost(&self, ledger: Ledger) {
        let Ledger { map_full, update_failed, stack_failed, recursion_missed } = ledger;
        if map_full > 0 {
            let rows = self.config.max_rows;
            warn(&format!("{map_full} drops are in no row: all {rows} rows are taken (see --max-rows)"));
        }
        if update_failed > 0 {
            warn(&format!("{update_failed} drops are in no row: the kernel refused to add one"));
        }
        if stack_failed > 0 {
            warn(&format!("{stack_failed} drops are in a row without a call chain: it could not be kept"));
        }
        if let Some(missed @ 1..) = recursion_missed {
            warn(&format!("{missed} drops are in no row: each interrupted the counting of another one"));
        }
    }

    fn say_cost(&mut self) -> Result<()> {
        let Some(before) = self.statistics else { return Ok(()) };
        let now = self.probe.stats()?;
        let (runs, time) = (now.runs - before.runs, now.run_time_ns - before.run_time_ns);
        self.statistics = Some(now);
        let each = time.checked_div(runs).map(|each| format!(", {each} ns each")).unwrap_or_default();
        say(&format!("cost: {runs} runs of the probe{each}"));
        Ok(())
    }
}
