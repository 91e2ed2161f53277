//! A tree to the instructions that the kernel decides by.

pub(super) mod relation;

use dropwatch_common::probe::FILTER_NAMES;
use dropwatch_common::program::{ACCEPT, Cases as Starts, Insn, NO_SLOT, REJECT, as_words, base, need, op};

use crate::model::{interface::padded, namespace::WhichNetns};

use super::{
    Set,
    assume::Folded,
    cases::Cases,
    tree::{Direction, Expr, Relation, Term},
};

/// Where a test leads. Instructions are made last first, and are numbered from the last.
#[derive(Clone, Copy, Debug)]
enum Target {
    Accept,
    Reject,
    FromLast(usize),
}

/// An instruction that does not know yet where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    op: u8,
    select: u8,
    a: u8,
    b: u8,
    value: [u64; 2],
    mask: [u64; 2],
}

impl Default for Step {
    fn default() -> Self {
        Self { op: op::PASS, select: 0, a: 0, b: NO_SLOT, value: [0; 2], mask: [0; 2] }
    }
}

/// An instruction whose targets are not numbered yet.
struct Draft {
    step: Step,
    yes: Target,
    no: Target,
}

/// What is compiled so far, last instruction first.
#[derive(Default)]
struct Compiler {
    drafts: Vec<Draft>,
    sets: Vec<Set>,
    /// Names of interfaces, each with the bit of its place.
    interfaces: Vec<String>,
    /// Whether what is compiled now stands under an odd number of `not`s.
    negated: bool,
}

/// What the kernel is given of an expression.
pub(super) struct Compiled {
    pub insns: Vec<Insn>,
    /// What instructions refer to by number.
    pub sets: Vec<Set>,
    /// What they refer to by bit.
    pub interfaces: Vec<String>,
    /// The first instruction of each case, if user space knows which it is.
    pub starts: Starts,
}

/// The instructions of each case, one after the other, and what they refer to.
pub(super) fn compile(cases: &Cases) -> Compiled {
    let mut compiler = Compiler::default();
    let (mut insns, mut starts) = (Vec::new(), Starts::default());
    for case in cases.different() {
        let start = u16::try_from(insns.len()).expect("instructions are few");
        let start = match case {
            Folded::Always(answer) => {
                if *answer {
                    ACCEPT
                } else {
                    REJECT
                }
            }
            Folded::If(expression) => {
                insns.extend(compiler.case(expression, insns.len()));
                start
            }
        };
        if cases.ask() {
            starts = starts.with(start);
        }
    }
    Compiled { insns, sets: compiler.sets, interfaces: compiler.interfaces, starts }
}

/// How many instructions a term has.
pub(super) fn length(term: &Term) -> usize {
    match term {
        Term::Address { direction, .. } | Term::Port { direction, .. } | Term::Hardware { direction, .. } => {
            match direction {
                Direction::Source | Direction::Destination => 1,
                Direction::Either | Direction::Both => 2,
            }
        }
        Term::Relation(relation) => relation::steps(relation).len(),
        _ => 1,
    }
}

/// What the instructions need to know, as bits of [`need`].
pub(super) fn needs(insns: &[Insn]) -> u32 {
    insns.iter().map(needs_of).fold(0, |all, needs| all | needs)
}

fn needs_of(insn: &Insn) -> u32 {
    let [op, select, _, protocol] = insn.head.to_le_bytes();
    match op {
        op::ETHERTYPE => need::ETHERTYPE,
        op::PROTOCOL => need::PROTOCOL,
        op::SADDR | op::DADDR => need::ADDRESSES,
        op::SPORT | op::DPORT => need::PORTS,
        op::LENGTH => need::LENGTH,
        op::NETNS => need::NETNS,
        op::NETNS_NAMED => need::NETNS | need::NETNS_NAMES,
        op::IFACE => need::IFACE,
        op::LOCATION | op::ADDRESS => need::LOCATION,
        op::REASON => need::REASON,
        op::LINK => need::LINK,
        op::VLAN => need::VLAN,
        op::LOAD | op::BYTES => match select & 0xf {
            base::LENGTH => need::LENGTH,
            base::LINK => need::LINK | need::BYTES,
            base if op == op::BYTES && (base == base::TRANSPORT || protocol != NO_SLOT) => {
                need::ETHERTYPE | need::PROTOCOL | need::BYTES
            }
            _ if op == op::BYTES => need::ETHERTYPE | need::BYTES,
            _ => need::BYTES,
        },
        _ => 0,
    }
}

impl Compiler {
    /// The instructions of one case, of which the first has this number.
    fn case(&mut self, expression: &Expr, first: usize) -> Vec<Insn> {
        self.drafts.clear();
        self.expression(expression, Target::Accept, Target::Reject);
        let length = self.drafts.len();
        let number = |target| match target {
            Target::Accept => ACCEPT,
            Target::Reject => REJECT,
            Target::FromLast(place) => {
                u16::try_from(first + length - 1 - place).expect("instructions are few")
            }
        };
        let insn = |Draft { step, yes, no }: &Draft| Insn {
            value: step.value,
            mask: step.mask,
            head: Insn::head(step.op, step.select, step.a, step.b),
            targets: Insn::targets(number(*yes), number(*no)),
        };
        self.drafts.iter().rev().map(insn).collect()
    }

