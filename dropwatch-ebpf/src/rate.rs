//! Which drops are shown if there are more than `--rate` allows.

use dropwatch_common::event::RateState;

use aya_ebpf::helpers::bpf_get_prandom_u32;

use crate::maps::{RATE, RATE_STATE};

const SECOND: u64 = 1_000_000_000;

/// Whether a drop at this time is taken: at random, so that all have the same chance, and only while there are
/// fewer than the limit in this second, which begins with its first drop.
///
/// Two CPUs may both take the last one: user space, which reads all of them, holds to the limit exactly.
#[inline(always)]
pub fn admits(now: u64) -> bool {
    let limit = RATE.load();
    if limit == 0 {
        return true;
    }
    let Some(state) = RATE_STATE.get_ptr_mut(0) else { return false };
    // SAFETY: the pointer is a value of a map; another CPU may write it meanwhile, which costs or adds one drop at most.
    unsafe {
        let share = (&raw const (*state).share).read_volatile();
        if share != u32::MAX && bpf_get_prandom_u32() > share {
            return false;
        }
        takes(state, now, u64::from(limit))
    }
}

/// Takes one of those that are left in this second: a quarter of them may come at once, the others only as the second
/// goes by, so that a flood that has just begun does not use up all of them.
#[inline(always)]
unsafe fn takes(state: *mut RateState, now: u64, limit: u64) -> bool {
    // SAFETY: as above.
    unsafe {
        let start = (&raw const (*state).start).read_volatile();
        let mut elapsed = now.wrapping_sub(start);
        if elapsed >= SECOND {
            // Another CPU may have begun a second a moment later than this one.
            if start.wrapping_sub(now) >= SECOND {
                (&raw mut (*state).start).write_volatile(now);
                (&raw mut (*state).taken).write_volatile(0);
            }
            elapsed = 0;
        }
        let taken = (&raw const (*state).taken).read_volatile();
        if taken >= limit || taken * 4 * SECOND > limit * (SECOND + 3 * elapsed) {
            return false;
        }
        (&raw mut (*state).taken).write_volatile(taken + 1);
    }
    true
}
