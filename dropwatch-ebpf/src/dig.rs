//! The calls on a packet's way to where it is dropped.
//!
//! A walk begins when a task calls a root, and ends when that returns. Calls outside of walks are not looked at, and a walk
//! in which no packet matches is thrown away. What a task is doing is known by the task's address: an interrupt's work
//! is inside of that of the task it interrupts, and each CPU's idle task is another.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{
        bpf_get_attach_cookie, bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel,
        bpf_ringbuf_output,
    },
};
use dropwatch_common::dig::{
    Counted, MOST_STEPS, Step, TEXT as TEXT_SIZE, WALKERS as PLACES, WALKS as WALK_COUNT, Walk, cookie, step,
    walker,
};

use crate::maps::{ARM, DIG_PLACE, DUG, HOLDERS, TEXT, WALK_COUNTS, WALKERS, WALKS};

/// After so many nanoseconds a root that has not returned never will: its return was missed.
const STALE: u64 = 1_000_000_000;

/// Where it is written which walk a task has.
#[derive(Clone, Copy)]
struct Place {
    task: u64,
    number: u32,
}

impl Place {
    #[inline(always)]
    fn of_this_task() -> Self {
        // SAFETY: it has no arguments and no conditions.
        let task = unsafe { bpf_get_current_task() };
        // Structures of tasks are pages apart; the multiplication mixes what differs into the highest bits.
        let number = (task.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as u32;
        Self { task, number }
    }

    /// The number of the task's walk, if it is in one.
    #[inline(always)]
    fn walk_number(self) -> Option<u32> {
        let found = WALKERS.get_ptr(self.number)?;
        // SAFETY: a value of a map, of one word.
        let found = unsafe { found.read_volatile() };
        ((found ^ self.task) & !walker::WALK == 0).then_some((found & walker::WALK) as u32)
    }

    /// The task's walk, if it is in one.
    #[inline(always)]
    fn walk(self) -> Option<*mut Walk> {
        WALKS.get_ptr_mut(self.walk_number()?)
    }

    /// A new walk, unless another task has the place, or others have all walks.
    #[inline(always)]
    fn begin(self, now: u64) -> Option<*mut Walk> {
        let Some(walk) = self.walk_of_its_own() else {
            count(Counted::PassedOver);
            return None;
        };
        count(Counted::Begun);
        reset(walk, now);
        Some(walk)
    }

    #[inline(always)]
    fn walk_of_its_own(self) -> Option<*mut Walk> {
        let number = self.free_walk()?;
        let word = self.task & !walker::WALK | u64::from(number);
        if !claim(WALKERS.get_ptr_mut(self.number)?, word) {
            give_back(HOLDERS.get_ptr_mut(number));
            return None;
        }
        WALKS.get_ptr_mut(number)
    }

    /// The number of a walk that no task had, from the one on that is the least likely to be another's.
    #[inline(always)]
    fn free_walk(self) -> Option<u32> {
        for more in 0..WALK_COUNT {
            let number = (self.number + more) & (WALK_COUNT - 1);
            if claim(HOLDERS.get_ptr_mut(number)?, self.task) {
                return Some(number);
            }
        }
        None
    }

    /// Another task may have the place, and the walk.
    #[inline(always)]
    fn end(self) {
        let number = self.walk_number();
        give_back(WALKERS.get_ptr_mut(self.number));
        give_back(number.and_then(|number| HOLDERS.get_ptr_mut(number)));
    }
}

#[inline(always)]
fn give_back(word: Option<*mut u64>) {
    if let Some(word) = word {
        // SAFETY: a value of a map, of one word.
        unsafe { word.write_volatile(0) };
    }
}

/// Only this CPU writes it, and the kernel lets no program at a function run inside of another one.
#[inline(always)]
fn count(what: Counted) {
    if let Some(figure) = WALK_COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: a value of a map, of one word.
        unsafe { *figure += 1 };
    }
}

/// Puts a word into a free place. Whether that was free.
///
/// The target has no compare-and-swap before BPF v3, so `core` offers none; kernels that report functions with cookies have it.
#[inline(always)]
fn claim(place: *mut u64, word: u64) -> bool {
    let found: u64;
    // SAFETY: the pointer is a value of a map, aligned to 8 and alive while the program runs. The instruction is
    // `r0 = cmpxchg_64(r1 + 0, r0, r2)`.
    unsafe { asm!(".quad 0x000000f1000021db", in("r1") place, in("r2") word, inout("r0") 0_u64 => found) };
    found == 0
}

#[inline(always)]
fn reset(walk: *mut Walk, now: u64) {
    // SAFETY: the pointer is a value of a map, and this task's alone.
    unsafe {
        (*walk).head.started = now;
        (*walk).head.dropped = 0;
        (*walk).head.skb = 0;
        (*walk).head.steps = 0;
        (*walk).head.lost = 0;
        (*walk).head.open = 0;
        (*walk).head.freed = 0;
    }
}

/// Adds a step; its number.
#[inline(always)]
fn add(walk: *mut Walk, now: u64, value: u64, function: u16, kind: u16) -> u32 {
    // SAFETY: the pointer is a value of a map, and the index inside it.
    unsafe {
        let number = (&raw const (*walk).head.steps).read_volatile();
        if number as usize >= MOST_STEPS {
            (*walk).head.lost += 1;
            return number;
        }
        (&raw mut (*walk).head.steps).write_volatile(number + 1);
        let elapsed = now.wrapping_sub((*walk).head.started) as u32;
        (&raw mut (*walk).step[number as usize]).write(Step { value, elapsed, function, kind });
        number
    }
}

