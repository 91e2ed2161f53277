//! A comparison to instructions: first whether the packet has the headers, then the numbers, then how they compare.

use dropwatch_common::{
    packet::{ethertype, family, protocol},
    program::{FIRST, NO_SLOT, SLOTS, alu, base, compare, op},
};

use super::Step;
use crate::filter::tree::{Access, Comparison, Header, Number, Operation, Relation};

/// The instructions. All of them lead to the next if they hold, and out of the comparison if not.
pub(super) fn steps(relation: &Relation) -> Vec<Step> {
    if let Some(step) = simple(relation) {
        return vec![step];
    }
    let mut steps = Vec::new();
    guards(&relation.left, &mut steps);
    guards(&relation.right, &mut steps);
    let code = compare_code(relation.comparison);
    let (one, other) = (&relation.left, &relation.right);
    if slots(other) > slots(one) {
        in_slot(other, 0, &mut steps);
        let one = operand(one, 1, &mut steps);
        steps.push(calculation(op::COMPARE, swapped(code), 0, one));
    } else {
        in_slot(one, 0, &mut steps);
        let other = operand(other, 1, &mut steps);
        steps.push(calculation(op::COMPARE, code, 0, other));
    }
    steps
}

/// Bytes at a fixed place, perhaps masked, compared with a constant: one instruction.
fn simple(relation: &Relation) -> Option<Step> {
    let Number::Constant(wanted) = relation.right else { return None };
    let (number, mask) = match &relation.left {
        Number::Calculated(number, Operation::And, mask) => match **mask {
            Number::Constant(mask) => (&**number, mask),
            _ => return None,
        },
        number => (number, u32::MAX),
    };
    let Number::Bytes(access) = number else { return None };
    let Number::Constant(index) = access.index else { return None };
    let (base, behind, ethertype, protocol) = match access.header {
        Header::Ether => (base::LINK, 0, 0, NO_SLOT),
        Header::Network(_, ethertype) => (base::NETWORK, 0, ethertype, NO_SLOT),
        Header::Transport(_, protocol) => (base::TRANSPORT, 0, ethertype::IPV4, protocol),
        Header::Icmp6 => (base::NETWORK, IPV6_HEADER, ethertype::IPV6, protocol::ICMPV6),
    };
    Some(Step {
        op: op::BYTES,
        select: base | access.size << 4,
        a: compare_code(relation.comparison),
        b: protocol,
        value: [index.checked_add(behind)?.into(), wanted.into()],
        mask: [mask.into(), ethertype.into()],
    })
}

/// The length of an IPv6 header.
const IPV6_HEADER: u32 = 40;

fn compare_code(comparison: Comparison) -> u8 {
    match comparison {
        Comparison::Equal => compare::EQ,
        Comparison::NotEqual => compare::NE,
        Comparison::Greater => compare::GT,
        Comparison::GreaterOrEqual => compare::GE,
        Comparison::Less => compare::LT,
        Comparison::LessOrEqual => compare::LE,
    }
}

/// The same comparison with the numbers in the other order.
fn swapped(code: u8) -> u8 {
    match code {
        compare::GT => compare::LT,
        compare::LT => compare::GT,
        compare::GE => compare::LE,
        compare::LE => compare::GE,
        code => code,
    }
}

/// How many slots a number needs: what needs more comes first, so that two that need as many need one more.
fn slots(number: &Number) -> usize {
    match number {
        Number::Constant(_) => 0,
        Number::Length => 1,
        Number::Bytes(access) => slots(&access.index).max(1),
        Number::Negative(number) => slots(number).max(1),
        Number::Calculated(one, _, other) => both(one, other).max(1),
    }
}

fn both(one: &Number, other: &Number) -> usize {
    let (one, other) = (slots(one), slots(other));
    if one == other { one + 1 } else { one.max(other) }
}

/// Whether a relation needs no more slots than there are.
pub(in crate::filter) fn fits(relation: &Relation) -> bool {
    both(&relation.left, &relation.right) <= SLOTS
}

