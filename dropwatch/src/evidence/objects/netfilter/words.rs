//! What is said of rules and policies.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{
    decide::{Candidate, Ending},
    hook::Hook,
    noted::Moved,
    rules::Table,
};
use crate::{
    escape::Escaped,
    model::{
        evidence::{Certainty, Evidence, Kind},
        plural::counted,
    },
};

/// A rule or a policy, and what is known of its part in the drop.
#[derive(Clone, Debug)]
pub struct Suspect {
    pub candidate: Candidate,
    pub certainty: Certainty,
    pub moved: Option<Moved>,
    /// The rule as `nft` prints it.
    pub text: Option<String>,
    /// How many packets were traced to it.
    pub traced: Option<u64>,
}

/// How many there are, and whether there may be more.
#[derive(Clone, Copy, Debug)]
pub struct Others {
    pub all: usize,
    pub is_partial: bool,
}

impl Suspect {
    /// As evidence.
    pub fn evidence(&self, hook: Option<Hook>, others: Others) -> Evidence {
        let Candidate { table, path, .. } = &self.candidate;
        let chain = path.last().map(Vec::as_slice).unwrap_or_default();
        Evidence {
            kind: Kind::Netfilter,
            certainty: self.certainty,
            text: self.line(hook, others),
            source: match self.traced {
                Some(_) => "nft monitor trace".to_owned(),
                None => format!("nft -a list chain {} {}", name(table), Escaped::new(chain)),
            },
            time: SystemTime::now(),
            fields: self.fields(hook, others),
        }
    }

    fn line(&self, hook: Option<Hook>, others: Others) -> String {
        let hook = hook.map(|hook| format!("{hook}: ")).unwrap_or_default();
        let said = [
            Some(format!("{hook}{}: {}", self.place(), self.rule())),
            self.candidate.ending.consequence(),
            self.moved
                .filter(|moved| moved.packets > 0)
                .map(|moved| format!("counted {} in {:.1} s", moved.packets, moved.within.as_secs_f64())),
            self.traced.map(|packets| format!("traced {} of this flow there", counted(packets, "packet"))),
            (self.certainty == Certainty::Possible && others.all > 1)
                .then(|| format!("one of {} that can drop it", others.all)),
            (self.certainty != Certainty::Certain && others.is_partial)
                .then(|| "there may be others".to_owned()),
        ];
        said.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// Table, chain and handle, and the chains that lead there.
    fn place(&self) -> String {
        let Candidate { table, path, ending, .. } = &self.candidate;
        let path: Vec<_> = path.iter().map(|chain| Escaped::new(chain).to_string()).collect();
        let mut words = vec![name(table)];
        words.extend(path.last().cloned());
        words.extend(ending.handle().map(|handle| format!("handle {handle}")));
        words.extend((path.len() > 1).then(|| format!("({})", path.join(" > "))));
        words.join(" ")
    }

    /// The rule's text, else what is known of it.
    fn rule(&self) -> String {
        let Candidate { ending, .. } = &self.candidate;
        if let Some(text) = &self.text {
            return Escaped::new(text).to_string();
        }
        match ending {
            Ending::Policy => "policy drop, no rule accepted it".to_owned(),
            Ending::Drop(named) | Ending::Reject(named, _) | Ending::Queue(named) => {
                let comment = named.comment.as_deref().map(Escaped::new);
                let comment = comment.map(|comment| format!(" comment \"{comment}\""));
                ending.verdict().to_owned() + &comment.unwrap_or_default()
            }
        }
    }

    fn fields(&self, hook: Option<Hook>, others: Others) -> Map<String, Value> {
        let Candidate { table, path, ending, .. } = &self.candidate;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let comment = ending.named().and_then(|named| named.comment.as_deref());
        let fields = json!({
            "hook": hook.map(|hook| hook.to_string()),
            "family": table.family.name(),
            "table": text(&table.name),
            "chain": path.last().map(|chain| text(chain)),
            "path": path.iter().map(|chain| text(chain)).collect::<Vec<_>>(),
            "handle": ending.handle(),
            "verdict": ending.verdict(),
            "rule": self.text,
            "comment": comment.map(text),
            "packets": self.moved.map(|moved| moved.packets),
            "traced": self.traced,
            "candidates": others.all,
        });
        let Value::Object(fields) = fields else { return Map::new() };
        fields
    }
}

impl Ending {
    /// What the rule is found by.
    pub fn named(&self) -> Option<&super::decide::Named> {
        match self {
            Self::Policy => None,
            Self::Drop(named) | Self::Reject(named, _) | Self::Queue(named) => Some(named),
        }
    }

