//! Terms that user space answers, about a drop's class or the process that it belongs to.
//!
//! A filter with such terms is several programs, one for each case: what the filter comes to when the terms have some
//! answers. The kernel decides by all of them, and notes in which cases a drop passes; user space knows which case it
//! is.

use super::{ACCEPT, REJECT};

/// How many cases a filter has at most.
pub const CASES: usize = 8;

/// Where the program of each case starts; none for a filter that the kernel decides alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Cases {
    /// An instruction, [`ACCEPT`] or [`REJECT`].
    pub starts: [u16; CASES],
    /// How many there are.
    pub count: u16,
}

impl Cases {
    /// In a word of bits, where those begin that say in which cases a drop passes; none of them if it does in all.
    pub const SHIFT: u32 = 16;

    /// All of them, as bits.
    #[must_use]
    pub const fn all(count: u16) -> u32 {
        (1 << count) - 1
    }

    /// Adds one, which begins at an instruction, or accepts or rejects whatever comes.
    ///
    /// # Panics
    /// There are too many.
    #[must_use]
    pub fn with(mut self, start: u16) -> Self {
        self.starts[usize::from(self.count)] = start;
        self.count += 1;
        self
    }
}

const _: () = assert!(CASES <= Cases::SHIFT as usize && ACCEPT > REJECT);
