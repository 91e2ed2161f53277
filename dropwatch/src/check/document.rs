//! A check as a document: JUnit XML for what shows test results, JSON for the rest.

use std::{fmt, io};

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};
use serde::Serialize;

use super::{
    scope::Scope,
    verdict::{Outcome, Verdict},
};
use crate::{
    escape::Escaped,
    knowledge::Meanings,
    model::{
        class::Class,
        counter::Counter,
        keys::Key,
        report::{Report, Value},
        snapshot::Ledger,
    },
    render::{JsonRows, pretty_json},
};

/// What a document of a check looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    /// JUnit XML.
    Junit,
    /// JSON.
    Json,
}

/// What a check found.
#[derive(Debug)]
pub struct Findings<'a> {
    /// What this host is called.
    pub host: &'static str,
    /// The command and its arguments.
    pub command: &'a [String],
    /// Our exit status.
    pub status: u8,
    /// The last line.
    pub conclusion: &'a str,
    /// Which drops were counted.
    pub scope: &'a Scope,
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
            properties(xml, findings)?;
            findings.verdicts.iter().try_for_each(|verdict| test_case(xml, verdict))?;
            let lines = largest(findings.report).into_iter().map(|row| row.to_string() + "\n");
            let counters = findings.report.counters.iter().map(|counter| counter.words() + "\n");
            let evidence = evidence(findings.report).map(|line| line + "\n");
            let lines = lines.chain(evidence);
            let text = lines.chain(counters).collect::<String>() + findings.conclusion;
            xml.create_element("system-out").write_text_content(BytesText::new(&text))?;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(String::from_utf8_lossy(&xml.into_inner()).into_owned() + "\n")
}

/// What the tests were about.
fn properties(xml: &mut Writer<Vec<u8>>, findings: &Findings<'_>) -> io::Result<()> {
    let scope = findings.scope.to_string();
    xml.create_element("properties").write_inner_content(|xml| {
        for (name, value) in [("host", findings.host), ("scope", &scope)] {
            let value = Escaped::new(value).to_string();
            let property = xml.create_element("property");
            property.with_attributes([("name", name), ("value", &*value)]).write_empty()?;
        }
        Ok(())
    })?;
    Ok(())
}

fn test_case(xml: &mut Writer<Vec<u8>>, verdict: &Verdict) -> io::Result<()> {
    let rule = Escaped::new(&verdict.rule.to_string()).to_string();
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

/// What shows the cause of lost rows, an object a line.
fn evidence(report: &Report) -> impl Iterator<Item = String> + '_ {
    report.rows.iter().flat_map(|row| {
        let all = row.evidence.as_deref().unwrap_or_default();
        all.iter().map(|found| format!("{} lost: {} ({})", row.count, found.words(all), found.source))
    })
}

/// How many rows are explained.
const LARGEST: usize = 10;

/// What the drops of a row mean.
#[derive(Serialize)]
struct Meant<'a> {
    count: u64,
    class: Class,
    /// In a few words; nothing, if it is not known.
    meaning: Option<&'static str>,
    #[serde(skip)]
    by: &'a [Key],
    #[serde(skip)]
    values: &'a [Value],
}

/// `3 lost: UDP receive buffer full; location …, reason …`
impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.by.iter().zip(self.values).filter(|(key, _)| **key != Key::Class);
        let values: Vec<_> = values.map(|(key, value)| format!("{} {}", key.word(), value.words())).collect();
        let meaning = self.meaning.unwrap_or("not known");
        write!(f, "{} {}: {meaning}; {}", self.count, self.class, values.join(", "))
    }
}

