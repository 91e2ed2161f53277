//! A report: an interval with names, sorted, cut to the requested rows.

mod names;
mod value;

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dropwatch_common::row::{RowKey, known};
use hashbrown::hash_map::Entry;
use serde::Serialize;

pub use self::{
    names::Names,
    value::{Function, Iface, Netns, Value, address, device_name, needs_namespaces},
};
use crate::model::{
    class::{Class, Destination, Split},
    counter::{Counter, unaccounted},
    evidence::Evidence,
    interval::{Cost, Count, Interval, Step},
    keys::{Key, counted, project},
    references::References,
    sample::{Sample, Samples},
    snapshot::Ledger,
};
/// Everything that is reported of one interval.
#[derive(Clone, Debug)]
pub struct Report {
    /// The interval's end.
    pub time: SystemTime,
    /// The interval's length.
    pub elapsed: Duration,
    /// What a row stands for, in the requested order.
    pub by: Vec<Key>,
    /// How its rows are arranged.
    pub view: View,
    /// The rows shown, in order, ties by name.
    pub rows: Vec<Row>,
    /// The harmless rows that are summed in one line, largest count first.
    pub folded: Vec<Row>,
    /// The rows not shown.
    pub cut: Cut,
    /// All drops of this interval by class; `None` if the keys do not determine it.
    pub split: Option<Split>,
    /// Drops in this interval: of all rows and of what was cut.
    pub drops: u64,
    /// Drops since the probe was attached.
    pub total: u64,
    /// What was lost in this interval.
    pub ledger: Ledger,
    /// Losses that the kernel counted and that no row accounts for.
    pub counters: Vec<Counter>,
    /// The largest rate of all drops within one step, if the interval was sampled in steps: then rows have peaks.
    pub peak: Option<f64>,
    /// What the probe itself has cost, if that is measured.
    pub cost: Option<Cost>,
    /// Whether its rows are explained.
    pub is_explained: bool,
}

/// One line of a report.
#[derive(Clone, Debug)]
pub struct Row {
    /// Drops in the interval.
    pub count: u64,
    /// Drops since the probe was attached; unknown once there have been more keys than are remembered.
    pub total: Option<u64>,
    /// What its drops are worth; none if its keys do not tell where and why they happened.
    pub class: Option<Class>,
    /// How many of them are [`Class::Lost`] because the place or the packet's destination is unknown.
    pub unclassed: u64,
    /// The largest rate within one step of the interval; unknown if none was sampled, and of rows that are summed.
    pub peak: Option<f64>,
    /// The values of the report's keys, in the same order.
    pub values: Vec<Value>,
    /// What the kernel counts these drops by, as far as the report's keys say it.
    pub key: RowKey,
    /// One of its drops.
    pub sample: Option<Arc<Sample>>,
    /// What that one says of itself, once something has been looked for.
    pub sampled: Vec<(Key, Value)>,
    /// What shows its cause; none if nothing was looked for.
    pub evidence: Option<Vec<Evidence>>,
}

/// Rows that are not shown, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// How many.
    pub rows: u64,
    /// The drops they count.
    pub drops: u64,
}

/// Which rows to show, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The first so many; all, if none.
    pub top: Option<usize>,
    /// Those with at least so many drops.
    pub min: u64,
    /// What comes first.
    pub order: Order,
    /// Whether harmless rows are summed in one line; only where classes come first.
    pub fold: bool,
}

/// What comes first in a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// What is lost, then what was refused, then what is harmless; each by count.
    Class,
    /// The largest count.
    #[default]
    Count,
}

impl View {
    /// Whether rows of that class are summed in one line.
    #[must_use]
    pub fn folds(self, class: Option<Class>) -> bool {
        self.fold && self.order == Order::Class && class == Some(Class::Harmless)
    }

    /// What comes first: rows of a class, or all alike.
    #[must_use]
    pub fn rank(self, class: Option<Class>) -> Option<Class> {
        class.filter(|_| self.order == Order::Class)
    }
}

