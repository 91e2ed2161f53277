//! A program as code of the kernel: a function of BPF, which the loader puts in the place of the probe's own `decide`.
//!
//! Each test becomes a few instructions that jump to the next test or to the answer. The facts are loaded again for each:
//! what a verifier has learned from one test would make it follow the next one by several ways. For the same reason words
//! of 64 bits are compared by halves: a whole one that it has compared, it knows from then on.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "fields, opcodes and offsets are small; words are taken apart as the bits they are"
)]

/// A field of [`Facts`].
macro_rules! fact {
    ($($field:tt)+) => { std::mem::offset_of!(dropwatch_common::program::Facts, $($field)+) as i16 };
}

/// A field of [`Place`](dropwatch_common::program::Place).
macro_rules! place {
    ($field:ident) => {
        std::mem::offset_of!(dropwatch_common::program::Place, $field) as i16
    };
}

mod assembler;
mod numbers;

use std::mem::offset_of;

use aya_obj::generated::{
    BPF_ADD, BPF_AND, BPF_B, BPF_DW, BPF_H, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JLE, BPF_JLT, BPF_JNE, BPF_JSET,
    BPF_MOV, BPF_SUB, BPF_W, BPF_XOR, bpf_insn,
};
use dropwatch_common::{
    packet::{LATER, cut, family, protocol},
    probe::{RANGES_PER_SET, Range},
    program::{ACCEPT, Cases, FIRST, Insn, TAGGED, as_bytes, known, op},
};

use self::assembler::{Assembler, Label, Operand, Operand::Number, Reg};

/// What the function returns, and what helpers return.
const R0: Reg = Reg(0);
const R1: Reg = Reg(1);
const R2: Reg = Reg(2);
const R3: Reg = Reg(3);
const R4: Reg = Reg(4);
/// Where the [`Facts`] are if nothing is called; else where the [`Place`] is at first.
const KEPT_FACTS: Reg = Reg(6);
const PLACE: Reg = Reg(7);
/// The cases in which the drop passes, as bits.
const PASSED: Reg = Reg(9);
const FRAME: Reg = Reg(10);

/// Where the number of a set is, below the frame's end.
const SET: i16 = -12;

const MAP_LOOKUP: u32 = 1;

/// The function: from the [`Facts`], the [`Place`] and a zero that the verifier does not know, the cases in which a drop
/// passes; 1 if it passes and there are none. It refers to the map of the filter's sets, if to any, as number 0.
///
/// It decides as [`decide`](dropwatch_common::program::decide) does.
#[must_use]
pub fn code(insns: &[Insn], cases: Cases) -> Vec<bpf_insn> {
    let mut asm = Assembler::new();
    let calls = insns.iter().any(calls);
    let facts = if calls { KEPT_FACTS } else { R1 };
    if calls {
        asm.alu64(BPF_MOV, facts, Operand::Reg(R1));
        asm.alu64(BPF_MOV, PLACE, Operand::Reg(R2));
    }
    if cases.count == 0 {
        let ends = Coder::new(&mut asm, insns, facts).decide(0);
        asm.bind(ends.accept);
        asm.alu32(BPF_MOV, R0, Number(1));
        asm.exit();
        cut_off(&mut asm, ends);
        asm.bind(ends.reject);
        asm.alu32(BPF_MOV, R0, Number(0));
        asm.exit();
        return asm.finish();
    }
    asm.alu64(BPF_MOV, PASSED, Operand::Reg(R3));
    for (case, &start) in cases.starts.iter().enumerate().take(cases.count.into()) {
        let ends = Coder::new(&mut asm, insns, facts).decide(start);
        asm.bind(ends.accept);
        // Not `or`, which would leave a bit that the verifier knows: it would tell apart all ways by which drops pass.
        asm.alu64(BPF_XOR, PASSED, Number(1 << case));
        asm.jump(ends.reject);
        cut_off(&mut asm, ends);
        asm.bind(ends.reject);
    }
    asm.alu64(BPF_MOV, R0, Operand::Reg(PASSED));
    asm.exit();
    asm.finish()
}

