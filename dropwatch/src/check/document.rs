//! A check as a document: JUnit XML for what shows test results, JSON for the rest.

use std::io;

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};
use serde::Serialize;

use super::verdict::{Outcome, Verdict};
use crate::{render::JsonRows, report::Report, snapshot::Ledger};

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

/// A test suite with a test case for each rule, as JUnit has them.
///
/// # Errors
/// None that a vector could give.
pub fn junit(findings: &Findings<'_>) -> io::Result<String> {
    let failures =
        findings.verdicts.iter().filter(|verdict| verdict.outcome != Outcome::Held).count().to_string();
    let tests = findings.verdicts.len().to_string();
    let time = format!("{:.3}", findings.report.elapsed.as_secs_f64());
    let counts = [("name", "dropwatch check"), ("tests", &tests), ("failures", &failures), ("errors", "0")];
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 4);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    xml.create_element("testsuites").with_attributes(counts).write_inner_content(|xml| {
        let suite = xml.create_element("testsuite").with_attributes(counts).with_attribute(("time", &*time));
        suite.write_inner_content(|xml| {
            findings.verdicts.iter().try_for_each(|verdict| test_case(xml, verdict))?;
            xml.create_element("system-out").write_text_content(BytesText::new(findings.conclusion))?;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(String::from_utf8_lossy(&xml.into_inner()).into_owned() + "\n")
}

fn test_case(xml: &mut Writer<Vec<u8>>, verdict: &Verdict) -> io::Result<()> {
    let rule = verdict.rule.to_string();
    let case = xml.create_element("testcase").with_attributes([("classname", "dropwatch"), ("name", &*rule)]);
    if verdict.outcome == Outcome::Held {
        case.write_empty()?;
    } else {
        let message = verdict.to_string();
        case.write_inner_content(|xml| {
            xml.create_element("failure").with_attribute(("message", &*message)).write_empty()?;
            Ok(())
        })?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    r#type: &'static str,
    command: &'a [String],
    status: u8,
    conclusion: &'a str,
    scope: &'a str,
    elapsed_s: f64,
    rules: Vec<RuleObject>,
    drops: u64,
    rows: JsonRows<'a>,
    ledger: Ledger,
}

#[derive(Serialize)]
struct RuleObject {
    rule: String,
    drops: u64,
    verdict: &'static str,
}

impl From<&Verdict> for RuleObject {
    fn from(verdict: &Verdict) -> Self {
        let word = match verdict.outcome {
            Outcome::Held => "held",
            Outcome::Broke => "broke",
            Outcome::Unknown => "unknown",
        };
        Self { rule: verdict.rule.to_string(), drops: verdict.seen, verdict: word }
    }
}

/// One object, in the words of the JSON reports.
///
/// # Errors
/// None that a string could give.
pub fn json(findings: &Findings<'_>) -> io::Result<String> {
    let report = findings.report;
    let document = Document {
        schema: 1,
        r#type: "check",
        command: findings.command,
        status: findings.status,
        conclusion: findings.conclusion,
        scope: findings.scope,
        elapsed_s: report.elapsed.as_secs_f64(),
        rules: findings.verdicts.iter().map(RuleObject::from).collect(),
        drops: report.drops,
        rows: JsonRows(report),
        ledger: report.ledger,
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        check::{
            rule::{
                Bound,
                tests::{row, rule},
            },
            verdict::{Ending, conclusion},
        },
        keys::Key,
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
        with_findings(|findings| insta::assert_snapshot!(json(findings).expect("a document")));
    }

    #[test]
    fn a_check_as_junit() {
        with_findings(|findings| insta::assert_snapshot!(junit(findings).expect("text")));
    }
}