/// A number that is known, or the slot where it is.
#[derive(Clone, Copy)]
enum Operand {
    Constant(u32),
    Slot(u8),
}

/// A number that is known, or one put into a slot.
fn operand(number: &Number, slot: u8, steps: &mut Vec<Step>) -> Operand {
    if let Number::Constant(constant) = number {
        return Operand::Constant(*constant);
    }
    in_slot(number, slot, steps);
    Operand::Slot(slot)
}

/// Puts a number into a slot; those after it are free.
fn in_slot(number: &Number, slot: u8, steps: &mut Vec<Step>) {
    match number {
        Number::Constant(constant) => {
            steps.push(calculation(op::ALU, alu::SET, slot, Operand::Constant(*constant)));
        }
        Number::Length => steps.push(Step { a: slot, ..Step::new(op::LOAD, base::LENGTH) }),
        Number::Bytes(access) => load(access, slot, steps),
        Number::Negative(inner) => {
            in_slot(inner, slot, steps);
            steps.push(calculation(op::ALU, alu::SUB | alu::REVERSED, slot, Operand::Constant(0)));
        }
        Number::Calculated(one, operation, other) if slots(other) > slots(one) => {
            in_slot(other, slot, steps);
            let one = operand(one, slot + 1, steps);
            steps.push(calculation(op::ALU, operation.code() | alu::REVERSED, slot, one));
        }
        Number::Calculated(one, operation, other) => {
            in_slot(one, slot, steps);
            let other = operand(other, slot + 1, steps);
            steps.push(calculation(op::ALU, operation.code(), slot, other));
        }
    }
}

/// An instruction on a slot and another number.
fn calculation(op: u8, select: u8, slot: u8, other: Operand) -> Step {
    let step = Step { a: slot, ..Step::new(op, select) };
    match other {
        Operand::Constant(constant) => Step { value: [constant.into(), 0], ..step },
        Operand::Slot(other) => Step { b: other, ..step },
    }
}

/// Reads bytes of the packet into a slot.
fn load(access: &Access, slot: u8, steps: &mut Vec<Step>) {
    let (base, behind) = match access.header {
        Header::Ether => (base::LINK, 0),
        Header::Network(..) => (base::NETWORK, 0),
        Header::Transport(..) => (base::TRANSPORT, 0),
        Header::Icmp6 => (base::NETWORK, IPV6_HEADER),
    };
    let index = operand(&access.index, slot, steps);
    let mut step = calculation(op::LOAD, base | access.size << 4, slot, index);
    step.value[1] = behind.into();
    steps.push(step);
}

/// Tests for the headers that a number is read from. As in libpcap, only the first number of a calculation has any.
fn guards(number: &Number, steps: &mut Vec<Step>) {
    match number {
        Number::Constant(_) | Number::Length => {}
        Number::Negative(inner) => guards(inner, steps),
        Number::Calculated(one, ..) => guards(one, steps),
        Number::Bytes(access) => guards_of_access(access, steps),
    }
}

fn guards_of_access(access: &Access, steps: &mut Vec<Step>) {
    match access.header {
        Header::Ether => guards(&access.index, steps),
        Header::Network(_, ethertype) => {
            guards(&access.index, steps);
            steps.push(Step::with(op::ETHERTYPE, 0, ethertype));
        }
        Header::Transport(_, protocol) => {
            let of_index = steps.len();
            guards(&access.index, steps);
            if steps.len() > of_index {
                steps.insert(of_index, Step::with(op::ETHERTYPE, 0, ethertype::IPV4));
            }
            steps.push(Step::with(op::PROTOCOL, family::IPV4 | FIRST, protocol));
        }
        Header::Icmp6 => {
            guards(&access.index, steps);
            steps.push(Step::with(op::PROTOCOL, family::IPV6 | FIRST, protocol::ICMPV6));
        }
    }
}

impl Step {
    fn new(op: u8, select: u8) -> Self {
        Self { op, select, ..Self::default() }
    }

    fn with(op: u8, select: u8, value: impl Into<u64>) -> Self {
        Self { value: [value.into(), 0], ..Self::new(op, select) }
    }
}
