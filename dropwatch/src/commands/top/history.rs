//! What has been: of each row and of all drops, as long as the screen is wide, and no longer.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use crate::model::{
    class::{Class, Split},
    report::{Report, Row, Value},
};

/// How many intervals of a row are kept, for its sparkline.
pub const OF_A_ROW: usize = 120;
/// How many intervals of all drops are kept, for the chart: a column each, on the widest screen.
pub const OF_ALL: usize = 600;
/// The most rows that are kept. Beyond it, those go that have been silent for longest.
pub const MOST_ROWS: usize = 2048;
/// How long the mark of a new or grown row stays.
pub const MARKED: Duration = Duration::from_secs(10);
/// A row has grown when its rate is so many times what it was on average.
const GROWN: f64 = 2.0;
/// By fewer drops than this a row has not grown.
const GROWN_BY: u64 = 10;

/// What tells a row from all others, and stays the same from one report to the next.
pub type RowId = Arc<(Vec<String>, Option<Class>)>;

/// Rows, each by what tells it from all others.
pub type Lines = BTreeMap<RowId, Line>;

/// A row and what has been of it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which one it is.
    pub id: RowId,
    /// As it was in the last report that has it.
    pub row: Row,
    /// Its drops in the last interval.
    pub count: u64,
    /// Its drops since it was first seen.
    pub total: u64,
    /// The largest rate.
    pub peak: f64,
    /// Drops a second, the newest last.
    pub rates: VecDeque<f32>,
    /// Their sum, by which rows are in order: that moves less than a rate.
    pub recent: f64,
    /// How many of them are not zero.
    active: usize,
    /// When it was new, on the state's clock; none if it has been there from the start.
    pub new_at: Option<Duration>,
    /// When it grew last.
    pub grown_at: Option<Duration>,
    /// When it last had drops.
    pub seen_at: Duration,
}

impl Line {
    fn push(&mut self, rate: f32) {
        if self.rates.len() == OF_A_ROW {
            let oldest = self.rates.pop_front().unwrap_or(0.0);
            self.recent -= f64::from(oldest);
            self.active -= usize::from(oldest > 0.0);
        }
        self.rates.push_back(rate);
        self.recent += f64::from(rate);
        self.active += usize::from(rate > 0.0);
    }

    /// The mean of what is kept; none before there is enough of it.
    fn mean(&self) -> Option<f64> {
        let enough = self.rates.len() >= 3;
        #[expect(clippy::cast_precision_loss, reason = "a count of at most a hundred or so")]
        enough.then(|| self.recent / self.rates.len() as f64)
    }
}

/// All drops of an interval, as a column of the chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// How long it was.
    pub seconds: f32,
    /// Its drops by class.
    pub split: Split,
    /// Its drops whose class the keys do not tell.
    pub others: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The rows.
    pub lines: Lines,
    /// The newest last.
    pub columns: VecDeque<Column>,
    /// The sum of all intervals.
    pub clock: Duration,
    /// How many reports there have been.
    reports: u64,
}

impl History {
    /// Adds a report.
    pub fn add(&mut self, report: &Report) {
        self.clock += report.elapsed;
        self.reports += 1;
        self.add_column(report);
        for line in self.lines.values_mut() {
            line.count = 0;
        }
        for row in &report.rows {
            self.add_row(row, report);
        }
        for line in self.lines.values_mut().filter(|line| line.count == 0) {
            line.push(0.0);
        }
        self.forget();
    }

    /// A column of the chart for an interval, also of a probe whose rows are no longer shown.
    pub fn add_column(&mut self, report: &Report) {
        if self.columns.len() == OF_ALL {
            self.columns.pop_front();
        }
        let (split, others) = report.split.map_or((Split::default(), report.drops), |split| (split, 0));
        self.columns.push_back(Column { seconds: report.elapsed.as_secs_f32(), split, others });
    }

    /// Forgets the rows, as when keys change; the chart stays.
    pub fn clear_rows(&mut self) {
        self.lines.clear();
        self.reports = 0;
    }

    fn add_row(&mut self, row: &Row, report: &Report) {
        let id: RowId = Arc::new((row.values.iter().map(Value::name).collect(), row.class));
        let rate = report.rate(row.count);
        #[expect(clippy::cast_possible_truncation, reason = "a sparkline has eight heights")]
        let short = rate as f32;
        let peak = row.peak.unwrap_or(rate).max(rate);
        let line = match self.lines.entry(id.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                place.insert(Line {
                    id,
                    row: row.clone(),
                    count: row.count,
                    total: row.total.unwrap_or(row.count),
                    peak,
                    rates: VecDeque::from([short]),
                    recent: f64::from(short),
                    active: usize::from(short > 0.0),
                    new_at: (self.reports > 1).then_some(self.clock),
                    grown_at: None,
                    seen_at: self.clock,
                });
                return;
            }
        };
        let is_grown = line.mean().is_some_and(|mean| rate > GROWN * mean);
        if is_grown && row.count >= GROWN_BY {
            line.grown_at = Some(self.clock);
        }
        line.count = row.count;
        line.total = row.total.unwrap_or(line.total + row.count);
        line.peak = line.peak.max(peak);
        line.seen_at = self.clock;
        line.row = row.clone();
        line.push(short);
    }

    /// Forgets rows without drops in all that is kept, and those that are too many.
    fn forget(&mut self) {
        self.lines.retain(|_, line| line.active > 0);
        let surplus = self.lines.len().saturating_sub(MOST_ROWS);
        if surplus > 0 {
            let mut by_age: Vec<_> = self.lines.values().collect();
            by_age.select_nth_unstable_by(surplus - 1, |line, other| {
                line.seen_at.cmp(&other.seen_at).then(line.recent.total_cmp(&other.recent))
            });
            let gone: Vec<_> = by_age[..surplus].iter().map(|line| line.id.clone()).collect();
            for id in &gone {
                self.lines.remove(id);
            }
        }
    }
}
