//! What came of the rules, and the exit status that says so.

use std::fmt;

use super::rule::{Bound, Rule};
use crate::{
    escape::Escaped,
    model::{keys::Key, plural::counted, report::Report},
};

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
    /// Losses that counted for it, and that only the kernel's counters show.
    pub uncounted: u64,
    /// Drops that were seen and could not be counted for any rule.
    pub lost: u64,
    /// Drops at places that are not known: of these it is not known whether they count.
    pub nameless: u64,
    /// Drops whose class is not known, while the rule is about one.
    pub unclassed: u64,
    /// What the rule or the filter names, and what never was there.
    pub absent: Vec<String>,
    /// What else may make the figure wrong, as sentences.
    pub doubts: Vec<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether the command ran: if not, there was nothing to hold the rule against.
    pub ran: bool,
}

impl Verdict {
    /// Whether the rule broke.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.outcome == Outcome::Broke
    }

    /// Of a rule whose command could not be started.
    #[must_use]
    pub fn unjudged(rule: Rule) -> Self {
        Self {
            rule,
            seen: 0,
            uncounted: 0,
            lost: 0,
            nameless: 0,
            unclassed: 0,
            absent: Vec::new(),
            doubts: Vec::new(),
            outcome: Outcome::Unknown,
            ran: false,
        }
    }

    /// Holds a rule against a report of everything. `absent` is what the rule depends on and what never was there
    /// while the command ran.
    #[must_use]
    pub fn new(rule: Rule, report: &Report, absent: Vec<String>) -> Self {
        let (mut seen, mut nameless, mut unclassed) = (0, 0, 0);
        for tally in report.rows.iter().map(|row| rule.tally(&report.by, row)) {
            seen += tally.counted;
            nameless += tally.nameless;
            unclassed += tally.unclassed;
        }
        let is_unsure = nameless > 0 || unclassed > 0;
        let lost = report.ledger.lost();
        let outcome = match rule.bound {
            Bound::Max if seen > rule.drops => Outcome::Broke,
            Bound::Max if lost > 0 || is_unsure || !absent.is_empty() => Outcome::Unknown,
            Bound::Expect if seen < rule.drops => Outcome::Broke,
            Bound::Max | Bound::Expect => Outcome::Held,
        };
        Self {
            rule,
            seen,
            uncounted: 0,
            lost,
            nameless,
            unclassed,
            absent,
            doubts: Vec::new(),
            outcome,
            ran: true,
        }
    }

    /// The same, with losses that have no row.
    #[must_use]
    pub fn with_uncounted(mut self, uncounted: u64) -> Self {
        if self.rule.bound == Bound::Max && self.seen + uncounted > self.rule.drops {
            self.outcome = Outcome::Broke;
        }
        self.uncounted = uncounted;
        self
    }

    /// The same, where something may have kept drops from being seen.
    #[must_use]
    pub fn doubted(mut self, doubts: Vec<String>) -> Self {
        if !doubts.is_empty() && self.rule.bound == Bound::Max && self.outcome == Outcome::Held {
            self.outcome = Outcome::Unknown;
        }
        self.doubts = doubts;
        self
    }
}

