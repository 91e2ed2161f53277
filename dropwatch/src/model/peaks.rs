//! Bursts: the counts of an interval, sampled in steps, with the largest rate of each row within one of them.

use std::time::Duration;

use dropwatch_common::row::RowKey;
use hashbrown::HashMap;

use crate::model::{
    interval::{Count, Step},
    snapshot::Ledger,
};

/// The most counts of steps that are kept, of 16 bytes each.
const KEPT: usize = 1 << 18;

/// What the samples of an interval have shown so far.
#[derive(Debug)]
pub struct Peaks {
    step: Duration,
    counts: Vec<Count>,
    /// Where the count of a key is.
    places: HashMap<RowKey, usize>,
    steps: Vec<Step>,
    /// How many counts there are in the steps; those of an interval with too many are not kept.
    in_steps: usize,
    ledger: Ledger,
    /// Of all drops together.
    peak: f64,
}

/// What happened in an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its counts, in no order.
    pub counts: Vec<Count>,
    /// What was lost.
    pub ledger: Ledger,
    /// The largest rate of all drops together.
    pub peak: f64,
    /// The steps, unless there was too much in them.
    pub steps: Vec<Step>,
}

impl Peaks {
    /// Peaks within steps of that length.
    #[must_use]
    pub fn new(step: Duration) -> Self {
        Self {
            step,
            counts: Vec::new(),
            places: HashMap::new(),
            steps: Vec::new(),
            in_steps: 0,
            ledger: Ledger::default(),
            peak: 0.0,
        }
    }

    /// Adds what happened since the last sample, `elapsed` ago.
    ///
    /// A late sample is of a longer step. The last one of an interval may be of a shorter one: its drops are those of a
    /// whole step, because a rate within less is no rate of a step.
    pub fn add(&mut self, counts: Vec<Count>, ledger: Ledger, elapsed: Duration) {
        let seconds = self.step.max(elapsed).as_secs_f64();
        let all: u64 = counts.iter().map(|count| count.count).sum();
        self.peak = self.peak.max(precise(all) / seconds);
        self.ledger = self.ledger.plus(ledger);
        let mut step = Step { seconds, counts: Vec::new() };
        for count in counts {
            let rate = precise(count.count) / seconds;
            let place = *self.places.entry(count.key).or_insert(self.counts.len());
            if place == self.counts.len() {
                self.counts.push(Count { count: 0, peak: None, ..count });
            }
            let sum = &mut self.counts[place];
            sum.count += count.count;
            sum.total = count.total;
            sum.peak = Some(sum.peak.unwrap_or(0.0).max(rate));
            step.counts.extend(u32::try_from(place).map(|place| (place, count.count)));
        }
        self.keep(step);
    }

    fn keep(&mut self, step: Step) {
        self.in_steps = self.in_steps.saturating_add(step.counts.len());
        if self.in_steps > KEPT {
            self.steps = Vec::new();
        } else if !step.counts.is_empty() {
            self.steps.push(step);
        }
    }

