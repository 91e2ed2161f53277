//! From the probe to intervals: takes snapshots, and says at once what was lost.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use crate::{
    evidence::counters::{BeingRead, Counters, Reading},
    model::{
        aggregate::Differ,
        counter::MovedCounter,
        interval::{Cost, Count, Interval},
        peaks::{Peaks, Sampled},
        plural::counted,
        snapshot::{Ledger, Snapshot},
    },
    probe::source::Source,
    process::notice::Notices,
    session::{losses, samples::Samples},
    sys::ProgramStats,
};

/// What has been said of the counters.
#[derive(Default)]
struct Said {
    /// That namespaces take turns.
    takes_turns: bool,
    /// That some cannot be entered.
    is_partial: bool,
    /// That one has ended.
    has_gone: bool,
}

/// Takes snapshots of a probe and turns them into intervals.
pub struct Collector {
    source: Box<dyn Source>,
    notices: Notices,
    differ: Differ,
    total: u64,
    since: Instant,
    /// The samples of this interval, if it is sampled in steps.
    sampling: Option<Sampling>,
    /// The last statistics, if the probe's cost is measured.
    statistics: Option<ProgramStats>,
    /// The kernel's counters, if they are read and not being read.
    counters: Option<Counters>,
    /// Some of the drops, if rows are explained.
    samples: Option<Samples>,
    /// What has been said of the counters, which is said once.
    said: Said,
}

/// The samples of an interval, and what they cost.
struct Sampling {
    peaks: Peaks,
    /// When the last one was taken.
    last: Instant,
    times: u32,
    took: Duration,
}

impl Sampling {
    fn new(step: Duration) -> Self {
        Self { peaks: Peaks::new(step), last: Instant::now(), times: 0, took: Duration::ZERO }
    }

    /// Adds what happened up to now.
    fn add(&mut self, (counts, ledger): (Vec<Count>, Ledger), now: Instant) {
        self.peaks.add(counts, ledger, now - std::mem::replace(&mut self.last, now));
    }

    /// What happened in the interval that ends.
    fn take(&mut self, elapsed: Duration) -> Sampled {
        if self.times > 0 {
            log::debug!("{} samples for peaks took {:?} each", self.times, self.took / self.times);
        }
        (self.times, self.took) = (0, Duration::ZERO);
        self.peaks.take(elapsed)
    }
}

impl Collector {
    /// A collector for a probe that has just been attached.
    #[must_use]
    pub fn new(source: Box<dyn Source>, notices: Notices, cost: bool) -> Self {
        let statistics = cost.then(ProgramStats::default);
        Self {
            source,
            notices,
            differ: Differ::default(),
            total: 0,
            since: Instant::now(),
            sampling: None,
            statistics,
            counters: None,
            samples: None,
            said: Said::default(),
        }
    }

    /// Has the kernel's own counters of losses read at each interval as well.
    #[must_use]
    pub fn with_counters(mut self) -> Self {
        self.counters = Some(Counters::start());
        self
    }

    /// Has some of the drops go with each interval.
    #[must_use]
    pub fn with_samples(mut self, samples: Option<Samples>) -> Self {
        self.samples = samples;
        self
    }

    /// Has intervals sampled in such steps, by [`Self::sample`].
    #[must_use]
    pub fn with_peaks(mut self, step: Option<Duration>) -> Self {
        self.sampling = step.map(Sampling::new);
        self
    }

    /// Takes a sample of the interval that goes on.
    pub fn sample(&mut self) -> Result<()> {
        let started = Instant::now();
        let snapshot = self.source.snapshot()?;
        let added = self.added(&snapshot);
        if let Some(sampling) = &mut self.sampling {
            sampling.add(added, Instant::now());
            sampling.times += 1;
            sampling.took += started.elapsed();
        }
        Ok(())
    }

    /// What a snapshot adds to the one before.
    fn added(&mut self, snapshot: &Snapshot) -> (Vec<Count>, Ledger) {
        let had_forgotten = self.differ.has_forgotten();
        let added = self.differ.advance(snapshot);
        if self.differ.has_forgotten() && !had_forgotten {
            log::info!(
                "more rows have come and gone than are remembered: the totals of new ones are not known"
            );
        }
        added
    }

