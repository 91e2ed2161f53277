//! What a row's drops mean, what shows their cause, and what to check: as `watch --explain` says it of a row.

use std::{
    sync::PoisonError,
    time::{Duration, Instant, SystemTime},
};

use super::Target;
use crate::{
    kernel::{names::KernelNames, netns::entering},
    knowledge::Meanings,
    model::{
        keys::Key,
        report::{Row, Value},
    },
    render::explanation,
    session::digger::SharedLooker,
};

/// How often objects are looked at.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said of a row.
pub struct Meaning {
    target: Target,
    meanings: Meanings,
    looker: SharedLooker,
    /// When objects were looked at.
    looked: Option<Instant>,
    /// Drops since then.
    drops: u64,
    /// When objects were found.
    pub time: Option<SystemTime>,
    /// The lines, which are not broken yet.
    pub lines: Vec<String>,
}

impl Meaning {
    pub fn new(target: Target, looker: SharedLooker) -> Self {
        Self {
            target,
            meanings: Meanings::default(),
            looker,
            looked: None,
            drops: 0,
            time: None,
            lines: Vec::new(),
        }
    }

    /// Looks at what the newest drops show; the first time also without any.
    pub fn look(&mut self, by: &[Key], rows: &[Row], names: &mut KernelNames) {
        self.drops += rows.iter().map(|row| row.count).sum::<u64>();
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= PATIENCE);
        let newest = rows.iter().max_by_key(|row| (row.sample.is_some(), row.count));
        match newest {
            Some(row) if is_due || self.lines.is_empty() => {
                let row = Row { count: std::mem::take(&mut self.drops), ..row.clone() };
                self.looked = Some(Instant::now());
                self.explain(by, row, names);
            }
            None if self.lines.is_empty() => {
                let Target { by, row, .. } = self.target.clone();
                self.explain(&by, row, names);
            }
            _ => {}
        }
    }

    fn explain(&mut self, by: &[Key], mut row: Row, names: &mut KernelNames) {
        let Some(entry) = self.meanings.entry(&row.values) else {
            self.lines = vec![UNKNOWN.to_owned()];
            return;
        };
        if let Some(sample) = &row.sample {
            row.sampled = Value::of_drop(&sample.key, &mut names.for_report());
        }
        self.looker.lock().unwrap_or_else(PoisonError::into_inner).look_at(&mut row, names);
        // What was found once is shown until something else is.
        let found_nothing = row.evidence.as_ref().is_none_or(Vec::is_empty);
        if found_nothing && self.lines.iter().any(|line| line.trim_start().starts_with("->")) {
            return;
        }
        self.time = row.evidence.as_ref().filter(|found| !found.is_empty()).map(|_| SystemTime::now());
        // One time is shown for all objects.
        self.lines = explanation(entry, by, &row, SystemTime::UNIX_EPOCH, entering, None);
    }
}

const UNKNOWN: &str =
    "What such drops mean is not known here: the call chain and the packets below say more.";
