//! What rules had counted when they were looked at before.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use super::rules::{Expression, Rule, Table};

/// More rules of a namespace are not kept.
const MOST: usize = 20_000;

/// What some counters were, by what they are found by.
#[derive(Debug)]
pub struct Counters<K> {
    before: HashMap<K, (u64, Instant)>,
    latest: HashMap<K, (u64, Instant)>,
    /// When counters were last found to have moved.
    moved: HashMap<K, Instant>,
    /// The report of the last look.
    report: u64,
}

/// What a rule of nftables is found by.
pub type Key = (Table, u64);

/// How far a rule's counter moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub packets: u64,
    pub within: Duration,
}

impl<K> Default for Counters<K> {
    fn default() -> Self {
        Self { before: HashMap::new(), latest: HashMap::new(), moved: HashMap::new(), report: 0 }
    }
}

impl<K: Clone + Eq + Hash> Counters<K> {
    /// A look begins, of the report with this number: all its rows compare with what was there before it.
    pub fn begin(&mut self, report: u64) {
        if self.report != report {
            self.before.extend(self.latest.drain());
            if self.before.len() > MOST {
                self.before.clear();
                self.moved.clear();
            }
        }
        self.report = report;
    }

    /// Notes counters as they are now.
    pub fn note(&mut self, now: Instant, counters: impl Iterator<Item = (K, u64)>) {
        for (key, packets) in counters.take(MOST) {
            if self.before.get(&key).is_some_and(|(before, _)| *before != packets) {
                self.moved.insert(key.clone(), now);
            }
            self.latest.insert(key, (packets, now));
        }
    }

    /// How far a counter moved since the report before; none if it was not known then, or may have counted the drops
    /// since `began` before that: looks are later than what they are about.
    pub fn moved(&self, now: Instant, key: &K, packets: u64, began: Option<Instant>) -> Option<Moved> {
        let (before, then) = self.before.get(key)?;
        // One that was reset counts from zero.
        let packets = packets.checked_sub(*before).unwrap_or(packets);
        let is_counted = |moved: &Instant| began.is_none_or(|began| *moved >= began);
        if packets == 0 && self.moved.get(key).is_some_and(is_counted) {
            return None;
        }
        Some(Moved { packets, within: now.saturating_duration_since(*then) })
    }
}

/// The counters of rules that have their own.
pub fn counters<'a>(rules: impl Iterator<Item = (&'a Table, &'a Rule)>) -> impl Iterator<Item = (Key, u64)> {
    rules.filter_map(|(table, rule)| Some(((table.clone(), rule.handle), counter(rule)?)))
}

/// The rule's own counter.
pub fn counter(rule: &Rule) -> Option<u64> {
    rule.expressions.iter().find_map(|expression| match expression {
        Expression::Counter { packets } => Some(*packets),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::objects::netfilter::hook::Family;

    #[test]
    fn all_rows_of_a_report_compare_with_the_report_before() {
        let table = Table { family: Family::Ip, name: b"t".into() };
        let of = |packets| {
            let expressions = vec![Expression::Counter { packets }];
            let (counting, other) = (Rule { handle: 4, expressions, ..Rule::default() }, Rule::default());
            counters([(&table, &counting), (&table, &other)].into_iter()).collect::<Vec<_>>().into_iter()
        };
        let key = |handle| (table.clone(), handle);
        let (start, mut noted) = (Instant::now(), Counters::default());
        noted.note(start, of(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let moved = |packets, seconds| Some(Moved { packets, within: Duration::from_secs(seconds) });
        noted.begin(1);
        let noted_moved = |noted: &Counters<Key>, now, packets, began: u64| {
            noted.moved(at(now), &key(4), packets, Some(at(began)))
        };
        assert_eq!(noted_moved(&noted, 5, 70, 0), moved(60, 5));
        noted.note(at(5), of(70));
        noted.begin(1);
        assert_eq!(noted_moved(&noted, 7, 71, 0), moved(61, 7), "another row of the same report");
        noted.begin(2);
        assert_eq!(noted_moved(&noted, 10, 71, 4), moved(1, 5));
        assert_eq!(noted_moved(&noted, 10, 3, 4), moved(3, 5), "it was reset");
        assert_eq!(noted_moved(&noted, 10, 70, 6), moved(0, 5), "it counted others");
        assert_eq!(noted_moved(&noted, 10, 70, 4), None, "it may have counted them before");
        assert_eq!(noted.moved(at(10), &key(4), 70, None), None, "it may have counted them before");
        assert_eq!(noted.moved(at(10), &key(5), 3, None), None);
    }
}
