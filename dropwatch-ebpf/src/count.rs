//! Counting one drop, with nothing lost in silence.

use core::arch::asm;

use aya_ebpf::{EbpfContext, bindings::BPF_NOEXIST};
use dropwatch_common::{DropKey, Loss, cache::slot_of, kind::UNICAST};

use crate::maps::{CACHE, CACHED, COUNTS, LEDGER, NESTED};

pub const E2BIG: i32 = -7;
pub const EEXIST: i32 = -17;

/// Adds one drop to `key`, or to the ledger.
///
/// Most drops end in the cache. Of the others the common case is a look-up, which takes no lock. Only the first drop
/// of a key inserts: an update for each drop would take the bucket's lock each time.
#[inline(always)]
pub fn count(ctx: &impl EbpfContext, key: &DropKey) {
    if count_cached(key) {
        return;
    }
    if let Some(counter) = COUNTS.get_ptr_mut(key) {
        increment(counter);
    } else {
        count_first(ctx, key);
    }
}

/// Adds one drop to the key's slot, if it has it or can have it.
///
/// Not where a drop can interrupt the counting of another: both could take one slot. Nor of other kinds than the
/// commonest: slots are found by location and reason.
#[inline(always)]
fn count_cached(key: &DropKey) -> bool {
    if CACHED.load() == 0 || key.location == 0 || key.kind != u32::from(UNICAST) {
        return false;
    }
    let Some(cache) = CACHE.get_ptr_mut(0) else { return false };
    // SAFETY: the pointer is a value of a map of this CPU, and the index inside it.
    unsafe {
        let slot = &raw mut (*cache).0[slot_of(key.location, key.reason)];
        let count = &raw mut (*slot).count;
        if (*slot).key.location == key.location && (*slot).key.reason == key.reason {
            *count += 1;
            return true;
        }
        if (*slot).key.location != 0 {
            return false;
        }
        // The location comes last: it marks the slot as taken.
        (&raw mut (*slot).key.reason).write_volatile(key.reason);
        count.write_volatile(1);
        (&raw mut (*slot).key.location).write_volatile(key.location);
        true
    }
}

/// The first drop of a key on any CPU; another CPU may be inserting the same key.
#[inline(always)]
fn count_first(ctx: &impl EbpfContext, key: &DropKey) {
    match COUNTS.insert(key, &1, u64::from(BPF_NOEXIST)) {
        Ok(()) => note(ctx, key, 0),
        Err(EEXIST) => match COUNTS.get_ptr_mut(key) {
            Some(counter) => increment(counter),
            None => refused(ctx, key, Loss::UpdateFailed, EEXIST),
        },
        Err(E2BIG) => refused(ctx, key, Loss::MapFull, E2BIG),
        Err(errno) => refused(ctx, key, Loss::UpdateFailed, errno),
    }
}

/// Adds one to a counter of this CPU.
///
/// Only this CPU writes it, so an atomic is needed just where a drop can interrupt the counting of another:
/// the kernels without a recursion guard. Elsewhere its bus lock would be paid for nothing.
#[inline(always)]
pub fn increment(counter: *mut u64) {
    // SAFETY: the pointer is a value of a map, aligned to 8 and alive while the program runs.
    unsafe {
        if NESTED.load() != 0 {
            // The target has no compare-and-swap before BPF v3, so `core` offers no `fetch_add` either.
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64);
        } else {
            *counter += 1;
        }
    }
}

/// Enters a drop into the ledger.
#[inline(always)]
pub fn lose(loss: Loss) {
    if let Some(counter) = LEDGER.get_ptr_mut(loss as u32) {
        increment(counter);
    }
}

#[inline(always)]
fn refused(ctx: &impl EbpfContext, key: &DropKey, loss: Loss, errno: i32) {
    lose(loss);
    note(ctx, key, errno);
}

/// The diagnostics build says what happened to a new key; the shipped one compiles this to nothing.
#[inline(always)]
fn note(ctx: &impl EbpfContext, key: &DropKey, errno: i32) {
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "new key: location {:x} reason {}: {}", key.location, key.reason, errno);
    #[cfg(not(feature = "log"))]
    let _ = (ctx, key, errno);
}