    /// What happened in the interval that ends now. No peak is below the rate of the whole interval.
    pub fn take(&mut self, elapsed: Duration) -> Sampled {
        let seconds = elapsed.as_secs_f64();
        let at_least =
            |peak: f64, count: u64| if seconds > 0.0 { peak.max(precise(count) / seconds) } else { peak };
        let mut counts = std::mem::take(&mut self.counts);
        self.places.clear();
        self.in_steps = 0;
        let all = counts.iter().map(|count| count.count).sum();
        for count in &mut counts {
            count.peak = count.peak.map(|peak| at_least(peak, count.count));
        }
        let peak = at_least(std::mem::take(&mut self.peak), all);
        let (ledger, steps) = (std::mem::take(&mut self.ledger), std::mem::take(&mut self.steps));
        Sampled { counts, ledger, peak, steps }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are shown to a few digits")]
fn precise(drops: u64) -> f64 {
    drops as f64
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::model::aggregate::{Differ, tests::snapshots};

    const STEP: Duration = Duration::from_millis(10);

    fn count(location: u64, count: u64) -> Count {
        Count { key: RowKey { location, ..RowKey::default() }, count, total: Some(count), peak: None }
    }

    fn of(sampled: &Sampled, location: u64) -> (u64, Option<f64>) {
        let count =
            sampled.counts.iter().find(|count| count.key.location == location).expect("it was counted");
        (count.count, count.peak)
    }

    #[test]
    fn bursts_and_trickles_differ() {
        let mut peaks = Peaks::new(STEP);
        peaks.add(vec![count(1, 400), count(2, 1)], Ledger::default(), STEP);
        for _ in 0..399 {
            peaks.add(vec![count(2, 1)], Ledger::default(), STEP);
        }
        let sampled = peaks.take(STEP * 400);
        assert_eq!(of(&sampled, 1), (400, Some(40_000.0)));
        assert_eq!(of(&sampled, 2), (400, Some(100.0)));
        assert!((sampled.peak - 40_100.0).abs() < 1e-9);
        assert_eq!(sampled.steps.len(), 400);
        assert_eq!(sampled.steps[1].counts, [(1, 1)]);
        let nothing = Sampled { counts: Vec::new(), ledger: Ledger::default(), peak: 0.0, steps: Vec::new() };
        assert_eq!(peaks.take(STEP), nothing);
    }

    #[test]
    fn a_late_sample_is_a_longer_step_and_the_rest_of_an_interval_a_whole_one() {
        let mut peaks = Peaks::new(STEP);
        peaks.add(vec![count(1, 400)], Ledger::default(), STEP * 4);
        peaks.add(vec![count(2, 1)], Ledger::default(), Duration::from_micros(1));
        let sampled = peaks.take(STEP * 5);
        assert_eq!((of(&sampled, 1).1, of(&sampled, 2).1), (Some(10_000.0), Some(100.0)));
        // Two halves in steps that are longer, together, than the interval.
        let step = Duration::from_millis(600);
        let mut peaks = Peaks::new(step);
        peaks.add(vec![count(1, 5)], Ledger::default(), step);
        peaks.add(vec![count(1, 5)], Ledger::default(), Duration::from_millis(400));
        assert_eq!(of(&peaks.take(Duration::from_secs(1)), 1), (10, Some(10.0)));
    }

    #[test]
    fn steps_with_too_much_in_them_are_not_kept() {
        let mut peaks = Peaks::new(STEP);
        let many: Vec<_> = (0..u64::try_from(KEPT / 2).unwrap()).map(|location| count(location, 1)).collect();
        for expected in [true, true, false, false] {
            peaks.add(many.clone(), Ledger::default(), STEP);
            assert_eq!(!peaks.steps.is_empty(), expected);
        }
        assert_eq!(of(&peaks.take(STEP * 4), 7), (4, Some(100.0)));
        peaks.add(many, Ledger::default(), STEP);
        assert_eq!(peaks.take(STEP).steps.len(), 1, "the next interval is another one");
    }

    proptest! {
        /// However often they are sampled, the same drops are counted, with the same totals and losses.
        #[test]
        fn samples_change_no_count(snapshots in snapshots(), reported in vec(any::<bool>(), 10)) {
            let (mut plain, mut sampled) = (Differ::default(), Differ::default());
            let mut peaks = Peaks::new(STEP);
            for ((snapshot, _), is_reported) in snapshots.iter().zip(reported) {
                let (counts, ledger) = sampled.advance(snapshot);
                peaks.add(counts, ledger, STEP);
                // One that skips snapshots would miss what ended with them.
                if !is_reported && !snapshot.last {
                    continue;
                }
                let (mut counts, ledger) = plain.advance(snapshot);
                let mut ours = peaks.take(STEP);
                prop_assert!(ours.counts.iter().all(|count| count.peak.is_some()));
                ours.counts.iter_mut().for_each(|count| count.peak = None);
                counts.sort_unstable_by_key(|count| count.key);
                ours.counts.sort_unstable_by_key(|count| count.key);
                prop_assert_eq!((counts, ledger), (ours.counts, ours.ledger));
            }
        }
    }
}
