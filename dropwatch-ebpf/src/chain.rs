//! Call chains: each is stored once and compared frame by frame, so that a hash collision never mixes two.

use aya_ebpf::{EbpfContext, bindings::BPF_NOEXIST, helpers::generated::bpf_get_stack};
use dropwatch_common::chain::{Chain, FRAMES};

use crate::maps::{CHAIN_LEVEL, CHAIN_LEVELS, CHAIN_ROOM, CHAINS, Chains, NESTED};

/// How many numbers a chain tries, skipping those that another chain already has.
const TRIES: u64 = 4;
const EEXIST: i32 = -17;

/// No chain has this number.
pub const NONE: u64 = 0;

/// The number that the call chain that led here has in a generation, [`NONE`] if it could not be kept.
///
/// Not an `Option`: `None` leaves the payload uninitialised, and verifiers before 6.3 reject reading it.
#[inline(always)]
pub fn number(ctx: &impl EbpfContext, generation: u32) -> u64 {
    let Some(level) = enter() else { return NONE };
    let number = match (CHAIN_ROOM.get_ptr_mut(level), CHAINS.get(generation)) {
        (Some(room), Some(chains)) => walk(ctx, room, chains),
        _ => NONE,
    };
    leave(level);
    number
}

/// Takes a buffer of this CPU. Where no drop can interrupt another, there is one, and it is never in use.
#[inline(always)]
pub fn enter() -> Option<u32> {
    if NESTED.load() == 0 {
        return Some(0);
    }
    let taken = CHAIN_LEVEL.get_ptr_mut(0)?;
    // SAFETY: the pointer is a value of a map of this CPU, and what interrupts us here puts it back before we go on.
    unsafe {
        let level = *taken;
        if level >= u64::from(CHAIN_LEVELS) {
            return None;
        }
        *taken = level + 1;
        Some(level as u32)
    }
}

/// Returns the buffer.
#[inline(always)]
pub fn leave(level: u32) {
    if NESTED.load() != 0
        && let Some(taken) = CHAIN_LEVEL.get_ptr_mut(0)
    {
        // SAFETY: as in `enter`.
        unsafe { *taken = u64::from(level) };
    }
}

#[inline(always)]
fn walk(ctx: &impl EbpfContext, room: *mut Chain, chains: &Chains) -> u64 {
    // SAFETY: `room` is a value of a map, of the size passed to the helper.
    unsafe {
        let bytes = bpf_get_stack(
            ctx.as_ptr(),
            (&raw mut (*room).frames).cast(),
            size_of::<[u64; FRAMES]>() as u32,
            0,
        );
        if bytes <= 0 {
            return NONE;
        }
        (*room).depth = bytes as u64 / 8;
        keep(&*room, chains)
    }
}

/// The chain's number: the one it has, or the first free one.
#[inline(always)]
fn keep(chain: &Chain, chains: &Chains) -> u64 {
    let first = hash(chain);
    let mut attempt = 0;
    while attempt < TRIES {
        let number = first.wrapping_add(attempt) | 1 << 63;
        let known = match chains.get_ptr(&number) {
            Some(known) => known,
            None => match chains.insert(&number, chain, u64::from(BPF_NOEXIST)) {
                Ok(()) => return number,
                // Another CPU was first, with this chain or another.
                Err(EEXIST) => match chains.get_ptr(&number) {
                    Some(known) => known,
                    None => return NONE,
                },
                Err(_) => return NONE,
            },
        };
        // SAFETY: the pointer is a value of a map; chains are never changed.
        if is_same(unsafe { &*known }, chain) {
            return number;
        }
        attempt += 1;
    }
    NONE
}

/// How many frames are looked at between two looks at the depth. Behind it, the kernel leaves zeros.
const BLOCK: usize = 16;

/// The end of a block that starts there.
#[inline(always)]
fn end(start: usize) -> usize {
    if start + BLOCK < FRAMES { start + BLOCK } else { FRAMES }
}

/// Mixes all frames; a multiplication spreads each into the high bits, the rotation brings them back.
#[inline(always)]
fn hash(chain: &Chain) -> u64 {
    let mut hash = chain.depth;
    let mut frame = 0;
    while frame < FRAMES && (frame as u64) < chain.depth {
        let end = end(frame);
        while frame < end {
            hash = (hash ^ chain.frames[frame]).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            frame += 1;
        }
    }
    hash
}

#[inline(always)]
fn is_same(one: &Chain, other: &Chain) -> bool {
    let mut differences = one.depth ^ other.depth;
    let mut frame = 0;
    while frame < FRAMES && (frame as u64) < other.depth {
        let end = end(frame);
        while frame < end {
            differences |= one.frames[frame] ^ other.frames[frame];
            frame += 1;
        }
    }
    differences == 0
}