/// `FAILED --max 0: 3 drops seen, at most 0 allowed`
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, seen, uncounted, lost, nameless, unclassed, absent, doubts, outcome, ran } = self;
        let text = rule.to_string();
        let said = Escaped::new(&text);
        let word = match outcome {
            Outcome::Held => "ok     ",
            Outcome::Broke => "FAILED ",
            Outcome::Unknown => "UNKNOWN",
        };
        if !ran {
            return write!(f, "{word} {said}: the command did not run");
        }
        let bound = match rule.bound {
            Bound::Max => format!("at most {} allowed", rule.drops),
            Bound::Expect => format!("at least {} expected", rule.drops),
        };
        let counters = if *uncounted == 0 {
            String::new()
        } else {
            format!(" and {uncounted} lost that only the kernel's counters show")
        };
        write!(f, "{word} {said}: {} seen{counters}, {bound}", counted(*seen, "drop"))?;
        if *outcome == Outcome::Held {
            return Ok(());
        }
        if *lost > 0 {
            write!(f, "; {lost} more were lost and may belong to it")?;
        }
        if *nameless > 0 {
            let is_of_sockets = rule.keys().any(|key| matches!(key, Key::Process | Key::Container));
            let which = if is_of_sockets { "of unknown processes" } else { "at places that are not known" };
            write!(f, "; {nameless} more are {which} and may belong to it")?;
        }
        if *unclassed > 0 {
            write!(f, "; the class of {unclassed} more is not known and may be this one")?;
        }
        doubts.iter().try_for_each(|doubt| write!(f, "; {}", Escaped::new(doubt)))?;
        absent
            .iter()
            .try_for_each(|name| write!(f, "; {} was never there while the command ran", Escaped::new(name)))
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
        (_, 1) => "the rule did not hold".to_owned(),
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
        model::{report::Value, snapshot::Ledger},
    };

    fn report(ledger: Ledger) -> Report {
        Report {
            elapsed: Duration::from_secs(1),
            rows: vec![row("nft_do_chain", "kernel", 12, 3), row("__udp4_lib_rcv", "kernel", 3, 5)],
            drops: 8,
            total: 8,
            ledger,
            ..Report::empty(SystemTime::UNIX_EPOCH, &BY)
        }
    }

    fn verdict(bound: Bound, text: &str, ledger: Ledger) -> Verdict {
        Verdict::new(rule(bound, text), &report(ledger), Vec::new())
    }

    const LOST: Ledger = Ledger {
        map_full: 2,
        update_failed: 0,
        stack_failed: 0,
        undecided: 0,
        headers_unreadable: 0,
        names_unreadable: 0,
        socket_failed: 0,
        recursion_missed: None,
    };

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
            (Bound::Expect, "reason=NO_SOCKET,location=nft_do_chain:1", Outcome::Broke),
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
    fn a_loss_without_a_row_counts_for_a_maximum() {
        let verdict =
            |bound, text, uncounted| verdict(bound, text, Ledger::default()).with_uncounted(uncounted);
        assert_eq!(verdict(Bound::Max, "lost:9", 1).outcome, Outcome::Held);
        let broken = verdict(Bound::Max, "lost:9", 2);
        assert_eq!(broken.outcome, Outcome::Broke);
        let said = "FAILED  --max lost:9: 8 drops seen and 2 lost that only the kernel's counters show, at most 9 allowed";
        assert_eq!(broken.to_string(), said);
        assert_eq!(verdict(Bound::Expect, "lost:9", 2).outcome, Outcome::Broke);
    }

    #[test]
    fn what_never_was_there_makes_a_maximum_unknown() {
        let verdict = |bound, text, absent: &[&str]| {
            let absent = absent.iter().map(ToString::to_string).collect();
            Verdict::new(rule(bound, text), &report(Ledger::default()), absent)
        };
        let absent = &["gre_rcv[gre]"];
        assert_eq!(verdict(Bound::Max, "location=gre_rcv[gre]:0", &[]).outcome, Outcome::Held);
        assert_eq!(verdict(Bound::Max, "location=gre_rcv[gre]:0", absent).outcome, Outcome::Unknown);
        assert_eq!(verdict(Bound::Max, "7", absent).outcome, Outcome::Broke, "more were seen all the same");
        assert_eq!(verdict(Bound::Expect, "location=gre_rcv[gre]:1", absent).outcome, Outcome::Broke);
    }

    #[test]
    fn a_place_without_a_name_makes_a_maximum_unknown() {
        let mut report = report(Ledger::default());
        if let Value::Location { location, .. } = &mut report.rows[0].values[0] {
            location.symbol = None;
        }
        let outcome = |text| Verdict::new(rule(Bound::Max, text), &report, Vec::new()).outcome;
        assert_eq!(outcome("location=ip_rcv:0"), Outcome::Unknown);
        assert_eq!(outcome("reason=NO_SOCKET,location=ip_rcv:0"), Outcome::Held, "another reason");
        assert_eq!(outcome("8"), Outcome::Held);
    }

    #[test]
    fn a_class_that_is_not_known_makes_a_maximum_unknown() {
        let mut report = report(Ledger::default());
        report.rows[0].unclassed = 3;
        let verdict = |text| Verdict::new(rule(Bound::Max, text), &report, Vec::new());
        assert_eq!(verdict("lost:4").outcome, Outcome::Broke);
        assert_eq!(verdict("lost:5").outcome, Outcome::Unknown);
        assert_eq!(verdict("harmless:0").outcome, Outcome::Unknown);
        assert_eq!(verdict("8").outcome, Outcome::Held);
        assert!(verdict("lost:5").to_string().contains("the class of 3 more is not known"));
    }

    #[test]
    fn verdicts_read_as_sentences() {
        let absent = Verdict::new(
            rule(Bound::Max, "location=gre_rcv[gre]:0"),
            &report(Ledger::default()),
            vec!["gre_rcv[gre]".into()],
        );
        let lines = [
            absent,
            verdict(Bound::Max, "location=tcp_v4_rcv:1", Ledger::default()),
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
