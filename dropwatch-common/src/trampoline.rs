//! Where functions return to while another tracer has a return probe on them, and who has called such a function.
//!
//! The tracepoint's location is the address that the function which frees the packet returns to. A return probe on that
//! function puts its trampoline there. The caller is still in the call chain: in the trampoline's place if the kernel's
//! unwinder knows the return probe, and behind the trampoline if that is of a BPF program, which calls the function.

/// How many frames are looked at. The first ones are of the probe and of the tracepoint.
pub const DEPTH: usize = 16;

/// How far into a function the call to a tracer ends that begins it.
const ENTRY: u64 = 32;

/// How many pieces of code there is room for.
pub const PIECES: usize = 64;

/// A piece of code that means something in a call chain.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Piece {
    /// Where it starts.
    pub start: u64,
    /// How many bytes it has.
    pub length: u32,
    /// A bit of [`is`].
    pub kind: u32,
}

impl Piece {
    /// No code.
    pub const NONE: Self = Self { start: 0, length: 0, kind: 0 };
}

/// What user space knows of trampolines, while they come and go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Trampolines {
    /// The pages that trampolines are in, as bits: most locations are in none of them, and no more is looked at.
    pub pages: [u64; 4],
    /// Trampolines and the functions that free packets, in the order of their addresses; before them, what is free.
    pub pieces: [Piece; PIECES],
}

impl Default for Trampolines {
    fn default() -> Self {
        Self { pages: [0; 4], pieces: [Piece::NONE; PIECES] }
    }
}

/// A page's bit: the word, and the place in it.
#[inline(always)]
fn bit(address: u64) -> (usize, u64) {
    let page = address >> 12;
    ((page >> 6) as usize % 4, page % 64)
}

/// Bits of what a frame of a call chain is.
pub mod is {
    /// In a function that frees packets.
    pub const FREEING: u64 = 1;
    /// Among the first bytes of one.
    pub const START: u64 = 2;
    /// In the trampoline of a return probe.
    pub const RETURN: u64 = 4;
    /// In the trampoline of a BPF program.
    pub const PROGRAM: u64 = 8;
}

/// What the [`DEPTH`] frames of a call chain are, innermost first.
///
/// That is found out before the walk along them: a verifier would follow it again for each state of the walk.
#[derive(Default)]
pub struct Frames {
    kinds: u64,
}

impl Frames {
    /// Adds the next frame: what [`Trampolines::kind`] says of it.
    #[inline(always)]
    pub fn push(&mut self, kind: u64) {
        self.kinds = self.kinds >> 4 | kind << 60;
    }

    /// Where the function was called that freed a packet: the index of the frame, or [`DEPTH`] if the chain does not say.
    #[inline(always)]
    #[must_use]
    pub fn caller(&self) -> usize {
        /// Not at the function yet.
        const BEFORE: u64 = 0;
        /// Behind a frame of the function.
        const FREEING: u64 = 1;
        /// Behind the trampoline of a BPF program.
        const PROGRAM: u64 = 2;
        let mut behind = BEFORE;
        let mut index = 0;
        while index < DEPTH {
            let kind = self.kinds >> (4 * index);
            if behind == BEFORE {
                behind = kind & is::FREEING;
            } else if kind & is::RETURN != 0 {
                // The unwinder does not know who called, and what follows is not the caller.
                return DEPTH;
            } else if kind & is::PROGRAM != 0 {
                behind = PROGRAM;
            } else if behind == PROGRAM && kind & is::START != 0 {
                // A function that has called a trampoline is there once more, unless it jumped there.
                behind = FREEING;
            } else {
                return index;
            }
            index += 1;
        }
        DEPTH
    }
}

impl Trampolines {
    /// Notes that there are trampolines in the page of this address.
    pub fn mark(&mut self, address: u64) {
        let (word, place) = bit(address);
        self.pages[word] |= 1 << place;
    }

    /// Whether a location may be in a trampoline.
    #[inline(always)]
    #[must_use]
    pub fn may_contain(&self, location: u64) -> bool {
        let (word, place) = bit(location);
        self.pages[word] >> place & 1 != 0
    }

    /// Whether it is. `reaches` is [`reaches`].
    #[inline(always)]
    #[must_use]
    pub fn contain(&self, location: u64, reaches: impl Fn(u64, &u64) -> u64) -> bool {
        self.kind(location, reaches) & (is::RETURN | is::PROGRAM) != 0
    }

    /// What an address is in, as bits, for [`Frames`]. `reaches` is [`reaches`].
    ///
    /// Without a branch, and in as many steps as the number of pieces has bits: a verifier follows each branch, and each
    /// step of each frame.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self, address: u64, reaches: impl Fn(u64, &u64) -> u64) -> u64 {
        let (mut found, mut bit) = (0, PIECES.trailing_zeros());
        while bit > 0 {
            bit -= 1;
            // The sum and no `or`, after which verifiers before 5.12 know nothing; nor may the compiler know that it is the same.
            let middle = &self.pieces[(found + (1 << bit)) % PIECES];
            found += (reaches(address, &middle.start) as usize) << bit;
        }
        let piece = &self.pieces[found % PIECES];
        let offset = address.wrapping_sub(piece.start);
        let is_inside = offset.wrapping_sub(piece.length.into()) & !offset;
        let is_near = is_inside & offset.wrapping_sub(ENTRY);
        let kind = u64::from(piece.kind) & 0_u64.wrapping_sub(is_inside >> 63);
        kind | ((is_near >> 63 & kind & is::FREEING) * is::START)
    }
}

