//! Filters with terms that user space answers: what drops are worth, and whose they are.
//!
//! For each combination of answers the expression comes to another one. The kernel is given each of these once, as a
//! case, and notes in which cases a drop passes. Once the answers are known, that decides.

use dropwatch_common::program::CASES;

use super::{
    assume::{self, Decision, Folded, terms},
    tree::{Expr, Term},
};
use crate::model::{belonging::Belonging, class::Class};

/// How many names of processes, containers and cgroups a filter has at most.
pub const MOST_NAMES: usize = 6;

/// What is known of drops that passed because the kernel did not know all that decides.
#[derive(Clone, Copy)]
pub struct Answers<'a> {
    /// Whether their namespace has a name, if that is open.
    pub has_name: Option<&'a dyn Fn(&str) -> bool>,
    /// What they are worth.
    pub class: Option<Class>,
    /// Whether they belong to each of [`Cases::belongings`]; none are like those that are not known.
    pub belong: &'a [Option<bool>],
}

/// What an expression comes to, by the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cases {
    /// Each once.
    different: Vec<Folded>,
    /// Whose drops the expression names, each once.
    belongings: Vec<Belonging>,
    /// The answers, and the case they lead to.
    answered: Vec<Answered>,
}

/// Answers to all terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answered {
    /// If the expression needs it.
    class: Option<Class>,
    /// Whether drops belong to each that the expression names, as bits.
    belong: u32,
    case: usize,
}

impl Cases {
    /// Those of an expression; none if there are too many.
    pub(super) fn new(expression: &Expr) -> Option<Self> {
        let (mut belongings, mut has_classes) = (Vec::new(), false);
        for term in terms(expression) {
            match term {
                Term::Class(_) => has_classes = true,
                Term::Belongs(to) if !belongings.contains(to) => belongings.push(to.clone()),
                _ => {}
            }
        }
        let mut cases = Self { different: Vec::new(), belongings, answered: Vec::new() };
        if cases.belongings.len() > MOST_NAMES {
            return None;
        }
        let classes = if has_classes { Class::ALL.map(Some).to_vec() } else { vec![None] };
        for class in classes {
            for belong in 0..1 << cases.belongings.len() {
                cases.add(expression, class, belong);
            }
        }
        (cases.different.len() <= CASES).then_some(cases)
    }

    /// Adds what the expression comes to by these answers.
    fn add(&mut self, expression: &Expr, class: Option<Class>, belong: u32) {
        let place = |to: &Belonging| self.belongings.iter().position(|known| known == to);
        let answer = |term: &Term| match term {
            Term::Class(wanted) => class.map(|class| class == *wanted),
            Term::Belongs(to) => place(to).map(|place| belong >> place & 1 != 0),
            _ => None,
        };
        let is_open = class.is_some() || !self.belongings.is_empty();
        // What has none of these terms is not gone through: it may be long.
        let folded = if is_open {
            assume::fold(expression, false, &|term, _| answer(term))
        } else {
            Folded::If(expression.clone())
        };
        let known = self.different.iter().position(|known| *known == folded);
        let case = known.unwrap_or(self.different.len());
        if known.is_none() {
            self.different.push(folded);
        }
        self.answered.push(Answered { class, belong, case });
    }

    /// What the expression comes to, each once.
    pub(super) fn different(&self) -> &[Folded] {
        &self.different
    }

    /// Whether there are terms that user space answers.
    #[must_use]
    pub fn ask(&self) -> bool {
        self.ask_for_classes() || !self.belongings.is_empty()
    }

    /// Whose drops the expression names, each once.
    #[must_use]
    pub fn belongings(&self) -> &[Belonging] {
        &self.belongings
    }

    /// Whether the classes of drops decide.
    #[must_use]
    pub fn ask_for_classes(&self) -> bool {
        self.answered.iter().any(|answered| answered.class.is_some())
    }

    /// The cases that a drop of this class can be, as bits.
    #[must_use]
    pub fn of_class(&self, class: Class) -> u32 {
        let fitting = self.answered.iter().filter(|answered| answered.fits(Some(class), &[]));
        fitting.fold(0, |bits, answered| bits | 1 << answered.case)
    }

    /// Decides about drops that passed in some cases, as bits; in all if there are none.
    #[must_use]
    pub fn decide(&self, passed: u32, answers: Answers<'_>) -> Decision {
        let fitting = self.answered.iter().filter(|answered| answered.fits(answers.class, answers.belong));
        let mut decisions = fitting.map(|Answered { case, .. }| {
            if passed != 0 && passed >> case & 1 == 0 {
                return Decision::Differs;
            }
            match (&self.different[*case], answers.has_name) {
                (Folded::Always(false), _) => Decision::Differs,
                (Folded::Always(true), _) | (_, None) => Decision::Matches,
                (Folded::If(expression), Some(has_name)) => assume::decide(expression, &has_name),
            }
        });
        let first = decisions.next().unwrap_or(Decision::Unknown);
        if decisions.all(|decision| decision == first) { first } else { Decision::Unknown }
    }
}

impl Answered {
    fn fits(self, class: Option<Class>, belong: &[Option<bool>]) -> bool {
        let is_class = self.class.is_none() || class.is_none() || self.class == class;
        let mut bits = belong.iter().enumerate();
        is_class
            && bits
                .all(|(place, answer)| answer.is_none_or(|answer| answer == (self.belong >> place & 1 != 0)))
    }
}
