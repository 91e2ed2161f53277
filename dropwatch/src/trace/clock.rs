//! From the kernel's monotonic clock to the time of day.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// What time it was when the monotonic clock showed a time.
///
/// The time of day may be set, and the monotonic clock stands still while the machine sleeps: a clock is read anew
/// for each batch of events, which are as young as the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    monotonic: Duration,
    real: Duration,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        // Neither call fails: both clocks have been there for longer than BPF.
        let read = |id| clock_gettime(id).map(Duration::from).unwrap_or_default();
        let before = read(ClockId::CLOCK_MONOTONIC);
        let time_of_day = read(ClockId::CLOCK_REALTIME);
        let between = read(ClockId::CLOCK_MONOTONIC).saturating_sub(before) / 2;
        Self { monotonic: before + between, real: time_of_day }
    }

    /// Both clocks as somebody else has read them.
    #[must_use]
    pub fn at(monotonic: Duration, real: Duration) -> Self {
        Self { monotonic, real }
    }

    /// The time of day when the monotonic clock showed so many nanoseconds.
    #[must_use]
    pub fn time(self, monotonic: u64) -> SystemTime {
        let monotonic = Duration::from_nanos(monotonic);
        let real = match self.monotonic.checked_sub(monotonic) {
            Some(ago) => self.real.saturating_sub(ago),
            None => self.real.saturating_add(monotonic.saturating_sub(self.monotonic)),
        };
        // The end of what can be written as a date is as good as any later one.
        SystemTime::UNIX_EPOCH + real.min(LAST)
    }
}

/// The last second of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_nanoseconds() {
        let clock = Clock::at(Duration::from_secs(100), Duration::from_secs(1_000_000));
        let time = |nanos| clock.time(nanos).duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(time(99_000_000_001), Duration::new(999_999, 1));
        assert_eq!(time(100_000_000_007), Duration::new(1_000_000, 7));
        assert_eq!(time(u64::MAX).as_secs(), 1_000_000 + u64::MAX / 1_000_000_000 - 100);
        assert_eq!(Clock::at(Duration::MAX, Duration::ZERO).time(3), SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn now_is_now() {
        let clock = Clock::now();
        let since =
            SystemTime::now().duration_since(clock.time(u64::try_from(clock.monotonic.as_nanos()).unwrap()));
        assert!(since.unwrap() < Duration::from_secs(5));
    }
}
