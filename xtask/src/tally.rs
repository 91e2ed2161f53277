//! Counts what passed: of steps, and of the tests in what cargo prints.

use std::{fmt, ops::AddAssign};

/// How many passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self { passed, failed, skipped } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed")?;
        if *skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        Ok(())
    }
}

impl Tally {
    /// What one line of a test program's output adds, which is nothing unless it is its last.
    pub fn of_line(line: &str) -> Option<Self> {
        let figures = line.split_once("test result: ")?.1.split_once(". ")?.1;
        let mut tally = Self::default();
        for figure in figures.split("; ") {
            let (number, what) = figure.split_once(' ')?;
            let number = number.parse().ok();
            match what.trim() {
                "passed" => tally.passed = number?,
                "failed" => tally.failed = number?,
                "ignored" => tally.skipped = number?,
                _ => {}
            }
        }
        Some(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Skipped ones appear only if there are any, so that a green run's last line is always the same.
    #[test]
    fn the_sum_is_one_line() {
        let mut tally = Tally { passed: 3, ..Tally::default() };
        assert_eq!(tally.to_string(), "3 passed, 0 failed");
        tally += Tally { failed: 2, skipped: 1, ..Tally::default() };
        assert_eq!(tally.to_string(), "3 passed, 2 failed, 1 skipped");
    }

    /// The line that ends a test program's output, failed or not; a serial console may end it with a return.
    #[test]
    fn results_are_read_from_the_test_programs() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.04s\r";
        assert_eq!(Tally::of_line(line), Some(Tally { passed: 12, failed: 2, skipped: 1 }));
        assert_eq!(Tally::of_line("test tally::tests::the_sum_is_one_line ... ok"), None);
        assert_eq!(Tally::of_line("test result: ok. many passed; 0 failed"), None);
    }
}
