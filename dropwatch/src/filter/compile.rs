//! A tree to the rules that the kernel decides by.

use dropwatch_common::rules::{self, ACCEPT, MAX_RULES, REJECT, Rule, RuleTable, field, need};

use super::{
    Set,
    tree::{Direction, Expr, Term},
};

/// Where a test leads. Rules are made last first, and are numbered from the last.
#[derive(Clone, Copy, Debug)]
enum Target {
    Accept,
    Reject,
    FromLast(usize),
}

/// A rule whose targets are not numbered yet.
struct Draft {
    rule: Rule,
    field: u8,
    select: u8,
    yes: Target,
    no: Target,
}

/// What is compiled so far, last rule first.
#[derive(Default)]
struct Compiler {
    drafts: Vec<Draft>,
    sets: Vec<Set>,
}

/// The rules of an expression that has room in a table, how many, and the sets they refer to.
pub(super) fn compile(expression: &Expr) -> (RuleTable, usize, Vec<Set>) {
    let mut compiler = Compiler::default();
    compiler.expression(expression, Target::Accept, Target::Reject);
    let length = compiler.drafts.len();
    assert!(length <= MAX_RULES, "the parser counts the rules");
    let number = |target| match target {
        Target::Accept => ACCEPT,
        Target::Reject => REJECT,
        Target::FromLast(place) => u8::try_from(length - 1 - place).expect("rules are few"),
    };
    let mut table = RuleTable::default();
    for (rule, draft) in table.0.iter_mut().zip(compiler.drafts.iter().rev()) {
        let head = Rule::pack(draft.field, draft.select, number(draft.yes), number(draft.no));
        *rule = Rule { head, ..draft.rule };
    }
    (table, length, compiler.sets)
}

/// What the rules ask for, as bits of [`need`].
pub(super) fn needs(rules: &[Rule]) -> u32 {
    rules.iter().map(|rule| needs_of(rule.field())).fold(0, |all, needs| all | needs)
}

fn needs_of(field: u8) -> u32 {
    match field {
        field::ETHERTYPE | field::PROTOCOL => need::PROTOCOL,
        field::SADDR | field::DADDR => need::ADDRESSES,
        field::SPORT | field::DPORT => need::PORTS,
        field::LENGTH => need::LENGTH,
        field::NETNS => need::NETNS,
        field::IFACE => need::IFACE,
        field::LOCATION => need::LOCATION,
        field::REASON => need::REASON,
        _ => 0,
    }
}

impl Compiler {
    /// Makes the rules of an expression; where its first is.
    fn expression(&mut self, expression: &Expr, yes: Target, no: Target) -> Target {
        match expression {
            Expr::Term(term) => self.term(term, yes, no),
            Expr::Not(inner) => self.expression(inner, no, yes),
            Expr::And(left, right) => {
                let right = self.expression(right, yes, no);
                self.expression(left, right, no)
            }
            Expr::Or(left, right) => {
                let right = self.expression(right, yes, no);
                self.expression(left, yes, right)
            }
        }
    }

    fn rule(&mut self, rule: Rule, field: u8, select: u8, yes: Target, no: Target) -> Target {
        self.drafts.push(Draft { rule, field, select, yes, no });
        Target::FromLast(self.drafts.len() - 1)
    }

    fn term(&mut self, term: &Term, yes: Target, no: Target) -> Target {
        let (field, value) = match term {
            Term::Ethertype(number) => (field::ETHERTYPE, [u64::from(*number), 0]),
            Term::Protocol { families, number } => {
                let rule = Rule { value: [u64::from(*number), 0], ..Rule::default() };
                return self.rule(rule, field::PROTOCOL, *families, yes, no);
            }
            Term::Address { families, direction, net } => {
                let (value, mask) = (rules::as_words(&net.bytes()), rules::as_words(&net.mask));
                let rule = Rule { value, mask, ..Rule::default() };
                return self.ends(*direction, rule, (field::SADDR, field::DADDR), *families, yes, no);
            }
            Term::Port { transports, direction, range: (low, high) } => {
                let rule = Rule { value: [u64::from(*low), u64::from(*high)], ..Rule::default() };
                return self.ends(*direction, rule, (field::SPORT, field::DPORT), *transports, yes, no);
            }
            Term::Length(low, high) => (field::LENGTH, [u64::from(*low), u64::from(*high)]),
            Term::Netns { number, .. } => (field::NETNS, [u64::from(*number), 0]),
            Term::Iface(name) => (field::IFACE, rules::as_words(&padded(name))),
            Term::Reason { name, codes } => {
                let set = self.set(Set::Reason { name: name.clone(), codes: codes.clone() });
                (field::REASON, [set, 0])
            }
            Term::Location(place) => (field::LOCATION, [self.set(Set::Location(place.clone())), 0]),
        };
        self.rule(Rule { value, ..Rule::default() }, field, 0, yes, no)
    }

    /// The same test for one end of the way or both, the source first.
    fn ends(
        &mut self,
        direction: Direction,
        rule: Rule,
        (source, destination): (u8, u8),
        select: u8,
        yes: Target,
        no: Target,
    ) -> Target {
        if direction == Direction::Source {
            return self.rule(rule, source, select, yes, no);
        }
        let second = self.rule(rule, destination, select, yes, no);
        match direction {
            Direction::Either => self.rule(rule, source, select, yes, second),
            Direction::Both => self.rule(rule, source, select, second, no),
            Direction::Source | Direction::Destination => second,
        }
    }

    /// The number of a set; equal ones share it.
    fn set(&mut self, set: Set) -> u64 {
        let known = self.sets.iter().position(|known| *known == set);
        let index = known.unwrap_or_else(|| {
            self.sets.push(set);
            self.sets.len() - 1
        });
        index as u64
    }
}

/// An interface's name as the kernel keeps it.
fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    bytes
}
