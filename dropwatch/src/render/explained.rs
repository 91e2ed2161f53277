//! Which rows a run has explained, so that it repeats itself only where there is news.

use std::collections::HashMap;

use super::tally::identity;
use crate::model::report::Row;

/// How many rows are remembered: of more, all are forgotten, and explained again.
const REMEMBERED: usize = 1024;

/// The rows that were explained, each with the words of its evidence.
#[derive(Debug, Default)]
pub struct Explained(HashMap<Vec<String>, Vec<Vec<String>>>);

impl Explained {
    /// Whether a row is new, or its evidence shows something else than when it was explained; it is explained then.
    pub fn is_news(&mut self, row: &Row) -> bool {
        let all = row.evidence.as_deref().unwrap_or_default();
        let shown: Vec<_> = all.iter().map(|found| without_figures(&found.words(all))).collect();
        let key: Vec<_> = row.values.iter().map(identity).collect();
        // A look that found less, as without time for it, is no news.
        let is_old = |before: &Vec<_>| shown.iter().all(|line| before.contains(line));
        if self.0.get(&key).is_some_and(is_old) {
            return false;
        }
        if self.0.len() == REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key, shown);
        true
    }
}

/// The words of a line without the figures that change with every look: what was counted, and what waits.
///
/// Limits, settings and the numbers of objects stay.
fn without_figures(line: &str) -> Vec<String> {
    let words: Vec<_> = line.split(' ').map(|word| word.trim_matches(['(', ')', ',', ';'])).collect();
    let word = |place: usize| words.get(place).copied().unwrap_or_default();
    let of_figure = words.iter().enumerate().map(|(place, &this)| {
        let before = if place == 0 { "" } else { word(place - 1) };
        match this {
            _ if is_figure(before, this, word(place + 1)) => "#".to_owned(),
            "packet" => "packets".to_owned(),
            "entry" => "entries".to_owned(),
            _ => this.to_owned(),
        }
    });
    of_figure.collect()
}

/// Whether a word is a number of something, by the words beside it.
fn is_figure(before: &str, word: &str, after: &str) -> bool {
    const COUNTED: [&str; 11] =
        ["packet", "packets", "byte", "bytes", "entry", "entries", "of", "in", "s", "since", "so"];
    let is_number = word.starts_with(|c: char| c.is_ascii_digit()) && word.parse::<f64>().is_ok();
    // `of 16384 bytes`, `at most 1000 packets`: limits.
    is_number && !matches!(before, "of" | "most" | "=") && (COUNTED.contains(&after) || before == "has")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            evidence::{Certainty, Evidence, Kind},
            report::Value,
        },
        render::tests::row,
    };

    fn found(lines: &[&str]) -> Row {
        let line = |text: &&str| Evidence::new(Kind::Socket, Certainty::Certain, *text, "ss");
        Row { evidence: Some(lines.iter().map(line).collect()), ..row(1, [Value::Port(Some(53))]) }
    }

    /// Whether the second look is news after the first.
    fn is_news(first: &str, second: &str) -> bool {
        let mut explained = Explained::default();
        assert!(explained.is_news(&found(&[first])), "{first}");
        explained.is_news(&found(&[second]))
    }

    #[test]
    fn what_only_counts_on_is_no_news() {
        for (first, second) in [
            (
                "udp 127.0.0.1:53 of named[7]: receive buffer 1280 of 2304 bytes at the drop, 1 packet lost since it was opened",
                "udp 127.0.0.1:53 of named[7]: receive buffer 2304 of 2304 bytes at the drop, 31 packets lost since it was opened",
            ),
            ("tcp *:80: accept queue 5 of 4", "tcp *:80: accept queue 6 of 4"),
            (
                "eth0: tbf 1: (root) dropped 3 packets in 1.0 s",
                "eth0: tbf 1: (root) dropped 12 packets in 2.1 s",
            ),
            ("input (handle 7): counted 3 in 1.0 s", "input (handle 7): counted 4 in 1.1 s"),
            (
                "eth0 has an MTU of 1400 bytes now; the packet has 1500",
                "eth0 has an MTU of 1400 bytes now; the packet has 1428",
            ),
        ] {
            assert!(!is_news(first, second), "{first} | {second}");
        }
    }

    #[test]
    fn another_object_and_another_setting_are_news() {
        for (first, second) in [
            (
                "udp 127.0.0.1:53 of named[7]: backlog 3 bytes",
                "udp 127.0.0.1:53 of named[8]: backlog 3 bytes",
            ),
            ("receive buffer 1280 of 2304 bytes", "receive buffer 1280 of 4608 bytes"),
            ("net.ipv4.ip_forward = 0 now", "net.ipv4.ip_forward = 1 now"),
            ("input (handle 7): counted 3 in 1.0 s", "input (handle 9): counted 3 in 1.0 s"),
            ("eth0 has an MTU of 1400 bytes now", "eth0 has an MTU of 1300 bytes now"),
            ("at most 100 packets", "at most 1000 packets"),
        ] {
            assert!(is_news(first, second), "{first} | {second}");
        }
    }

    #[test]
    fn a_look_that_found_less_is_no_news() {
        let mut explained = Explained::default();
        assert!(explained.is_news(&found(&["one", "another"])));
        for row in [found(&["another"]), found(&[]), Row { evidence: None, ..found(&[]) }] {
            assert!(!explained.is_news(&row));
        }
        assert!(explained.is_news(&found(&["one", "a third"])));
        let other = row(1, [Value::Port(Some(54))]);
        assert!(explained.is_news(&other) && !explained.is_news(&other));
    }
}
