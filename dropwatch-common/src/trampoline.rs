//! Where functions return to while another tracer has a return probe on them, and who has called such a function.
//!
//! The tracepoint's location is the address that the function which frees the packet returns to. A return probe on that
//! function puts its trampoline there. The caller is still in the call chain: in the trampoline's place if the kernel's
//! unwinder knows the return probe, and behind the trampoline if that is of a BPF program, which calls the function.

use crate::probe::Range;

/// How many frames are looked at. The first ones are of the probe and of the tracepoint.
pub const DEPTH: usize = 16;

/// How far into a function the call to a tracer ends that begins it.
const ENTRY: u64 = 32;

/// What user space knows of trampolines, while they come and go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Trampolines {
    /// The pages that trampolines are in, as bits: most locations are in none of them, and no more is looked at.
    pub pages: [u64; 4],
    /// Trampolines of return probes.
    pub returns: [Range; 4],
    /// Trampolines of BPF programs.
    pub programs: [Range; 32],
    /// The functions that free packets.
    pub freeing: [Range; 8],
}

/// A page's bit: the word, and the place in it.
#[inline(always)]
fn bit(address: u64) -> (usize, u64) {
    let page = address >> 12;
    ((page >> 6) as usize % 4, page % 64)
}

/// Whether an address is in any of the ranges, and whether it is among the first bytes of one: 1 or 0. Without a branch: a
/// verifier would follow each.
#[inline(always)]
fn is_in<const N: usize>(ranges: &[Range; N], address: u64, load: impl Fn(&Range) -> Range) -> (u64, u64) {
    let (mut found, mut near) = (0, 0);
    let mut index = 0;
    while index < N {
        let range = load(&ranges[index]);
        let offset = address.wrapping_sub(range.start);
        let is_inside = offset.wrapping_sub(range.length) & !offset;
        found |= is_inside;
        near |= is_inside & offset.wrapping_sub(ENTRY);
        index += 1;
    }
    (found >> 63, near >> 63)
}

/// Bits of what a frame of a call chain is.
mod is {
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

    /// Whether it is. `load` is how a range is read.
    #[inline(always)]
    #[must_use]
    pub fn contain(&self, location: u64, load: impl Fn(&Range) -> Range) -> bool {
        is_in(&self.returns, location, &load).0 | is_in(&self.programs, location, &load).0 != 0
    }

    /// What an address is in, as bits, for [`Frames`]. `load` is how a range is read.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self, address: u64, load: impl Fn(&Range) -> Range) -> u64 {
        let (is_freeing, is_start) = is_in(&self.freeing, address, &load);
        let (is_return, _) = is_in(&self.returns, address, &load);
        let (is_program, _) = is_in(&self.programs, address, &load);
        (is_freeing * is::FREEING)
            | (is_start * is::START)
            | (is_return * is::RETURN)
            | (is_program * is::PROGRAM)
    }
}

const _: () = assert!(4 * DEPTH == u64::BITS as usize);
const _: () = assert!(size_of::<Trampolines>() == 32 + 44 * 16);

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
        all.returns[0] = Range { start: RETHOOK, length: 0x40 };
        all.programs[0] = Range { start: PROGRAM, length: 0x1000 };
        all.programs[1] = Range { start: OTHER, length: 0x200 };
        all.freeing[0] = Range { start: FREE, length: 0x100 };
        all.freeing[1] = Range { start: FREE_LIST, length: 0x80 };
        [RETHOOK, PROGRAM, OTHER].into_iter().for_each(|address| all.mark(address));
        all
    }

    fn caller(frames: &[u64]) -> u64 {
        let mut chain = [0; DEPTH];
        chain[..frames.len()].copy_from_slice(frames);
        let all = trampolines();
        let mut kinds = Frames::default();
        chain.iter().for_each(|&frame| kinds.push(all.kind(frame, |&range| range)));
        match kinds.caller() {
            DEPTH => 0,
            caller => chain[caller],
        }
    }

    #[test]
    fn only_trampolines_are_trampolines() {
        let all = trampolines();
        for location in [RETHOOK, RETHOOK + 0x3f, PROGRAM + 0xfff, OTHER + 0x1ff] {
            assert!(all.may_contain(location) && all.contain(location, |&range| range), "{location:x}");
        }
        for location in [RETHOOK - 1, RETHOOK + 0x40, OTHER + 0x200, FREE, CALLER, 0, u64::MAX] {
            assert!(!all.contain(location, |&range| range), "{location:x}");
        }
        assert!(!all.may_contain(CALLER));
        assert!(!Trampolines::default().contain(0, |&range| range));
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
