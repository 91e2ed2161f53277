//! From snapshots to the counts of an interval: merge and difference. Values in, values out.

use dropwatch_common::row::RowKey;
// It hashes these keys in a fraction of the time of the standard library's.
use hashbrown::HashMap;

use crate::model::{
    interval::Count,
    keys::{Key, project},
    snapshot::{Counts, Ledger, Snapshot},
};

/// For how many keys that may come back the earlier drops are remembered: some 120 MB. A table of twice as many places
/// would begin beyond seven eighths of a power of two.
const REMEMBERED: usize = (1 << 20) / 8 * 7;

/// Turns snapshots, whose counts only grow, into differences between them.
///
/// Counts in the kernel are never cleared: clearing would race with the next increment, and a difference
/// cannot lose a drop.
#[derive(Debug)]
pub struct Differ {
    /// What the present counters have shown.
    seen: HashMap<RowKey, u64>,
    /// What those before them have counted, by key.
    earlier: HashMap<RowKey, u64>,
    /// How many keys `earlier` may hold.
    remembered: usize,
    /// Whether there were more.
    forgotten: bool,
    ledger: Ledger,
}

impl Default for Differ {
    fn default() -> Self {
        Self::remembering(REMEMBERED)
    }
}

impl Differ {
    fn remembering(keys: usize) -> Self {
        Self {
            seen: HashMap::new(),
            earlier: HashMap::new(),
            remembered: keys,
            forgotten: false,
            ledger: Ledger::default(),
        }
    }

    /// What was added since the last call, by key, with the totals; and what was lost since.
    pub fn advance(&mut self, snapshot: &Snapshot) -> (Vec<Count>, Ledger) {
        let counts = snapshot.counts.iter().filter_map(|&(key, now)| self.added(key, now)).collect();
        if snapshot.last {
            self.start_over(snapshot.renumbers);
        }
        let lost = snapshot.ledger.since(self.ledger);
        self.ledger = snapshot.ledger;
        (counts, lost)
    }

    fn added(&mut self, key: RowKey, now: u64) -> Option<Count> {
        let before = self.seen.insert(key, now).unwrap_or(0);
        // Counters of 64 bits wrap like the kernel's.
        let count = now.wrapping_sub(before);
        let total = match self.earlier.get(&key) {
            Some(earlier) => Some(earlier.wrapping_add(now)),
            None if self.forgotten => None,
            None => Some(now),
        };
        (count > 0).then_some(Count { key, count, total, peak: None })
    }

    /// Whether keys have been forgotten: the totals of those that are not remembered are unknown.
    #[must_use]
    pub fn has_forgotten(&self) -> bool {
        self.forgotten
    }

    /// The next counters start from zero.
    fn start_over(&mut self, renumbers: bool) {
        if renumbers {
            self.forget();
            return;
        }
        for (key, count) in self.seen.drain() {
            if let Some(earlier) = self.earlier.get_mut(&key) {
                *earlier = earlier.wrapping_add(count);
            } else if !self.forgotten && self.earlier.len() < self.remembered {
                self.earlier.insert(key, count);
            } else {
                self.forgotten = true;
            }
        }
    }

    /// No key means what it meant.
    fn forget(&mut self) {
        self.seen = HashMap::new();
        self.earlier = HashMap::new();
        self.forgotten = true;
    }
}

