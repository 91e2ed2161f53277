//! A machine that runs the code of a filter, as strictly as the kernel's verifier would: what was not written is not read,
//! no access leaves what it is about, and no jump leads back.

#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of tests are small, and registers are taken apart as the bits they are"
)]

use std::cell::Cell;

use aya_obj::generated::{
    BPF_ADD, BPF_ALU, BPF_ALU64, BPF_AND, BPF_CALL, BPF_DIV, BPF_DW, BPF_END, BPF_EXIT, BPF_H, BPF_IMM,
    BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JLE, BPF_JLT, BPF_JMP, BPF_JMP32, BPF_JNE, BPF_JSET, BPF_JSGT,
    BPF_LD, BPF_LDX, BPF_LSH, BPF_MEM, BPF_MOD, BPF_MOV, BPF_MUL, BPF_OR, BPF_RSH, BPF_ST, BPF_STX, BPF_SUB,
    BPF_TO_BE, BPF_W, BPF_X, BPF_XOR, bpf_insn,
};
use dropwatch_common::{
    packet::Bytes,
    probe::RangeSet,
    program::{Cases, Facts, Input, Insn, Ranges, decide_from},
};

use crate::filter::code::code;

/// Where the kernel keeps the packets of the tests.
const NETWORK: u64 = 0xffff_8881_0000_1000;
/// Addresses that are not compared with any.
const FACTS: u64 = 0xffff_c900_0001_0000;
const PLACE: u64 = 0xffff_c900_0002_0000;
const FRAME: u64 = 0xffff_c900_0003_0000;
const SETS: u64 = 0xffff_c900_0004_0000;
/// What a function may use of its frame: the probe has no more to give.
const DEPTH: u64 = 32;

/// A packet of which a part may be elsewhere.
pub struct Packet<'a> {
    /// What can be read from the network header on.
    pub bytes: &'a [u8],
    pub linear: u64,
    /// Up to the end, if a part is elsewhere.
    pub length: u64,
    /// Whether something was needed that is elsewhere.
    pub missed: Cell<bool>,
}

impl<'a> Packet<'a> {
    /// One without a part elsewhere.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, linear: bytes.len() as u64, length: 0, missed: Cell::new(false) }
    }
}

impl Bytes for Packet<'_> {
    fn near<const OFFSET: usize, const N: usize>(&self) -> Option<[u8; N]> {
        self.far(OFFSET as u32)
    }

    fn far<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let end = u64::from(offset) + N as u64;
        if end > self.linear {
            self.missed.set(self.missed.get() || end <= self.length);
            return None;
        }
        self.bytes.get(offset as usize..)?.first_chunk().copied()
    }

    fn has(&self, length: u32) -> u32 {
        (u64::from(length) <= self.linear).into()
    }

    fn raw<const OFFSET: usize, const N: usize>(&self) -> [u8; N] {
        self.bytes.raw::<OFFSET, N>()
    }
}

/// The sets of a filter.
struct Sets<'a>(&'a [RangeSet]);

impl Ranges for Sets<'_> {
    fn contains(&self, set: u32, value: u64) -> bool {
        let ranges = self.0.get(set as usize).map_or(&[][..], |set| &set.0);
        let mut used = ranges.iter().take_while(|range| range.length > 0);
        used.any(|range| value.wrapping_sub(range.start) < range.length)
    }
}

/// A program, and the code made of it.
pub struct Decider {
    insns: Vec<Insn>,
    cases: Cases,
    sets: Vec<RangeSet>,
    code: Vec<bpf_insn>,
}

impl Decider {
    pub fn new(insns: &[Insn], cases: Cases, sets: Vec<RangeSet>) -> Self {
        Self { insns: insns.to_vec(), cases, sets, code: code(insns, cases) }
    }

    /// The cases in which a drop passes: what the interpreter says, if the code says the same.
    pub fn decide(&self, facts: &Facts, packet: &Packet<'_>) -> u64 {
        let Self { insns, cases, sets, code } = self;
        let input = Input { facts, bytes: packet, ranges: &Sets(sets) };
        let starts = &cases.starts[..usize::from(cases.count.max(1))];
        let holds = |start: &u16| decide_from(insns, *start, &input);
        let expected = starts.iter().enumerate().filter(|(_, start)| holds(start));
        let expected = expected.fold(0, |bits, (case, _)| bits | 1 << case);
        let mut machine = Machine::new(facts, packet, sets);
        let said = machine.run(code);
        let what = || format!("{insns:x?} {cases:?} {facts:x?} {:x?}\n{}", packet.bytes, listed(code));
        assert_eq!(said, expected, "{}", what());
        assert_eq!(machine.has_missed(), packet.missed.get(), "{}", what());
        expected
    }
}