/// Whether a test calls a helper.
fn calls(insn: &Insn) -> bool {
    matches!(insn.op(), op::LOAD | op::BYTES | op::LOCATION | op::REASON | op::NETNS_NAMED)
}

/// Where decisions end.
#[derive(Clone, Copy)]
struct Ends {
    accept: Label,
    reject: Label,
    /// Bytes are beyond the linear part, as many as [`R2`] says.
    cut: Label,
}

/// Notes whether bytes that were needed are elsewhere.
fn cut_off(asm: &mut Assembler, ends: Ends) {
    asm.bind(ends.cut);
    asm.load(BPF_DW, R0, PLACE, place!(linear));
    asm.alu64(BPF_ADD, R2, Operand::Reg(R0));
    asm.load(BPF_DW, R0, PLACE, place!(length));
    asm.jump_if64(BPF_JLT, R0, Operand::Reg(R2), ends.reject);
    asm.store(BPF_DW, PLACE, place!(missed), Number(1));
    asm.jump(ends.reject);
}

/// Where a test leads.
#[derive(Clone, Copy)]
struct Ways {
    yes: Label,
    no: Label,
    /// The test behind it.
    next: Label,
}

/// One decision being coded.
struct Coder<'a> {
    asm: &'a mut Assembler,
    insns: &'a [Insn],
    facts: Reg,
    ends: Ends,
}

impl<'a> Coder<'a> {
    fn new(asm: &'a mut Assembler, insns: &'a [Insn], facts: Reg) -> Self {
        let ends = Ends { accept: asm.label(), reject: asm.label(), cut: asm.label() };
        Self { asm, insns, facts, ends }
    }

    /// All tests from one on that something leads to; nothing may be left of them.
    fn decide(mut self, start: u16) -> Ends {
        let places: Vec<_> = self.insns.iter().map(|_| self.asm.label()).collect();
        let place = |target: u32, after: usize| match target {
            _ if target == u32::from(ACCEPT) => self.ends.accept,
            // As the interpreter does: what leads back or out rejects.
            target => match places.get(target as usize) {
                Some(place) if target as usize > after => *place,
                _ => self.ends.reject,
            },
        };
        let ways = |index: usize, insn: &Insn| Ways {
            yes: place(insn.targets & 0xffff, index),
            no: place(insn.targets >> 16, index),
            next: places.get(index + 1).copied().unwrap_or(self.ends.accept),
        };
        let all: Vec<_> = self.insns.iter().enumerate().map(|(index, insn)| ways(index, insn)).collect();
        match usize::from(start) {
            start if start < self.insns.len() => {
                for index in start..self.insns.len() {
                    self.asm.relay();
                    self.asm.bind(places[index]);
                    if self.asm.is_live() {
                        self.test(&self.insns[index], all[index]);
                    }
                }
            }
            _ if start == ACCEPT => self.asm.jump(self.ends.accept),
            _ => self.asm.jump(self.ends.reject),
        }
        self.ends
    }

    fn test(&mut self, insn: &Insn, ways: Ways) {
        let [op, select, ..] = insn.head.to_le_bytes();
        match op {
            op::PASS => self.asm.jump(self.ends.accept),
            op::ETHERTYPE => {
                self.fact(BPF_H, fact!(packet.ethertype));
                self.is(insn.value[0], ways);
            }
            op::PROTOCOL => self.protocol(select, insn.value[0], ways),
            op::SADDR => {
                self.address(insn, [fact!(packet.saddr), fact!(packet.saddr_words)], cut::SADDR, ways);
            }
            op::DADDR => {
                self.address(insn, [fact!(packet.daddr), fact!(packet.daddr_words)], cut::DADDR, ways);
            }
            op::SPORT => self.port(insn, fact!(packet.sport), cut::SPORT, ways),
            op::DPORT => self.port(insn, fact!(packet.dport), cut::DPORT, ways),
            op::LENGTH => {
                self.requires(known::LENGTH, ways.no);
                self.fact(BPF_W, fact!(length));
                self.range(insn.value, u32::MAX.into(), ways);
            }
            op::NETNS => self.namespace(insn.value, ways),
            op::NETNS_NAMED => {
                self.requires(known::NETNS, ways.no);
                if select != 0 {
                    self.fact(BPF_W, fact!(known));
                    self.asm.jump_if32(BPF_JSET, R0, Number(known::UNDECIDED.cast_signed()), ways.yes);
                }
                self.contains(insn.value[0], BPF_DW, fact!(cookie), ways);
            }
            op::IFACE => self.name(insn, ways),
            op::LOCATION => self.contains(insn.value[0], BPF_DW, fact!(location), ways),
            op::REASON => {
                self.requires(known::REASON, ways.no);
                self.contains(insn.value[0], BPF_W, fact!(reason), ways);
            }
            op::ADDRESS => {
                self.words(fact!(location), &insn.value[0].to_ne_bytes(), &[0xff; 8], ways.no);
                self.asm.jump(ways.yes);
            }
            op::LINK => self.link(insn, ways),
            op::VLAN => self.vlan(insn.value, ways),
            op::LOAD => self.load(insn, ways),
            op::ALU => self.calculate(insn, ways),
            op::COMPARE => self.compare(insn, ways),
            op::BYTES => self.bytes(insn, ways),
            _ => self.asm.jump(ways.no),
        }
    }

