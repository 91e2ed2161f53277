//! What is left of an expression once some of its terms are answered.
//!
//! The kernel lets a drop pass in a namespace that user space has not looked at, if some answer about its names would.
//! Here it is decided afterwards.

use super::tree::{Expr, Term};
use crate::model::namespace::WhichNetns;

/// What becomes of drops that passed because the kernel did not know all that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They match.
    Matches,
    /// They do not.
    Differs,
    /// Some may, some not.
    Unknown,
}

/// An expression in which terms are replaced by answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Folded {
    Always(bool),
    If(Expr),
}

/// Decides about drops that passed, when the names of their namespace are known.
pub fn decide(expression: &Expr, has_name: &impl Fn(&str) -> bool) -> Decision {
    let of_name = |answer: &dyn Fn(&str, bool) -> bool, term: &Term, negated| match term {
        Term::Netns { which: WhichNetns::Named(name), .. } => Some(answer(name, negated)),
        _ => None,
    };
    let passed = fold(expression, false, &|term, negated| of_name(&|_, negated| !negated, term, negated));
    let meant = fold(expression, false, &|term, negated| of_name(&|name, _| has_name(name), term, negated));
    match meant {
        Folded::Always(false) => Decision::Differs,
        meant if meant == passed => Decision::Matches,
        _ => Decision::Unknown,
    }
}

/// The names of network namespaces in an expression.
#[must_use]
pub fn names(expression: &Expr) -> Vec<&str> {
    terms(expression)
        .into_iter()
        .filter_map(|term| match term {
            Term::Netns { which: WhichNetns::Named(name), .. } => Some(&**name),
            _ => None,
        })
        .collect()
}

/// The names of interfaces in an expression.
#[must_use]
pub fn interfaces(expression: &Expr) -> Vec<&str> {
    terms(expression)
        .into_iter()
        .filter_map(|term| match term {
            Term::Iface(name) => Some(&**name),
            _ => None,
        })
        .collect()
}

/// All terms of an expression.
pub(super) fn terms(expression: &Expr) -> Vec<&Term> {
    match expression {
        Expr::Term(term) => vec![term],
        Expr::Not(inner) => terms(inner),
        Expr::And(left, right) | Expr::Or(left, right) => [terms(left), terms(right)].concat(),
    }
}

/// Replaces terms by answers, which may depend on whether they stand under an odd number of `not`s.
pub(super) fn fold(
    expression: &Expr,
    negated: bool,
    answer: &impl Fn(&Term, bool) -> Option<bool>,
) -> Folded {
    use Folded::{Always, If};
    match expression {
        Expr::Term(term) => answer(term, negated).map_or_else(|| If(expression.clone()), Always),
        Expr::Not(inner) => match fold(inner, !negated, answer) {
            Always(answer) => Always(!answer),
            If(inner) => If(Expr::Not(inner.into())),
        },
        Expr::And(left, right) => match (fold(left, negated, answer), fold(right, negated, answer)) {
            (Always(false), _) | (_, Always(false)) => Always(false),
            (Always(true), other) | (other, Always(true)) => other,
            (If(left), If(right)) => If(Expr::And(left.into(), right.into())),
        },
        Expr::Or(left, right) => match (fold(left, negated, answer), fold(right, negated, answer)) {
            (Always(true), _) | (_, Always(true)) => Always(true),
            (Always(false), other) | (other, Always(false)) => other,
            (If(left), If(right)) => If(Expr::Or(left.into(), right.into())),
        },
    }
}
