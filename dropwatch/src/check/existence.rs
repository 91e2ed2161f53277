//! Whether what a gate names has existed while its command ran: if not, its figures say nothing.

use dropwatch_common::{probe::gather, program::need};

use super::rule::{Rule, Wanted};
use crate::{
    filter::{Filter, assume},
    model::{
        belonging::{self, Belonging},
        keys::Key,
        namespace::WhichNetns,
        report::{Report, Value},
    },
};

/// The network namespaces that a rule and the filter name.
#[must_use]
pub fn namespaces<'a>(rule: &'a Rule, filter: Option<&'a Filter>) -> Vec<&'a str> {
    let of_filter = filter.map(|filter| assume::names(filter.expression())).unwrap_or_default();
    let of_rule = rule.conditions.iter().filter_map(|condition| match &condition.wanted {
        Wanted::Netns(WhichNetns::Named(name)) => Some(&**name),
        _ => None,
    });
    of_rule.chain(of_filter).collect()
}

/// The interfaces that a rule and the filter name.
#[must_use]
pub fn interfaces<'a>(rule: &'a Rule, filter: Option<&'a Filter>) -> Vec<&'a str> {
    let of_filter = filter.map(|filter| assume::interfaces(filter.expression())).unwrap_or_default();
    let of_rule = rule.conditions.iter().filter_map(|condition| match &condition.wanted {
        Wanted::Iface(name) => Some(&**name),
        _ => None,
    });
    of_rule.chain(of_filter).collect()
}

/// The processes, containers and cgroups that a rule and the filter name.
pub fn belongings(rule: &Rule, filter: Option<&Filter>) -> impl Iterator<Item = Belonging> {
    let of_rule = rule.conditions.iter().filter_map(|condition| match &condition.wanted {
        Wanted::Process(name) => Some(Belonging::Process(name.clone())),
        Wanted::Container(name) => Some(Belonging::Container(name.clone())),
        _ => None,
    });
    of_rule.chain(filter.into_iter().flat_map(|filter| filter.cases().belongings().iter().cloned()))
}

/// Whether drops of a process or in a container were seen.
#[must_use]
pub fn has_drops_of(report: &Report, named: &Belonging) -> bool {
    let is_it = |value: &Value| match (named, value) {
        (Belonging::Process(name), Value::Process(owner)) => belonging::is_process(name, owner) == Some(true),
        (Belonging::Container(name), Value::Container { container: Some(container), .. }) => {
            belonging::is_container(name, container)
        }
        _ => false,
    };
    report.rows.iter().any(|row| row.values.iter().any(is_it))
}

/// What a filter reads of a packet.
const OF_PACKETS: u32 = need::ETHERTYPE | need::PACKET | need::BYTES | need::LINK | need::VLAN;

/// Whether a rule or the filter decides by what a packet's headers say, or any of its bytes.
#[must_use]
pub fn reads_headers(rule: &Rule, filter: Option<&Filter>) -> bool {
    let is_of_headers = |key: Key| key.gathered() & gather::HEADERS != 0;
    rule.keys().any(is_of_headers) || filter.is_some_and(|filter| filter.needs() & OF_PACKETS != 0)
}

/// Whether a rule or the filter decides by the names of interfaces.
#[must_use]
pub fn names_interfaces(rule: &Rule, filter: Option<&Filter>) -> bool {
    !interfaces(rule, filter).is_empty()
}

/// Whether drops were seen on an interface of that name.
#[must_use]
pub fn has_drops_on(report: &Report, name: &str) -> bool {
    let is_it = |value: &Value| matches!(value, Value::Iface(Some(iface)) if iface.is_called(name));
    report.rows.iter().any(|row| row.values.iter().any(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::rule::{Bound, tests::rule},
        fakes::Host,
    };

    #[test]
    fn what_a_gate_depends_on_is_in_its_rule_and_in_its_filter() {
        let rule = rule(Bound::Max, "netns=d,iface=eth7:0");
        let filter = Filter::parse("not netns e and (iface eth8 or tcp)", &Host).expect("a filter");
        assert_eq!(namespaces(&rule, Some(&filter)), ["d", "e"]);
        assert_eq!(interfaces(&rule, Some(&filter)), ["eth7", "eth8"]);
        assert_eq!(namespaces(&rule, None), ["d"]);
    }
}
