//! The maps and the constants that user space fills in before the program is loaded.

use aya_ebpf::{
    Global,
    btf_maps::{ArrayOfMaps, PerCpuHashMap as InnerPerCpuHashMap},
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use dropwatch_common::{
    DropKey, Loss,
    cache::Cache,
    chain::{Chain, DeviceKey, DeviceName},
    event::{RateState, TraceOffsets, Unshown},
    probe::{Offsets, RangeSet},
    row::RowKey,
    rules::{MAX_RULES, Rule, RuleTable},
};

/// Drops by the keys that came first.
#[map]
pub static CACHE: PerCpuArray<Cache> = PerCpuArray::with_max_entries(1, 0);

/// Drops by key. User space sets the real size; the default is what `--max-rows` defaults to.
#[map]
pub static COUNTS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::with_max_entries(16384, 0);

/// Drops that were seen and are in no row, by [`Loss`].
#[map]
pub static LEDGER: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// What [`ROWS`] refers to. User space makes the real ones, of the size asked for.
pub type Rows = InnerPerCpuHashMap<RowKey, u64, 1>;

/// Drops by the keys of a row, one map inside: user space puts a fresh one there and reads the old one to its
/// end, so that keys which come and go do not fill it for good.
#[btf_map]
pub static ROWS: ArrayOfMaps<Rows, 1> = ArrayOfMaps::new();

/// The names of interfaces as they were when a row first needed them.
#[map]
pub static DEVICES: HashMap<DeviceKey, DeviceName> = HashMap::with_max_entries(1, 0);

/// Call chains by number.
#[map]
pub static CHAINS: HashMap<u64, Chain> = HashMap::with_max_entries(1, 0);

/// Where a chain is put together, one for each level at which a drop can interrupt another.
#[map]
pub static CHAIN_ROOM: PerCpuArray<Chain> = PerCpuArray::with_max_entries(CHAIN_LEVELS, 0);

/// How many of them are in use on this CPU.
#[map]
pub static CHAIN_LEVEL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A task, a softirq, a hardirq and an NMI.
pub const CHAIN_LEVELS: u32 = 4;

/// 1 if the tracepoint has a `reason` argument.
#[unsafe(no_mangle)]
pub static HAS_REASON: Global<u8> = Global::new(1);

/// 1 if the tracepoint has an `rx_sk` argument.
#[unsafe(no_mangle)]
pub static HAS_SOCK: Global<u8> = Global::new(1);

/// 1 if the kernel lets a drop interrupt this very program on the same CPU (before Linux 6.1).
#[unsafe(no_mangle)]
pub static NESTED: Global<u8> = Global::new(1);

/// 1 if [`CACHE`] is used.
#[unsafe(no_mangle)]
pub static CACHED: Global<u8> = Global::new(0);

/// What a row is counted by: bits of [`dropwatch_common::probe::keys`].
#[unsafe(no_mangle)]
pub static KEYS: Global<u32> = Global::new(0);

/// What is gathered about a drop: bits of [`dropwatch_common::probe::gather`].
#[unsafe(no_mangle)]
pub static GATHER: Global<u32> = Global::new(0);

/// The values that the filter's locations and reasons mean.
#[map]
pub static RANGES: Array<RangeSet> = Array::with_max_entries(1, 0);

/// 1 if drops have to pass [`RULES`].
#[unsafe(no_mangle)]
pub static FILTERED: Global<u8> = Global::new(0);

/// What drops have to pass.
#[unsafe(no_mangle)]
pub static RULES: Frozen<RuleTable> =
    Frozen(RuleTable([Rule { value: [0; 2], mask: [0; 2], head: 0, pad: 0 }; MAX_RULES]));

/// Where the running kernel keeps what is read.
#[unsafe(no_mangle)]
pub static OFFSETS: Frozen<Offsets> = Frozen(Offsets {
    skb_dev: 0,
    skb_dst: 0,
    skb_sk: 0,
    skb_iif: 0,
    skb_protocol: 0,
    skb_network_header: 0,
    skb_mac_header: 0,
    skb_tail: 0,
    skb_head: 0,
    skb_data: 0,
    skb_len: 0,
    device_name: 0,
    device_ifindex: 0,
    device_net: 0,
    device_index_node: 0,
    net_inum: 0,
    net_index_table: 0,
    dst_dev: 0,
    sock_net: 0,
});

/// Drops with their packets. User space sets the real size; what does not trace takes a page.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Drops that are in no record, by [`Unshown`].
#[map]
pub static UNSHOWN: PerCpuArray<u64> = PerCpuArray::with_max_entries(Unshown::COUNT, 0);

/// What `--rate` has taken, and is to take.
#[map]
pub static RATE_STATE: Array<RateState> = Array::with_max_entries(1, 0);

/// The most drops a second that are put into [`RING`]; 0 if there is no limit.
#[unsafe(no_mangle)]
pub static RATE: Global<u32> = Global::new(0);

/// The most bytes of a frame that are captured.
#[unsafe(no_mangle)]
pub static SNAPLEN: Global<u32> = Global::new(0);

/// 1 if call chains are asked for.
#[unsafe(no_mangle)]
pub static STACK: Global<u8> = Global::new(0);

/// The size of [`RING`].
#[unsafe(no_mangle)]
pub static RING_SIZE: Global<u64> = Global::new(4096);

/// Where the running kernel keeps what only records of packets need.
#[unsafe(no_mangle)]
pub static TRACE_OFFSETS: Frozen<TraceOffsets> = Frozen(TraceOffsets {
    skb_vlan_proto: 0,
    skb_vlan_tci: 0,
    skb_vlan_present: 0,
    vlan_present_mask: 0,
    device_type: 0,
});

/// A constant that user space fills in, read field by field: a whole one would be copied to the stack.
#[repr(transparent)]
pub struct Frozen<T>(T);

impl<T> Frozen<T> {
    /// Where it is. What is there must be read with [`ptr::read_volatile`], or the compiler takes the value that
    /// stands in the source.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *const T {
        &raw const self.0
    }
}

/// An offset of [`OFFSETS`].
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a field of a static.
        unsafe { core::ptr::read_volatile(&raw const (*$crate::maps::OFFSETS.as_ptr()).$field) }
    };
}
pub(crate) use offset;

/// An offset of [`TRACE_OFFSETS`].
macro_rules! trace_offset {
    ($field:ident) => {
        // SAFETY: a field of a static.
        unsafe { core::ptr::read_volatile(&raw const (*$crate::maps::TRACE_OFFSETS.as_ptr()).$field) }
    };
}
pub(crate) use trace_offset;

/// Whether any of these bits are in a constant.
#[inline(always)]
pub fn any(constant: &Global<u32>, bits: u32) -> bool {
    constant.load() & bits != 0
}
