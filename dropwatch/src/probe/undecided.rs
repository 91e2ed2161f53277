//! Drops that passed a filter because the kernel did not know all that decides: the names of their namespaces, or what they
//! are worth.

use std::collections::{HashMap, HashSet};

use dropwatch_common::{
    program::Cases,
    row::{RowKey, known},
    socket::LOST,
};

use super::source::{Belongs, Cause, Decide, FindSocket, Question};
use crate::{
    filter::assume::Decision,
    model::{class::Destination, namespace::Namespace, sample::Sample, snapshot::Counts},
};

/// The number of no socket.
const NONE: u64 = 0;

/// Decides about them.
#[derive(Default)]
pub struct Undecided {
    pub decide: Option<Decide>,
    /// Answers that must not change while there is a counter for them, because counts only grow.
    settled: HashMap<Question, Decision>,
    /// Those that could not be decided about, of counters that have ended.
    ended: u64,
}

impl Undecided {
    /// Whether a drop is known to match.
    pub fn matches(&mut self, sample: &Sample, has_receivers: bool) -> bool {
        // Any number but those with a meaning: there is one socket to be found.
        let socket = u64::from(sample.socket.is_some());
        let Some(question) = question(&RowKey { socket, ..sample.key }, has_receivers) else { return true };
        let decide = self.decide.as_mut();
        decide.is_some_and(|decide| decide(&[question], &|_| sample.socket.clone()) == [Decision::Matches])
    }

    /// Leaves the counts that match; how many drops could not be decided about since the start.
    ///
    /// `has_receivers` says that packets without a socket certainly belong to none.
    pub fn decide(
        &mut self,
        counts: &mut Counts,
        last: bool,
        has_receivers: bool,
        find_socket: FindSocket<'_>,
    ) -> u64 {
        let Some(decide) = &mut self.decide else { return 0 };
        let question = |key: &RowKey| question(key, has_receivers);
        let asked: HashSet<Question> = counts.iter().filter_map(|(key, _)| question(key)).collect();
        self.settled.retain(|question, _| asked.contains(question));
        if asked.is_empty() {
            return self.ended;
        }
        let open: Vec<_> =
            asked.into_iter().filter(|question| !self.settled.contains_key(question)).collect();
        let decisions: HashMap<_, _> = open.iter().copied().zip(decide(&open, find_socket)).collect();
        let mut unknown = 0;
        counts.retain(|(key, count)| {
            let Some(question) = question(key) else { return true };
            match self.settled.get(&question).or_else(|| decisions.get(&question)) {
                Some(Decision::Matches) => true,
                Some(Decision::Differs) => false,
                Some(Decision::Unknown) | None => {
                    unknown += count;
                    false
                }
            }
        });
        // The names of a namespace may be known later.
        let settles = |(question, decision): &(Question, Decision)| {
            question.namespace.is_none() || *decision == Decision::Matches
        };
        self.settled.extend(decisions.into_iter().filter(settles));
        let all = self.ended + unknown;
        if last {
            self.ended = all;
        }
        all
    }
}

/// What is open about the drops of a row; none if nothing is.
fn question(key: &RowKey, has_receivers: bool) -> Option<Question> {
    let is_undecided = key.known & known::UNDECIDED != 0;
    let passed = key.known >> Cases::SHIFT;
    if !is_undecided && passed == 0 {
        return None;
    }
    let destination =
        if key.known & known::KIND != 0 { Destination::of_kind(key.kind) } else { Destination::Unknown };
    let socket = match key.socket {
        NONE if has_receivers => Belongs::ToNone,
        NONE | LOST => Belongs::Unknown,
        number => Belongs::To(number),
    };
    Some(Question {
        namespace: is_undecided.then_some(Namespace { inum: key.netns, cookie: key.cookie }),
        passed,
        cause: (passed != 0).then_some(Cause { location: key.location, reason: key.reason, destination }),
        socket: (passed != 0).then_some(socket),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::tests::sample;

    fn key(cookie: u64, known: u32) -> RowKey {
        RowKey { netns: 7, cookie, known, ..RowKey::default() }
    }

    /// Of the cookies 1, 2 and 3 the first matches, the second does not, and the third is not known.
    fn decider() -> Decide {
        Box::new(|questions, _| {
            let decide = |question: &Question| match question.namespace.map(|namespace| namespace.cookie) {
                Some(1) => Decision::Matches,
                Some(2) => Decision::Differs,
                _ => Decision::Unknown,
            };
            questions.iter().map(decide).collect()
        })
    }

    #[test]
    fn a_drop_without_a_decision_is_not_known_to_match() {
        let mut undecided = Undecided { decide: Some(decider()), ..Undecided::default() };
        let matches =
            |undecided: &mut Undecided, cookie, known| undecided.matches(&sample(key(cookie, known)), true);
        for (cookie, expected) in [(1, true), (2, false), (3, false)] {
            assert_eq!(matches(&mut undecided, cookie, known::UNDECIDED), expected);
        }
        let mut alone = Undecided::default();
        assert!(matches(&mut alone, 3, known::NETNS) && !matches(&mut alone, 1, known::UNDECIDED));
    }

    /// Sockets come and go for months: an answer is kept as long as there is a counter for it, and no longer.
    #[test]
    fn the_answer_about_a_socket_stays_while_it_is_counted() {
        let answers = [Decision::Matches, Decision::Differs, Decision::Differs];
        let mut answers = answers.into_iter();
        let decide: Decide = Box::new(move |questions, _| {
            let mut answer = || answers.next().expect("an answer");
            questions.iter().map(|_| answer()).collect()
        });
        let mut undecided = Undecided { decide: Some(decide), ..Undecided::default() };
        let mut matches = |socket| {
            let passed = known::KIND | 1 << Cases::SHIFT;
            let mut counts = vec![(RowKey { socket, known: passed, ..RowKey::default() }, 3)];
            undecided.decide(&mut counts, false, true, &|_| None);
            !counts.is_empty()
        };
        assert_eq!([7, 7, 8, 7].map(&mut matches), [true, true, false, false]);
    }

    #[test]
    fn what_matches_stays_and_what_is_unknown_is_counted() {
        let mut undecided = Undecided { decide: Some(decider()), ..Undecided::default() };
        let all = || {
            vec![
                (key(0, known::NETNS), 100),
                (key(1, known::UNDECIDED), 10),
                (key(2, known::UNDECIDED), 20),
                (key(3, known::UNDECIDED), 5),
            ]
        };
        let mut counts = all();
        assert_eq!(undecided.decide(&mut counts, true, true, &|_| None), 5);
        assert_eq!(counts, all()[..2]);
        assert_eq!(
            undecided.decide(&mut all(), false, true, &|_| None),
            10,
            "those of counters that have ended stay"
        );
        assert_eq!(undecided.decide(&mut all(), false, true, &|_| None), 10, "counts only grow");
        assert_eq!(undecided.decide(&mut vec![(key(0, 0), 1)], false, true, &|_| None), 5);
    }
}
