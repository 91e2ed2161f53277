//! How much of the processors one reading may use.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Processor time of this thread that may be used from now on. Waiting for others is not counted.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    begin: Duration,
    time: Duration,
}

impl Budget {
    /// So much from now on.
    pub fn of(time: Duration) -> Self {
        Self { begin: used(), time }
    }

    /// Whether nothing of it is left.
    pub fn is_spent(self) -> bool {
        self.spent() >= self.time
    }

    /// What has been used of it.
    pub fn spent(self) -> Duration {
        used().saturating_sub(self.begin)
    }
}

/// Processor time that is given in equal portions; what is left of one is kept, up to a limit.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    portion: Duration,
    most: Duration,
    left: Duration,
}

impl Allowance {
    /// One that has as much as can be kept.
    pub fn full(portion: Duration, most: Duration) -> Self {
        Self { portion, most, left: most }
    }

    /// What may be used now.
    pub fn begin(&mut self) -> Budget {
        self.left = (self.left + self.portion).min(self.most);
        Budget::of(self.left)
    }

    /// Takes off what has been used since, in the thread that began.
    pub fn end(&mut self, budget: Budget) {
        self.left = self.left.saturating_sub(budget.spent());
    }
}

/// What this thread has used so far.
fn used() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_portion_is_kept_up_to_a_limit() {
        let ms = Duration::from_millis;
        let mut allowance = Allowance::full(ms(20), ms(500));
        assert_eq!(allowance.begin().time, ms(500));
        allowance.end(Budget { begin: Duration::ZERO, time: ms(500) });
        let left = allowance.left;
        assert!(left < ms(500), "this thread has used some");
        assert_eq!(allowance.begin().time, (left + ms(20)).min(ms(500)));
        allowance.left = ms(0);
        assert_eq!(allowance.begin().time, ms(20));
    }
}
