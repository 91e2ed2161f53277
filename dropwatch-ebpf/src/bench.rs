//! What the benchmark compares the probe with: the least that can be attached, and the least that counts.
#![no_std]
#![no_main]

use aya_ebpf::{
    macros::{map, raw_tracepoint},
    maps::PerCpuArray,
    programs::RawTracePointContext,
};

/// One number for each CPU: the drops that `array` saw.
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Nothing: what it costs that the kernel calls a program at all.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn empty(_ctx: RawTracePointContext) -> i32 {
    0
}

/// One increment of a number that only this CPU writes.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn array(_ctx: RawTracePointContext) -> i32 {
    if let Some(drops) = DROPS.get_ptr_mut(0) {
        // SAFETY: the pointer is a value of a map, aligned to 8 and alive while the program runs.
        unsafe { *drops += 1 };
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