    /// Makes the instructions of an expression; where its first is.
    fn expression(&mut self, expression: &Expr, yes: Target, no: Target) -> Target {
        match expression {
            Expr::Term(term) => self.term(term, yes, no),
            Expr::Not(inner) => {
                self.negated = !self.negated;
                let inner = self.expression(inner, no, yes);
                self.negated = !self.negated;
                inner
            }
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

    fn push(&mut self, step: Step, yes: Target, no: Target) -> Target {
        self.drafts.push(Draft { step, yes, no });
        Target::FromLast(self.drafts.len() - 1)
    }

    fn term(&mut self, term: &Term, yes: Target, no: Target) -> Target {
        let step = match term {
            Term::Address { families, direction, net } => {
                let (value, mask) = (as_words(&net.bytes()), as_words(&net.mask));
                let step = Step { select: *families, value, mask, ..Step::default() };
                return self.ends(*direction, step, (op::SADDR, op::DADDR), yes, no);
            }
            Term::Port { transports, direction, range: (low, high) } => {
                let step = Step { select: *transports, ..tests(op::PASS, *low, *high) };
                return self.ends(*direction, step, (op::SPORT, op::DPORT), yes, no);
            }
            Term::Hardware { direction, address } => return self.hardware(*direction, *address, yes, no),
            Term::Relation(relation) => return self.relation(relation, yes, no),
            Term::Ethertype(number) => tests(op::ETHERTYPE, *number, 0_u8),
            Term::Protocol { families, number } => {
                Step { select: *families, ..tests(op::PROTOCOL, *number, 0_u8) }
            }
            Term::Group => link(at(0, [1]), at(0, [1])),
            Term::Vlan(None) => tests(op::VLAN, 0_u8, u16::MAX),
            Term::Vlan(Some(number)) => tests(op::VLAN, *number, *number),
            Term::Length(low, high) => tests(op::LENGTH, *low, *high),
            Term::Netns { which: WhichNetns::One(one), .. } => tests(op::NETNS, one.inum, one.cookie),
            Term::Netns { which: WhichNetns::Named(name), .. } => {
                let set = self.set(Set::Netns(name.clone()));
                // Of a namespace that was not looked at yet, what lets the drop pass.
                Step { select: u8::from(!self.negated), ..tests(op::NETNS_NAMED, set, 0_u8) }
            }
            Term::Iface(name) => Step {
                // A name of 16 bytes and more is never an interface's own, which ends in zero.
                value: as_words(&padded(name)),
                mask: [self.interface(name), 0],
                ..tests(op::IFACE, 0_u8, 0_u8)
            },
            Term::Reason { name, codes } => {
                let set = self.set(Set::Reason { name: name.clone(), codes: codes.clone() });
                tests(op::REASON, set, 0_u8)
            }
            Term::Location(place) => tests(op::LOCATION, self.set(Set::Location(place.clone())), 0_u8),
            Term::CodeAddress(address) => tests(op::ADDRESS, *address, 0_u8),
            Term::Class(_) | Term::Belongs(_) => unreachable!("its cases have answers in its place"),
        };
        self.push(step, yes, no)
    }

    /// The same test for one end of the way or both, the source first.
    fn ends(
        &mut self,
        direction: Direction,
        step: Step,
        (source, destination): (u8, u8),
        yes: Target,
        no: Target,
    ) -> Target {
        let [source, destination] = [source, destination].map(|op| Step { op, ..step });
        self.either(direction, [source, destination], yes, no)
    }

    /// An Ethernet address of one end or both.
    fn hardware(&mut self, direction: Direction, address: [u8; 6], yes: Target, no: Target) -> Target {
        let [destination, source] = [0, 6].map(|offset| link(at(offset, address), at(offset, [0xff; 6])));
        self.either(direction, [source, destination], yes, no)
    }

    fn either(
        &mut self,
        direction: Direction,
        [source, destination]: [Step; 2],
        yes: Target,
        no: Target,
    ) -> Target {
        if direction == Direction::Source {
            return self.push(source, yes, no);
        }
        let second = self.push(destination, yes, no);
        match direction {
            Direction::Either => self.push(source, yes, second),
            Direction::Both => self.push(source, second, no),
            Direction::Source | Direction::Destination => second,
        }
    }

    fn relation(&mut self, relation: &Relation, yes: Target, no: Target) -> Target {
        relation::steps(relation).into_iter().rev().fold(yes, |next, step| self.push(step, next, no))
    }

    /// The bit of an interface's name.
    fn interface(&mut self, name: &str) -> u64 {
        let known = self.interfaces.iter().position(|known| known == name);
        let place = known.unwrap_or_else(|| {
            self.interfaces.push(name.to_owned());
            self.interfaces.len() - 1
        });
        assert!(place < FILTER_NAMES, "the parser counts the names");
        1 << place
    }

    /// The number of a set; equal ones share it.
    fn set(&mut self, set: Set) -> u32 {
        let known = self.sets.iter().position(|known| *known == set);
        let index = known.unwrap_or_else(|| {
            self.sets.push(set);
            self.sets.len() - 1
        });
        u32::try_from(index).expect("sets are few")
    }
}

/// A test that compares with one number or two.
fn tests(op: u8, one: impl Into<u64>, other: impl Into<u64>) -> Step {
    Step { op, value: [one.into(), other.into()], ..Step::default() }
}

/// A test of the link header's bytes.
fn link(value: [u8; 16], mask: [u8; 16]) -> Step {
    Step { op: op::LINK, value: as_words(&value), mask: as_words(&mask), ..Step::default() }
}

/// Bytes at an offset, and zeros.
fn at<const N: usize>(offset: usize, bytes: [u8; N]) -> [u8; 16] {
    let mut place = [0; 16];
    place[offset..offset + N].copy_from_slice(&bytes);
    place
}
