//! Broken rules as workflow commands of GitHub Actions, which shows them beside the run.

use super::verdict::{Outcome, Verdict};

/// The annotation of a rule that did not hold: a line of its own.
#[must_use]
pub fn annotation(verdict: &Verdict) -> Option<String> {
    let is_broken = verdict.outcome != Outcome::Held;
    is_broken.then(|| format!("::error title=dropwatch::{}", escaped(&verdict.to_string())))
}

/// A command ends with its line, and a percent sign escapes.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        check::rule::{Bound, tests::rule},
        model::report::Report,
    };

    fn verdict(text: &str, bound: Bound) -> Verdict {
        let report = Report::empty(SystemTime::UNIX_EPOCH, &[]);
        let mut rule = rule(bound, "1");
        rule.text = text.to_owned();
        Verdict::new(rule, &report, Vec::new())
    }

    #[test]
    fn only_what_did_not_hold_is_annotated() {
        assert_eq!(annotation(&verdict("1", Bound::Max)), None);
        assert_eq!(
            annotation(&verdict("iface=100%:1", Bound::Expect)).as_deref(),
            Some(
                "::error title=dropwatch::FAILED  --expect iface=100%25:1: 0 drops seen, at least 1 expected"
            )
        );
    }

    proptest! {
        /// A rule cannot end the command and begin another one.
        #[test]
        fn an_annotation_is_one_line(text in "(.|\n|\r|::|%0A){0,20}") {
            let line = annotation(&verdict(&text, Bound::Expect)).expect("a broken rule");
            prop_assert!(!line.contains(['\n', '\r']), "{}", line);
            let message = line.strip_prefix("::error title=dropwatch::").expect("one command");
            let read = message.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%");
            prop_assert_eq!(read, verdict(&text, Bound::Expect).to_string());
        }
    }
}