/// The code, for a person to see what is wrong with it.
fn listed(code: &[bpf_insn]) -> String {
    let line = |(index, insn): (usize, &bpf_insn)| {
        let (to, from) = (insn.dst_reg(), insn.src_reg());
        format!("{index}: {:02x} r{to} r{from} {:+} {:#x}\n", insn.code, insn.off, insn.imm)
    };
    code.iter().enumerate().map(line).collect()
}

struct Machine<'a> {
    registers: [Option<u64>; 11],
    facts: Vec<u8>,
    place: Vec<u8>,
    frame: Vec<Option<u8>>,
    sets: &'a [RangeSet],
    packet: &'a [u8],
}

impl<'a> Machine<'a> {
    fn new(facts: &Facts, packet: &'a Packet<'_>, sets: &'a [RangeSet]) -> Self {
        let place = [NETWORK, packet.linear, packet.length, 0];
        let mut registers = [None; 11];
        registers[1..4].copy_from_slice(&[Some(FACTS), Some(PLACE), Some(0)]);
        registers[10] = Some(FRAME);
        Self {
            registers,
            facts: bytemuck::bytes_of(facts).to_vec(),
            place: place.map(u64::to_ne_bytes).concat(),
            frame: vec![None; DEPTH as usize],
            sets,
            packet: packet.bytes,
        }
    }

    fn has_missed(&self) -> bool {
        self.place[24..].iter().any(|&byte| byte != 0)
    }

    fn run(&mut self, code: &[bpf_insn]) -> u64 {
        let mut at = 0;
        loop {
            let insn = code[at];
            at += 1;
            let opcode = u32::from(insn.code);
            match opcode & 7 {
                BPF_LD => {
                    assert_eq!(opcode, BPF_LD | BPF_IMM | BPF_DW);
                    let (low, high) = (insn.imm.cast_unsigned(), code[at].imm.cast_unsigned());
                    self.set(insn.dst_reg(), u64::from(high) << 32 | u64::from(low));
                    at += 1;
                }
                BPF_LDX | BPF_ST | BPF_STX => self.access(insn, opcode),
                BPF_ALU | BPF_ALU64 => self.calculate(insn, opcode),
                _ if opcode == BPF_JMP | BPF_EXIT => return self.get(0),
                _ if opcode == BPF_JMP | BPF_CALL => self.call(insn.imm),
                _ => {
                    let jumps = self.compares(insn, opcode);
                    let over = usize::try_from(insn.off).expect("no jump back");
                    at += if jumps { over } else { 0 };
                }
            }
        }
    }

    fn get(&self, register: u8) -> u64 {
        self.registers[usize::from(register)].unwrap_or_else(|| panic!("r{register} has no value"))
    }

    fn set(&mut self, register: u8, value: u64) {
        assert!(register < 10, "the frame's end is fixed");
        self.registers[usize::from(register)] = Some(value);
    }

    /// The second number of an operation.
    fn operand(&self, insn: bpf_insn, opcode: u32) -> u64 {
        if opcode & BPF_X != 0 { self.get(insn.src_reg()) } else { i64::from(insn.imm).cast_unsigned() }
    }

    fn access(&mut self, insn: bpf_insn, opcode: u32) {
        assert_eq!(opcode & 0xe0, BPF_MEM);
        let size = match opcode & 0x18 {
            BPF_W => 4,
            BPF_H => 2,
            BPF_DW => 8,
            _ => 1,
        };
        let of = |base: u64| base.wrapping_add_signed(insn.off.into());
        if opcode & 7 == BPF_LDX {
            let address = of(self.get(insn.src_reg()));
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(&self.read(address, size));
            return self.set(insn.dst_reg(), u64::from_le_bytes(bytes));
        }
        let value = match opcode & 7 {
            BPF_ST => i64::from(insn.imm).cast_unsigned(),
            _ => self.get(insn.src_reg()),
        };
        let address = of(self.get(insn.dst_reg()));
        self.write(address, &value.to_le_bytes()[..size]);
    }

