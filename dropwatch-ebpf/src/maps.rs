//! The maps and the constants that user space fills in before the program is loaded.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{PerCpuArray, PerCpuHashMap},
};
use dropwatch_common::{DropKey, Loss};

/// Drops by key. User space sets the real size; the default is what `--max-rows` defaults to.
#[map]
pub static COUNTS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::with_max_entries(16384, 0);

/// Drops that were seen and are in no row, by [`Loss`].
#[map]
pub static LEDGER: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// 1 if the tracepoint has a `reason` argument.
#[unsafe(no_mangle)]
pub static HAS_REASON: Global<u8> = Global::new(1);

/// 1 if the kernel lets a drop interrupt this very program on the same CPU (before Linux 6.1).
#[unsafe(no_mangle)]
pub static NESTED: Global<u8> = Global::new(1);
