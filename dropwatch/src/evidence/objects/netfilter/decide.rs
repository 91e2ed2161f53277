//! Which rules and policies may have dropped a packet.
//!
//! Rules are run as the kernel runs them, with what is known of the packet. What is not known may match and may not: it
//! never rules anything out.

use std::sync::Arc;

use super::{
    packet::{Base, Known, Packet, Read},
    rules::{BaseChain, Expression, Register, Reject, Rule, Table, Target, Verdict},
};

/// Chains jump no deeper.
const DEEPEST: usize = 16;
/// More rules are not run for one packet.
const MOST_RULES: usize = 100_000;
/// The bytes of all registers.
const REGISTERS: usize = 64;

/// What is asked of a ruleset while it is run.
pub trait Ruleset {
    /// The rules of a chain; none if they cannot be read.
    fn rules(&mut self, table: &Table, chain: &[u8]) -> Option<Arc<[Rule]>>;
    /// What a set has for a key.
    fn find(&mut self, table: &Table, set: &[u8], key: &[Known]) -> Found;
    /// All verdicts in a map; none if they cannot be read.
    fn verdicts(&mut self, table: &Table, map: &[u8]) -> Option<Vec<Verdict>>;
}

/// What a set has for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Yes(Option<Verdict>),
    No,
    Unknown,
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
    Maybe,
}

impl Answer {
    fn of(known: Option<bool>) -> Self {
        match known {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Maybe,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Maybe,
        }
    }
}

/// A rule or a policy that may have dropped the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub table: Table,
    /// The chains that lead to it, from the hook's own to the one that it is in.
    pub path: Vec<Vec<u8>>,
    pub ending: Ending,
    /// Whether such a packet certainly ends here, as far as rules tell.
    pub is_sure: bool,
    /// Whether all that the rule itself requires is known of the packet.
    pub is_match: bool,
    pub counter: Option<Counter>,
}

impl Candidate {
    /// What its rule's own counter is, by what the rule is found by.
    pub fn counted(&self) -> Option<((Table, u64), u64)> {
        Some(((self.table.clone(), self.ending.handle()?), self.counter?.packets))
    }
}

/// How it drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The end of a chain whose policy is to drop.
    Policy,
    Drop(Named),
    Reject(Named, Reject),
    /// To a program, which drops it, or is not there.
    Queue(Named),
}

/// What a rule is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub handle: u64,
    pub comment: Option<Vec<u8>>,
}

/// A rule's own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    /// Whether it counts only what the whole rule matches.
    pub is_behind: bool,
}

/// All that may have dropped the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub candidates: Vec<Candidate>,
    /// Whether there may be others: something could not be read, or is not known.
    pub is_partial: bool,
}

/// Runs the chains of a hook, which are in the order in which packets pass them.
pub fn decide(chains: &[BaseChain], packet: &Packet, ruleset: &mut dyn Ruleset) -> Decision {
    let mut run = Run {
        packet,
        ruleset,
        decision: Decision::default(),
        path: Vec::new(),
        left: MOST_RULES,
        may_be_accepted: false,
    };
    for chain in chains {
        run.may_be_accepted = false;
        let before = run.decision.candidates.len();
        run.path = vec![chain.name.clone()];
        let passes = run.chain(&chain.table, before == 0);
        if passes.may && chain.drops {
            let answers = (passes.surely && before == 0, true);
            run.found(&chain.table, Ending::Policy, answers, None);
        }
        if !run.may_be_accepted && (!passes.may || chain.drops) {
            break;
        }
    }
    run.decision
}

struct Run<'a> {
    packet: &'a Packet,
    ruleset: &'a mut dyn Ruleset,
    decision: Decision,
    path: Vec<Vec<u8>>,
    left: usize,
    /// Whether a chain may have accepted it, so that it came to the next one.
    may_be_accepted: bool,
}

/// Whether a packet comes out at a chain's end.
#[derive(Clone, Copy)]
struct Passes {
    may: bool,
    surely: bool,
}

/// What follows a rule.
enum Step {
    /// The next rule.
    Next,
    /// Nothing in this hook's chain.
    End,
    /// The chain that called this one, unless a packet ends before.
    Leave(Passes),
    /// The next rule, unless a packet ends before.
    Call(Passes),
}

