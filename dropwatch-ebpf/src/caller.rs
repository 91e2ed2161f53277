//! Where a packet was dropped, if a return probe of another tracer is on the function that frees it.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_stack};
use dropwatch_common::trampoline::{self, DEPTH, Frames, PIECES, Piece, Trampolines};

/// User space keeps it up to date while the program runs.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.trampolines")]
pub static mut TRAMPOLINES: Trampolines = Trampolines { pages: [0; 4], pieces: [Piece::NONE; PIECES] };

/// The location itself, or the one that another tracer's return probe hides. What the call chain does not say stays as it
/// is.
#[inline(always)]
pub fn location(ctx: &impl EbpfContext, location: u64) -> u64 {
    let trampolines = known();
    if !trampolines.may_contain(location) || !trampolines.contain(location, reaches) {
        return location;
    }
    match resolve(ctx, trampolines) {
        0 => location,
        caller => caller,
    }
}

/// What user space has written, of which the compiler knows nothing.
#[inline(always)]
fn known() -> &'static Trampolines {
    let mut address = &raw const TRAMPOLINES;
    // SAFETY: a move to itself; words of a map, any of which may be of an older state than the others.
    unsafe {
        asm!("{0} = {0}", inout(reg) address, options(pure, nomem, nostack, preserves_flags));
        &*address
    }
}

/// The caller by the call chain, which is read in parts: the stack has no room for all of it.
#[inline(always)]
fn resolve(ctx: &impl EbpfContext, trampolines: &Trampolines) -> u64 {
    const PART: usize = DEPTH / 4;
    let mut frames = Frames::default();
    let mut first = 0;
    while first < DEPTH {
        let part = chain::<PART>(ctx, first);
        let mut index = 0;
        while index < PART {
            frames.push(trampolines.kind(part[index], reaches));
            index += 1;
        }
        first += PART;
    }
    match frames.caller() {
        DEPTH => 0,
        caller => chain::<1>(ctx, caller)[0],
    }
}

/// Some frames of the call chain from one of them on; zeros behind the end and where there is none.
#[inline(always)]
fn chain<const N: usize>(ctx: &impl EbpfContext, first: usize) -> [u64; N] {
    let mut frames = MaybeUninit::<[u64; N]>::uninit();
    // SAFETY: the helper fills all of it.
    unsafe {
        bpf_get_stack(ctx.as_ptr(), frames.as_mut_ptr().cast(), size_of::<[u64; N]>() as u32, first as u64);
        frames.assume_init()
    }
}

/// The same as [`trampoline::reaches`], of which the compiler knows nothing: it would branch by the answer, and the
/// verifier follow both ways.
#[inline(always)]
fn reaches(address: u64, other: &u64) -> u64 {
    let mut answer = trampoline::difference(address, *other);
    // SAFETY: a shift, which leaves the highest bit.
    unsafe { asm!("{0} >>= 63", inout(reg) answer, options(pure, nomem, nostack, preserves_flags)) };
    answer
}