impl Report {
    /// Names, sorts and cuts.
    pub fn new(interval: Interval, by: &[Key], view: View, names: &mut impl Names) -> Self {
        let Interval {
            ended,
            elapsed,
            counts,
            total,
            ledger,
            references,
            counters,
            peak,
            steps,
            cost,
            samples,
        } = interval;
        let drops = counts.iter().map(|count| count.count).sum();
        let counted = counted(by);
        let has_class = counted.contains(&Key::Class);
        let samples = Samples::new(&samples, &counted);
        let rows = counts.iter().map(|count| Row {
            sample: samples.of(&count.key, &references),
            ..Row::new(count, by, has_class, &references, names)
        });
        let (mut rows, places) = merged(rows.collect(), &counts, by);
        find_peaks(&mut rows, &places, &steps, elapsed);
        let counters = unaccounted(counters, by, &rows, names);
        let split = split(&rows);
        let empty = Self::empty(ended, by);
        Self { elapsed, rows, split, drops, total, ledger, counters, peak, cost, ..empty }.arranged(view)
    }

    /// Of no time, without a drop.
    pub fn empty(ended: SystemTime, by: &[Key]) -> Self {
        Self {
            time: ended,
            elapsed: Duration::ZERO,
            by: by.to_vec(),
            view: View::default(),
            rows: Vec::new(),
            folded: Vec::new(),
            cut: Cut::default(),
            split: None,
            drops: 0,
            total: 0,
            ledger: Ledger::default(),
            counters: Vec::new(),
            peak: None,
            cost: None,
            is_explained: false,
        }
    }

    /// The same report with its rows in another order, and no more of them than `view` shows.
    #[must_use]
    pub fn arranged(mut self, view: View) -> Self {
        self.rows.append(&mut self.folded);
        self.rows = sorted(self.rows, view);
        // Nearly always none: the others are not moved.
        self.folded = self.rows.extract_if(.., |row| view.folds(row.class)).collect();
        let cut = cut(&mut self.rows, view);
        self.cut.rows += cut.rows;
        self.cut.drops += cut.drops;
        self.view = view;
        self
    }

    /// Drops a second.
    #[must_use]
    pub fn rate(&self, drops: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { precise(drops) / seconds } else { 0.0 }
    }

    /// The part of this interval's drops, from 0 to 1.
    #[must_use]
    pub fn share(&self, drops: u64) -> f64 {
        if self.drops > 0 { precise(drops) / precise(self.drops) } else { 0.0 }
    }
}

/// A count as a number to divide; beyond 2^53 the last digits go, which no rate shows.
#[expect(clippy::cast_precision_loss, reason = "rates and shares are shown to a few digits")]
fn precise(drops: u64) -> f64 {
    drops as f64
}

impl Row {
    /// The row of one drop.
    pub fn of_drop(sample: Arc<Sample>, by: &[Key], names: &mut impl Names) -> Self {
        let count = Count { key: sample.key, count: 1, total: Some(1), peak: None };
        let has_class = counted(by).contains(&Key::Class);
        let row = Self::new(&count, by, has_class, &References::default(), names);
        Self { sampled: Value::of_drop(&sample.key, names), sample: Some(sample), ..row }
    }

    fn new(
        count: &Count,
        by: &[Key],
        has_class: bool,
        references: &References,
        names: &mut impl Names,
    ) -> Self {
        let values = by.iter().map(|&key| Value::new(key, &count.key, references, names)).collect();
        let known = has_class.then(|| class(&count.key, names)).flatten();
        Self {
            count: count.count,
            total: count.total,
            class: has_class.then(|| known.unwrap_or(Class::Lost)),
            unclassed: if has_class && known.is_none() { count.count } else { 0 },
            peak: count.peak,
            values,
            key: project(&count.key, by),
            sample: None,
            sampled: Vec::new(),
            evidence: None,
        }
    }

    /// One that has a count and nothing else besides its values.
    #[cfg(test)]
    pub fn counting(count: u64, values: Vec<Value>) -> Self {
        Self {
            count,
            total: None,
            class: None,
            unclassed: 0,
            peak: None,
            values,
            key: RowKey::default(),
            sample: None,
            sampled: Vec::new(),
            evidence: None,
        }
    }
}

/// What the drops of a key are worth.
fn class(key: &RowKey, names: &mut impl Names) -> Option<Class> {
    let is_known = key.known & known::KIND != 0;
    let destination = if is_known { Destination::of_kind(key.kind) } else { Destination::Unknown };
    names.class(key.location, key.reason, destination)
}