impl Run<'_> {
    /// Runs the chain at the end of the path, which a packet certainly reaches or not.
    fn chain(&mut self, table: &Table, is_sure: bool) -> Passes {
        let name = self.path.last().cloned().unwrap_or_default();
        let rules = if self.path.len() > DEEPEST { None } else { self.ruleset.rules(table, &name) };
        let Some(rules) = rules else {
            self.decision.is_partial = true;
            return Passes { may: true, surely: false };
        };
        // Whether the packet may have left this chain, and whether it certainly comes to the next rule.
        let (mut may_have_left, mut surely) = (false, true);
        for rule in &*rules {
            // Counted before it is evaluated: a chain that returns early may be called any number of times.
            let Some(left) = self.left.checked_sub(1) else {
                self.decision.is_partial = true;
                return Passes { may: true, surely: false };
            };
            self.left = left;
            let outcome = evaluate(rule, table, self.packet, self.ruleset);
            self.decision.is_partial |= outcome.is_strange;
            self.may_be_accepted |= outcome.is_strange;
            surely &= !outcome.is_strange;
            let is_match = outcome.answer == Answer::Yes;
            for ending in outcome.endings {
                let answers = (is_sure && surely && is_match, is_match);
                match self.step(table, rule, ending, answers, outcome.counter) {
                    Step::Next => {}
                    Step::End if is_match => return Passes { may: may_have_left, surely: false },
                    Step::End => surely = false,
                    Step::Leave(passes) if is_match => {
                        let may = may_have_left || passes.may;
                        return Passes { may, surely: surely && passes.surely };
                    }
                    Step::Leave(passes) => {
                        may_have_left |= passes.may;
                        surely = false;
                    }
                    Step::Call(passes) if is_match && !passes.may => {
                        return Passes { may: may_have_left, surely: false };
                    }
                    Step::Call(passes) => surely &= passes.surely,
                }
            }
        }
        Passes { may: true, surely }
    }

    /// What follows from a rule's verdict.
    fn step(
        &mut self,
        table: &Table,
        rule: &Rule,
        ending: RuleEnding,
        (is_sure, is_match): (bool, bool),
        counter: Option<Counter>,
    ) -> Step {
        let named = || Named { handle: rule.handle, comment: rule.comment.clone() };
        let ending = match ending {
            RuleEnding::Reject(reject) => Ending::Reject(named(), reject),
            RuleEnding::Verdict(Verdict::Drop) => Ending::Drop(named()),
            RuleEnding::Verdict(Verdict::Queue) => {
                self.may_be_accepted = true;
                Ending::Queue(named())
            }
            RuleEnding::Verdict(Verdict::Accept) => {
                self.may_be_accepted = true;
                return Step::End;
            }
            RuleEnding::Verdict(Verdict::Continue) => return Step::Next,
            RuleEnding::Verdict(Verdict::Return) => return Step::Leave(Passes { may: true, surely: true }),
            RuleEnding::Verdict(Verdict::Jump(chain)) => {
                return Step::Call(self.called(table, chain, is_sure));
            }
            RuleEnding::Verdict(Verdict::Goto(chain)) => {
                return Step::Leave(self.called(table, chain, is_sure));
            }
        };
        self.found(table, ending, (is_sure, is_match), counter);
        Step::End
    }

    fn called(&mut self, table: &Table, chain: Vec<u8>, is_sure: bool) -> Passes {
        self.path.push(chain);
        let passes = self.chain(table, is_sure);
        self.path.pop();
        passes
    }

    fn found(
        &mut self,
        table: &Table,
        ending: Ending,
        (is_sure, is_match): (bool, bool),
        counter: Option<Counter>,
    ) {
        let (table, path) = (table.clone(), self.path.clone());
        self.decision.candidates.push(Candidate { table, path, ending, is_sure, is_match, counter });
    }
}

/// How a rule can end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RuleEnding {
    Verdict(Verdict),
    Reject(Reject),
}

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    /// Whether it matches.
    answer: Answer,
    /// One of these follows if it does; none if nothing follows.
    endings: Vec<RuleEnding>,
    counter: Option<Counter>,
    /// Whether something in it may do anything.
    is_strange: bool,
}

/// Runs a rule.
fn evaluate(rule: &Rule, table: &Table, packet: &Packet, ruleset: &mut dyn Ruleset) -> Outcome {
    let mut outcome = Outcome { answer: Answer::Yes, endings: Vec::new(), counter: None, is_strange: false };
    let mut registers = Registers([None; REGISTERS]);
    for expression in &rule.expressions {
        let answer = match expression {
            Expression::Counter { packets } => {
                outcome.counter = Some(Counter { packets: *packets, is_behind: true });
                continue;
            }
            Expression::Silent => continue,
            Expression::Verdict(verdict) => {
                outcome.endings = vec![RuleEnding::Verdict(verdict.clone())];
                break;
            }
            Expression::Reject(reject) => {
                outcome.endings = vec![RuleEnding::Reject(*reject)];
                break;
            }
            Expression::Strange => {
                outcome.is_strange = true;
                Answer::Maybe
            }
            Expression::Lookup { set, from, to: Target::Verdict, .. } => {
                let (answer, verdicts) = in_map(table, set, registers.from(*from), ruleset);
                outcome.is_strange |= verdicts.is_none();
                outcome.endings = verdicts.into_iter().flatten().map(RuleEnding::Verdict).collect();
                answer
            }
            Expression::Lookup { set, from, to, is_inverse } => {
                if *to == Target::Value {
                    registers = Registers([None; REGISTERS]);
                }
                match ruleset.find(table, set, registers.from(*from)) {
                    Found::Yes(_) => Answer::of(Some(!is_inverse)),
                    Found::No => Answer::of(Some(*is_inverse)),
                    Found::Unknown => Answer::Maybe,
                }
            }
            other => registers.run(other, packet),
        };
        if let (Some(counter), true) = (&mut outcome.counter, is_a_match(expression)) {
            counter.is_behind = false;
        }
        outcome.answer = outcome.answer.and(answer);
        if outcome.answer == Answer::No {
            outcome.endings.clear();
            break;
        }
        if matches!(expression, Expression::Lookup { to: Target::Verdict, .. }) {
            break;
        }
    }
    outcome
}