    /// Ends a test by what a comparison of [`R0`] says.
    fn branch32(&mut self, comparison: u32, operand: Operand, ways: Ways) {
        if comparison == BPF_JSET && ways.yes == ways.next {
            self.asm.alu32(BPF_AND, R0, operand);
            return self.branch32(BPF_JNE, Number(0), ways);
        }
        if ways.yes == ways.next
            && let Some(opposite) = opposite(comparison)
        {
            self.asm.jump_if32(opposite, R0, operand, ways.no);
            return self.asm.jump(ways.yes);
        }
        self.asm.jump_if32(comparison, R0, operand, ways.yes);
        self.asm.jump(ways.no);
    }

    /// Loads a fact.
    fn fact(&mut self, size: u32, at: i16) {
        self.asm.load(size, R0, self.facts, at);
    }

    /// What is not known leads out.
    fn requires(&mut self, bit: u32, no: Label) {
        self.fact(BPF_W, fact!(known));
        self.lacks(bit, no);
    }

    /// Leads out if [`R0`] has none of these bits.
    fn lacks(&mut self, bits: u32, no: Label) {
        self.asm.alu32(BPF_AND, R0, Number(bits.cast_signed()));
        self.asm.jump_if32(BPF_JEQ, R0, Number(0), no);
    }

    /// Whether a number of 32 bits is this one.
    fn is(&mut self, wanted: u64, ways: Ways) {
        match u32::try_from(wanted) {
            Ok(wanted) => self.branch32(BPF_JEQ, Number(wanted.cast_signed()), ways),
            Err(_) => self.asm.jump(ways.no),
        }
    }

    /// Whether a number of 32 bits, at most `most`, is in a range.
    fn range(&mut self, [low, high]: [u64; 2], most: u64, ways: Ways) {
        if low > most || low > high {
            return self.asm.jump(ways.no);
        }
        let number = |number: u64| Number(number as u32 as i32);
        if low == high {
            return self.is(low, ways);
        }
        if low == 0 && high >= most {
            return self.asm.jump(ways.yes);
        }
        if high >= most {
            return self.branch32(BPF_JGE, number(low), ways);
        }
        if low > 0 {
            self.asm.alu32(BPF_SUB, R0, number(low));
        }
        self.branch32(BPF_JLE, number(high - low), ways);
    }

    /// Words of the facts under a mask: another one leads out. The bytes are in the order that they have there.
    fn words(&mut self, at: i16, value: &[u8], mask: &[u8], no: Label) {
        let words = value.chunks_exact(4).zip(mask.chunks_exact(4));
        for (at, (value, mask)) in (at..).step_by(4).zip(words) {
            let number = |bytes: &[u8]| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let (value, mask) = (number(value), number(mask));
            if mask == 0 {
                continue;
            }
            self.fact(BPF_W, at);
            if mask != u32::MAX {
                self.asm.alu32(BPF_AND, R0, Number(mask.cast_signed()));
            }
            self.asm.jump_if32(BPF_JNE, R0, Number((value & mask).cast_signed()), no);
        }
    }

