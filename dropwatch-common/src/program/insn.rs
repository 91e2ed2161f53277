//! Instructions, and where they are.

/// How many instructions a program has at most.
pub const MAX_INSNS: usize = 1024;

/// How many slots for numbers there are.
pub const SLOTS: usize = 4;

/// The target that accepts the drop.
pub const ACCEPT: u16 = 0xffff;

/// The target that rejects the drop.
pub const REJECT: u16 = 0xfffe;

/// One instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Insn {
    /// What is compared with: one number, a range's ends, a set's number, or the bytes of an address or a name
    /// in the order they have there.
    pub value: [u64; 2],
    /// Which bits of an address count.
    pub mask: [u64; 2],
    /// [`op`](super::op), select, slot a, slot b: a byte each, lowest first.
    pub head: u32,
    /// The target if the test holds, the target if not: two bytes each, lowest first.
    pub targets: u32,
}

/// What stands for slot `b` where a constant is meant.
pub const NO_SLOT: u8 = 0xff;

const _: () = assert!(size_of::<Insn>() == 40 && align_of::<Insn>() == 8);
const _: () = assert!(MAX_INSNS <= REJECT as usize);

impl Insn {
    /// Packs an instruction's head.
    #[must_use]
    pub const fn head(op: u8, select: u8, a: u8, b: u8) -> u32 {
        u32::from_le_bytes([op, select, a, b])
    }

    /// Packs its targets.
    #[must_use]
    pub const fn targets(yes: u16, no: u16) -> u32 {
        yes as u32 | (no as u32) << 16
    }

    /// What it does, one of [`op`](super::op).
    #[must_use]
    pub const fn op(&self) -> u8 {
        self.head.to_le_bytes()[0]
    }
}
