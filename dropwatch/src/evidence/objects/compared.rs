//! What is compared with what there was before.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The last two looks at each namespace.
#[derive(Debug)]
pub struct Compared<T> {
    noted: HashMap<u32, Looks<T>>,
    /// The number of the report: all its looks compare with the same one before it.
    report: u64,
}

#[derive(Debug)]
struct Looks<T> {
    /// That of the report before, or from the start.
    before: Option<(Instant, T)>,
    last: (Instant, T),
    /// The report of the last look.
    report: u64,
}

impl<T> Default for Compared<T> {
    fn default() -> Self {
        Self { noted: HashMap::new(), report: 0 }
    }
}

impl<T: Clone> Compared<T> {
    /// Notes what later looks compare with.
    pub fn note(&mut self, netns: u32, now: T) {
        let now = (Instant::now(), now);
        self.noted.insert(netns, Looks { before: None, last: now, report: self.report });
    }

    /// A report begins: forgets namespaces that have gone.
    pub fn begin(&mut self, is_there: &dyn Fn(u32) -> bool) {
        self.report += 1;
        self.noted.retain(|&netns, _| is_there(netns));
    }

    /// What there was before, if that was noted, and for how long that has been so; `now` is compared with the next
    /// time.
    pub fn turn(&mut self, netns: u32, now: T) -> Option<(Duration, T)> {
        let Some(looks) = self.noted.get_mut(&netns) else {
            self.note(netns, now);
            return None;
        };
        if looks.report != self.report {
            looks.before = Some(std::mem::replace(&mut looks.last, (Instant::now(), now)));
            looks.report = self.report;
        }
        looks.before.as_ref().map(|(then, before)| (then.elapsed(), before.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_one_report_compare_with_the_same_look() {
        let mut compared = Compared::default();
        let turn = |compared: &mut Compared<_>, now| compared.turn(7, now).map(|(_, before)| before);
        assert_eq!((turn(&mut compared, 1), turn(&mut compared, 2)), (None, None), "nothing is from before");
        compared.begin(&|_| true);
        assert_eq!((turn(&mut compared, 3), turn(&mut compared, 4)), (Some(1), Some(1)));
        compared.begin(&|_| true);
        assert_eq!((turn(&mut compared, 5), turn(&mut compared, 6)), (Some(3), Some(3)));
        compared.begin(&|netns| netns != 7);
        assert_eq!(turn(&mut compared, 8), None);
    }
}
