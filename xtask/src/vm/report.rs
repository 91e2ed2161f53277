//! What the guests said, as tables: kernels by result, kernels by case.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use crate::tally::Tally;

/// A figure that a test saw in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    name: String,
    seen: String,
    expected: String,
}

impl Case {
    /// Reads `case NAME: seen X expected Y`, also behind what the test harness left on the line, and before what
    /// else there is to say.
    pub fn of_line(line: &str) -> Option<Self> {
        let (name, figures) = line.split_once("case ")?.1.split_once(": seen ")?;
        let (seen, expected) = figures.split_once(" expected ")?;
        let expected = expected.split_whitespace().next()?;
        Some(Self { name: name.into(), seen: seen.trim().into(), expected: expected.into() })
    }

    fn shown(&self) -> String {
        if self.seen == self.expected {
            self.seen.clone()
        } else {
            format!("{}!={}", self.seen, self.expected)
        }
    }
}

/// How one kernel did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What `uname -r` says, or the name of the series if it did not get so far.
    pub kernel: String,
    pub tally: Tally,
    pub cases: Vec<Case>,
    /// Lines of tables that the guest printed as Markdown.
    pub table: Vec<String>,
    pub took: Duration,
    /// Why the run failed, if the tests themselves do not show it.
    pub error: Option<String>,
    /// The tests that failed, by their names.
    pub failures: Vec<String>,
    /// The tests that failed, and then passed alone in a fresh guest.
    pub second_tries: Vec<String>,
    /// Whether the lines that come are names of failed tests.
    lists_failures: bool,
}

/// How many failed tests of a kernel are run a second time. More of them are no accident.
const SECOND_TRIES: usize = 2;

impl Outcome {
    /// Nothing yet, of this kernel.
    pub fn of(kernel: &str) -> Self {
        Self { kernel: kernel.to_string(), ..Self::default() }
    }

    /// Notes the result in a line of the guest's output.
    pub fn hear(&mut self, line: &str) {
        if let Some(result) = Tally::of_line(line) {
            self.tally += result;
        }
        self.cases.extend(Case::of_line(line));
        if line.starts_with("| ") {
            self.table.push(line.to_string());
        }
        match line.strip_prefix("    ") {
            Some(name) if self.lists_failures => self.failures.push(name.to_string()),
            _ => self.lists_failures = line == "failures:",
        }
    }

    /// What to run a second time: few tests, whose names are all known, on a kernel that is still well.
    pub fn doubtful(&self) -> Option<&[String]> {
        let names = &self.failures;
        let is_known = names.len() == self.tally.failed && self.error.is_none();
        (is_known && (1..=SECOND_TRIES).contains(&names.len())).then_some(names)
    }

    /// Takes in how the second try of all failed tests did. They have passed if all of them passed now.
    pub fn learn(&mut self, second: Self) {
        self.cases.extend(second.cases);
        let wanted = Tally { passed: self.failures.len(), ..Tally::default() };
        if second.tally == wanted && second.error.is_none() {
            self.tally.passed += self.tally.failed;
            self.tally.failed = 0;
            self.second_tries = std::mem::take(&mut self.failures);
        }
    }

    pub fn failed(&self) -> bool {
        self.error.is_some() || self.tally.failed > 0
    }
}

/// The table of kernels, and that of cases if there are any.
pub fn tables(outcomes: &[Outcome]) -> String {
    let header = ["kernel", "passed", "failed", "ignored", "seconds", "result"].map(String::from).to_vec();
    let mut rows = vec![header];
    for outcome in outcomes {
        let Tally { passed, failed, skipped } = outcome.tally;
        let result = match &outcome.error {
            Some(error) => error.lines().next().unwrap_or_default().to_string(),
            None if failed > 0 => "FAILED".into(),
            None if !outcome.second_tries.is_empty() => "ok at the second try".into(),
            None => "ok".into(),
        };
        let figures = [passed, failed, skipped].map(|figure| figure.to_string());
        let seconds = outcome.took.as_secs().to_string();
        rows.push([vec![outcome.kernel.clone()], figures.to_vec(), vec![seconds, result]].concat());
    }
    let mut text = aligned(&rows);
    for Outcome { kernel, second_tries, .. } in outcomes {
        for name in second_tries {
            let _ = writeln!(text, "{kernel}: failed, and passed alone in a fresh guest: {name}");
        }
    }
    let names: BTreeSet<_> =
        outcomes.iter().flat_map(|outcome| &outcome.cases).map(|case| &case.name).collect();
    if !names.is_empty() {
        text.push('\n');
        text.push_str(&cases(&names, outcomes));
    }
    text
}

