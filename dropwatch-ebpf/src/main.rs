//! The probe: counts the packets the kernel drops, by where and why.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod chain;
mod count;
mod drop;
mod event;
mod filter;
mod maps;
mod rate;
mod rows;
mod skb;

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use dropwatch_common::DropKey;

/// `skb:kfree_skb`: `(skb, location[, reason[, rx_sk]])`.
///
/// A raw tracepoint needs neither tracefs nor BTF, and unlike the perf-based program type it does not
/// skip events while somebody on this CPU is inside a map system call.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn count_drop(ctx: RawTracePointContext) -> i32 {
    let location: u64 = ctx.arg(1);
    // The verifier knows the global's value and removes the branch: a program that could read an argument
    // the tracepoint lacks would be refused at attach.
    let reason: u32 = if maps::HAS_REASON.load() != 0 { ctx.arg(2) } else { 0 };
    count::count(&ctx, &DropKey::new(location, reason));
    0
}

/// The same tracepoint with typed arguments: what is asked for beyond location and reason is loaded through them.
#[btf_tracepoint(function = "kfree_skb")]
pub fn count_row(ctx: BtfTracePointContext) -> i32 {
    let mut drop = drop::Drop::new();
    drop.gather(&ctx);
    if filter::passes(&drop.facts) {
        rows::count(&ctx, &mut drop);
    }
    0
}

/// The same again: drops with their packets, for a reader.
#[btf_tracepoint(function = "kfree_skb")]
pub fn trace_drop(ctx: BtfTracePointContext) -> i32 {
    let mut drop = drop::Drop::new();
    drop.gather(&ctx);
    if filter::passes(&drop.facts) {
        event::record(&ctx, &drop);
    }
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
