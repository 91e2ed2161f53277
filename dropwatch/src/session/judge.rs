//! Holds the rules of a check against what was seen and what was there.

use crate::{
    check::{
        existence::{self, has_drops_on},
        rule::Rule,
        uncounted,
        verdict::Verdict,
    },
    filter::{Filter, Set},
    kernel::{names::KernelNames, namespaces::Namespaces},
    model::{
        belonging::Belonging,
        namespace::WhichNetns,
        plural::counted,
        report::{Report, Value},
    },
    session::namespaces,
};

/// What was there while the command ran.
pub struct There<'a> {
    /// What is watched; all, without one.
    pub filter: Option<&'a Filter>,
    /// The network namespaces of this host.
    pub namespaces: &'a Namespaces,
    /// Interfaces that were looked for in vain.
    pub missing: &'a [String],
    /// Processes and containers that were looked for in vain.
    pub absent: &'a [Belonging],
    /// What may make figures wrong.
    pub doubts: Vec<String>,
    /// Whether counters of some namespaces could not be read.
    pub has_unread_counters: bool,
}

impl There<'_> {
    /// Holds a rule against what was seen, unless it depends on what never was there.
    pub fn judge(&self, rule: &Rule, report: &Report, names: &mut KernelNames) -> Verdict {
        let is_in = |which: &WhichNetns, inum| match which {
            WhichNetns::One(one) => one.inum == inum,
            WhichNetns::Named(name) => self.namespaces.bearers(name).iter().any(|it| it.inum == inum),
        };
        let uncounted = uncounted::count(rule, self.filter, &report.counters, is_in);
        Verdict::new(rule.clone(), report, self.absent(rule, report, names))
            .with_uncounted(uncounted)
            .doubted(self.doubts(rule, report))
    }

    /// What the rule and the filter name and never was there.
    fn absent(&self, rule: &Rule, report: &Report, names: &mut KernelNames) -> Vec<String> {
        let functions = self.filter.into_iter().flat_map(Filter::sets).filter_map(|set| match set {
            Set::Location(function) => Some(function),
            Set::Reason { .. } | Set::Netns(_) => None,
        });
        let functions = functions.chain(rule.functions()).filter(|function| !names.has_seen(function));
        let namespaces = existence::namespaces(rule, self.filter).into_iter();
        let namespaces = namespaces.filter(|name| self.namespaces.bearers(name).is_empty());
        let is_missing = |name: &str| self.missing.iter().any(|it| it == name);
        let interfaces = existence::interfaces(rule, self.filter).into_iter();
        let interfaces = interfaces.filter(|name| is_missing(name) && !has_drops_on(report, name));
        let belongings = existence::belongings(rule, self.filter)
            .filter(|named| self.absent.contains(named) && !existence::has_drops_of(report, named));
        functions
            .map(ToString::to_string)
            .chain(namespaces.map(|name| format!("network namespace '{name}'")))
            .chain(interfaces.map(|name| format!("interface '{name}'")))
            .chain(belongings.map(|named| {
                let (word, name) = named.words();
                format!("a {word} '{name}' with an open socket")
            }))
            .collect()
    }

    /// Why the count may be too low.
    fn doubts(&self, rule: &Rule, report: &Report) -> Vec<String> {
        let mut doubts = self.doubts.clone();
        let missed = existence::namespaces(rule, None).into_iter();
        let missed = missed.filter(|name| self.namespaces.has_missed(name));
        doubts.extend(missed.map(namespaces::missed_name));
        let of_container = existence::namespaces(rule, None).into_iter();
        let mut of_container = of_container.filter(|name| self.namespaces.has_container(name));
        let mut unknown = report.rows.iter().flat_map(|row| &row.values).filter(
            |value| matches!(value, Value::Netns(Some(netns)) if !self.namespaces.is_known(netns.namespace)),
        );
        if let (Some(name), Some(_)) = (of_container.next(), unknown.next()) {
            doubts.push(format!(
                "there were drops in a network namespace that had gone before it was looked at: it may have been \
                 another one of the container '{name}'"
            ));
        }
        let unreadable = report.ledger.headers_unreadable;
        if unreadable > 0 && existence::reads_headers(rule, self.filter) {
            doubts.push(format!("the headers of {} could not be read", counted(unreadable, "packet")));
        }
        let nameless = report.ledger.names_unreadable;
        if nameless > 0 && existence::names_interfaces(rule, self.filter) {
            let drops = counted(nameless, "drop");
            doubts.push(format!("not all alternative names of the interfaces of {drops} could be read"));
        }
        if self.has_unread_counters && uncounted::concern(rule) && !uncounted::are_left_out(self.filter) {
            doubts.push(
                "the kernel's counters of losses could not be read in all network namespaces".to_owned(),
            );
        }
        doubts
    }
}