    /// The rule's handle.
    pub fn handle(&self) -> Option<u64> {
        self.named().map(|named| named.handle)
    }

    /// What follows from it that its text does not tell.
    fn consequence(&self) -> Option<String> {
        match self {
            Self::Reject(_, reject) => Some(format!("the sender was told ({})", reject.words())),
            Self::Queue(_) => Some("a program decides, and without one the packet is dropped".to_owned()),
            Self::Drop(_) | Self::Policy => None,
        }
    }

    fn verdict(&self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Drop(_) => "drop",
            Self::Reject(..) => "reject",
            Self::Queue(_) => "queue",
        }
    }
}

/// A line about rules as a whole.
pub fn remark(text: impl Into<String>) -> Evidence {
    Evidence {
        kind: Kind::Netfilter,
        certainty: Certainty::Possible,
        text: text.into(),
        source: "nft -a list ruleset".to_owned(),
        time: SystemTime::now(),
        fields: Map::new(),
    }
}

/// Family and name of a table.
fn name(table: &Table) -> String {
    format!("{} {}", table.family.name(), Escaped::new(&table.name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::evidence::objects::netfilter::{decide::Named, hook::Family, rules::Reject};

    fn suspect(ending: Ending) -> Suspect {
        let table = Table { family: Family::Inet, name: b"filter".into() };
        let path = vec![b"input".into(), b"media".into()];
        let candidate = Candidate { table, path, ending, is_sure: true, is_match: true, counter: None };
        Suspect { candidate, certainty: Certainty::Possible, moved: None, text: None, traced: None }
    }

    fn named() -> Named {
        Named { handle: 9, comment: Some(b"evil \x1b[2J".into()) }
    }

    fn line(suspect: &Suspect, all: usize) -> String {
        suspect.evidence(Some(Hook::Input), Others { all, is_partial: false }).text
    }

    #[test]
    fn a_rule_is_a_line_with_its_place_and_its_text() {
        let mut rule = suspect(Ending::Drop(named()));
        assert_eq!(
            line(&rule, 2),
            "input: inet filter media handle 9 (input > media): drop comment \"evil \\x1b[2J\"; one of 2 that can drop it"
        );
        (rule.text, rule.certainty) = (Some("udp dport 6500 counter drop".to_owned()), Certainty::Counted);
        rule.moved = Some(Moved { packets: 60, within: Duration::from_secs(5) });
        assert_eq!(
            line(&rule, 2),
            "input: inet filter media handle 9 (input > media): udp dport 6500 counter drop; counted 60 in 5.0 s"
        );
        let evidence = rule.evidence(Some(Hook::Input), Others { all: 2, is_partial: false });
        assert_eq!(evidence.source, "nft -a list chain inet filter media");
        assert_eq!((&evidence.fields["handle"], &evidence.fields["packets"]), (&json!(9), &json!(60)));
        assert_eq!(evidence.fields["path"], json!(["input", "media"]));
    }

    #[test]
    fn a_reject_and_a_policy_are_told_apart_from_a_drop() {
        let reject = suspect(Ending::Reject(named(), Reject { kind: 1, code: 0 }));
        assert!(line(&reject, 1).ends_with("; the sender was told (TCP reset)"), "{}", line(&reject, 1));
        let policy = suspect(Ending::Policy);
        assert!(line(&policy, 1).contains(": policy drop, no rule accepted it"), "{}", line(&policy, 1));
        assert_eq!(policy.evidence(None, Others { all: 1, is_partial: true }).fields["verdict"], "policy");
    }
}
