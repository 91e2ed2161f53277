//! Losses that only the kernel's counters show, for rules about all that is lost.

use super::rule::{Bound, Rule, Wanted};
use crate::{
    filter::{
        Filter,
        tree::{Expr, Term},
    },
    model::{class::Class, counter::Counter, keys::Key, namespace::WhichNetns},
};

/// Whether losses without rows count for a rule: it limits all that is lost, on the host or in a namespace.
///
/// A counter knows neither packets nor places, so a rule about these has no use for it.
#[must_use]
pub fn concern(rule: &Rule) -> bool {
    rule.bound == Bound::Max
        && rule.class() == Some(Class::Lost)
        && rule.keys().all(|key| matches!(key, Key::Class | Key::Netns))
}

/// Whether a filter leaves out what counters show: it is about more than one namespace.
#[must_use]
pub fn are_left_out(filter: Option<&Filter>) -> bool {
    filter.is_some_and(|filter| namespace(filter).is_none())
}

/// How many losses without rows count for a rule, where the filter leaves them in.
///
/// `is_in` tells whether a network namespace, by its inode number, is one of those meant.
#[must_use]
pub fn count(
    rule: &Rule,
    filter: Option<&Filter>,
    counters: &[Counter],
    is_in: impl Fn(&WhichNetns, u32) -> bool,
) -> u64 {
    if !concern(rule) || are_left_out(filter) {
        return 0;
    }
    let of_rule = rule.conditions.iter().filter_map(|condition| match &condition.wanted {
        Wanted::Netns(which) => Some(which),
        _ => None,
    });
    let wanted: Vec<_> = of_rule.chain(filter.and_then(namespace)).collect();
    // What counts for the whole host cannot be said to be of a namespace, and not to be of one either.
    let is_meant = |counter: &&Counter| match &counter.netns {
        Some(netns) => wanted.iter().all(|which| is_in(which, netns.namespace.inum)),
        None => wanted.is_empty(),
    };
    counters.iter().filter(|counter| counter.is_loss).filter(is_meant).map(|counter| counter.count).sum()
}

/// The namespace that is all that a filter requires.
fn namespace(filter: &Filter) -> Option<&WhichNetns> {
    match filter.expression() {
        Expr::Term(Term::Netns { which, .. }) => Some(which),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::rule::tests::rule,
        fakes::Host,
        model::{counter::Part, namespace::Namespace, report::Netns},
    };

    const OURS: u32 = 4_026_531_840;

    fn counter(count: u64, inum: Option<u32>) -> Counter {
        let netns = inum.map(|inum| {
            let namespace = Namespace { inum, cookie: 0 };
            Netns { namespace, name: None, names: Vec::new() }
        });
        Counter {
            name: "TcpExtListenDrops".into(),
            count,
            netns,
            part: Part::default(),
            meaning: String::new(),
            is_loss: true,
        }
    }

    fn counted(bound: Bound, text: &str, filter: Option<&str>) -> u64 {
        let filter = filter.map(|text| Filter::parse(text, &Host).expect("a filter"));
        let squeezed = |netns| Counter { is_loss: false, ..counter(1000, netns) };
        let losses = [counter(225, Some(OURS)), counter(7, Some(12)), counter(100, None)];
        let counters: Vec<_> = losses.into_iter().chain([squeezed(None), squeezed(Some(OURS))]).collect();
        let is_in = |which: &WhichNetns, inum| match which {
            WhichNetns::One(one) => one.inum == inum,
            WhichNetns::Named(name) => name == "d" && inum == 12,
        };
        count(&rule(bound, text), filter.as_ref(), &counters, is_in)
    }

    #[test]
    fn losses_count_where_a_rule_and_the_filter_look() {
        let max = |text, filter| counted(Bound::Max, text, filter);
        assert_eq!(max("lost:0", None), 332);
        assert_eq!(max("lost,netns=self:0", None), 225);
        assert_eq!(max("lost,netns=d:0", None), 7);
        assert_eq!(max("lost,netns=e:0", None), 0);
        assert_eq!(max("lost:0", Some("netns self")), 225);
        assert_eq!(max("lost,netns=d:0", Some("netns self")), 0, "none is in both");
    }

    #[test]
    fn what_counters_do_not_know_is_not_guessed() {
        for text in ["0", "harmless:0", "refused:0", "netns=self:0", "lost,reason=NO_SOCKET:0"] {
            assert_eq!(counted(Bound::Max, text, None), 0, "{text}");
        }
        assert_eq!(counted(Bound::Expect, "lost:1", None), 0);
        for filter in ["udp", "netns self and udp", "not netns self", "netns self or netns d"] {
            assert_eq!(counted(Bound::Max, "lost:0", Some(filter)), 0, "{filter}");
        }
    }
}
