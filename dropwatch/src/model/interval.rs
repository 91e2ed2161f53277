//! The drops of one interval, before anything has a name.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use dropwatch_common::row::RowKey;

use crate::model::{counter::MovedCounter, references::References, sample::Sample, snapshot::Ledger};

/// The drops of one interval by raw key, before anything has a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// When it ended.
    pub ended: SystemTime,
    /// How long it was.
    pub elapsed: Duration,
    /// Its counts, in no order; a key without drops in this interval is not among them.
    pub counts: Vec<Count>,
    /// Drops since the probe was attached.
    pub total: u64,
    /// What was lost in this interval.
    pub ledger: Ledger,
    /// What its keys refer to.
    pub references: References,
    /// The kernel's own counters of losses that moved meanwhile.
    pub counters: Vec<MovedCounter>,
    /// The largest rate of all drops within one step, if it was sampled in steps.
    pub peak: Option<f64>,
    /// These steps; none if it was not sampled, or if there was too much in them to be kept.
    pub steps: Vec<Step>,
    /// What the probe itself has cost, if that is measured.
    pub cost: Option<Cost>,
    /// Some of its drops, and of those before it, newest first.
    pub samples: Vec<Arc<Sample>>,
}

#[cfg(test)]
impl Interval {
    /// A second with these counts and nothing else.
    pub fn of(counts: Vec<Count>) -> Self {
        let total = counts.iter().filter_map(|count| count.total).sum();
        Self {
            ended: SystemTime::UNIX_EPOCH,
            elapsed: Duration::from_secs(1),
            counts,
            total,
            ledger: Ledger::default(),
            references: References::default(),
            counters: Vec::new(),
            peak: None,
            steps: Vec::new(),
            cost: None,
            samples: Vec::new(),
        }
    }
}

/// What the probe has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How often it ran.
    pub runs: u64,
    /// How long, in nanoseconds.
    pub nanoseconds: u64,
}

/// What was counted within one step of an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// How long it was.
    pub seconds: f64,
    /// Drops by the place of their key among the interval's counts.
    pub counts: Vec<(u32, u64)>,
}

/// The drops of one key.
#[expect(clippy::struct_field_names, reason = "a count of drops, as outputs call it")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// What they have in common.
    pub key: RowKey,
    /// In the interval.
    pub count: u64,
    /// Since the probe was attached; unknown once there have been more keys than are remembered.
    pub total: Option<u64>,
    /// The largest rate within one step of the interval, in drops a second, if it was sampled in steps.
    pub peak: Option<f64>,
}