/// Whether packets that a rule has counted before may not come through here.
fn is_a_match(expression: &Expression) -> bool {
    !matches!(expression, Expression::Value { .. } | Expression::Mask { .. } | Expression::Swap { .. })
}

/// What a map of verdicts has for a key.
fn in_map(
    table: &Table,
    map: &[u8],
    key: &[Known],
    ruleset: &mut dyn Ruleset,
) -> (Answer, Option<Vec<Verdict>>) {
    match ruleset.find(table, map, key) {
        Found::Yes(Some(verdict)) => (Answer::Yes, Some(vec![verdict])),
        Found::No => (Answer::No, Some(Vec::new())),
        Found::Yes(None) | Found::Unknown => (Answer::Maybe, ruleset.verdicts(table, map)),
    }
}

/// What a rule has read, byte by byte.
#[derive(Clone, Debug)]
struct Registers([Known; REGISTERS]);

impl Registers {
    fn from(&self, register: Register) -> &[Known] {
        self.0.get(register..).unwrap_or_default()
    }

    /// Writes bytes; the rest of the last word becomes zero.
    fn write(&mut self, register: Register, bytes: impl IntoIterator<Item = Known>) {
        let mut bytes: Vec<_> = bytes.into_iter().collect();
        bytes.resize(bytes.len().next_multiple_of(4), Some(0));
        for (place, byte) in self.0.iter_mut().skip(register).zip(bytes) {
            *place = byte;
        }
    }

    /// Nothing is known of what is there.
    fn forget(&mut self) {
        self.0 = [None; REGISTERS];
    }

    /// Takes a step of a rule; whether the rule goes on.
    fn run(&mut self, expression: &Expression, packet: &Packet) -> Answer {
        match expression {
            Expression::Payload { base, offset, length, to } => {
                let read = match base {
                    0 => packet.read(Base::Link, *offset, *length),
                    1 => packet.read(Base::Network, *offset, *length),
                    2 => packet.read(Base::Transport, *offset, *length),
                    _ => Read::Unknown,
                };
                self.store(*to, read)
            }
            Expression::Meta { key, to } => self.store(*to, super::meta::read(*key, packet)),
            Expression::Value { to, data } => {
                self.write(*to, data.iter().copied().map(Some));
                Answer::Yes
            }
            Expression::Compare { from, how, data } => Answer::of(compared(self.from(*from), *how, data)),
            Expression::Range { from, is_outside, low, high } => {
                let from = self.from(*from);
                let is_inside = match (compared(from, 5, low), compared(from, 3, high)) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                };
                Answer::of(is_inside.map(|is_inside| is_inside != *is_outside))
            }
            Expression::Mask { from, to, mask, flip } => {
                let masked = self.from(*from).iter().zip(mask).zip(flip);
                let masked = masked.map(|((byte, mask), flip)| match mask {
                    0 => Some(*flip),
                    mask => byte.map(|byte| (byte & mask) ^ flip),
                });
                self.write(*to, masked.collect::<Vec<_>>());
                Answer::Yes
            }
            Expression::Swap { from, to, length, word } => {
                let mut bytes: Vec<_> = self.from(*from).iter().take(*length).copied().collect();
                if cfg!(target_endian = "little") && *word > 0 {
                    bytes.chunks_mut(*word).for_each(<[_]>::reverse);
                }
                self.write(*to, bytes);
                Answer::Yes
            }
            _ => {
                self.forget();
                Answer::Maybe
            }
        }
    }

    fn store(&mut self, register: Register, read: Read) -> Answer {
        match read {
            Read::Bytes(bytes) => {
                self.write(register, bytes);
                Answer::Yes
            }
            Read::Absent => Answer::No,
            Read::Unknown => {
                self.forget();
                Answer::Maybe
            }
        }
    }
}

/// Whether bytes compare as wanted; none if that depends on those that are not known.
fn compared(bytes: &[Known], how: u32, data: &[u8]) -> Option<bool> {
    use std::cmp::Ordering;
    let pairs = || bytes.iter().zip(data);
    let differs = pairs().any(|(byte, wanted)| byte.is_some_and(|byte| byte != *wanted));
    let is_known = pairs().all(|(byte, _)| byte.is_some());
    // The first byte that differs decides, if all before it are known.
    let order = pairs().find(|(byte, wanted)| byte.is_none_or(|byte| byte != **wanted));
    let order = match order {
        Some((Some(byte), wanted)) => Some(byte.cmp(wanted)),
        Some((None, _)) => None,
        None => Some(Ordering::Equal),
    };
    match how {
        0 | 1 if differs => Some(how == 1),
        0 | 1 => is_known.then_some(how == 0),
        2 => order.map(Ordering::is_lt),
        3 => order.map(Ordering::is_le),
        4 => order.map(Ordering::is_gt),
        5 => order.map(Ordering::is_ge),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