    fn protocol(&mut self, select: u8, wanted: u64, ways: Ways) {
        self.fact(BPF_B, fact!(packet.family));
        self.lacks(select.into(), ways.no);
        self.fact(BPF_B, fact!(packet.cut));
        self.asm.jump_if32(BPF_JSET, R0, Number(cut::NEXT_HEADER.into()), self.ends.reject);
        self.fact(BPF_B, fact!(packet.next_header));
        let Ok(number) = u8::try_from(wanted) else { return self.asm.jump(ways.no) };
        if select & FIRST != 0 {
            self.asm.jump_if32(BPF_JNE, R0, Number(number.into()), ways.no);
            self.fact(BPF_B, fact!(packet.ipv4_header));
            self.asm.jump_if32(BPF_JSET, R0, Number(LATER.into()), ways.no);
            return self.asm.jump(ways.yes);
        }
        if select & family::IPV6 == 0 {
            return self.is(wanted, ways);
        }
        self.asm.jump_if32(BPF_JEQ, R0, Number(number.into()), ways.yes);
        self.asm.jump_if32(BPF_JNE, R0, Number(protocol::FRAGMENT.into()), ways.no);
        self.fact(BPF_B, fact!(packet.family));
        self.asm.jump_if32(BPF_JNE, R0, Number(family::IPV6.into()), ways.no);
        self.fact(BPF_B, fact!(packet.cut));
        self.asm.jump_if32(BPF_JSET, R0, Number(cut::FRAGMENT_NEXT.into()), self.ends.reject);
        self.fact(BPF_B, fact!(packet.fragment_next));
        self.is(wanted, ways);
    }

    /// An address in the order that libpcap compares it: what is there may differ before the cut is met.
    fn address(&mut self, insn: &Insn, [at, words_at]: [i16; 2], cut: u8, ways: Ways) {
        let [_, select, ..] = insn.head.to_le_bytes();
        let (value, mask) = (as_bytes(insn.value), as_bytes(insn.mask));
        self.fact(BPF_B, fact!(packet.family));
        self.lacks(select.into(), ways.no);
        self.fact(BPF_B, fact!(packet.cut));
        if select & family::IPV6 == 0 {
            self.asm.jump_if32(BPF_JSET, R0, Number(cut.into()), self.ends.reject);
            self.words(at, &value, &mask, ways.no);
            return self.asm.jump(ways.yes);
        }
        let is_cut = self.asm.label();
        self.asm.jump_if32(BPF_JSET, R0, Number(cut.into()), is_cut);
        self.words(at, &value, &mask, ways.no);
        self.asm.jump(ways.yes);
        self.asm.bind(is_cut);
        for word in 0..3_u8 {
            self.fact(BPF_B, words_at);
            self.asm.jump_if32(BPF_JLE, R0, Number(word.into()), self.ends.reject);
            let bytes = usize::from(word) * 4..usize::from(word) * 4 + 4;
            self.words(at + i16::from(word) * 4, &value[bytes.clone()], &mask[bytes], ways.no);
        }
        self.asm.jump(self.ends.reject);
    }

    /// A port of a range; one that is cut ends the decision if it would be compared.
    fn port(&mut self, insn: &Insn, at: i16, cut: u8, ways: Ways) {
        let [_, select, ..] = insn.head.to_le_bytes();
        self.fact(BPF_B, fact!(packet.transport));
        self.lacks(select.into(), ways.no);
        self.fact(BPF_B, fact!(packet.cut));
        self.asm.jump_if32(BPF_JSET, R0, Number(cut.into()), self.ends.reject);
        self.fact(BPF_H, at);
        self.range(insn.value, u16::MAX.into(), ways);
    }

    fn namespace(&mut self, [number, cookie]: [u64; 2], ways: Ways) {
        self.requires(known::NETNS, ways.no);
        let Ok(number) = u32::try_from(number) else { return self.asm.jump(ways.no) };
        self.fact(BPF_W, fact!(netns));
        self.asm.jump_if32(BPF_JNE, R0, Number(number.cast_signed()), ways.no);
        if cookie != 0 {
            self.words(fact!(cookie), &cookie.to_ne_bytes(), &[0xff; 8], ways.no);
        }
        self.asm.jump(ways.yes);
    }