/// The largest rows that have a class.
fn largest(report: &Report) -> Vec<Meant<'_>> {
    let mut meanings = Meanings::default();
    let rows = report.rows.iter().filter_map(|row| Some((row, row.class?))).take(LARGEST);
    let meant = rows.map(|(row, class)| Meant {
        count: row.count,
        class,
        meaning: meanings.entry(&row.values).map(|entry| entry.title),
        by: &report.by,
        values: &row.values,
    });
    meant.collect()
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    r#type: &'static str,
    host: &'static str,
    command: &'a [String],
    status: u8,
    conclusion: &'a str,
    scope: String,
    netns: Option<&'a str>,
    filter: Option<&'a str>,
    elapsed_s: f64,
    rules: Vec<RuleObject>,
    drops: u64,
    rows: JsonRows<'a>,
    largest: Vec<Meant<'a>>,
    counters: &'a [Counter],
    ledger: Ledger,
}

#[derive(Serialize)]
struct RuleObject {
    rule: String,
    drops: u64,
    /// Losses that only the kernel's counters show, where they count for the rule.
    uncounted: u64,
    verdict: &'static str,
}

impl From<&Verdict> for RuleObject {
    fn from(verdict: &Verdict) -> Self {
        let word = match verdict.outcome {
            Outcome::Held => "held",
            Outcome::Broke => "broke",
            Outcome::Unknown => "unknown",
        };
        let Verdict { rule, seen, uncounted, .. } = verdict;
        Self { rule: rule.to_string(), drops: *seen, uncounted: *uncounted, verdict: word }
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
        host: findings.host,
        command: findings.command,
        status: findings.status,
        conclusion: findings.conclusion,
        scope: findings.scope.to_string(),
        netns: findings.scope.netns.as_deref(),
        filter: findings.scope.filter.as_deref(),
        elapsed_s: report.elapsed.as_secs_f64(),
        rules: findings.verdicts.iter().map(RuleObject::from).collect(),
        drops: report.drops,
        rows: JsonRows(report),
        largest: largest(report),
        counters: &report.counters,
        ledger: report.ledger,
    };
    Ok(pretty_json(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        check::{
            rule::{
                Bound,
                tests::{row, rule},
            },
            verdict::{Ending, conclusion},
        },
        escape::tests::{assert_safe, hostile},
        model::keys::Key,
    };

    fn with_findings(look: impl FnOnce(&Findings<'_>)) {
        let report = Report {
            elapsed: Duration::from_millis(1500),
            rows: vec![row("nft_do_chain", "kernel", 12, 3)],
            drops: 3,
            total: 3,
            ..Report::empty(SystemTime::UNIX_EPOCH, &[Key::Location, Key::Reason])
        };
        let verdicts =
            [rule(Bound::Max, "reason=NETFILTER_DROP:0"), rule(Bound::Expect, "location=nft_do_chain:1")]
                .map(|rule| Verdict::new(rule, &report, Vec::new()));
        let (status, conclusion) = conclusion(Ending::Exited(0), &verdicts);
        look(&Findings {
            host: "router1",
            command: &["make".to_owned(), "<test>".to_owned()],
            status,
            conclusion: &conclusion,
            scope: &Scope::new(None),
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

    /// The characters that XML 1.0 allows.
    fn is_xml(character: char) -> bool {
        matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
    }

    proptest! {
        #[test]
        fn a_hostile_rule_leaves_documents_whole(name in hostile()) {
            let name = String::from_utf8_lossy(&name).replace([',', ':'], "");
            prop_assume!(!name.is_empty());
            with_findings(|findings| {
                let verdicts = [Verdict::new(rule(Bound::Expect, &format!("iface={name}:1")), findings.report, vec![name.clone()])];
                let findings = Findings { verdicts: &verdicts, conclusion: findings.conclusion, ..*findings };
                let xml = junit(&findings).unwrap();
                assert_safe(xml.as_bytes(), 14);
                assert!(xml.chars().all(is_xml), "{xml:?}");
                assert_safe(verdicts[0].to_string().as_bytes(), 0);
                let json = json(&findings).unwrap();
                assert_safe(json.as_bytes(), json.lines().count());
                let json: serde_json::Value = serde_json::from_str(&json).unwrap();
                assert_eq!(json["rules"][0]["rule"], format!("--expect iface={name}:1"));
            });
        }
    }
}
