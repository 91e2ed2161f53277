//! The probe: counts the packets the kernel drops, by where and why.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod caller;
mod chain;
mod count;
mod dig;
mod drop;
mod event;
mod filter;
mod kind;
mod link;
mod maps;
mod names;
mod open_sockets;
mod processes;
mod rate;
mod rows;
mod sample;
mod skb;
mod socket;

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, kprobe, kretprobe, raw_tracepoint},
    programs::{BtfTracePointContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use dropwatch_common::{DropKey, kind::UNICAST};

/// `skb:kfree_skb`: `(skb, location[, reason[, rx_sk]])`.
///
/// A raw tracepoint needs neither tracefs nor BTF, and unlike the perf-based program type it does not
/// skip events while a task on this CPU is inside a map system call.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn count_drop(ctx: RawTracePointContext) -> i32 {
    let location = caller::location(&ctx, ctx.arg(1));
    // The verifier knows the global's value and removes the branch: a program that could read an argument
    // the tracepoint lacks would be refused at attach.
    let reason: u32 = if maps::HAS_REASON.load() != 0 { ctx.arg(2) } else { 0 };
    count::count(&ctx, &DropKey { location, reason, kind: UNICAST.into() });
    0
}

/// The same tracepoint with typed arguments, through which the kind of a packet is read without a call.
///
/// Inlined into the entry that the macro makes: the name of a function of its own has a hash of the directory that it was
/// built in, and two builds would differ.
#[btf_tracepoint(function = "kfree_skb")]
#[inline(always)]
pub fn count_kind(ctx: BtfTracePointContext) -> i32 {
    let location = caller::location(&ctx, ctx.arg(1));
    let reason: u32 = if maps::HAS_REASON.load() != 0 { ctx.arg(2) } else { 0 };
    let kind = kind::of(ctx.arg(0), reason);
    count::count(&ctx, &DropKey { location, reason, kind: kind.into() });
    0
}

/// The same: everything beyond location and reason is loaded through the arguments.
///
/// Inlined, as [`count_kind`] is.
#[btf_tracepoint(function = "kfree_skb")]
#[inline(always)]
pub fn count_row(ctx: BtfTracePointContext) -> i32 {
    let location = caller::location(&ctx, ctx.arg(1));
    // Each part has its own row, so that the stack has room for one at a time.
    if rows::count_plain(&ctx, location) {
        return 0;
    }
    let mut drop = drop::Drop::new();
    drop.gather_at::<false>(&ctx, location);
    if filter::passes(&mut drop) {
        drop::show_namespace(&drop.facts);
        rows::count(&ctx, &drop, socket::NONE);
    }
    0
}

/// The same for rows that stand for sockets, with the maps that only they need.
///
/// Inlined, as [`count_row`] is.
#[btf_tracepoint(function = "kfree_skb")]
#[inline(always)]
pub fn count_socket_row(ctx: BtfTracePointContext) -> i32 {
    let mut drop = drop::Drop::new();
    drop.gather::<false>(&ctx);
    if filter::passes(&mut drop) {
        drop::show_namespace(&drop.facts);
        let socket = socket::number(&ctx);
        rows::count(&ctx, &drop, socket);
    }
    0
}

/// The same again: drops with their packets, for a reader.
///
/// Inlined, as [`count_kind`] is.
#[btf_tracepoint(function = "kfree_skb")]
#[inline(always)]
pub fn trace_drop(ctx: BtfTracePointContext) -> i32 {
    let mut drop = drop::Drop::new();
    drop.gather::<true>(&ctx);
    if filter::passes(&mut drop) {
        drop::show_namespace(&drop.facts);
        event::record::<{ event::PACKET }>(&ctx, &mut drop);
    }
    0
}

/// The same with the sockets that packets belong to, and the maps that only they need.
///
/// Inlined, as [`count_kind`] is.
#[btf_tracepoint(function = "kfree_skb")]
#[inline(always)]
pub fn trace_socket_drop(ctx: BtfTracePointContext) -> i32 {
    let mut drop = drop::Drop::new();
    drop.gather::<true>(&ctx);
    if filter::passes(&mut drop) {
        drop::show_namespace(&drop.facts);
        event::record::<{ event::PACKET_AND_SOCKET }>(&ctx, &mut drop);
    }
    0
}

/// The same once more: a few drops of each kind, with all that may show their cause.
///
/// Inlined, as [`count_kind`] is.
#[btf_tracepoint(function = "kfree_skb")]
#[inline(always)]
pub fn sample_drop(ctx: BtfTracePointContext) -> i32 {
    let location = caller::location(&ctx, ctx.arg(1));
    let reason: u32 = if maps::HAS_REASON.load() != 0 { ctx.arg(2) } else { 0 };
    if !sample::is_wanted(location, reason) {
        return 0;
    }
    let mut drop = drop::Drop::new();
    drop.gather::<false>(&ctx);
    if filter::passes(&mut drop) {
        sample::take(&ctx, &drop);
    }
    0
}

/// As [`trace_drop`], and marks the walk that the drop is in.
///
/// Inlined, as [`count_kind`] is.
#[btf_tracepoint(function = "kfree_skb")]
#[inline(always)]
pub fn dig_drop(ctx: BtfTracePointContext) -> i32 {
    let mut drop = drop::Drop::new();
    drop.gather::<true>(&ctx);
    if filter::passes(&mut drop) {
        drop::show_namespace(&drop.facts);
        let location = drop.facts.location;
        if let Some(time) = event::record::<{ event::PACKET }>(&ctx, &mut drop) {
            dig::mark(ctx.arg(0), location, time);
        }
    }
    0
}

/// The start of each function that `dig` follows.
///
/// Inlined, as [`count_kind`] is.
#[kprobe]
#[inline(always)]
pub fn dig_call(ctx: ProbeContext) -> u32 {
    dig::call(&ctx);
    0
}

/// The end of each function that `dig` follows.
///
/// Inlined, as [`count_kind`] is.
#[kretprobe]
#[inline(always)]
pub fn dig_return(ctx: RetProbeContext) -> u32 {
    dig::returned(&ctx);
    0
}

/// Both ends of each, where the kernel runs one program for them.
///
/// Without the attribute of other programs at functions, which have nothing to answer: those return 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "kprobe")]
pub extern "C" fn dig_session(context: *mut c_void) -> u32 {
    dig::session(&ProbeContext::new(context))
}

/// Reads a part of the kernel's text: user space runs it with an address and a length.
///
/// Inlined, as [`count_kind`] is.
#[raw_tracepoint(tracepoint = "kfree_skb")]
#[inline(always)]
pub fn read_text(ctx: RawTracePointContext) -> i32 {
    dig::read_text(ctx.arg(0), ctx.arg(1))
}

/// The sockets that processes have open: user space reads them as a file.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn list_sockets(context: *const open_sockets::TaskFile) -> i32 {
    open_sockets::list(context);
    0
}

/// The processes that there are: user space reads them as a file.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn list_processes(context: *const processes::Task) -> i32 {
    processes::list(context);
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