    fn read(&self, address: u64, size: usize) -> Vec<u8> {
        let within = |start: u64, length: usize| {
            let place = usize::try_from(address.checked_sub(start)?).ok()?;
            assert!(
                place % size == 0 || place >= length,
                "{size} bytes at {place}, which old kernels refuse"
            );
            (place + size <= length).then_some(place..place + size)
        };
        if let Some(place) = within(FACTS, self.facts.len()) {
            return self.facts[place].to_vec();
        }
        if let Some(place) = within(PLACE, self.place.len()) {
            return self.place[place].to_vec();
        }
        if let Some(place) = within(FRAME - DEPTH, self.frame.len()) {
            return self.frame[place].iter().map(|byte| byte.expect("what was written")).collect();
        }
        let sets = bytemuck::cast_slice::<_, u8>(self.sets);
        within(SETS, sets.len()).map(|place| sets[place].to_vec()).expect("an address")
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        if address == PLACE + 24 {
            return self.place[24..24 + bytes.len()].copy_from_slice(bytes);
        }
        let place = usize::try_from(address - (FRAME - DEPTH)).expect("the frame");
        assert_eq!(place % bytes.len(), 0);
        self.put(place, bytes);
    }

    fn put(&mut self, place: usize, bytes: &[u8]) {
        for (to, byte) in self.frame[place..place + bytes.len()].iter_mut().zip(bytes) {
            *to = Some(*byte);
        }
    }

    fn call(&mut self, helper: i32) {
        let result = match helper {
            1 => {
                assert_eq!(self.get(1), 0, "the map");
                let number = self.read(self.get(2), 4);
                let set = u32::from_le_bytes(number.try_into().expect("four bytes"));
                if (set as usize) < self.sets.len() {
                    SETS + u64::from(set) * size_of::<RangeSet>() as u64
                } else {
                    0
                }
            }
            113 => self.probe_read(self.get(1), self.get(2), self.get(3)),
            other => panic!("helper {other}"),
        };
        self.registers[1..6].fill(None);
        self.set(0, result);
    }

    fn probe_read(&mut self, to: u64, size: u64, from: u64) -> u64 {
        let start = from.checked_sub(NETWORK).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| self.packet.get(start..start.checked_add(size as usize)?));
        let place = usize::try_from(to - (FRAME - DEPTH)).expect("the frame");
        self.put(place, bytes.unwrap_or(&vec![0; size as usize]));
        if bytes.is_some() { 0 } else { (-14_i64).cast_unsigned() }
    }

    fn calculate(&mut self, insn: bpf_insn, opcode: u32) {
        let dst = insn.dst_reg();
        if opcode & 0xf0 == BPF_END {
            assert_eq!(opcode, BPF_ALU | BPF_END | BPF_TO_BE);
            let value = self.get(dst);
            return self.set(
                dst,
                match insn.imm {
                    16 => u64::from((value as u16).to_be()),
                    32 => u64::from((value as u32).to_be()),
                    _ => value.to_be(),
                },
            );
        }
        let other = self.operand(insn, opcode);
        let is_wide = opcode & 7 == BPF_ALU64;
        let narrow = |number: u64| if is_wide { number } else { u64::from(number as u32) };
        let operation = opcode & 0xf0;
        let one = if operation == BPF_MOV { 0 } else { narrow(self.get(dst)) };
        let other = narrow(other);
        let bits = if is_wide { 64 } else { 32 };
        let result = match operation {
            BPF_MOV => other,
            BPF_ADD => one.wrapping_add(other),
            BPF_SUB => one.wrapping_sub(other),
            BPF_MUL => one.wrapping_mul(other),
            BPF_DIV => one / other,
            BPF_MOD => one % other,
            BPF_AND => one & other,
            BPF_OR => one | other,
            BPF_XOR => one ^ other,
            BPF_LSH | BPF_RSH if other >= bits => panic!("a shift by {other}"),
            BPF_LSH => one << other,
            BPF_RSH => one >> other,
            other => panic!("operation {other:#x}"),
        };
        self.set(dst, narrow(result));
    }

    fn compares(&self, insn: bpf_insn, opcode: u32) -> bool {
        if opcode == BPF_JMP | BPF_JA {
            return true;
        }
        let (mut one, mut other) = (self.get(insn.dst_reg()), self.operand(insn, opcode));
        if opcode & 7 == BPF_JMP32 {
            (one, other) = (one & 0xffff_ffff, other & 0xffff_ffff);
        }
        match opcode & 0xf0 {
            BPF_JEQ => one == other,
            BPF_JNE => one != other,
            BPF_JGT => one > other,
            BPF_JGE => one >= other,
            BPF_JLT => one < other,
            BPF_JLE => one <= other,
            BPF_JSET => one & other != 0,
            BPF_JSGT => one.cast_signed() > other.cast_signed(),
            other => panic!("comparison {other:#x}"),
        }
    }
}
