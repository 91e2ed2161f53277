//! Which drops are taken where there are more than a reader wants.

use dropwatch_common::event::RateState;

use aya_ebpf::helpers::bpf_get_prandom_u32;

use crate::maps::{RATE, RATE_STATE};

const SECOND: u64 = 1_000_000_000;

/// Whether a drop at this time is taken: by chance, so that each has the same one, and only as long as there are
/// fewer than the limit in this second.
///
/// Two CPUs may both take the last one: user space, which reads all of them, holds to the limit exactly.
#[inline(always)]
pub fn admits(now: u64) -> bool {
    let limit = RATE.load();
    if limit == 0 {
        return true;
    }
    let Some(state) = RATE_STATE.get_ptr_mut(0) else { return false };
    // SAFETY: the pointer is a value of a map; others write it meanwhile, which costs or gives a drop at most.
    unsafe {
        let share = (&raw const (*state).share).read_volatile();
        if share != u32::MAX && bpf_get_prandom_u32() > share {
            return false;
        }
        takes(state, now / SECOND, u64::from(limit))
    }
}

/// Takes one of those that are left in this second.
#[inline(always)]
unsafe fn takes(state: *mut RateState, second: u64, limit: u64) -> bool {
    // SAFETY: as above.
    unsafe {
        if (&raw const (*state).second).read_volatile() != second {
            (&raw mut (*state).second).write_volatile(second);
            (&raw mut (*state).taken).write_volatile(0);
        }
        let taken = (&raw const (*state).taken).read_volatile();
        if taken >= limit {
            return false;
        }
        (&raw mut (*state).taken).write_volatile(taken + 1);
    }
    true
}
