//! From the probe to intervals: takes snapshots, and says at once what was lost.

use std::time::{Instant, SystemTime};

use anyhow::Result;

use crate::{
    aggregate::{Differ, Interval},
    console::{say, warn},
    probe::Probe,
    snapshot::Ledger,
    sys::ProgramStats,
};

/// Takes snapshots of a probe and turns them into intervals.
pub struct Collector {
    probe: Probe,
    max_rows: u32,
    differ: Differ,
    since: Instant,
    /// The last statistics, if the probe's cost is measured.
    statistics: Option<ProgramStats>,
}

impl Collector {
    /// A collector for a probe that has just been attached.
    #[must_use]
    pub fn new(probe: Probe, max_rows: u32, cost: bool) -> Self {
        let statistics = cost.then(ProgramStats::default);
        Self { probe, max_rows, differ: Differ::default(), since: Instant::now(), statistics }
    }

    /// The end of the last interval, or the start of the first.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What happened since the last call.
    pub fn interval(&mut self) -> Result<Interval> {
        let snapshot = self.probe.snapshot()?;
        let (now, ended) = (Instant::now(), SystemTime::now());
        let elapsed = now - std::mem::replace(&mut self.since, now);
        let (counts, ledger) = self.differ.advance(&snapshot);
        self.say_lost(ledger);
        self.say_cost()?;
        let total = snapshot.counts.iter().map(|(_, count)| count).sum();
        Ok(Interval { ended, elapsed, counts, total, ledger })
    }

    /// What happened since the last call, up to now: no drop is counted any more.
    pub fn last_interval(&mut self) -> Result<Interval> {
        self.probe.detach();
        self.interval()
    }

    /// Any loss is a warning in the interval in which it happens.
    fn say_lost(&self, ledger: Ledger) {
        let Ledger { map_full, update_failed, recursion_missed } = ledger;
        if map_full > 0 {
            let rows = self.max_rows;
            warn(&format!("{map_full} drops are in no row: all {rows} rows are taken (see --max-rows)"));
        }
        if update_failed > 0 {
            warn(&format!("{update_failed} drops are in no row: the kernel refused to add one"));
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
