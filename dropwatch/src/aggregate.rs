//! From snapshots to the counts of an interval: difference and group. Values in, values out.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use dropwatch_common::DropKey;

use crate::snapshot::{Ledger, Snapshot};

/// What a row can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Where the packet was dropped.
    Location,
    /// Why.
    Reason,
}

impl Key {
    /// The word for it in options and reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Location => "location",
            Self::Reason => "reason",
        }
    }
}

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
}

/// The drops of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// What they have in common.
    pub key: DropKey,
    /// In the interval.
    pub count: u64,
    /// Since the probe was attached.
    pub total: u64,
}

/// Turns snapshots, whose counts only grow, into differences between them.
///
/// Counts in the kernel are never cleared: clearing would race with the next increment, and a difference
/// cannot lose a drop.
#[derive(Debug, Default)]
pub struct Differ {
    seen: HashMap<DropKey, u64>,
    ledger: Ledger,
}

impl Differ {
    /// What was added since the last call, by key, with the totals; and what was lost since.
    pub fn advance(&mut self, snapshot: &Snapshot) -> (Vec<Count>, Ledger) {
        let counts = snapshot
            .counts
            .iter()
            .filter_map(|&(key, total)| {
                let before = self.seen.insert(key, total).unwrap_or(0);
                // Counters of 64 bits wrap like the kernel's.
                let count = total.wrapping_sub(before);
                (count > 0).then_some(Count { key, count, total })
            })
            .collect();
        let lost = snapshot.ledger.since(self.ledger);
        self.ledger = snapshot.ledger;
        (counts, lost)
    }
}

/// Sums the counts whose keys agree in `by`.
#[must_use]
pub fn group(counts: Vec<Count>, by: &[Key]) -> Vec<Count> {
    let (location, reason) = (by.contains(&Key::Location), by.contains(&Key::Reason));
    if location && reason {
        return counts;
    }
    let mut groups: HashMap<DropKey, Count> = HashMap::new();
    for Count { key, count, total } in counts {
        let key = DropKey::new(if location { key.location } else { 0 }, if reason { key.reason } else { 0 });
        let group = groups.entry(key).or_insert(Count { key, count: 0, total: 0 });
        group.count += count;
        group.total += total;
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Snapshots as the kernel makes them: counts that grow, keys that appear, in any order.
    fn snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
        let additions = vec((0_u64..8, 0_u32..3, 0_u64..1000), 0..12);
        vec((additions, 0_u64..5, any::<bool>()), 0..10).prop_map(|steps| {
            let mut counts: HashMap<DropKey, u64> = HashMap::new();
            let mut ledger = Ledger::default();
            let mut snapshots = Vec::new();
            for (additions, lost, backwards) in steps {
                for (location, reason, added) in additions {
                    *counts.entry(DropKey::new(location, reason)).or_default() += added;
                }
                ledger.map_full += lost;
                let mut counts: Vec<_> = counts.iter().map(|(&key, &count)| (key, count)).collect();
                counts.sort_unstable();
                if backwards {
                    counts.reverse();
                }
                snapshots.push(Snapshot { counts, ledger });
            }
            snapshots
        })
    }

    fn sums<'a>(counts: impl IntoIterator<Item = &'a Count>) -> u64 {
        counts.into_iter().map(|count| count.count).sum()
    }

    proptest! {
        #[test]
        fn differences_add_up_to_what_they_are_differences_of(snapshots in snapshots()) {
            let mut differ = Differ::default();
            let (mut added, mut lost) = (HashMap::<DropKey, u64>::new(), 0);
            for snapshot in &snapshots {
                let (counts, ledger) = differ.advance(snapshot);
                lost += ledger.map_full;
                for Count { key, count, total } in counts {
                    prop_assert!(count > 0, "a key without drops is no row");
                    let sum = added.entry(key).or_default();
                    *sum += count;
                    prop_assert_eq!(*sum, total);
                }
            }
            let last = snapshots.last().cloned().unwrap_or_default();
            let seen: HashMap<_, _> = last.counts.into_iter().filter(|(_, count)| *count > 0).collect();
            prop_assert_eq!(added, seen);
            prop_assert_eq!(lost, last.ledger.map_full);
        }

        #[test]
        fn groups_hold_every_drop_once(snapshots in snapshots()) {
            let (counts, _) = Differ::default().advance(&snapshots.last().cloned().unwrap_or_default());
            for by in [&[][..], &[Key::Location], &[Key::Reason], &[Key::Reason, Key::Location]] {
                let groups = group(counts.clone(), by);
                prop_assert_eq!(sums(&groups), sums(&counts));
                for group in &groups {
                    let members = counts.iter().filter(|count| {
                        (!by.contains(&Key::Location) || count.key.location == group.key.location)
                            && (!by.contains(&Key::Reason) || count.key.reason == group.key.reason)
                    });
                    prop_assert_eq!(group.count, sums(members));
                }
            }
        }
    }

    #[test]
    fn a_counter_that_wraps_is_still_a_difference() {
        let mut differ = Differ::default();
        let snapshot =
            |count| Snapshot { counts: vec![(DropKey::new(1, 2), count)], ledger: Ledger::default() };
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
