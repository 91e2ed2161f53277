//! The whole run in one table: what a run ends with.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use dropwatch_common::row::RowKey;

use super::{
    figures::{peak, percent},
    harmless,
    layout::{Footer, Line, Sheet},
    table::{has_class_column, in_other_rows, meaning},
};
use crate::{
    knowledge::Meanings,
    model::{
        class::{Class, Split},
        evidence::Evidence,
        keys::Key,
        plural::counted,
        report::{Report, Row, Value, View, needs_namespaces},
    },
};

/// How many rows are remembered at least: some megabytes, however long a run is.
const REMEMBERED: usize = 4096;
/// How many are shown.
const SHOWN: usize = 20;
/// A day in seconds.
const DAY: u64 = 24 * 60 * 60;

/// What there was in the reports so far.
#[derive(Debug, Default)]
pub struct Tally {
    by: Vec<Key>,
    view: View,
    rows: HashMap<Vec<String>, Tallied>,
    split: Option<Split>,
    /// The largest peaks, of all drops.
    peak: Option<f64>,
    reports: u64,
    drops: u64,
    lost: u64,
    elapsed: Duration,
    /// When the last report was.
    last: Option<SystemTime>,
    /// Whether rows have been forgotten.
    forgot: bool,
    /// Whether a report has left rows out.
    cut: bool,
}

/// A row over several reports.
#[derive(Clone, Debug)]
struct Tallied {
    class: Option<Class>,
    peak: Option<f64>,
    values: Vec<Value>,
    /// The last packet that something was looked for with, and what was found.
    sampled: Vec<(Key, Value)>,
    evidence: Option<Vec<Evidence>>,
    count: u64,
    first: SystemTime,
    last: SystemTime,
    /// It came when others had been forgotten: it may have been one of them.
    late: bool,
}

impl Tally {
    /// Adds a report.
    pub fn add(&mut self, report: &Report) {
        self.by.clone_from(&report.by);
        self.view = report.view;
        self.peak = larger(self.peak, report.peak);
        if let Some(split) = report.split {
            self.split.get_or_insert_default().join(split);
        }
        self.reports += 1;
        self.drops += report.drops;
        self.lost += report.ledger.lost();
        self.elapsed += report.elapsed;
        self.last = Some(report.time);
        self.cut |= report.cut.rows > 0;
        for row in report.rows.iter().chain(&report.folded) {
            let class = row.class.map(|class| class.to_string());
            let key = row.values.iter().map(identity).chain(class).collect();
            let tallied = self.rows.entry(key).or_insert_with(|| Tallied {
                class: row.class,
                peak: None,
                values: row.values.clone(),
                sampled: Vec::new(),
                evidence: None,
                count: 0,
                first: report.time,
                last: report.time,
                late: self.forgot,
            });
            tallied.count += row.count;
            tallied.peak = larger(tallied.peak, row.peak);
            tallied.last = report.time;
            if row.evidence.is_some() {
                tallied.sampled.clone_from(&row.sampled);
                tallied.evidence.clone_from(&row.evidence);
            }
        }
        if self.rows.len() > 2 * REMEMBERED {
            self.forget();
        }
    }

    /// Keeps the largest rows, of equal ones the latest.
    fn forget(&mut self) {
        let mut rows: Vec<_> = self.rows.drain().collect();
        rows.sort_unstable_by(|(key, row), (other_key, other)| {
            let by_count = other.count.cmp(&row.count);
            by_count.then_with(|| other.last.cmp(&row.last)).then_with(|| key.cmp(other_key))
        });
        rows.truncate(REMEMBERED);
        self.rows.extend(rows);
        self.forgot = true;
    }

    /// What was counted, in words.
    #[must_use]
    pub fn title(&self) -> Vec<String> {
        let mut words = vec![
            "--- in all:".to_owned(),
            format!("{} dropped in {},", counted(self.drops, "packet"), in_words(self.elapsed)),
            counted(self.reports, "report"),
        ];
        if let (Some(split), Some(last)) = (self.split, words.last_mut()) {
            last.push(':');
            words.push(split.to_string());
        }
        if self.lost > 0 {
            words.push(format!("({} more in no row)", self.lost));
        }
        words
    }

    /// The largest rows; none if a report has shown them all the same.
    #[must_use]
    pub fn summary(&self, milliseconds: bool) -> Option<Summary<'_>> {
        if self.reports < 2 || self.drops == 0 {
            return None;
        }
        let (folded, mut rows): (Vec<_>, Vec<_>) =
            self.rows.iter().partition(|(_, row)| self.view.folds(row.class));
        rows.sort_unstable_by(|(key, row), (other_key, other)| {
            let by_class = self.view.rank(row.class).cmp(&self.view.rank(other.class));
            by_class.then_with(|| other.count.cmp(&row.count)).then_with(|| key.cmp(other_key))
        });
        let hidden = rows.len().saturating_sub(SHOWN) as u64;
        let rows: Vec<_> = rows.into_iter().take(SHOWN).map(|(_, row)| row).collect();
        let folded: Vec<_> = folded.into_iter().map(|(_, row)| row).collect();
        let harmless = if self.view.folds(Some(Class::Harmless)) {
            self.split.map_or(0, |split| split.of(Class::Harmless))
        } else {
            0
        };
        let others = self.drops - harmless - rows.iter().map(|row| row.count).sum::<u64>();
        let others = (others > 0).then(|| {
            let are_known = !self.forgot && !self.cut;
            (
                others,
                if are_known {
                    format!("in {}", counted(hidden, "other row"))
                } else {
                    "in other rows".into()
                },
            )
        });
        let note = rows
            .iter()
            .any(|row| row.late)
            .then_some(">=: more rows came than are remembered: these may have been forgotten for a while");
        Some(Summary { tally: self, rows, folded, harmless, others, note, milliseconds })
    }
}

