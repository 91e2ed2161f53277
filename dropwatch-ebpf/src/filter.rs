//! Whether a drop passes the filter: decided before anything is counted.

use core::arch::asm;

use dropwatch_common::{
    DropKey, Loss,
    kind::UNICAST,
    packet::plain::Plain,
    probe::gather,
    program::{Cases, Facts, Place, known},
};

use crate::{
    count::lose,
    drop::{Drop, ZERO},
    maps::{CASES, FILTERED, GATHER, HAS_REASON, POSSIBLE, any},
    skb::{self, Kernel},
};

/// Whether a drop passes the filter, or there is none. If a part of the packet was needed and unreadable, the drop is
/// entered into the ledger.
///
/// That is known before the decision, unless the filter reads bytes: each test can end the decision, and the verifier
/// follows all that comes after it.
#[inline(always)]
pub fn passes(drop: &mut Drop) -> bool {
    let reads_bytes = any(&GATHER, gather::BYTES);
    if !reads_bytes {
        drop.note_missed();
    }
    let passes = FILTERED.load() == 0 || passes_in_cases(drop);
    if reads_bytes {
        drop.note_missed();
    }
    passes
}

/// The same for a plain packet, if the filter needs no more than its start, its length and its bytes, and user space decides
/// nothing.
#[inline(always)]
pub fn passes_plain(skb: Kernel, location: u64, reason: u32, start: &Plain) -> bool {
    if FILTERED.load() == 0 {
        return true;
    }
    let mut facts = Facts { location, reason, ..Facts::default() };
    start.write_to(&mut facts.packet);
    if HAS_REASON.load() != 0 {
        facts.known |= known::REASON;
    }
    let mut place = Place::default();
    if any(&GATHER, gather::LENGTH | gather::BYTES) {
        let layout = skb::layout(skb);
        facts.length = layout.length;
        facts.known |= known::LENGTH;
        place = layout.place();
    }
    // SAFETY: as in `passes_in_cases`.
    let passed = unsafe { decide(&mut facts, &mut place, (&raw const ZERO).read_volatile()) };
    if any(&GATHER, gather::BYTES) && place.missed != 0 {
        lose(Loss::HeadersUnreadable);
    }
    passed != 0
}

/// In which cases a drop passes that user space has to decide about, above the bits of what is known.
#[inline(always)]
pub fn cases(facts: &Facts) -> u32 {
    if CASES.load() == 0 { 0 } else { facts.known >> Cases::SHIFT << Cases::SHIFT }
}

/// Whether a drop passes in any case that it can be. If user space has to find out which it is, the facts say in which it
/// passes.
#[inline(always)]
fn passes_in_cases(drop: &mut Drop) -> bool {
    // SAFETY: a word of a map, which is always zero and which the verifier does not know; and both are this drop's.
    let passed = unsafe { decide(&mut drop.facts, &mut drop.bytes, (&raw const ZERO).read_volatile()) };
    if CASES.load() == 0 {
        return passed != 0;
    }
    let possible = possible(drop);
    let passed = passed & possible;
    if passed != possible {
        drop.facts.known |= (passed as u32) << Cases::SHIFT;
    }
    passed != 0
}

/// The cases that a drop can be, as far as user space has found out.
#[inline(always)]
fn possible(drop: &Drop) -> u64 {
    let key = DropKey { location: drop.facts.location, reason: drop.facts.reason, kind: UNICAST.into() };
    let all = CASES.load().into();
    // SAFETY: a word of a map, which user space may write meanwhile.
    POSSIBLE.get_ptr(&key).map_or(all, |possible| unsafe { possible.read_volatile() } & all)
}

/// In which cases a drop passes; 1 if it passes and there are none.
///
/// The loader puts the filter's own code in its place, to which the compiler must know nothing: neither what is read and
/// written, nor what comes out.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn decide(facts: *mut Facts, place: *mut Place, zero: u64) -> u64 {
    let mut passed = zero;
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) passed, in("r1") facts, in("r2") place, options(nostack)) };
    passed
}
