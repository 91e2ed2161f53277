//! The types that the BPF program writes and user space reads.
//!
//! Both sides are compiled from this one crate, so a size or an offset cannot drift: what is asserted
//! here at compile time holds for the committed BPF object as well.
#![no_std]

pub mod cache;
pub mod chain;
pub mod event;
pub mod packet;
pub mod probe;
pub mod row;
pub mod rules;

/// What a row of the default report stands for: where a packet died, and why.
///
/// One address serves many reasons (`ip_rcv_finish_core` alone has eight on Linux 6.18), so the pair is
/// the key and not the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DropKey {
    /// The address after the call that freed the packet: the tracepoint's `location`.
    pub location: u64,
    /// The kernel's number for the reason; zero on kernels that give none.
    pub reason: u32,
    /// Keeps the bytes of the key defined: a map compares all of them. Always zero.
    pub pad: u32,
}

impl DropKey {
    /// A key with its padding in order.
    #[must_use]
    pub const fn new(location: u64, reason: u32) -> Self {
        Self { location, reason, pad: 0 }
    }
}

/// What the probe saw and could not count, as indices into the `LEDGER` map (one `u64` for each CPU).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The map had no room for another key (`E2BIG`).
    MapFull = 0,
    /// The kernel refused to insert a key for another cause (`EBUSY`, `ENOMEM`, a lock it could not take).
    UpdateFailed = 1,
    /// The call chain could not be read or kept; the drop is in a row without it.
    StackFailed = 2,
}

impl Loss {
    /// How many figures the ledger has.
    pub const COUNT: u32 = 3;
}

/// Names of the programs, maps and globals in the BPF object.
pub mod names {
    /// The program that counts by [`DropKey`](crate::DropKey), a raw tracepoint.
    pub const COUNT_DROP: &str = "count_drop";
    /// The program that counts by [`RowKey`](crate::row::RowKey), a raw tracepoint with types.
    pub const COUNT_ROW: &str = "count_row";
    /// Per-CPU array of one [`Cache`](crate::cache::Cache): what is counted before [`COUNTS`].
    pub const CACHE: &str = "CACHE";
    /// Per-CPU hash map: [`DropKey`](crate::DropKey) to the number of drops.
    pub const COUNTS: &str = "COUNTS";
    /// Array of one per-CPU hash map: [`RowKey`](crate::row::RowKey) to the number of drops.
    pub const ROWS: &str = "ROWS";
    /// Per-CPU array: [`Loss`](crate::Loss) to the number of drops lost that way.
    pub const LEDGER: &str = "LEDGER";
    /// Hash map: [`DeviceKey`](crate::chain::DeviceKey) to [`DeviceName`](crate::chain::DeviceName).
    pub const DEVICES: &str = "DEVICES";
    /// Hash map: a number to a [`Chain`](crate::chain::Chain).
    pub const CHAINS: &str = "CHAINS";
    /// Array of [`RangeSet`](crate::probe::RangeSet), by the set's number in the filter.
    pub const RANGES: &str = "RANGES";
    /// Global `u8`: 1 if the tracepoint has the `reason` argument (Linux 5.17 and some 5.15).
    pub const HAS_REASON: &str = "HAS_REASON";
    /// Global `u8`: 1 if the tracepoint has the `rx_sk` argument (Linux 6.11).
    pub const HAS_SOCK: &str = "HAS_SOCK";
    /// Global `u8`: 1 if a drop can interrupt the counting of another one on the same CPU.
    pub const NESTED: &str = "NESTED";
    /// Global `u8`: 1 if [`CACHE`] is used.
    pub const CACHED: &str = "CACHED";
    /// Global `u32`: bits of [`keys`](crate::probe::keys).
    pub const KEYS: &str = "KEYS";
    /// Global `u32`: bits of [`gather`](crate::probe::gather).
    pub const GATHER: &str = "GATHER";
    /// Global [`Offsets`](crate::probe::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// Global [`RuleTable`](crate::rules::RuleTable).
    pub const RULES: &str = "RULES";
    /// The program that puts drops with their packets into the ring buffer, a raw tracepoint with types.
    pub const TRACE_DROP: &str = "trace_drop";
    /// Ring buffer of [`DropEvent`](crate::event::DropEvent) and what follows them.
    pub const RING: &str = "RING";
    /// Per-CPU array: [`Unshown`](crate::event::Unshown) to the number of drops that are in no record.
    pub const UNSHOWN: &str = "UNSHOWN";
    /// Array of one [`RateState`](crate::event::RateState).
    pub const RATE_STATE: &str = "RATE_STATE";
    /// Global [`TraceOffsets`](crate::event::TraceOffsets).
    pub const TRACE_OFFSETS: &str = "TRACE_OFFSETS";
    /// Global `u32`: the most bytes of a frame that are captured.
    pub const SNAPLEN: &str = "SNAPLEN";
    /// Global `u32`: the most drops a second that are put into the ring buffer; 0 if there is no limit.
    pub const RATE: &str = "RATE";
    /// Global `u8`: 1 if call chains are asked for.
    pub const STACK: &str = "STACK";
    /// Global `u64`: the ring buffer's size.
    pub const RING_SIZE: &str = "RING_SIZE";
    /// Global `u8`: 1 if drops have to pass the rules.
    pub const FILTERED: &str = "FILTERED";
}

const _: () = assert!(size_of::<DropKey>() == 16 && align_of::<DropKey>() == 8);

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "a promise to aya that any bytes make a value")]
mod user {
    // SAFETY, of each: `repr(C)`, `Copy`, integers only and no padding (their sizes are asserted).
    unsafe impl aya::Pod for super::DropKey {}
    unsafe impl aya::Pod for super::cache::Cache {}
    unsafe impl aya::Pod for super::row::RowKey {}
    unsafe impl aya::Pod for super::chain::Chain {}
    unsafe impl aya::Pod for super::chain::DeviceKey {}
    unsafe impl aya::Pod for super::probe::Offsets {}
    unsafe impl aya::Pod for super::probe::RangeSet {}
    unsafe impl aya::Pod for super::event::TraceOffsets {}
    unsafe impl aya::Pod for super::event::RateState {}
    // SAFETY: as above; every padding is a field.
    unsafe impl aya::Pod for super::rules::Rule {}
    // SAFETY: an array of the above.
    unsafe impl aya::Pod for super::rules::RuleTable {}
}
