//! The largest rate at which something keeps up.

use std::iter;

use anyhow::Result;

/// The rates that are tried, a second: the least, and how many there are, each a tenth larger than the one before.
const LEAST: u32 = 5_000;
const RATES: usize = 64;

/// How often a rate is tried before it is the end: a loss may be the doing of whatever else ran.
const TRIES: usize = 2;

/// What came of drops at a rate.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// What there really was a second.
    pub rate: f64,
    /// Whether nothing was lost.
    pub kept_up: bool,
    /// Bytes a second that were written.
    pub written: f64,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Largest {
    pub trial: Trial,
    /// Not what keeps up was at its limit, but what makes the drops.
    pub of_sender: bool,
}

/// Nothing, if even the least is too much.
///
/// Halves the rates that are left until one is, trying each once; that takes few trials, and finds too little where a
/// loss had nothing to do with the rate. So it climbs from there, until a rate is too much however often it is tried.
pub fn largest(mut trial: impl FnMut(u32) -> Result<Trial>) -> Result<Option<Largest>> {
    let rates: Vec<_> = iter::successors(Some(LEAST), |rate| Some(rate + rate / 10)).take(RATES).collect();
    let (mut found, mut low, mut high) = (None, 0, RATES);
    while low < high && !is_all(found) {
        let middle = usize::midpoint(low, high);
        match passed(rates[middle], 1, &mut trial)? {
            Some(largest) => (found, low) = (Some(largest), middle + 1),
            None => high = middle,
        }
    }
    for &rate in &rates[low..] {
        if is_all(found) {
            break;
        }
        let Some(largest) = passed(rate, TRIES, &mut trial)? else { break };
        found = Some(largest);
    }
    Ok(found)
}

/// Whether no more can be sent.
fn is_all(found: Option<Largest>) -> bool {
    found.is_some_and(|largest| largest.of_sender)
}

/// The first trial at this rate in which nothing was lost.
fn passed(rate: u32, tries: usize, mut trial: impl FnMut(u32) -> Result<Trial>) -> Result<Option<Largest>> {
    for _ in 0..tries {
        let trial = trial(rate)?;
        if trial.kept_up {
            return Ok(Some(Largest { trial, of_sender: trial.rate * 1.1 < f64::from(rate) }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(keeps_up: f64, sends: f64) -> Option<Largest> {
        let trial = |rate| {
            let rate = f64::from(rate).min(sends);
            Ok(Trial { rate, kept_up: rate <= keeps_up, written: 0.0 })
        };
        largest(trial).unwrap()
    }

    /// Within a step of it, over the whole range.
    #[test]
    fn the_largest_rate_is_found() {
        for keeps_up in [5_000.0, 40_000.0, 123_456.0, 1_900_000.0] {
            let found = limited(keeps_up, f64::INFINITY).unwrap();
            assert!(!found.of_sender);
            assert!((1.0..1.1).contains(&(keeps_up / found.trial.rate)), "{keeps_up}: {found:?}");
        }
        assert!(limited(4_000.0, f64::INFINITY).is_none());
    }

    /// The rate was not tried, and is not claimed.
    #[test]
    fn a_slow_sender_is_told() {
        let found = limited(1e6, 3e5).unwrap();
        assert!(found.of_sender && found.trial.rate <= 3e5, "{found:?}");
    }

    /// One that loses something every other time keeps up.
    #[test]
    fn one_loss_is_not_the_end() {
        let mut trials = 0;
        let trial = |rate: u32| {
            trials += 1;
            Ok(Trial { rate: f64::from(rate), kept_up: rate <= 150_000 && trials % 2 == 0, written: 0.0 })
        };
        assert!(largest(trial).unwrap().is_some_and(|found| found.trial.rate > 136_000.0));
        assert!(trials < 60, "{trials} trials");
    }
}