/// The table at the end.
#[derive(Debug)]
pub struct Summary<'a> {
    tally: &'a Tally,
    rows: Vec<&'a Tallied>,
    folded: Vec<&'a Tallied>,
    /// The drops that are summed in one line; more than those of `folded`, if rows have been forgotten.
    harmless: u64,
    /// The drops of the rows that are not shown, and which these are.
    others: Option<(u64, String)>,
    milliseconds: bool,
    /// What the figures do not show.
    pub note: Option<&'static str>,
}

impl Summary<'_> {
    /// The table, to be laid out.
    #[must_use]
    pub fn sheet(&self, meanings: &mut Meanings) -> Sheet<'_> {
        let Tally { by, view, split, drops: all, peak: all_peak, .. } = self.tally;
        let share = |drops| percent(precise(drops) / precise(*all));
        let with_peak = |mut figures: Vec<String>, peak| {
            if all_peak.is_some() {
                figures.insert(1, peak);
            }
            figures
        };
        let with_day = self.spans_days();
        let time = |time| self.time(time, with_day);
        let figures = |row: &Tallied| {
            let bound = if row.late { ">=" } else { "" };
            with_peak(
                vec![format!("{bound}{}", row.count), share(row.count), time(row.first), time(row.last)],
                peak(row.peak),
            )
        };
        let footer = |class, drops: u64, peak, words| {
            let figures = vec![drops.to_string(), share(drops), String::new(), String::new()];
            Footer { class, figures: with_peak(figures, peak), words }
        };
        let mut footers = Vec::new();
        if self.harmless > 0 {
            let folded = self.folded.iter().map(|row| (row.count, &row.values[..]));
            let words = harmless::in_words(folded, self.harmless, meanings);
            footers.push(footer(Some(Class::Harmless), self.harmless, String::new(), words));
        }
        if let Some((drops, words)) = &self.others {
            let shown = self.rows.iter().map(|row| (row.class, row.count));
            let shown = shown.chain([(Some(Class::Harmless), self.harmless)]);
            footers.push(footer(None, *drops, String::new(), in_other_rows(words, *split, shown)));
        }
        footers.push(footer(None, *all, peak(*all_peak), vec!["total".to_owned()]));
        let rows = self.rows.iter().map(|&row| Line {
            class: row.class,
            meaning: meaning(row.class, &row.values, meanings),
            figures: figures(row),
            values: &row.values,
        });
        Sheet {
            by,
            figures: if all_peak.is_some() {
                &["COUNT", "PEAK", "SHARE", "FIRST", "LAST"]
            } else {
                &["COUNT", "SHARE", "FIRST", "LAST"]
            },
            optional: if all_peak.is_some() { &[2, 3] } else { &[1, 2] },
            classes: has_class_column(*view, by, self.rows.iter().map(|row| row.class)),
            namespaces: needs_namespaces(by, self.rows.iter().map(|row| &row.values[..])),
            rows: rows.collect(),
            footers,
        }
    }

    /// The rows, also those that are summed, as those of one report, and the time of the last; and of which of them
    /// only a bound is known.
    pub fn as_rows(&self) -> (&[Key], Vec<Row>, Vec<bool>, SystemTime) {
        let as_row = |&row: &&Tallied| Row {
            count: row.count,
            total: None,
            class: row.class,
            unclassed: 0,
            peak: row.peak,
            values: row.values.clone(),
            key: RowKey::default(),
            sample: None,
            sampled: row.sampled.clone(),
            evidence: row.evidence.clone(),
        };
        let time = self.tally.last.unwrap_or(SystemTime::UNIX_EPOCH);
        let rows = || self.rows.iter().chain(&self.folded);
        (&self.tally.by, rows().map(as_row).collect(), rows().map(|row| row.late).collect(), time)
    }

    fn spans_days(&self) -> bool {
        let day = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY
        };
        let mut days = self.rows.iter().flat_map(|row| [day(row.first), day(row.last)]);
        let first = days.next();
        days.any(|day| Some(day) != first)
    }

    /// The end of an interval in UTC; its day only if they are of several.
    fn time(&self, time: SystemTime, with_day: bool) -> String {
        let text = if self.milliseconds {
            humantime::format_rfc3339_millis(time).to_string()
        } else {
            humantime::format_rfc3339_seconds(time).to_string()
        };
        match text.split_once('T') {
            Some((_, time)) if !with_day => time.to_owned(),
            _ => text,
        }
    }
}

/// The larger of two peaks, as far as they are known.
fn larger(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

/// What tells a value from others of its key.
pub(super) fn identity(value: &Value) -> String {
    let netns = value.interface_namespace().map(|netns| format!(" {}", netns.namespace.id()));
    value.name() + &netns.unwrap_or_default()
}

/// `12.0 s`, `1h 4m 10s`
fn in_words(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(60) {
        format!("{:.1} s", elapsed.as_secs_f64())
    } else {
        humantime::format_duration(Duration::from_secs(elapsed.as_secs())).to_string()
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares are shown to a few digits")]
fn precise(drops: u64) -> f64 {
    drops as f64
}
