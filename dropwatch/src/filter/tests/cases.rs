//! Terms that user space answers: the kernel decides each case, and the answers decide among them.

use dropwatch_common::{
    packet::{ethertype, family, protocol},
    program::{self, Facts},
};
use proptest::prelude::*;

use super::{filter, passes, try_filter};
use crate::{
    filter::{
        Filter,
        assume::Decision,
        cases::{Answers, Cases},
        tree::{Expr, Term},
    },
    model::class::Class,
};

/// The cases in which a drop passes, as the kernel notes them; none if it passes in all that it can be, or in none.
fn passed(filter: &Filter, facts: &Facts, possible: u32) -> Result<bool, u32> {
    let passed = super::cases(filter, facts, &[]) & possible;
    if passed == possible {
        Ok(true)
    } else if passed == 0 {
        Ok(false)
    } else {
        Err(passed)
    }
}

/// Whether a drop of that class matches in the end, by what the kernel knows of its class.
fn matches(filter: &Filter, facts: &Facts, class: Class, possible: u32) -> bool {
    passed(filter, facts, possible).unwrap_or_else(|passed| {
        let answers = Answers { has_name: None, class: Some(class), belong: &[] };
        filter.cases().decide(passed, answers) == Decision::Matches
    })
}

/// What the expression means, read term by term.
fn means(expression: &Expr, is_udp: bool, reason: u32, class: Class) -> bool {
    let of = |inner: &Expr| means(inner, is_udp, reason, class);
    match expression {
        Expr::Term(Term::Class(wanted)) => *wanted == class,
        Expr::Term(Term::Protocol { .. }) => is_udp,
        Expr::Term(Term::Reason { codes, .. }) => codes.contains(&reason),
        Expr::Term(term) => panic!("no such term here: {term}"),
        Expr::Not(inner) => !of(inner),
        Expr::And(one, other) => of(one) && of(other),
        Expr::Or(one, other) => of(one) || of(other),
    }
}

fn drop(is_udp: bool, reason: u32) -> Facts {
    let mut facts = Facts { reason, known: program::known::REASON, ..Facts::default() };
    if is_udp {
        facts.packet.ethertype = ethertype::IPV4;
        facts.packet.family = family::IPV4;
        facts.packet.next_header = protocol::UDP;
    }
    facts
}

fn expressions() -> impl Strategy<Value = String> {
    const WORDS: [&str; 5] = ["class lost", "class refused", "class harmless", "udp", "reason NO_SOCKET"];
    let term = proptest::sample::select(&WORDS[..]).prop_map(str::to_owned);
    term.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("not ({inner})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one}) and ({other})")),
            (inner.clone(), inner).prop_map(|(one, other)| format!("({one}) or ({other})")),
        ]
    })
}

proptest! {
    /// Whatever the expression and the drop, the answer is the expression's, also when the kernel knows the class.
    #[test]
    fn classes_are_decided_exactly(text in expressions(), is_udp: bool, has_socket: bool) {
        let filter = filter(&text);
        let reason = if has_socket { 12 } else { 3 };
        let facts = drop(is_udp, reason);
        for class in Class::ALL {
            let meant = means(filter.expression(), is_udp, reason, class);
            if !filter.cases().ask() {
                prop_assert_eq!(passes(&filter, &facts), meant, "{}", text);
                continue;
            }
            let all = program::Cases::all(filter.starts().count);
            for possible in [all, filter.cases().of_class(class)] {
                prop_assert_eq!(matches(&filter, &facts, class, possible), meant, "{} {}", text, class);
            }
        }
    }
}

#[test]
fn the_kernel_decides_alone_where_no_class_matters() {
    let all = |text| {
        let filter = filter(text);
        let all = program::Cases::all(filter.starts().count);
        passed(&filter, &drop(true, 3), all)
    };
    assert_eq!(all("class lost or udp"), Ok(true));
    assert_eq!(all("class lost and not udp"), Ok(false));
    assert_eq!(
        all("not class harmless and udp"),
        Err(0b01),
        "lost and refused are one case, harmless is the other"
    );
    let plain = filter("udp");
    assert_eq!((plain.starts().count, plain.cases().ask()), (0, false));
    assert!(!plain.insns().is_empty());
}

#[test]
fn what_is_not_known_is_not_decided() {
    let filter = filter("class lost and netns blue");
    let decide = |passed, has_name: &dyn Fn(&str) -> bool, class| {
        Cases::decide(filter.cases(), passed, Answers { has_name: Some(has_name), class, belong: &[] })
    };
    let (blue, other) = (|name: &str| name == "blue", |_: &str| false);
    assert_eq!(decide(0b01, &blue, Some(Class::Lost)), Decision::Matches);
    assert_eq!(decide(0b01, &blue, Some(Class::Harmless)), Decision::Differs);
    assert_eq!(decide(0b01, &other, Some(Class::Lost)), Decision::Differs);
    assert_eq!(decide(0b01, &other, None), Decision::Differs);
    assert_eq!(decide(0b01, &blue, None), Decision::Unknown);
}

#[test]
fn a_class_is_one_of_three() {
    let problem = |text| try_filter(text).expect_err(text).problem().to_owned();
    assert!(problem("class harmles").contains("did you mean 'harmless'?"));
    assert!(problem("class").contains("a class (lost, refused or harmless) is missing"));
    assert_eq!(
        filter("class lost or refused and not class harmless").to_string(),
        "(class lost or class refused) and not class harmless"
    );
    let long = vec!["udp port 53 or class lost and tcp port 80"; 300].join(" or ");
    assert!(problem(&long).contains("too large"));
}
