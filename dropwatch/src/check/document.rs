//! A check as a document: JUnit XML for what shows test results, JSON for the rest.

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};
use serde_json::json;

use super::verdict::{Outcome, Verdict};
use crate::{
    render::{json_ledger, json_row},
    report::Report,
};

/// What a check found.
#[derive(Debug)]
pub struct Findings<'a> {
    /// The command and its arguments.
    pub command: &'a [String],
    /// Our exit status.
    pub status: u8,
    /// The last line.
    pub conclusion: &'a str,
    /// What drops were counted of.
    pub scope: &'a str,
    /// The rules.
    pub verdicts: &'a [Verdict],
    /// Everything that was dropped.
    pub report: &'a Report,
}

/// A test suite with a test case for each rule.
#[must_use]
pub fn junit(findings: &Findings<'_>) -> String {
    let mut suite = TestSuite::new("dropwatch check");
    suite.set_time(findings.report.elapsed);
    for verdict in findings.verdicts {
        let status = match verdict.outcome {
            Outcome::Held => TestCaseStatus::success(),
            Outcome::Broke | Outcome::Unknown => {
                let mut failure = TestCaseStatus::non_success(NonSuccessKind::Failure);
                failure.set_message(verdict.to_string());
                failure
            }
        };
        suite.add_test_case(TestCase::new(verdict.rule.to_string(), status));
    }
    suite.set_system_out(findings.conclusion);
    let mut junit = Junit::new("dropwatch check");
    junit.add_test_suite(suite);
    // Text from the command line holds what XML cannot say only if it is not text.
    junit.to_string().unwrap_or_default()
}

/// One object, in the words of the JSON reports.
#[must_use]
pub fn json(findings: &Findings<'_>) -> String {
    let rules: Vec<_> = findings
        .verdicts
        .iter()
        .map(|verdict| {
            json!({
                "rule": verdict.rule.to_string(),
                "drops": verdict.seen,
                "verdict": match verdict.outcome {
                    Outcome::Held => "held",
                    Outcome::Broke => "broke",
                    Outcome::Unknown => "unknown",
                },
            })
        })
        .collect();
    let report = findings.report;
    let rows: Vec<_> = report.rows.iter().map(|row| json_row(report, row)).collect();
    let document = json!({
        "schema": 1,
        "type": "check",
        "command": findings.command,
        "status": findings.status,
        "conclusion": findings.conclusion,
        "scope": findings.scope,
        "elapsed_s": report.elapsed.as_secs_f64(),
        "rules": rules,
        "drops": report.drops,
        "rows": rows,
        "ledger": json_ledger(report.ledger),
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        aggregate::Key,
        check::{
            rule::{
                Bound,
                tests::{row, rule},
            },
            verdict::{Ending, conclusion},
        },
        report::Cut,
        snapshot::Ledger,
    };

    fn with_findings(look: impl FnOnce(&Findings<'_>)) {
        let report = Report {
            time: SystemTime::UNIX_EPOCH,
            elapsed: Duration::from_millis(1500),
            by: vec![Key::Location, Key::Reason],
            rows: vec![row("nft_do_chain", "kernel", 12, 3)],
            cut: Cut::default(),
            drops: 3,
            total: 3,
            ledger: Ledger::default(),
        };
        let verdicts =
            [rule(Bound::Max, "reason=NETFILTER_DROP:0"), rule(Bound::Expect, "location=nft_do_chain:1")]
                .map(|rule| Verdict::new(rule, &report));
        let (status, conclusion) = conclusion(Ending::Exited(0), &verdicts);
        look(&Findings {
            command: &["make".to_owned(), "<test>".to_owned()],
            status,
            conclusion: &conclusion,
            scope: "the whole host",
            verdicts: &verdicts,
            report: &report,
        });
    }

    #[test]
    fn a_check_as_json() {
        with_findings(|findings| insta::assert_snapshot!(json(findings)));
    }

    #[test]
    fn a_check_as_junit() {
        with_findings(|findings| insta::assert_snapshot!(junit(findings)));
    }
}
