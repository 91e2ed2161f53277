//! Whether a drop is wanted at all: asked before anything is counted.

use core::arch::asm;

use dropwatch_common::{
    probe::RANGES_PER_SET,
    rules::{self, Facts, MAX_RULES, Ranges, Rule, Rules},
};

use crate::maps::{FILTERED, RANGES, RULES};

/// Whether a drop passes the filter, or there is none.
#[inline(always)]
pub fn passes(facts: &Facts) -> bool {
    FILTERED.load() == 0 || rules::decide(&Frozen { facts }, facts, &Sets)
}

/// The rules as the verifier knows them: constants, so that it walks along them and nowhere else.
struct Frozen<'a> {
    facts: &'a Facts,
}

#[inline(always)]
fn rule(index: u32) -> *const Rule {
    // SAFETY: callers have asked for the head first, which keeps the index inside the table.
    unsafe { RULES.as_ptr().cast::<Rule>().add(index as usize) }
}

impl Rules for Frozen<'_> {
    #[inline(always)]
    fn head(&self, index: u32) -> Option<u32> {
        if index >= MAX_RULES as u32 {
            return None;
        }
        // Each rule loads the facts anew. If the compiler kept them in registers, the verifier would take along what
        // every test has told about them, and follow each combination.
        // SAFETY: a move to itself; what it might write is what the compiler has to assume, and nothing is written.
        unsafe { asm!("{0} = {0}", inout(reg) self.facts => _, options(nostack, preserves_flags)) };
        // SAFETY: inside the table, which is never written.
        Some(unsafe { (&raw const (*rule(index)).head).read_volatile() })
    }

    #[inline(always)]
    fn value<const WORD: usize>(&self, index: u32) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const (*rule(index)).value[WORD]).read_volatile() }
    }

    #[inline(always)]
    fn mask<const WORD: usize>(&self, index: u32) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const (*rule(index)).mask[WORD]).read_volatile() }
    }
}

/// The sets of the filter's locations and reasons.
struct Sets;

impl Ranges for Sets {
    #[inline(always)]
    fn contains(&self, set: u32, value: u64) -> bool {
        let Some(set) = RANGES.get_ptr(set) else { return false };
        let mut index = 0;
        while index < RANGES_PER_SET {
            // SAFETY: the pointer is a value of a map, and the index inside it. User space may write meanwhile.
            let (start, length) = unsafe {
                let range = &raw const (*set).0[index];
                ((&raw const (*range).start).read_volatile(), (&raw const (*range).length).read_volatile())
            };
            if value.wrapping_sub(start) < length {
                return true;
            }
            if length == 0 {
                return false;
            }
            index += 1;
        }
        false
    }
}
