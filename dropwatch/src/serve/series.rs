//! Series that only grow, at most so many, whose sum is everything that was ever added.

use std::{collections::HashMap, sync::Arc};

use super::labels::Labels;

/// Counts by labels.
#[derive(Debug)]
pub struct Series {
    /// The most of them, with that of the others.
    limit: usize,
    counts: Vec<(Arc<Labels>, u64)>,
    places: HashMap<Arc<Labels>, usize>,
    /// The labels of what has no room.
    others: Arc<Labels>,
    /// What that is; none as long as everything has room.
    other: Option<u64>,
}

impl Series {
    /// None yet, and at most `limit`; what has no room is counted by the labels `others`.
    pub fn new(limit: usize, others: Labels) -> Self {
        Self { limit, counts: Vec::new(), places: HashMap::new(), others: Arc::new(others), other: None }
    }

    /// Adds to the series with these labels.
    pub fn add(&mut self, labels: Labels, count: u64) {
        if let Some(&place) = self.places.get(&labels) {
            self.counts[place].1 += count;
        } else if self.counts.len() + 1 < self.limit {
            let labels = Arc::new(labels);
            self.places.insert(Arc::clone(&labels), self.counts.len());
            self.counts.push((labels, count));
        } else {
            *self.other.get_or_insert(0) += count;
        }
    }

    /// All of them as of now.
    pub fn snapshot(&self) -> Vec<(Arc<Labels>, u64)> {
        let other = self.other.map(|other| (Arc::clone(&self.others), other));
        self.counts.iter().cloned().chain(other).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn labels(value: &str) -> Labels {
        Labels::new([("reason", Cow::Borrowed(value))])
    }

    fn sum(counts: &[(Arc<Labels>, u64)]) -> u64 {
        counts.iter().map(|(_, count)| count).sum()
    }

    proptest! {
        #[test]
        fn series_only_grow_and_their_sum_is_everything(
            limit in 1_usize..12,
            added in vec((0_u8..20, 0_u64..1_000_000), 0..200),
        ) {
            let mut series = Series::new(limit, labels("other"));
            let (mut before, mut total) = (Vec::new(), 0);
            for (value, count) in added {
                series.add(labels(&value.to_string()), count);
                total += count;
                let now = series.snapshot();
                prop_assert_eq!(sum(&now), total);
                prop_assert!(now.len() <= limit);
                for (labels, count) in &before {
                    let found = now.iter().find(|(other, _)| other == labels);
                    prop_assert!(found.is_some_and(|(_, now)| now >= count), "{labels:?} of {count}: {found:?}");
                }
                before = now;
            }
        }

        #[test]
        fn what_has_room_is_counted_by_its_own_labels(added in vec((0_u8..20, 1_u64..1000), 0..100)) {
            let mut series = Series::new(21, labels("other"));
            let mut expected: HashMap<u8, u64> = HashMap::new();
            for (value, count) in added {
                series.add(labels(&value.to_string()), count);
                *expected.entry(value).or_default() += count;
            }
            let found: HashMap<_, _> = series.snapshot().into_iter().collect();
            prop_assert_eq!(found.len(), expected.len());
            for (value, count) in expected {
                prop_assert_eq!(found.get(&labels(&value.to_string())), Some(&count));
            }
        }
    }

    #[test]
    fn one_series_is_that_of_the_others() {
        let mut series = Series::new(1, labels("other"));
        assert_eq!(series.snapshot(), []);
        series.add(labels("A"), 3);
        series.add(labels("B"), 4);
        assert_eq!(series.snapshot(), [(Arc::new(labels("other")), 7)]);
    }
}