/// What each kernel saw in each case: one figure if it is the expected one.
fn cases(names: &BTreeSet<&String>, outcomes: &[Outcome]) -> String {
    let mut rows = vec![vec!["case".to_string()]];
    rows[0].extend(outcomes.iter().map(|outcome| outcome.kernel.clone()));
    for name in names {
        let mut row = vec![String::clone(name)];
        for outcome in outcomes {
            let case = outcome.cases.iter().rfind(|case| case.name == **name);
            row.push(case.map_or_else(|| "-".to_string(), Case::shown));
        }
        rows.push(row);
    }
    aligned(&rows)
}

/// Columns under each other.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kernel: &str, lines: &[&str]) -> Outcome {
        let mut outcome = Outcome::of(kernel);
        for line in lines {
            outcome.hear(line);
        }
        outcome
    }

    /// The harness prints a test's name without ending the line.
    #[test]
    fn cases_are_read_from_the_tests_output() {
        let case = Case::of_line(
            "test udp_no_socket ... case udp no socket: seen 100 expected 100 NO_SOCKET @ udp_rcv\r",
        )
        .unwrap();
        assert_eq!((case.name.as_str(), case.seen.as_str()), ("udp no socket", "100"));
        assert_eq!(case.shown(), "100");
        assert_eq!(Case::of_line("in this case: nothing"), None);
    }

    /// A kernel is green only if nothing failed; a figure that is off shows both sides.
    #[test]
    fn the_tables_tell_what_failed() {
        let good = outcome(
            "5.10",
            &["case nft: seen 5 expected 5", "test result: ok. 2 passed; 0 failed; 1 ignored"],
        );
        let bad = outcome(
            "6.1",
            &["case nft: seen 4 expected 5", "test result: FAILED. 1 passed; 1 failed; 0 ignored"],
        );
        assert!(!good.failed() && bad.failed());
        let text = tables(&[good, bad]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "5.10    2       0       1        0        ok");
        assert_eq!(lines[2], "6.1     1       1       0        0        FAILED");
        assert_eq!(lines[5], "nft   5     4!=5");
    }

    /// What a guest prints of a failed test, and then of others.
    const FAILED: &[&str] = &[
        "test names::one ... FAILED",
        "    indented as a name, but none",
        "failures:",
        "    names::one",
        "",
        "    neither is this",
        "test result: FAILED. 1 passed; 1 failed; 0 ignored",
    ];

    /// One that passes alone in a fresh guest has passed, and is named; one that fails, is skipped or dies has not.
    #[test]
    fn a_failed_test_has_a_second_try() {
        let learned = |second: Outcome| {
            let mut first = outcome("6.1", FAILED);
            assert_eq!(first.doubtful(), Some(&["names::one".to_string()][..]));
            first.learn(second);
            first
        };
        let good = learned(outcome("6.1", &["test result: ok. 1 passed; 0 failed; 0 ignored"]));
        assert_eq!(good.tally, Tally { passed: 2, ..Tally::default() });
        let text = tables(&[good]);
        assert!(text.contains("ok at the second try"), "{text}");
        assert!(text.contains("6.1: failed, and passed alone in a fresh guest: names::one"), "{text}");
        let skipped = outcome("6.1", &["test result: ok. 0 passed; 0 failed; 1 ignored"]);
        let dead = Outcome { error: Some("it timed out".into()), ..outcome("6.1", &[]) };
        for bad in [outcome("6.1", FAILED), skipped, dead] {
            assert!(learned(bad).failed());
        }
    }

    /// Many failures are no accident, and those of a kernel that died are not all of them.
    #[test]
    fn many_failures_have_no_second_try() {
        let names = ["failures:", "    one", "    two", "    three"];
        let many =
            outcome("7", &[&names[..], &["test result: FAILED. 0 passed; 3 failed; 0 ignored"]].concat());
        let dead = Outcome { error: Some("the guest's kernel failed".into()), ..outcome("7", FAILED) };
        let unnamed = outcome("7", &["test result: FAILED. 0 passed; 1 failed; 0 ignored"]);
        let good = outcome("7", &["test result: ok. 3 passed; 0 failed; 0 ignored"]);
        for none in [many, dead, unnamed, good] {
            assert_eq!(none.doubtful(), None);
        }
    }

    /// A guest that died before its tests is not a success with nothing to do.
    #[test]
    fn an_error_is_a_failure() {
        let dead = Outcome { error: Some("the guest's kernel failed\nmore".into()), ..outcome("7", &[]) };
        assert!(dead.failed());
        assert!(tables(&[dead]).contains("the guest's kernel failed\n"));
    }
}