    fn name(&mut self, insn: &Insn, ways: Ways) {
        self.requires(known::IFACE, ways.no);
        let names = insn.mask[0].to_ne_bytes();
        for (at, half) in [fact!(names), fact!(names) + 4].into_iter().zip(names.chunks_exact(4)) {
            let bits = u32::from_ne_bytes([half[0], half[1], half[2], half[3]]);
            if bits != 0 {
                self.fact(BPF_W, at);
                self.asm.jump_if32(BPF_JSET, R0, Number(bits.cast_signed()), ways.yes);
            }
        }
        // There are only zeros behind a name's end.
        let name = as_bytes(insn.value);
        let length = name.iter().position(|&byte| byte == 0).map_or(name.len(), |end| end / 4 * 4 + 4);
        self.words(fact!(iface), &name[..length], &[0xff; 16], ways.no);
        self.asm.jump(ways.yes);
    }

    /// The addresses of the link header, and the ethertype behind them.
    fn link(&mut self, insn: &Insn, ways: Ways) {
        let (value, mask) = (as_bytes(insn.value), as_bytes(insn.mask));
        self.requires(known::LINK, ways.no);
        self.words(fact!(link), &value[..12], &mask[..12], ways.no);
        let [value, mask] =
            [value, mask].map(|bytes| u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]));
        if value & mask & 0xffff != 0 {
            return self.asm.jump(ways.no);
        }
        let (value, mask) = (value >> 16, mask >> 16);
        if mask != 0 {
            self.fact(BPF_H, fact!(packet.ethertype));
            self.asm.alu32(BPF_AND, R0, Number(mask.cast_signed()));
            self.asm.jump_if32(BPF_JNE, R0, Number((value & mask).cast_signed()), ways.no);
        }
        self.asm.jump(ways.yes);
    }

    fn vlan(&mut self, range: [u64; 2], ways: Ways) {
        let other = self.asm.label();
        let first = Ways { no: other, next: other, ..ways };
        for (at, ways) in [(fact!(tags), first), (fact!(tags) + 2, ways)] {
            self.fact(BPF_H, at);
            self.asm.jump_if32(BPF_JLT, R0, Number(TAGGED.into()), ways.no);
            self.asm.alu32(BPF_AND, R0, Number(0xfff));
            self.range(range, 0xfff, ways);
            self.asm.bind(other);
        }
    }

    /// Whether a set has a fact. User space may write a range meanwhile: first the start is read, then the length.
    fn contains(&mut self, set: u64, size: u32, at: i16, ways: Ways) {
        self.asm.store(BPF_W, FRAME, SET, Number(set as u32 as i32));
        self.asm.alu64(BPF_MOV, R2, Operand::Reg(FRAME));
        self.asm.alu64(BPF_ADD, R2, Number(SET.into()));
        self.asm.map(R1);
        self.asm.call(MAP_LOOKUP);
        self.asm.jump_if64(BPF_JEQ, R0, Number(0), ways.no);
        self.asm.load(size, R1, self.facts, at);
        for range in 0..RANGES_PER_SET {
            let at = |field: usize| (range * size_of::<Range>() + field) as i16;
            self.asm.load(BPF_DW, R2, R0, at(offset_of!(Range, start)));
            self.asm.load(BPF_DW, R3, R0, at(offset_of!(Range, length)));
            self.asm.alu64(BPF_MOV, R4, Operand::Reg(R1));
            self.asm.alu64(BPF_SUB, R4, Operand::Reg(R2));
            self.asm.jump_if64(BPF_JLT, R4, Operand::Reg(R3), ways.yes);
            self.asm.jump_if64(BPF_JEQ, R3, Number(0), ways.no);
        }
        self.asm.jump(ways.no);
    }
}

/// What leads the other way.
fn opposite(comparison: u32) -> Option<u32> {
    Some(match comparison {
        BPF_JEQ => BPF_JNE,
        BPF_JNE => BPF_JEQ,
        BPF_JGT => BPF_JLE,
        BPF_JGE => BPF_JLT,
        BPF_JLT => BPF_JGE,
        BPF_JLE => BPF_JGT,
        _ => return None,
    })
}
