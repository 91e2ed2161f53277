//! What many short measurements say together, and the order to take them in.

use std::time::{SystemTime, UNIX_EPOCH};

/// Measurements of one thing, ascending.
///
/// Whatever else the machine does only ever makes a measurement longer, so the least is nearest to the truth.
#[derive(Clone, Debug)]
pub struct Sample(Vec<f64>);

impl Sample {
    pub fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub fn least(&self) -> f64 {
        self.0[0]
    }

    pub fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// How far the best quarter of the measurements lies from the least: small if the least was no accident.
    pub fn spread(&self) -> f64 {
        self.0[self.0.len() / 4] - self.least()
    }

    /// How far the quartiles lie apart.
    pub fn middle_half(&self) -> f64 {
        self.0[self.0.len() * 3 / 4] - self.0[self.0.len() / 4]
    }
}

/// A xorshift generator: all it has to give is an order without a pattern.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn from_time() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(now.as_secs() << 32 | u64::from(now.subsec_nanos()) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % end
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One disturbed measurement changes neither figure.
    #[test]
    fn the_least_and_its_company_count() {
        let sample = Sample::new(vec![900.0, 12.0, 10.0, 11.0, 13.0, 14.0, 10.5, 15.0]);
        let figures = [sample.least(), sample.median(), sample.spread(), sample.middle_half()];
        let expected = [10.0, 13.0, 1.0, 4.0];
        let close = |(one, other): (f64, f64)| (one - other).abs() < 1e-9;
        assert!(figures.into_iter().zip(expected).all(close), "{figures:?}");
    }

    /// Every contender stays in the order, and comes first now and then.
    #[test]
    fn shuffling_loses_nothing() {
        let mut random = Random(1);
        let mut first = [0; 4];
        for _ in 0..400 {
            let mut order = [0, 1, 2, 3];
            random.shuffle(&mut order);
            first[order[0]] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3]);
        }
        assert!(first.iter().all(|&times| times > 50), "{first:?}");
    }
}
