//! What came of the rules, and the exit status that says so.

use std::fmt;

use super::rule::{Bound, Rule};
use crate::report::Report;

/// What came of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Held,
    /// It broke.
    Broke,
    /// Drops were lost, and could have broken it.
    Unknown,
}

/// A rule and what came of it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The rule.
    pub rule: Rule,
    /// The drops that counted for it.
    pub seen: u64,
    /// Drops that were seen and could not be counted for any rule.
    pub lost: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether the command ran: if not, there was nothing to hold the rule against.
    pub ran: bool,
}

impl Verdict {
    /// Of a rule whose command could not be started.
    #[must_use]
    pub fn unjudged(rule: Rule) -> Self {
        Self { rule, seen: 0, lost: 0, outcome: Outcome::Unknown, ran: false }
    }

    /// Holds a rule against a report of everything.
    #[must_use]
    pub fn new(rule: Rule, report: &Report) -> Self {
        let seen = report.rows.iter().filter(|row| rule.counts(&report.by, row)).map(|row| row.count).sum();
        let lost = report.ledger.lost();
        let outcome = match rule.bound {
            Bound::Max if seen > rule.drops => Outcome::Broke,
            Bound::Max if lost > 0 => Outcome::Unknown,
            Bound::Expect if seen < rule.drops => Outcome::Broke,
            Bound::Max | Bound::Expect => Outcome::Held,
        };
        Self { rule, seen, lost, outcome, ran: true }
    }
}

/// `FAILED --max 0: 3 drops seen, at most 0 allowed`
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, seen, lost, outcome, ran } = self;
        let word = match outcome {
            Outcome::Held => "ok     ",
            Outcome::Broke => "FAILED ",
            Outcome::Unknown => "UNKNOWN",
        };
        if !ran {
            return write!(f, "{word} {rule}: the command did not run");
        }
        let bound = match rule.bound {
            Bound::Max => format!("at most {} allowed", rule.drops),
            Bound::Expect => format!("at least {} expected", rule.drops),
        };
        write!(f, "{word} {rule}: {seen} drops seen, {bound}")?;
        if *lost > 0 && *outcome != Outcome::Held {
            write!(f, "; {lost} more were lost and may belong to it")?;
        }
        Ok(())
    }
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a status of its own.
    Exited(u8),
    /// Killed by a signal.
    Killed(u8),
    /// It could not be started: nothing of that name.
    NotFound,
    /// It could not be started otherwise.
    NotExecutable,
}

impl Ending {
    /// Whether it was started at all.
    #[must_use]
    pub fn ran(self) -> bool {
        !matches!(self, Self::NotFound | Self::NotExecutable)
    }

    /// The status a shell would give it.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => signal.saturating_add(128),
            Self::NotExecutable => 126,
            Self::NotFound => 127,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(0) => f.write_str("the command succeeded"),
            Self::Exited(_) => f.write_str("the command failed by itself"),
            Self::Killed(signal) => write!(f, "the command was killed by signal {signal}"),
            Self::NotFound => f.write_str("the command was not found"),
            Self::NotExecutable => f.write_str("the command could not be executed"),
        }
    }
}

/// The status if a rule broke.
const BROKEN: u8 = 4;

/// Our exit status, and the last line, which says whose it is.
#[must_use]
pub fn conclusion(ending: Ending, verdicts: &[Verdict]) -> (u8, String) {
    let broken = verdicts.iter().filter(|verdict| verdict.outcome != Outcome::Held).count();
    let rules = match (broken, verdicts.len()) {
        (_, 0) => "there were no rules".to_owned(),
        (0, 1) => "the rule held".to_owned(),
        (0, rules) => format!("all {rules} rules held"),
        (broken, rules) => format!("{broken} of {rules} rules did not hold"),
    };
    let status = match ending.status() {
        0 if broken > 0 => BROKEN,
        status => status,
    };
    (status, format!("exit status {status}: {ending}, {rules}"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        check::rule::tests::{BY, row, rule},
        report::Cut,
        snapshot::Ledger,
    };

    fn report(ledger: Ledger) -> Report {
        Report {
            time: SystemTime::UNIX_EPOCH,
            elapsed: Duration::from_secs(1),
            by: BY.to_vec(),
            rows: vec![row("nft_do_chain", "kernel", 12, 3), row("__udp4_lib_rcv", "kernel", 3, 5)],
            cut: Cut::default(),
            drops: 8,
            total: 8,
            ledger,
        }
    }

    fn verdict(bound: Bound, text: &str, ledger: Ledger) -> Verdict {
        Verdict::new(rule(bound, text), &report(ledger))
    }

    const LOST: Ledger = Ledger { map_full: 2, update_failed: 0, stack_failed: 0, recursion_missed: None };

    #[test]
    fn a_rule_breaks_by_one_drop() {
        let none = Ledger::default();
        for (bound, text, outcome) in [
            (Bound::Max, "8", Outcome::Held),
            (Bound::Max, "7", Outcome::Broke),
            (Bound::Expect, "8", Outcome::Held),
            (Bound::Expect, "9", Outcome::Broke),
            (Bound::Max, "reason=NETFILTER_DROP:3", Outcome::Held),
            (Bound::Max, "reason=NETFILTER_DROP:2", Outcome::Broke),
            (Bound::Expect, "reason=NO_SOCKET,location=nft_do_chain:0", Outcome::Held),
        ] {
            assert_eq!(verdict(bound, text, none).outcome, outcome, "{bound} {text}");
        }
    }

    #[test]
    fn a_loss_makes_a_maximum_unknown() {
        assert_eq!(verdict(Bound::Max, "8", LOST).outcome, Outcome::Unknown);
        assert_eq!(verdict(Bound::Max, "7", LOST).outcome, Outcome::Broke);
        assert_eq!(verdict(Bound::Expect, "8", LOST).outcome, Outcome::Held);
        assert_eq!(verdict(Bound::Expect, "9", LOST).outcome, Outcome::Broke);
    }

    #[test]
    fn verdicts_read_as_sentences() {
        let lines = [
            verdict(Bound::Max, "reason=NETFILTER_DROP:0", Ledger::default()),
            verdict(Bound::Expect, "reason=NO_SOCKET:5", Ledger::default()),
            verdict(Bound::Max, "8", LOST),
            Verdict::unjudged(rule(Bound::Max, "0")),
        ];
        insta::assert_snapshot!(lines.map(|line| line.to_string()).join("\n"));
    }

    #[test]
    fn the_commands_status_comes_first() {
        let broken = [verdict(Bound::Max, "0", Ledger::default())];
        let held = [verdict(Bound::Max, "8", Ledger::default())];
        for (ending, verdicts, status) in [
            (Ending::Exited(0), &held[..], 0),
            (Ending::Exited(0), &broken, 4),
            (Ending::Exited(0), &[], 0),
            (Ending::Exited(7), &broken, 7),
            (Ending::Killed(9), &broken, 137),
            (Ending::NotFound, &[], 127),
            (Ending::NotExecutable, &[], 126),
        ] {
            let (found, line) = conclusion(ending, verdicts);
            assert_eq!(found, status, "{line}");
            assert!(line.starts_with(&format!("exit status {status}: ")), "{line}");
        }
    }
}
