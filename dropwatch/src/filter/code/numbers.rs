//! Numbers: bytes of the packet, slots, and what is calculated and compared.

use aya_obj::generated::{
    BPF_ADD, BPF_AND, BPF_B, BPF_DIV, BPF_DW, BPF_H, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JLE, BPF_JLT, BPF_JNE,
    BPF_JSET, BPF_JSGT, BPF_LSH, BPF_MOD, BPF_MOV, BPF_MUL, BPF_OR, BPF_RSH, BPF_SUB, BPF_W, BPF_XOR,
};
use dropwatch_common::{
    packet::{LATER, cut},
    program::{Insn, NO_SLOT, SLOTS, alu, base, compare, known},
};

use super::{
    Coder, FRAME, PLACE, R0, R1, R2, R3, Ways,
    assembler::{Operand, Operand::Number, Reg},
};

/// Where bytes of the packet are read, below the frame's end.
const BYTES: i16 = -8;
/// Where the slots begin.
const FIRST_SLOT: i16 = -32;

const PROBE_READ_KERNEL: u32 = 113;

/// The length of an Ethernet header, and where its ethertype is.
const ETHERNET: u32 = 14;
const ETHERTYPE: u32 = 12;

impl Coder<'_> {
    pub(super) fn compare(&mut self, insn: &Insn, ways: Ways) {
        let [_, comparison, a, b] = insn.head.to_le_bytes();
        self.asm.load(BPF_W, R0, FRAME, slot(a));
        let other = self.operand(insn, b);
        self.branch32(comparison_code(comparison), other, ways);
    }

    /// The slot, loaded, or the constant in its place.
    fn operand(&mut self, insn: &Insn, slot_number: u8) -> Operand {
        if slot_number == NO_SLOT {
            return Number(insn.value[0] as u32 as i32);
        }
        self.asm.load(BPF_W, R2, FRAME, slot(slot_number));
        Operand::Reg(R2)
    }

    pub(super) fn calculate(&mut self, insn: &Insn, ways: Ways) {
        let [_, select, a, b] = insn.head.to_le_bytes();
        let mut other = self.operand(insn, b);
        // What a slot is set to, it may have never had before.
        if select != alu::SET {
            self.asm.load(BPF_W, R0, FRAME, slot(a));
        }
        let mut result = R0;
        if select & alu::REVERSED != 0 {
            if let Number(number) = other {
                self.asm.alu32(BPF_MOV, R2, Number(number));
            }
            (result, other) = (R2, Operand::Reg(R0));
        }
        match select & !alu::REVERSED {
            alu::DIV => self.divide(BPF_DIV, result, other),
            alu::MOD => self.divide(BPF_MOD, result, other),
            alu::LSH => self.shift(BPF_LSH, result, other),
            alu::SET => self.asm.alu32(BPF_MOV, result, other),
            alu::ADD => self.asm.alu32(BPF_ADD, result, other),
            alu::SUB => self.asm.alu32(BPF_SUB, result, other),
            alu::MUL => self.asm.alu32(BPF_MUL, result, other),
            alu::AND => self.asm.alu32(BPF_AND, result, other),
            alu::OR => self.asm.alu32(BPF_OR, result, other),
            alu::XOR => self.asm.alu32(BPF_XOR, result, other),
            _ => self.shift(BPF_RSH, result, other),
        }
        self.asm.store(BPF_W, FRAME, slot(a), Operand::Reg(result));
        self.asm.jump(ways.yes);
    }

    fn divide(&mut self, operation: u32, dst: Reg, by: Operand) {
        match by {
            Number(0) => self.asm.jump(self.ends.reject),
            Number(_) => self.asm.alu32(operation, dst, by),
            Operand::Reg(reg) => {
                self.asm.jump_if32(BPF_JEQ, reg, Number(0), self.ends.reject);
                self.asm.alu32(operation, dst, by);
            }
        }
    }

    fn shift(&mut self, operation: u32, dst: Reg, by: Operand) {
        match by {
            Number(0..=31) => self.asm.alu32(operation, dst, by),
            Number(_) => self.asm.alu32(BPF_MOV, dst, Number(0)),
            Operand::Reg(reg) => {
                let (far, end) = (self.asm.label(), self.asm.label());
                self.asm.jump_if32(BPF_JGT, reg, Number(31), far);
                self.asm.alu32(operation, dst, by);
                self.asm.jump(end);
                self.asm.bind(far);
                self.asm.alu32(BPF_MOV, dst, Number(0));
                self.asm.bind(end);
            }
        }
    }

    /// Puts bytes or the length into a slot.
    pub(super) fn load(&mut self, insn: &Insn, ways: Ways) {
        let [_, select, a, b] = insn.head.to_le_bytes();
        let (base, size) = (select & 0xf, size(select));
        let constant = (b == NO_SLOT).then_some(insn.value[0] as u32);
        match (base, constant) {
            (base::LENGTH, _) => {
                self.requires(known::LENGTH, ways.no);
                self.fact(BPF_W, fact!(length));
            }
            (base::LINK, Some(offset)) => {
                self.requires(known::LINK, ways.no);
                self.link_at(offset, size);
            }
            (base::LINK, None) => {
                self.requires(known::LINK, ways.no);
                self.link_at_slot(b, size);
            }
            (base::TRANSPORT, _) => {
                self.read_at(0, 1, BYTES);
                self.asm.load(BPF_B, R3, FRAME, BYTES);
                self.asm.alu32(BPF_AND, R3, Number(0xf));
                self.asm.alu32(BPF_LSH, R3, Number(2));
                let offset = self.operand(insn, b);
                self.asm.alu32(BPF_ADD, R3, offset);
                self.network_at_r3(insn.value[1], size);
            }
            (_, Some(offset)) => self.network_at(u64::from(offset).saturating_add(insn.value[1]), size),
            (_, None) => {
                self.asm.load(BPF_W, R3, FRAME, slot(b));
                self.network_at_r3(insn.value[1], size);
            }
        }
        self.asm.store(BPF_W, FRAME, slot(a), Operand::Reg(R0));
        self.asm.jump(ways.yes);
    }

    /// A comparison of bytes with a constant, the tests for their header included.
    pub(super) fn bytes(&mut self, insn: &Insn, ways: Ways) {
        let [_, select, comparison, protocol] = insn.head.to_le_bytes();
        let (base, size) = (select & 0xf, size(select));
        if insn.mask[1] != 0 {
            let Ok(ethertype) = u16::try_from(insn.mask[1]) else { return self.asm.jump(ways.no) };
            self.fact(BPF_H, fact!(packet.ethertype));
            self.asm.jump_if32(BPF_JNE, R0, Number(ethertype.into()), ways.no);
        }
        if protocol != NO_SLOT {
            self.fact(BPF_B, fact!(packet.cut));
            self.asm.jump_if32(BPF_JSET, R0, Number(cut::NEXT_HEADER.into()), self.ends.reject);
            self.fact(BPF_B, fact!(packet.next_header));
            self.asm.jump_if32(BPF_JNE, R0, Number(protocol.into()), ways.no);
            self.fact(BPF_B, fact!(packet.ipv4_header));
            self.asm.jump_if32(BPF_JSET, R0, Number(LATER.into()), ways.no);
        }
        match base {
            base::LINK => {
                self.requires(known::LINK, ways.no);
                self.link_at(insn.value[0] as u32, size);
            }
            base::TRANSPORT => {
                self.asm.load(BPF_B, R3, self.facts, fact!(packet.ipv4_header));
                self.asm.alu32(BPF_AND, R3, Number(0xf));
                self.asm.alu32(BPF_LSH, R3, Number(2));
                self.network_at_r3(insn.value[0], size);
            }
            _ => self.network_at(insn.value[0], size),
        }
        self.compare_masked(insn, comparison, ways);
    }

    /// Compares [`R0`] under the mask.
    fn compare_masked(&mut self, insn: &Insn, comparison: u8, ways: Ways) {
        let (mask, wanted) = (insn.mask[0] as u32, insn.value[1] as u32);
        let number = |number: u32| Number(number.cast_signed());
        if comparison == compare::NE && wanted == 0 {
            return self.branch32(BPF_JSET, number(mask), ways);
        }
        if mask != u32::MAX {
            self.asm.alu32(BPF_AND, R0, number(mask));
        }
        self.branch32(comparison_code(comparison), number(wanted), ways);
    }

    /// Loads so many bytes behind the network header.
    fn network_at(&mut self, offset: u64, size: u8) {
        match u32::try_from(offset) {
            Ok(offset) => {
                self.read_at(offset, size, BYTES);
                self.number_read(size);
            }
            Err(_) => self.asm.jump(self.ends.reject),
        }
    }

    /// The same as many bytes behind the offset in [`R3`], of 32 bits.
    fn network_at_r3(&mut self, behind: u64, size: u8) {
        if u32::try_from(behind).is_err() {
            return self.asm.jump(self.ends.reject);
        }
        match i32::try_from(behind) {
            Ok(0) => {}
            Ok(behind) => self.asm.alu64(BPF_ADD, R3, Number(behind)),
            Err(_) => {
                self.asm.number(R2, behind);
                self.asm.alu64(BPF_ADD, R3, Operand::Reg(R2));
            }
        }
        if behind > 0 {
            self.asm.alu64(BPF_MOV, R0, Operand::Reg(R3));
            self.asm.alu64(BPF_RSH, R0, Number(32));
            self.asm.jump_if64(BPF_JNE, R0, Number(0), self.ends.reject);
        }
        self.read_at_r3(size, BYTES);
        self.number_read(size);
    }

    /// Reads so many bytes behind the network header.
    fn read_at(&mut self, offset: u32, size: u8, to: i16) {
        self.asm.alu32(BPF_MOV, R3, Number(offset.cast_signed()));
        self.read_at_r3(size, to);
    }

    /// The same at the offset in [`R3`].
    fn read_at_r3(&mut self, size: u8, to: i16) {
        self.asm.alu64(BPF_MOV, R2, Operand::Reg(R3));
        self.asm.alu64(BPF_ADD, R2, Number(size.into()));
        self.asm.load(BPF_DW, R0, PLACE, place!(linear));
        // Not compared: each read would tell the verifier more of the length, and the next one be followed by two ways.
        self.asm.alu64(BPF_SUB, R2, Operand::Reg(R0));
        self.asm.jump_if64(BPF_JSGT, R2, Number(0), self.ends.cut);
        self.asm.load(BPF_DW, R0, PLACE, place!(network));
        self.asm.alu64(BPF_ADD, R3, Operand::Reg(R0));
        self.asm.alu64(BPF_MOV, R1, Operand::Reg(FRAME));
        self.asm.alu64(BPF_ADD, R1, Number(to.into()));
        self.asm.alu32(BPF_MOV, R2, Number(size.into()));
        self.asm.call(PROBE_READ_KERNEL);
        self.asm.jump_if64(BPF_JNE, R0, Number(0), self.ends.reject);
    }

    /// The number that has been read.
    fn number_read(&mut self, size: u8) {
        let (load, bits) = match size {
            1 => return self.asm.load(BPF_B, R0, FRAME, BYTES),
            2 => (BPF_H, 16),
            _ => (BPF_W, 32),
        };
        self.asm.load(load, R0, FRAME, BYTES);
        self.asm.of_network(R0, bits);
    }

    /// Loads so many bytes from the link header on, and on into what follows it.
    fn link_at(&mut self, offset: u32, size: u8) {
        if offset >= ETHERNET {
            return self.network_at((offset - ETHERNET).into(), size);
        }
        for (place, to) in (offset..offset + u32::from(size)).zip(BYTES..) {
            if place >= ETHERNET {
                self.read_at(place - ETHERNET, 1, to);
                continue;
            }
            if place < ETHERTYPE {
                self.fact(BPF_B, fact!(link) + place as i16);
            } else {
                self.fact(BPF_H, fact!(packet.ethertype));
            }
            if place == ETHERTYPE {
                self.asm.alu32(BPF_RSH, R0, Number(8));
            }
            self.asm.store(BPF_B, FRAME, to, Operand::Reg(R0));
        }
        self.number_read(size);
    }

    /// The same at an offset in a slot. The header is shifted, not indexed: old verifiers refuse a variable index into the
    /// stack.
    fn link_at_slot(&mut self, number: u8, size: u8) {
        let (inside, end) = (self.asm.label(), self.asm.label());
        self.asm.load(BPF_W, R3, FRAME, slot(number));
        self.asm.jump_if32(BPF_JLT, R3, Number(ETHERNET.cast_signed()), inside);
        self.asm.alu32(BPF_SUB, R3, Number(ETHERNET.cast_signed()));
        self.network_at_r3(0, size);
        self.asm.jump(end);
        self.asm.bind(inside);
        for byte in 0..size {
            self.link_byte_at_slot(number, byte);
        }
        self.number_read(size);
        self.asm.bind(end);
    }

    fn link_byte_at_slot(&mut self, number: u8, byte: u8) {
        let (behind, second, shifted, end) =
            (self.asm.label(), self.asm.label(), self.asm.label(), self.asm.label());
        let to = BYTES + i16::from(byte);
        self.asm.load(BPF_W, R3, FRAME, slot(number));
        self.asm.alu32(BPF_ADD, R3, Number(byte.into()));
        self.asm.jump_if32(BPF_JGE, R3, Number(ETHERNET.cast_signed()), behind);
        self.asm.jump_if32(BPF_JGE, R3, Number(8), second);
        self.asm.load(BPF_DW, R0, self.facts, fact!(link));
        self.asm.of_network(R0, 64);
        self.asm.jump(shifted);
        self.asm.bind(second);
        self.asm.load(BPF_W, R0, self.facts, fact!(link) + 8);
        self.asm.of_network(R0, 32);
        self.asm.alu64(BPF_LSH, R0, Number(32));
        self.asm.load(BPF_H, R2, self.facts, fact!(packet.ethertype));
        self.asm.alu64(BPF_LSH, R2, Number(16));
        self.asm.alu64(BPF_OR, R0, Operand::Reg(R2));
        self.asm.bind(shifted);
        self.asm.alu32(BPF_AND, R3, Number(7));
        self.asm.alu32(BPF_LSH, R3, Number(3));
        self.asm.alu64(BPF_LSH, R0, Operand::Reg(R3));
        self.asm.alu64(BPF_RSH, R0, Number(56));
        self.asm.store(BPF_B, FRAME, to, Operand::Reg(R0));
        self.asm.jump(end);
        self.asm.bind(behind);
        self.asm.alu32(BPF_SUB, R3, Number(ETHERNET.cast_signed()));
        self.read_at_r3(1, to);
        self.asm.bind(end);
    }
}

/// How many bytes a test is about.
fn size(select: u8) -> u8 {
    match select >> 4 {
        size @ (1 | 2) => size,
        _ => 4,
    }
}

/// Where a slot is.
fn slot(number: u8) -> i16 {
    FIRST_SLOT + i16::from(number) % SLOTS as i16 * 4
}

fn comparison_code(comparison: u8) -> u32 {
    match comparison {
        compare::EQ => BPF_JEQ,
        compare::NE => BPF_JNE,
        compare::GT => BPF_JGT,
        compare::GE => BPF_JGE,
        compare::LT => BPF_JLT,
        _ => BPF_JLE,
    }
}