    /// Whether there are losses in the kernel's counters that could not be read.
    #[must_use]
    pub fn has_unread_counters(&self) -> bool {
        self.said.is_partial || self.said.takes_turns
    }

    /// The end of the last interval, or the start of the first.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What happened since the last call, but for the kernel's counters.
    ///
    /// # Errors
    /// The probe cannot be read.
    pub fn interval(&mut self) -> Result<Interval> {
        let snapshot = self.source.snapshot()?;
        let (now, ended) = (Instant::now(), SystemTime::now());
        let elapsed = now - std::mem::replace(&mut self.since, now);
        let added = self.added(&snapshot);
        let (counts, ledger, peak, steps) = if let Some(sampling) = &mut self.sampling {
            sampling.add(added, now);
            let Sampled { counts, ledger, peak, steps } = sampling.take(elapsed);
            (counts, ledger, Some(peak), steps)
        } else {
            (added.0, added.1, None, Vec::new())
        };
        let references = self.source.references(&mut counts.iter().map(|count| &count.key));
        self.say_lost(ledger);
        let cost = self.cost()?;
        self.total += counts.iter().map(|count| count.count).sum::<u64>();
        let mut samples = self.samples.as_ref().map(Samples::end_interval).transpose()?.unwrap_or_default();
        samples.retain(|sample| self.source.counts(sample));
        Ok(Interval {
            ended,
            elapsed,
            counts,
            total: self.total,
            ledger,
            references,
            counters: Vec::new(),
            peak,
            steps,
            cost,
            samples,
        })
    }

    /// What happened since the last call, up to now: no drop is counted any more.
    pub fn last_interval(&mut self) -> Result<Interval> {
        self.source.stop();
        let mut interval = self.interval()?;
        if let Some(mut counters) = self.counters.take() {
            let reading = counters.last();
            interval.counters = self.moved(Some(Box::new((counters, reading))));
        }
        Ok(interval)
    }

    /// Begins to read the counters, if they are read.
    pub fn begin_counters(&mut self) -> Option<BeingRead> {
        let begun = self.counters.take()?.begin();
        begun.map_err(|_| self.say_unread()).ok()
    }

    fn say_unread(&mut self) {
        self.said.is_partial = true;
        self.notices.warn("the kernel's counters cannot be read any more, for want of memory or threads");
    }

    /// What a reading found that has ended, if it has.
    pub fn moved(&mut self, read: Option<Box<(Counters, Reading)>>) -> Vec<MovedCounter> {
        let Some((counters, reading)) = read.map(|read| *read) else {
            self.say_unread();
            return Vec::new();
        };
        self.counters = Some(counters);
        let Reading { moved, waiting, is_partial, has_gone } = reading;
        if has_gone && !std::mem::replace(&mut self.said.has_gone, true) {
            self.notices.warn(
                "a network namespace has ended, and its counters with it: what only they showed since they were last \
                 read is not listed, as with others that end",
            );
        }
        if is_partial && !std::mem::replace(&mut self.said.is_partial, true) {
            self.notices.warn(
                "there are network namespaces that cannot be entered: what interfaces, queue disciplines and sockets \
                 lose there is not listed (entering them requires CAP_SYS_ADMIN and CAP_SYS_PTRACE)",
            );
        }
        if waiting > 0 && !std::mem::replace(&mut self.said.takes_turns, true) {
            self.notices.warn(format!(
                "there are too many network namespaces to read the counters of all in each report: {waiting} of them \
                 wait for the next one"
            ));
        }
        moved
    }

    /// Any loss is a warning in the interval in which it happens.
    fn say_lost(&self, ledger: Ledger) {
        for warning in losses::warnings(ledger, self.source.room()) {
            self.notices.warn(warning);
        }
    }

    /// What the probe has cost since the last call, which is said.
    fn cost(&mut self) -> Result<Option<Cost>> {
        let Some(before) = self.statistics else { return Ok(None) };
        let now = self.source.stats()?;
        let (runs, nanoseconds) = (now.runs - before.runs, now.run_time_ns - before.run_time_ns);
        self.statistics = Some(now);
        let each = nanoseconds.checked_div(runs).map(|each| format!(", {each} ns each")).unwrap_or_default();
        self.notices.info(format!("cost: {} of the probe{each}", counted(runs, "run")));
        Ok(Some(Cost { runs, nanoseconds }))
    }
}