/// Sums the counts whose keys agree in `by`.
#[must_use]
pub fn merge(counts: &Counts, by: &[Key]) -> Counts {
    let mut merged: HashMap<RowKey, u64> = HashMap::with_capacity(counts.len());
    for (key, count) in counts {
        let sum = merged.entry(project(key, by)).or_default();
        *sum = sum.wrapping_add(*count);
    }
    merged.into_iter().collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn key(location: u64, reason: u32) -> RowKey {
        RowKey { location, reason, ..RowKey::default() }
    }

    /// Snapshots as the kernel makes them: counts that grow, keys that appear, in any order, and counters that
    /// are replaced by fresh ones; with each, what has been counted since the start.
    pub fn snapshots() -> impl Strategy<Value = Vec<(Snapshot, HashMap<RowKey, u64>)>> {
        let additions = vec((0_u64..8, 0_u32..3, 0_u64..1000), 0..12);
        vec((additions, 0_u64..5, any::<bool>(), 0..4), 0..10).prop_map(|steps| {
            let mut present: HashMap<RowKey, u64> = HashMap::new();
            let mut ever = HashMap::new();
            let mut ledger = Ledger::default();
            let mut snapshots = Vec::new();
            for (additions, lost, backwards, end) in steps {
                let (last, renumbers) = (end > 1, end > 2);
                for (location, reason, added) in additions {
                    *present.entry(key(location, reason)).or_default() += added;
                    *ever.entry(key(location, reason)).or_default() += added;
                }
                ledger.map_full += lost;
                let mut counts: Vec<_> = present.iter().map(|(&key, &count)| (key, count)).collect();
                counts.sort_unstable();
                if backwards {
                    counts.reverse();
                }
                snapshots.push((Snapshot { counts, last, renumbers, ledger }, ever.clone()));
                if last {
                    present.clear();
                }
            }
            snapshots
        })
    }

    proptest! {
        #[test]
        fn differences_add_up_to_what_they_are_differences_of(
            snapshots in snapshots(),
            remembered in 0_usize..30,
        ) {
            let mut differ = Differ::remembering(remembered);
            let (mut added, mut lost) = (HashMap::<RowKey, u64>::new(), 0);
            let mut renumbered = false;
            for (snapshot, ever) in &snapshots {
                let (counts, ledger) = differ.advance(snapshot);
                lost += ledger.map_full;
                for Count { key, count, total, .. } in counts {
                    prop_assert!(count > 0, "a key without drops is no row");
                    *added.entry(key).or_default() += count;
                    // There are 24 keys.
                    prop_assert!(total.is_some() || remembered < 24 || renumbered);
                    prop_assert!(total.is_none_or(|total| total == ever[&key]));
                    prop_assert!(total.is_none() || !renumbered, "a total of a key that means something else");
                }
                renumbered |= snapshot.renumbers;
                prop_assert!(differ.has_forgotten() || !renumbered);
                prop_assert!(differ.earlier.len() <= remembered);
                let ever: HashMap<_, _> =
                    ever.iter().filter(|(_, count)| **count > 0).map(|(&key, &count)| (key, count)).collect();
                prop_assert_eq!(&added, &ever);
            }
            prop_assert_eq!(lost, snapshots.last().map_or(0, |(last, _)| last.ledger.map_full));
        }

        #[test]
        fn merging_keeps_every_drop(snapshots in snapshots()) {
            let counts = snapshots.last().map(|(last, _)| last.counts.clone()).unwrap_or_default();
            let sum = |counts: &Counts| counts.iter().map(|(_, count)| count).sum::<u64>();
            for by in [&[][..], &[Key::Location], &[Key::Reason], &[Key::Reason, Key::Location]] {
                let merged = merge(&counts, by);
                prop_assert_eq!(sum(&merged), sum(&counts));
                for (key, count) in &merged {
                    let members = counts.iter().filter(|(member, _)| project(member, by) == *key);
                    prop_assert_eq!(*count, members.map(|(_, count)| count).sum::<u64>());
                }
            }
        }
    }

    #[test]
    fn a_counter_that_wraps_is_still_a_difference() {
        let mut differ = Differ::default();
        let snapshot = |count| Snapshot { counts: vec![(key(1, 2), count)], ..Snapshot::default() };
        differ.advance(&snapshot(u64::MAX - 1));
        assert_eq!(differ.advance(&snapshot(3)).0[0].count, 5);
    }

    #[test]
    fn what_the_kernel_does_not_count_stays_unknown() {
        let known = |missed| Ledger { recursion_missed: missed, ..Ledger::default() };
        assert_eq!(known(Some(7)).since(known(Some(5))).recursion_missed, Some(2));
        assert_eq!(known(None).since(known(None)).recursion_missed, None);
    }
}
