//! Instructions of BPF, one after the other, and jumps forward to places that are not known yet.

use std::collections::BTreeMap;

use aya_obj::generated::{
    __BindgenBitfieldUnit, BPF_ALU, BPF_ALU64, BPF_CALL, BPF_DW, BPF_END, BPF_EXIT, BPF_IMM, BPF_JA, BPF_JMP,
    BPF_JMP32, BPF_K, BPF_LD, BPF_LDX, BPF_MEM, BPF_PSEUDO_MAP_FD, BPF_ST, BPF_STX, BPF_TO_BE, BPF_X,
    bpf_insn,
};

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reg(pub u8);

/// A place in the code, which jumps lead to before it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(usize);

/// The second number of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    Reg(Reg),
    /// Its sign is extended in operations on 64 bits.
    Number(i32),
}

/// The code so far. What no way leads to is left out: the kernel refuses it.
pub(super) struct Assembler {
    insns: Vec<bpf_insn>,
    /// The jumps to each place that is not reached yet.
    open: BTreeMap<Label, Vec<usize>>,
    labels: usize,
    /// Whether the next instruction can be reached.
    is_live: bool,
}

/// How far a jump may lead before it gets a jump to its aim on the way: an offset has 16 bits.
const FAR: usize = 24_000;

impl Assembler {
    pub fn new() -> Self {
        Self { insns: Vec::new(), open: BTreeMap::new(), labels: 0, is_live: true }
    }

    /// The instructions, once all places are reached.
    pub fn finish(self) -> Vec<bpf_insn> {
        assert!(self.open.is_empty(), "jumps to nowhere: {:?}", self.open);
        self.insns
    }

    /// A new place.
    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels)
    }

    /// Whether the next instruction can be reached.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// The place is here.
    pub fn bind(&mut self, label: Label) {
        let Some(mut jumps) = self.open.remove(&label) else { return };
        // A jump to the next instruction is none.
        if !self.is_live && jumps.last().is_some_and(|last| last + 1 == self.insns.len()) {
            self.insns.pop();
            jumps.pop();
            self.is_live = true;
        }
        if !jumps.is_empty() {
            self.land(&jumps);
        }
    }

    /// Has these jumps lead here.
    fn land(&mut self, jumps: &[usize]) {
        let here = self.insns.len();
        for &jump in jumps {
            self.insns[jump].off = i16::try_from(here - jump - 1).expect("pools are near enough");
        }
        self.is_live = true;
    }

    /// Brings jumps that become too long to a jump that goes on to the same place. Called between tests.
    pub fn relay(&mut self) {
        let first = self.open.values().filter_map(|jumps| jumps.first()).min();
        if first.is_none_or(|first| self.insns.len() - first < FAR) {
            return;
        }
        let over = self.label();
        self.jump(over);
        for (label, jumps) in std::mem::take(&mut self.open) {
            if label == over {
                self.open.insert(label, jumps);
                continue;
            }
            self.land(&jumps);
            self.jump(label);
        }
        self.bind(over);
    }

    fn push(&mut self, opcode: u32, dst: Reg, src: Reg, off: i16, imm: i32) {
        if !self.is_live {
            return;
        }
        let mut insn = bpf_insn {
            code: code(opcode),
            _bitfield_align_1: [],
            _bitfield_1: __BindgenBitfieldUnit::default(),
            off,
            imm,
        };
        insn.set_dst_reg(dst.0);
        insn.set_src_reg(src.0);
        self.insns.push(insn);
    }

    fn operate(&mut self, opcode: u32, dst: Reg, operand: Operand, off: i16) {
        match operand {
            Operand::Reg(src) => self.push(opcode | BPF_X, dst, src, off, 0),
            Operand::Number(number) => self.push(opcode | BPF_K, dst, Reg(0), off, number),
        }
    }

    /// An operation on 64 bits, `BPF_ADD` and the like.
    pub fn alu64(&mut self, operation: u32, dst: Reg, operand: Operand) {
        self.operate(BPF_ALU64 | operation, dst, operand, 0);
    }

    /// The same on 32 bits, which clears the others.
    pub fn alu32(&mut self, operation: u32, dst: Reg, operand: Operand) {
        self.operate(BPF_ALU | operation, dst, operand, 0);
    }

    /// Puts the number of so many bits that stands in the order of the network into that of the host.
    pub fn of_network(&mut self, dst: Reg, bits: i32) {
        self.push(BPF_ALU | BPF_END | BPF_TO_BE, dst, Reg(0), 0, bits);
    }

    /// Loads a number of 64 bits.
    pub fn number(&mut self, dst: Reg, number: u64) {
        self.wide(dst, Reg(0), number);
    }

    /// Loads the only map that there is.
    pub fn map(&mut self, dst: Reg) {
        self.wide(dst, Reg(BPF_PSEUDO_MAP_FD as u8), 0);
    }

    fn wide(&mut self, dst: Reg, src: Reg, number: u64) {
        self.push(BPF_LD | BPF_IMM | BPF_DW, dst, src, 0, number as u32 as i32);
        self.push(0, Reg(0), Reg(0), 0, (number >> 32) as i32);
    }

    /// Loads from memory, `BPF_W` and the like.
    pub fn load(&mut self, size: u32, dst: Reg, base: Reg, off: i16) {
        self.push(BPF_LDX | BPF_MEM | size, dst, base, off, 0);
    }

    /// Stores to memory.
    pub fn store(&mut self, size: u32, base: Reg, off: i16, operand: Operand) {
        match operand {
            Operand::Reg(src) => self.push(BPF_STX | BPF_MEM | size, base, src, off, 0),
            Operand::Number(number) => self.push(BPF_ST | BPF_MEM | size, base, Reg(0), off, number),
        }
    }

    /// Calls a helper of the kernel.
    pub fn call(&mut self, helper: u32) {
        self.push(BPF_JMP | BPF_CALL, Reg(0), Reg(0), 0, helper.cast_signed());
    }

    pub fn exit(&mut self) {
        self.push(BPF_JMP | BPF_EXIT, Reg(0), Reg(0), 0, 0);
        self.is_live = false;
    }

    pub fn jump(&mut self, label: Label) {
        self.leads(label);
        self.push(BPF_JMP | BPF_JA, Reg(0), Reg(0), 0, 0);
        self.is_live = false;
    }

    /// Jumps if two numbers of 64 bits compare, `BPF_JEQ` and the like.
    pub fn jump_if64(&mut self, comparison: u32, dst: Reg, operand: Operand, label: Label) {
        self.leads(label);
        self.operate(BPF_JMP | comparison, dst, operand, 0);
    }

    /// The same for their lower halves.
    pub fn jump_if32(&mut self, comparison: u32, dst: Reg, operand: Operand, label: Label) {
        self.leads(label);
        self.operate(BPF_JMP32 | comparison, dst, operand, 0);
    }

    /// The next instruction jumps there.
    fn leads(&mut self, label: Label) {
        if self.is_live {
            self.open.entry(label).or_default().push(self.insns.len());
        }
    }
}

/// All opcodes are a byte.
fn code(opcode: u32) -> u8 {
    opcode as u8
}