/// Sums rows that the kernel counts apart and whose keys agree, and with them their classes; and the row of each count.
fn merged(rows: Vec<Row>, counts: &[Count], by: &[Key]) -> (Vec<Row>, Vec<usize>) {
    let kernels: Vec<_> = by.iter().copied().filter(|key| !key.is_derived()).collect();
    // The kernel's keys are distinct.
    let is_whole = |(row, count): (&Row, &Count)| row.key == count.key;
    if kernels.len() == by.len() && rows.iter().zip(counts).all(is_whole) {
        let places = (0..rows.len()).collect();
        return (rows, places);
    }
    let mut merged: Vec<Row> = Vec::with_capacity(rows.len());
    let mut places = hashbrown::HashMap::with_capacity(rows.len());
    let mut of_counts = Vec::with_capacity(rows.len());
    for (row, count) in rows.into_iter().zip(counts) {
        let derived = by.iter().zip(&row.values).filter(|(key, _)| key.is_derived());
        let derived: Vec<_> = derived.map(|(_, value)| value.words()).collect();
        match places.entry((project(&count.key, &kernels), derived, row.class)) {
            Entry::Vacant(place) => {
                of_counts.push(*place.insert(merged.len()));
                merged.push(row);
            }
            Entry::Occupied(place) => {
                of_counts.push(*place.get());
                let sum = &mut merged[*place.get()];
                sum.values.iter_mut().zip(&row.values).for_each(|(value, other)| value.doubt_with(other));
                sum.count += row.count;
                sum.unclassed += row.unclassed;
                sum.total = sum.total.zip(row.total).map(|(one, other)| one + other);
                // They need not have had theirs in the same step: it is found in the steps.
                sum.peak = None;
                sum.sample = sum.sample.take().or(row.sample);
            }
        }
    }
    (merged, of_counts)
}

/// Finds the peaks of rows that are sums, in the steps.
fn find_peaks(rows: &mut [Row], of_counts: &[usize], steps: &[Step], elapsed: Duration) {
    let mut peaks = vec![0.0_f64; rows.len()];
    for step in steps {
        let mut drops: HashMap<usize, u64> = HashMap::new();
        for (place, count) in &step.counts {
            *drops.entry(of_counts[*place as usize]).or_default() += count;
        }
        for (row, drops) in drops {
            peaks[row] = peaks[row].max(precise(drops) / step.seconds);
        }
    }
    for (row, peak) in rows.iter_mut().zip(peaks).filter(|(row, _)| row.peak.is_none() && !steps.is_empty()) {
        let whole = elapsed.as_secs_f64();
        row.peak = Some(if whole > 0.0 { peak.max(precise(row.count) / whole) } else { peak });
    }
}

/// Drops by class; `None` if the keys of these rows do not determine it.
fn split(rows: &[Row]) -> Option<Split> {
    let mut split = Split::default();
    for row in rows {
        split.add(row.class?, row.count);
    }
    (!rows.is_empty()).then_some(split)
}

/// Largest first, ties by name, so that two reports of the same drops read the same.
///
/// Rows are large and lie all over the memory, so it is their places that are sorted, beside what nearly always decides.
fn sorted(rows: Vec<Row>, view: View) -> Vec<Row> {
    let first = |row: &Row| (view.rank(row.class), Reverse(row.count), value::head(&row.values));
    let mut order: Vec<_> = rows.iter().enumerate().map(|(place, row)| (first(row), place)).collect();
    order.sort_unstable_by(|(first, place), (other_first, other)| {
        first.cmp(other_first).then_with(|| by_name(&rows[*place], &rows[*other]))
    });
    let mut rows: Vec<_> = rows.into_iter().map(Some).collect();
    order.into_iter().filter_map(|(_, place)| rows[place].take()).collect()
}

fn by_name(row: &Row, other: &Row) -> Ordering {
    let values = row.values.iter().zip(&other.values);
    let names = values.map(|(value, other)| value.cmp_name(other)).find(|order| order.is_ne());
    names.unwrap_or_else(|| row.class.cmp(&other.class))
}

/// Takes away what is not to be shown.
fn cut(rows: &mut Vec<Row>, view: View) -> Cut {
    let mut rest: Vec<_> = rows.extract_if(.., |row| row.count < view.min).collect();
    rest.extend(rows.split_off(rows.len().min(view.top.unwrap_or(usize::MAX))));
    Cut { rows: rest.len() as u64, drops: rest.iter().map(|row| row.count).sum() }
}

#[cfg(test)]
mod tests;
