//! Numbers: bytes of the packet, slots, and what is calculated and compared.

use super::{Facts, Input, Insn, NO_SLOT, Outcome, Ranges, SLOTS, alu, base, compare, known};
use crate::packet::{Bytes, LATER, cut};

pub(super) fn compared(one: u32, comparison: u8, other: u32) -> Outcome {
    match comparison {
        compare::EQ => one == other,
        compare::NE => one != other,
        compare::GT => one > other,
        compare::GE => one >= other,
        compare::LT => one < other,
        _ => one <= other,
    }
    .into()
}

/// A slot by its number in the lowest byte.
pub(super) fn slot(slots: &mut [u32; SLOTS], number: u32) -> &mut u32 {
    &mut slots[number as usize & (SLOTS - 1)]
}

/// Slot `b`, or the constant in its place.
pub(super) fn operand(insn: &Insn, head: u32, slots: &mut [u32; SLOTS]) -> u32 {
    match head >> 24 {
        number if number == u32::from(NO_SLOT) => insn.value[0] as u32,
        number => *slot(slots, number),
    }
}

pub(super) fn calculate(insn: &Insn, head: u32, slots: &mut [u32; SLOTS]) -> Outcome {
    let (mut one, mut other) = (*slot(slots, head >> 16), operand(insn, head, slots));
    let select = (head >> 8) as u8;
    if select & alu::REVERSED != 0 {
        (one, other) = (other, one);
    }
    let result = match select & !alu::REVERSED {
        alu::SET => other,
        alu::ADD => one.wrapping_add(other),
        alu::SUB => one.wrapping_sub(other),
        alu::MUL => one.wrapping_mul(other),
        alu::DIV | alu::MOD if other == 0 => return Outcome::Reject,
        alu::DIV => one / other,
        alu::MOD => one % other,
        alu::AND => one & other,
        alu::OR => one | other,
        alu::XOR => one ^ other,
        alu::LSH | alu::RSH if other > 31 => 0,
        alu::LSH => one << (other & 31),
        _ => one >> (other & 31),
    };
    *slot(slots, head >> 16) = result;
    Outcome::Yes
}

pub(super) fn load<B: Bytes + ?Sized, R: Ranges>(
    insn: &Insn,
    head: u32,
    input: &Input<'_, B, R>,
    slots: &mut [u32; SLOTS],
) -> Outcome {
    let facts = input.facts;
    let base = (head >> 8) as u8 & 0xf;
    let is_there = match base {
        base::LENGTH => facts.known & known::LENGTH != 0,
        base::LINK => facts.known & known::LINK != 0,
        _ => true,
    };
    if !is_there {
        return Outcome::No;
    }
    let offset = operand(insn, head, slots);
    let Some(loaded) = read(input, head, offset, insn.value[1]) else { return Outcome::Reject };
    *slot(slots, head >> 16) = loaded;
    Outcome::Yes
}

/// A comparison of bytes with a constant, the tests for their header included.
pub(super) fn bytes<B: Bytes + ?Sized, R: Ranges>(
    insn: &Insn,
    head: u32,
    input: &Input<'_, B, R>,
) -> Outcome {
    let facts = input.facts;
    let base = (head >> 8) as u8 & 0xf;
    let packet = &facts.packet;
    let (ethertype, protocol) = (insn.mask[1], head >> 24);
    let has_protocol = protocol != u32::from(NO_SLOT);
    let is_type = (ethertype == 0) | (u64::from(packet.ethertype) == ethertype);
    if is_type & has_protocol & (packet.cut & cut::NEXT_HEADER != 0) {
        return Outcome::Reject;
    }
    let is_first = packet.ipv4_header & LATER == 0;
    let is_protocol = !has_protocol | ((u32::from(packet.next_header) == protocol) & is_first);
    let is_link = (base != base::LINK) | (facts.known & known::LINK != 0);
    if !(is_type & is_protocol & is_link) {
        return Outcome::No;
    }
    let mut offset = insn.value[0];
    let size = (head >> 12) as u8 & 0xf;
    let loaded = if base == base::LINK {
        link(facts, input.bytes, offset as u32, size)
    } else {
        if base == base::TRANSPORT {
            offset += u64::from(facts.packet.ipv4_header & 0xf) * 4;
        }
        network(input.bytes, offset, size)
    };
    let Some(loaded) = loaded else { return Outcome::Reject };
    compared(loaded & insn.mask[0] as u32, (head >> 16) as u8, insn.value[1] as u32)
}

/// Bytes as an instruction's head says, which must be of a header that is there; none beyond the packet.
fn read<B: Bytes + ?Sized, R: Ranges>(
    input: &Input<'_, B, R>,
    head: u32,
    offset: u32,
    behind: u64,
) -> Option<u32> {
    let Input { facts, bytes, .. } = *input;
    let (base, size) = ((head >> 8) as u8 & 0xf, (head >> 12) as u8 & 0xf);
    match base {
        base::LENGTH => Some(facts.length),
        base::LINK => link(facts, bytes, offset, size),
        base::TRANSPORT => {
            let [first] = bytes.far::<1>(0)?;
            let transport = offset.wrapping_add(u32::from(first & 0xf) * 4);
            network(bytes, u64::from(transport) + behind, size)
        }
        _ => network(bytes, u64::from(offset) + behind, size),
    }
}

/// Bytes from the network header on.
fn network(bytes: &(impl Bytes + ?Sized), offset: u64, size: u8) -> Option<u32> {
    if offset > u64::from(u32::MAX) {
        return None;
    }
    let offset = offset as u32;
    match size {
        1 => bytes.far::<1>(offset).map(|[byte]| byte.into()),
        2 => bytes.far(offset).map(|bytes| u16::from_be_bytes(bytes).into()),
        _ => bytes.far(offset).map(u32::from_be_bytes),
    }
}

/// The length of an Ethernet header.
const ETHERNET: u32 = 14;

/// Bytes from the link header on, and on into what follows it.
fn link(facts: &Facts, bytes: &(impl Bytes + ?Sized), offset: u32, size: u8) -> Option<u32> {
    if offset >= ETHERNET {
        return network(bytes, u64::from(offset - ETHERNET), size);
    }
    let mut number = link_byte(facts, bytes, offset)?;
    if size > 1 {
        number = number << 8 | link_byte(facts, bytes, offset + 1)?;
    }
    if size > 2 {
        number = number << 8 | link_byte(facts, bytes, offset + 2)?;
        number = number << 8 | link_byte(facts, bytes, offset + 3)?;
    }
    Some(number)
}

/// The header with the ethertype, as words; zeros behind it.
pub(super) fn link_words(facts: &Facts) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = facts.link;
    let [m, n] = facts.packet.ethertype.to_be_bytes();
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, 0, 0])]
}

/// One of these bytes.
fn link_byte(facts: &Facts, bytes: &(impl Bytes + ?Sized), offset: u32) -> Option<u32> {
    if offset >= ETHERNET {
        return network(bytes, u64::from(offset - ETHERNET), 1);
    }
    let [high, low] = link_words(facts);
    let word = if offset < 8 { u64::from_be(high) } else { u64::from_be(low) };
    Some((word >> (56 - (offset & 7) * 8)) as u32 & 0xff)
}
