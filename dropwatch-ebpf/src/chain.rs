//! Call chains: each kept once, compared frame by frame, never taken for another one by its hash.

use aya_ebpf::{EbpfContext, bindings::BPF_NOEXIST, helpers::generated::bpf_get_stack};
use dropwatch_common::chain::{Chain, FRAMES};

use crate::maps::{CHAIN_LEVEL, CHAIN_LEVELS, CHAIN_ROOM, CHAINS, NESTED};

/// How many numbers a chain tries: each one that another chain already has is passed by.
const TRIES: u64 = 4;
const EEXIST: i32 = -17;

/// Nobody's number.
pub const NONE: u64 = 0;

/// The number of the call chain that led here, [`NONE`] if it could not be kept.
///
/// A plain number, for what an option has not got is not written: kernels before 6.3 refuse to look at it.
#[inline(always)]
pub fn number(ctx: &impl EbpfContext) -> u64 {
    let Some(level) = enter() else { return NONE };
    let number = match CHAIN_ROOM.get_ptr_mut(level) {
        Some(room) => walk(ctx, room),
        None => NONE,
    };
    leave(level);
    number
}

/// Takes a room of this CPU. Where no drop interrupts another, there is one and nobody to share it with.
#[inline(always)]
fn enter() -> Option<u32> {
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

/// Gives the room back.
#[inline(always)]
fn leave(level: u32) {
    if NESTED.load() != 0
        && let Some(taken) = CHAIN_LEVEL.get_ptr_mut(0)
    {
        // SAFETY: as in `enter`.
        unsafe { *taken = u64::from(level) };
    }
}

#[inline(always)]
fn walk(ctx: &impl EbpfContext, room: *mut Chain) -> u64 {
    // SAFETY: `room` is a value of a map, as large as the helper is told.
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
        keep(&*room)
    }
}

/// The chain's number: the one it has, or the first free one.
#[inline(always)]
fn keep(chain: &Chain) -> u64 {
    let first = hash(chain);
    let mut attempt = 0;
    while attempt < TRIES {
        let number = first.wrapping_add(attempt) | 1 << 63;
        let known = match CHAINS.get_ptr(&number) {
            Some(known) => known,
            None => match CHAINS.insert(&number, chain, u64::from(BPF_NOEXIST)) {
                Ok(()) => return number,
                // Another CPU was first, with this chain or another.
                Err(EEXIST) => match CHAINS.get_ptr(&number) {
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

/// Mixes all frames; a multiplication spreads each into the high bits, the rotation brings them back.
#[inline(always)]
fn hash(chain: &Chain) -> u64 {
    let mut hash = chain.depth;
    let mut frame = 0;
    while frame < FRAMES && (frame as u64) < chain.depth {
        hash = (hash ^ chain.frames[frame]).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        frame += 1;
    }
    hash
}

#[inline(always)]
fn is_same(one: &Chain, other: &Chain) -> bool {
    if one.depth != other.depth {
        return false;
    }
    let mut frame = 0;
    while frame < FRAMES && (frame as u64) < other.depth {
        if one.frames[frame] != other.frames[frame] {
            return false;
        }
        frame += 1;
    }
    true
}
