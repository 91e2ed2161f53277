//! When reports are due: arithmetic on instants, without a clock.

use std::time::{Duration, Instant};

/// Reports fall on multiples of the interval since the probe was attached.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Instant,
    interval: Duration,
    end: Option<Instant>,
    /// Reports still to come, if they are limited.
    left: Option<u64>,
    /// The next multiple of the interval.
    next: u64,
}

/// A moment at which a report is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// When.
    pub at: Instant,
    /// Whether it is the last one.
    pub last: bool,
}

impl Schedule {
    /// A schedule that ends after `duration` or `reports`, whichever comes first.
    #[must_use]
    pub fn new(start: Instant, interval: Duration, duration: Option<Duration>, reports: Option<u64>) -> Self {
        Self { start, interval, end: duration.map(|duration| start + duration), left: reports, next: 1 }
    }

    /// The next tick.
    #[must_use]
    pub fn next(&self) -> Tick {
        let at = self.start + Duration::from_nanos(nanos(self.interval).saturating_mul(self.next));
        match self.end {
            Some(end) if end <= at => Tick { at: end, last: true },
            _ => Tick { at, last: self.left == Some(1) },
        }
    }

    /// Moves past the next tick, and past all others that `now` has missed: how many these were.
    ///
    /// `reported` says whether the tick became a report, or was missed as well.
    pub fn advance(&mut self, now: Instant, reported: bool) -> u64 {
        if reported {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        let due = nanos(now.saturating_duration_since(self.start)) / nanos(self.interval).max(1);
        let missed = due.saturating_sub(self.next);
        self.next = self.next.max(due) + 1;
        missed
    }
}

/// Nanoseconds, enough for 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ticks(schedule: &mut Schedule) -> Vec<Duration> {
        let start = schedule.start;
        let mut ticks = Vec::new();
        loop {
            let tick = schedule.next();
            ticks.push(tick.at - start);
            if tick.last {
                return ticks;
            }
            schedule.advance(tick.at, true);
        }
    }

    #[test]
    fn a_report_falls_on_each_multiple_of_the_interval() {
        let mut schedule = Schedule::new(Instant::now(), SECOND, None, Some(3));
        assert_eq!(ticks(&mut schedule), [SECOND, SECOND * 2, SECOND * 3]);
    }

    #[test]
    fn the_duration_ends_with_a_shorter_interval() {
        let mut schedule = Schedule::new(Instant::now(), SECOND, Some(SECOND * 5 / 2), None);
        assert_eq!(ticks(&mut schedule), [SECOND, SECOND * 2, SECOND * 5 / 2]);
    }

    #[test]
    fn a_duration_of_whole_intervals_has_no_empty_last_report() {
        let mut schedule = Schedule::new(Instant::now(), SECOND, Some(SECOND * 2), None);
        assert_eq!(ticks(&mut schedule), [SECOND, SECOND * 2]);
    }

    #[test]
    fn the_first_of_reports_and_duration_ends_it() {
        let mut schedule = Schedule::new(Instant::now(), SECOND, Some(SECOND * 9), Some(2));
        assert_eq!(ticks(&mut schedule), [SECOND, SECOND * 2]);
    }

    #[test]
    fn a_late_report_absorbs_the_ticks_it_missed() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, SECOND, None, None);
        assert_eq!(schedule.advance(start + SECOND * 7 / 2, true), 2, "the ticks at 2 s and 3 s");
        assert_eq!(schedule.next().at, start + SECOND * 4);
        assert_eq!(schedule.advance(start + SECOND * 4, true), 0);
        assert_eq!(schedule.next().at, start + SECOND * 5);
    }

    #[test]
    fn a_tick_without_a_report_does_not_count_as_one() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, SECOND, None, Some(1));
        schedule.advance(start + SECOND, false);
        assert!(schedule.next().last);
    }
}
