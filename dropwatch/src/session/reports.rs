//! Sends an interval to the sink at each tick, until the schedule, a signal or the reader ends it.

use std::{future, time::Instant};

use anyhow::Result;
use tokio::{
    sync::mpsc::{self, Receiver, Sender, error::TrySendError},
    time::sleep_until,
};

use crate::{
    cli::config::Timing,
    evidence::counters::{BeingRead, Counters, Reading},
    model::interval::Interval,
    process::{notice::Notices, signals::Stop},
    session::{collector::Collector, schedule::Schedule},
};

/// Intervals that may wait for a slow reader before ticks are missed.
const QUEUE: usize = 16;

/// Said once until it is over: it may be many reports.
const BEHIND: &str = "reports are due faster than they are printed or read: some are left out, and the next one covers \
                      their drops";

/// What takes and sends the intervals of a run.
pub struct Reports {
    collector: Collector,
    sender: Sender<Interval>,
    stop: Stop,
    notices: Notices,
    schedule: Schedule,
    /// Samples of an interval that goes on: they are late rather than too many, and reports do not wait for them.
    samples: Option<Schedule>,
    /// Whether the reader is behind.
    behind: bool,
    /// The last report, while the counters are read that belong to it.
    unsent: Option<Unsent>,
}

/// A report without what the kernel's counters say.
struct Unsent {
    interval: Interval,
    counters: BeingRead,
}

/// What is due.
enum Due {
    Report,
    /// A report between two others, on request.
    Extra,
    Sample,
    /// The counters have been read; nothing if that failed.
    Counted(Option<Box<(Counters, Reading)>>),
    /// The last report.
    End,
    /// Nothing more: there is no reader.
    Nothing,
}

impl Reports {
    /// Reports at this pace, and where they arrive.
    #[must_use]
    pub fn new(
        timing: Timing,
        collector: Collector,
        stop: Stop,
        notices: Notices,
    ) -> (Self, Receiver<Interval>) {
        let (sender, intervals) = mpsc::channel(QUEUE);
        let schedule = Schedule::new(collector.since(), timing.interval, timing.duration, timing.reports);
        let samples = timing.peak.map(|step| Schedule::new(collector.since(), step, None, None));
        let reports =
            Self { collector, sender, stop, notices, schedule, samples, behind: false, unsent: None };
        (reports, intervals)
    }

    /// Sends all of them.
    ///
    /// # Errors
    /// The probe cannot be read.
    pub async fn send(mut self) -> Result<()> {
        loop {
            match self.due().await {
                Due::Report => self.report().await?,
                // Without room for it, reports come faster than they are read already.
                Due::Extra => {
                    self.complete().await;
                    if self.sender.capacity() > 0 {
                        self.begin()?;
                    }
                }
                Due::Counted(counted) => self.counted(counted),
                Due::Sample => {
                    self.sampled_by(Instant::now());
                    self.collector.sample()?;
                }
                Due::End => break,
                Due::Nothing => return Ok(()),
            }
        }
        self.complete().await;
        // A reader that went away meanwhile is a good end as well.
        let _ = self.sender.send(self.collector.last_interval()?).await;
        Ok(())
    }

    /// Waits for what comes next.
    async fn due(&mut self) -> Due {
        let tick = self.schedule.next();
        let sample = self.samples.as_ref().map_or(tick.at, |samples| samples.next().at);
        let unsent = &mut self.unsent;
        let counted = async {
            match unsent {
                Some(unsent) => (&mut unsent.counters).await.ok(),
                None => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.asked() => Due::End,
            () = self.sender.closed() => Due::Nothing,
            () = sleep_until(tick.at.into()) => if tick.last { Due::End } else { Due::Report },
            () = sleep_until(sample.into()), if sample < tick.at => Due::Sample,
            counted = counted => Due::Counted(counted),
            () = self.stop.report_wanted() => Due::Extra,
        }
    }

    /// Sends a report, or leaves it to the next one if there is no room for it.
    async fn report(&mut self) -> Result<()> {
        // It takes much less than an interval: nearly always, this is done.
        self.complete().await;
        let tick = self.schedule.next();
        // The report is the sample of its own moment.
        if self.samples.as_ref().is_some_and(|samples| samples.next().at <= tick.at) {
            self.sampled_by(Instant::now());
        }
        let room = self.sender.try_reserve().map(drop);
        let missed = self.schedule.advance(Instant::now(), room.is_ok());
        if missed > 0 {
            let covered = if missed == 1 { "the one".to_owned() } else { format!("the {missed}") };
            self.notices.warn(format!("this report is late: it also covers {covered} before it"));
        }
        match room {
            Ok(()) => {
                self.behind = false;
                self.begin()?;
            }
            Err(TrySendError::Full(())) => {
                if !std::mem::replace(&mut self.behind, true) {
                    self.notices.warn(BEHIND);
                }
            }
            // The next wait ends at once.
            Err(TrySendError::Closed(())) => {}
        }
        Ok(())
    }

    /// Takes a report, for which there is room, and sends it once the counters are there: they are read elsewhere, so
    /// that no snapshot waits for them.
    fn begin(&mut self) -> Result<()> {
        let interval = self.collector.interval()?;
        match self.collector.begin_counters() {
            Some(counters) => self.unsent = Some(Unsent { interval, counters }),
            None => self.deliver(interval),
        }
        Ok(())
    }

    /// Waits for the counters of a report that is not sent yet, and sends it.
    async fn complete(&mut self) {
        if let Some(unsent) = &mut self.unsent {
            let counted = (&mut unsent.counters).await.ok();
            self.counted(counted);
        }
    }

    fn counted(&mut self, counted: Option<Box<(Counters, Reading)>>) {
        let Some(Unsent { mut interval, .. }) = self.unsent.take() else { return };
        interval.counters = self.collector.moved(counted);
        self.deliver(interval);
    }

    fn deliver(&self, interval: Interval) {
        // There was room, which only this takes; without a reader, the next wait ends at once.
        let _ = self.sender.try_send(interval);
    }

    fn sampled_by(&mut self, now: Instant) {
        if let Some(samples) = &mut self.samples {
            samples.advance(now, true);
        }
    }
}