/// A function is called. Returns whether its return matters, as it does in a walk.
///
/// Most calls are in no walk, so that is checked first.
#[inline(always)]
pub fn call(ctx: &impl EbpfContext) -> bool {
    let place = Place::of_this_task();
    let walk = place.walk();
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let is_root = cookie & cookie::ROOT != 0;
    if walk.is_none() && !(is_root && is_looking()) {
        return false;
    }
    // SAFETY: it has no arguments and no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(walk) = walk.or_else(|| place.begin(now)) else { return false };
    if is_root {
        // SAFETY: a value of a map.
        unsafe {
            if now.wrapping_sub((*walk).head.started) > STALE {
                reset(walk, now);
            }
            (*walk).head.open += 1;
        }
    }
    let argument = cookie >> cookie::ARGUMENT_SHIFT & cookie::ARGUMENT;
    add(walk, now, argument_of(ctx, argument), cookie as u16, step::CALL);
    true
}

/// A function returns.
#[inline(always)]
pub fn returned(ctx: &impl EbpfContext) {
    let place = Place::of_this_task();
    let Some(walk) = place.walk() else { return };
    // SAFETY: the context is the program's own; the clock has no conditions.
    let (cookie, now) = unsafe { (bpf_get_attach_cookie(ctx.as_ptr()), bpf_ktime_get_ns()) };
    add(walk, now, result(ctx), cookie as u16, step::RETURN);
    if cookie & cookie::ROOT == 0 {
        return;
    }
    // SAFETY: a value of a map, and all of it is handed over.
    unsafe {
        let open = (&raw const (*walk).head.open).read_volatile().saturating_sub(1);
        (&raw mut (*walk).head.open).write_volatile(open);
        if open > 0 {
            return;
        }
        if (*walk).head.dropped != 0 {
            let ring = (&raw const DUG).cast_mut().cast();
            let failed = bpf_ringbuf_output(ring, walk.cast(), size_of::<Walk>() as u64, 0) != 0;
            count(if failed { Counted::Unread } else { Counted::HandedOver });
        }
    }
    place.end();
}

/// Whether a program that runs at both ends of a function is at its end.
///
/// The loader puts a call of the kernel's own function in its place, to which the compiler must know nothing of the answer.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn is_return(ctx: *mut c_void) -> u64 {
    let answer: u64;
    // SAFETY: a number.
    unsafe { asm!("{0} = 0", out(reg) answer, in("r1") ctx, options(nostack)) };
    answer
}

/// At both ends of a function the kernel runs one program. Returns what that answers: 1 at a call whose return the kernel is
/// to skip.
#[inline(always)]
pub fn session(ctx: &impl EbpfContext) -> u32 {
    // SAFETY: the context is the program's own.
    if unsafe { is_return(ctx.as_ptr()) } == 0 {
        return u32::from(!call(ctx));
    }
    returned(ctx);
    0
}

/// A packet that matches is dropped: if that is in a walk, and in the place that is looked for, the walk is of interest.
#[inline(always)]
pub fn mark(skb: u64, location: u64, time: u64) {
    let Some(wanted) = DIG_PLACE.get_ptr(0) else { return };
    // SAFETY: a value of a map, of one word.
    if unsafe { wanted.read_volatile() } != location {
        return;
    }
    let Some(walk) = Place::of_this_task().walk() else { return };
    // SAFETY: a value of a map.
    unsafe {
        if (*walk).head.dropped == 0 {
            (*walk).head.dropped = time;
            (*walk).head.skb = skb;
            (*walk).head.freed = add(walk, time, skb, 0, step::FREED);
        }
    }
}

/// Whether a packet is looked for.
#[inline(always)]
fn is_looking() -> bool {
    // SAFETY: a value of a map, of one word.
    DIG_PLACE.get_ptr(0).is_some_and(|place| unsafe { place.read_volatile() } != 0)
}

/// A register of the context, as one instruction: the verifier knows no computed place in it, and the compiler would
/// make one of several loads.
macro_rules! register {
    ($ctx:expr, $at:literal) => {{
        let value: u64;
        // SAFETY: a load from the program's own context.
        unsafe {
            asm!(
                concat!("{0} = *(u64 *)({1} + ", $at, ")"),
                out(reg) value,
                in(reg) $ctx.as_ptr(),
                options(nostack, preserves_flags),
            )
        };
        value
    }};
}

/// An argument, counted from 1; 0 if none is meant.
#[inline(always)]
fn argument_of(ctx: &impl EbpfContext, number: u64) -> u64 {
    if ARM.load() != 0 {
        return match number {
            1 => register!(ctx, 0),
            2 => register!(ctx, 8),
            3 => register!(ctx, 16),
            4 => register!(ctx, 24),
            5 => register!(ctx, 32),
            6 => register!(ctx, 40),
            _ => 0,
        };
    }
    match number {
        1 => register!(ctx, 112),
        2 => register!(ctx, 104),
        3 => register!(ctx, 96),
        4 => register!(ctx, 88),
        5 => register!(ctx, 72),
        6 => register!(ctx, 64),
        _ => 0,
    }
}

/// What a function returns.
#[inline(always)]
fn result(ctx: &impl EbpfContext) -> u64 {
    if ARM.load() != 0 { register!(ctx, 0) } else { register!(ctx, 80) }
}

/// Reads so many bytes of the kernel's text; 0, or why not.
#[inline(always)]
pub fn read_text(address: u64, length: u64) -> i32 {
    let Some(room) = TEXT.get_ptr_mut(0) else { return -1 };
    let length = length & (TEXT_SIZE as u64 - 1);
    // SAFETY: a value of a map, which is longer.
    unsafe { bpf_probe_read_kernel(room.cast(), length as u32, address as *const _) as i32 }
}
