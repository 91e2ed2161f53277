//! From the kernel's monotonic clock to the time of day.

use std::{
    fs,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};

/// What time it was when the monotonic clock showed a time.
///
/// The time of day may be set, and the monotonic clock stands still while the machine sleeps: a clock is read again
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
        Self { monotonic: offset().kernels(before + between), real: time_of_day }
    }

    /// Both clocks as they were read elsewhere.
    #[cfg(test)]
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

/// How far the monotonic clock of this process is ahead of the kernel's own, which the probe reads: a time namespace
/// has an offset, which stays as it is once a process is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offset {
    ahead: Duration,
    behind: Duration,
}

impl Offset {
    /// What the kernel's own clock shows.
    fn kernels(self, ours: Duration) -> Duration {
        (ours + self.behind).saturating_sub(self.ahead)
    }

    /// From lines such as `monotonic  864000  0`: seconds, which may be negative, and nanoseconds.
    fn parse(offsets: &str) -> Option<Self> {
        let line = offsets.lines().find_map(|line| line.strip_prefix("monotonic"))?;
        let mut numbers = line.split_ascii_whitespace();
        let seconds: i64 = numbers.next()?.parse().ok()?;
        let nanoseconds = Duration::from_nanos(numbers.next()?.parse().ok()?);
        let whole = Duration::from_secs(seconds.unsigned_abs());
        Some(match seconds {
            0.. => Self { ahead: whole + nanoseconds, behind: Duration::ZERO },
            _ => Self { ahead: nanoseconds, behind: whole },
        })
    }
}

/// The offset of this process; none on kernels without time namespaces (before 5.6).
fn offset() -> Offset {
    static OFFSET: OnceLock<Offset> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let offsets = fs::read_to_string("/proc/self/timens_offsets");
        offsets.ok().and_then(|offsets| Offset::parse(&offsets)).unwrap_or_default()
    })
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
    fn a_time_namespace_has_an_offset() {
        let offset = |text| Offset::parse(text).expect("an offset");
        let kernels = |text, ours| offset(text).kernels(Duration::from_millis(ours)).as_millis();
        assert_eq!(kernels("monotonic           0         0\nboottime            0         0\n", 5000), 5000);
        assert_eq!(kernels("monotonic      864000  500000000\nboottime 1 0\n", 864_010_500), 10_000);
        assert_eq!(kernels("monotonic          -3  500000000\n", 5000), 7500);
        assert_eq!(kernels("monotonic          9  0\n", 5000), 0);
        for text in ["", "boottime 1 0\n", "monotonic\n", "monotonic 1\n", "monotonic x 0\n"] {
            assert_eq!(Offset::parse(text), None, "{text}");
        }
    }

    #[test]
    fn now_is_now() {
        let clock = Clock::now();
        let since =
            SystemTime::now().duration_since(clock.time(u64::try_from(clock.monotonic.as_nanos()).unwrap()));
        assert!(since.unwrap() < Duration::from_secs(5));
    }
}