/// 1 if an address is another one or beyond it, else 0.
#[inline(always)]
#[must_use]
pub fn reaches(address: u64, other: &u64) -> u64 {
    difference(address, *other) >> 63
}

/// A number with the highest bit if an address is another one or beyond it.
///
/// Kernel addresses all have the highest bit, and what is free has none: without it, their difference is such a number.
#[inline(always)]
#[must_use]
pub fn difference(address: u64, other: u64) -> u64 {
    const HALF: u64 = u64::MAX >> 1;
    (other & HALF).wrapping_sub(address & HALF).wrapping_sub(1)
}

const _: () = assert!(4 * DEPTH == u64::BITS as usize);
const _: () = assert!(PIECES.is_power_of_two());
const _: () = assert!(size_of::<Trampolines>() == 32 + PIECES * 16);

#[cfg(test)]
mod tests {
    use super::*;

    const RETHOOK: u64 = 0xffff_ffff_8105_0000;
    const PROGRAM: u64 = 0xffff_ffff_c020_0000;
    const OTHER: u64 = 0xffff_ffff_c020_1000;
    const FREE: u64 = 0xffff_ffff_8180_0000;
    const FREE_LIST: u64 = 0xffff_ffff_8180_1000;
    const CALLER: u64 = 0xffff_ffff_8190_5123;

    fn trampolines() -> Trampolines {
        let mut all = Trampolines::default();
        for (place, (start, length, kind)) in all.pieces.iter_mut().zip([
            (RETHOOK, 0x40, is::RETURN),
            (PROGRAM, 0x1000, is::PROGRAM),
            (OTHER, 0x200, is::PROGRAM),
            (FREE, 0x100, is::FREEING),
            (FREE_LIST, 0x80, is::FREEING),
        ]) {
            *place = Piece { start, length, kind: kind as u32 };
        }
        all.pieces.sort_unstable();
        [RETHOOK, PROGRAM, OTHER].into_iter().for_each(|address| all.mark(address));
        all
    }

    fn caller(frames: &[u64]) -> u64 {
        let mut chain = [0; DEPTH];
        chain[..frames.len()].copy_from_slice(frames);
        let all = trampolines();
        let mut kinds = Frames::default();
        chain.iter().for_each(|&frame| kinds.push(all.kind(frame, reaches)));
        match kinds.caller() {
            DEPTH => 0,
            caller => chain[caller],
        }
    }

    #[test]
    fn only_trampolines_are_trampolines() {
        let all = trampolines();
        for location in [RETHOOK, RETHOOK + 0x3f, PROGRAM + 0xfff, OTHER + 0x1ff] {
            assert!(all.may_contain(location) && all.contain(location, reaches), "{location:x}");
        }
        for location in [RETHOOK - 1, RETHOOK + 0x40, OTHER + 0x200, FREE, CALLER, 0, u64::MAX] {
            assert!(!all.contain(location, reaches), "{location:x}");
        }
        assert!(!all.may_contain(CALLER));
        assert!(!Trampolines::default().contain(0, reaches));
    }

    #[test]
    fn the_unwinder_puts_the_caller_in_the_place_of_a_return_probe() {
        assert_eq!(caller(&[0x1, 0x2, FREE + 0x40, CALLER, 0x3]), CALLER);
    }

    #[test]
    fn a_program_stands_between_the_function_and_its_caller() {
        let (call, again) = (PROGRAM + 0x60, FREE + 5);
        assert_eq!(caller(&[0x1, FREE + 0x40, call, again, CALLER]), CALLER);
        assert_eq!(caller(&[0x1, FREE + 0x40, call, CALLER]), CALLER, "the function jumped there");
        assert_eq!(caller(&[0x1, FREE + 0x40, OTHER + 1, FREE + 9, call, again, CALLER]), CALLER);
        let inside = FREE_LIST + 0x60;
        assert_eq!(caller(&[0x1, FREE + 0x40, call, again, inside, CALLER]), inside, "it frees a list");
        assert_eq!(caller(&[0x1, FREE + 0x40, call, inside, CALLER]), inside);
    }

    #[test]
    fn what_the_chain_does_not_say_is_not_guessed() {
        assert_eq!(caller(&[0x1, FREE + 0x40, RETHOOK, CALLER]), 0, "an unwinder that is deceived");
        assert_eq!(caller(&[0x1, FREE + 0x40]), 0);
        assert_eq!(caller(&[0x1, CALLER]), 0);
        assert_eq!(caller(&[0x1; DEPTH]), 0);
        assert_eq!(caller(&[FREE + 0x40; DEPTH]), FREE + 0x40, "it has called itself");
    }
}
