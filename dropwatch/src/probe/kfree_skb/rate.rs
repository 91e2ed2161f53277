//! How many drops are shown: `--rate`.
//!
//! The kernel takes drops by chance, with a share that follows from how many there were a moment ago, so that a
//! flood is shown evenly and not just its first drops of each second. It also stops at the limit, but its CPUs do so
//! each for itself: the limit is held exactly here, where all of them pass.

use std::{ops::Range, time::Duration};

const SECOND: u64 = 1_000_000_000;

/// The share of drops the kernel is to take, of `u32::MAX`, when there were so many in a time.
///
/// A little less than the limit, so that chance does not often bring the limit into play, which would favour the
/// first drops of a second.
#[must_use]
pub fn share(limit: u32, drops: u64, elapsed: Duration) -> u32 {
    let expected = u128::from(drops) * 1_000_000_000 / elapsed.as_nanos().max(1);
    if expected <= u128::from(limit) {
        return u32::MAX;
    }
    let share = u128::from(u32::MAX) * u128::from(limit) * 95 / 100 / expected;
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// Lets so many drops of a second pass.
#[derive(Clone, Debug)]
pub struct Limit {
    most: Option<u32>,
    /// When the second began, and when it ends.
    second: Range<u64>,
    taken: u32,
}

impl Limit {
    /// No limit, if there is none.
    #[must_use]
    pub fn new(most: Option<u32>) -> Self {
        Self { most, second: 0..0, taken: 0 }
    }

    /// Whether a drop at this time, in nanoseconds, may pass. A second begins with the first drop after the one before;
    /// drops of a second that has gone belong to the newest.
    pub fn admits(&mut self, time: u64) -> bool {
        let Some(most) = self.most else { return true };
        if time >= self.second.end {
            (self.second, self.taken) = (time..time.saturating_add(SECOND), 0);
        }
        self.taken += 1;
        self.taken <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    #[test]
    fn all_are_taken_until_there_are_too_many() {
        assert_eq!(share(100, 0, TENTH), u32::MAX);
        assert_eq!(share(100, 10, TENTH), u32::MAX);
        let half = f64::from(share(100, 20, TENTH)) / f64::from(u32::MAX);
        assert!((0.45..0.5).contains(&half), "{half}");
        let few = f64::from(share(1, 100_000, TENTH)) / f64::from(u32::MAX);
        assert!((0.9e-6..1e-6).contains(&few), "{few}");
        assert_eq!(share(1, u64::MAX, Duration::ZERO), 0);
    }

    #[test]
    fn no_second_has_more_than_the_limit() {
        let mut limit = Limit::new(Some(2));
        let times = [7, 8, 9, SECOND, SECOND + 7, SECOND + 8, 5, 2 * SECOND, 4 * SECOND];
        let admitted = [true, true, false, false, true, true, false, false, true];
        assert_eq!(times.map(|time| limit.admits(time)), admitted);
        let mut none = Limit::new(None);
        assert!((0..1000).all(|time| none.admits(time)));
    }
}
