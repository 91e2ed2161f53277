//! The types that the BPF program writes and user space reads.
//!
//! Both sides are compiled from this one crate, so a size or an offset cannot drift: what is asserted
//! here at compile time holds for the committed BPF object as well.
#![no_std]

pub mod bucket;
pub mod cache;
pub mod chain;
pub mod dig;
pub mod event;
pub mod kind;
pub mod packet;
pub mod probe;
pub mod program;
pub mod row;
pub mod sample;
pub mod socket;
pub mod trampoline;

/// What a row of the default report stands for: where a packet died, and why; and what its class depends on.
///
/// One address serves many reasons (`ip_rcv_finish_core` alone has eight on Linux 6.18), so the pair is
/// the key and not the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct DropKey {
    /// The address after the call that freed the packet: the tracepoint's `location`.
    pub location: u64,
    /// The kernel's number for the reason; zero on kernels that give none.
    pub reason: u32,
    /// Whom the packets were for, of those kinds that a class depends on: one of [`kind`].
    pub kind: u32,
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
    /// The packet's headers are needed but lie outside its linear part, where they are not read.
    HeadersUnreadable = 3,
    /// The alternative names of the interface are needed and could not all be read.
    NamesUnreadable = 4,
    /// The socket could not be kept; the drop is in a row without it.
    SocketFailed = 5,
}

impl Loss {
    /// How many figures the ledger has.
    pub const COUNT: u32 = 6;
}

/// Names of the programs, maps and globals in the BPF object.
pub mod names {
    /// The program that counts by [`DropKey`](crate::DropKey), a raw tracepoint.
    pub const COUNT_DROP: &str = "count_drop";
    /// The same with types, which tell kinds of packets apart.
    pub const COUNT_KIND: &str = "count_kind";
    /// The program that counts by [`RowKey`](crate::row::RowKey), a raw tracepoint with types.
    pub const COUNT_ROW: &str = "count_row";
    /// The same, for rows that stand for sockets.
    pub const COUNT_SOCKET_ROW: &str = "count_socket_row";
    /// The program that lists every [`OpenSocket`](crate::socket::OpenSocket), an iterator over the files of tasks.
    pub const LIST_SOCKETS: &str = "list_sockets";
    /// The program that lists every [`ListedProcess`](crate::socket::ListedProcess), an iterator over tasks.
    pub const LIST_PROCESSES: &str = "list_processes";
    /// Hash map: [`SocketKey`](crate::socket::SocketKey) to [`SocketSeen`](crate::socket::SocketSeen).
    pub const SOCKETS: &str = "SOCKETS";
    /// Ring buffer of the inode numbers, `u64`, of sockets that are new in [`SOCKETS`].
    pub const SOCKET_BELL: &str = "SOCKET_BELL";
    /// Global [`SocketOffsets`](crate::socket::SocketOffsets).
    pub const SOCKET_OFFSETS: &str = "SOCKET_OFFSETS";
    /// Per-CPU array of one [`Cache`](crate::cache::Cache): what is counted before [`COUNTS`].
    pub const CACHE: &str = "CACHE";
    /// Per-CPU hash map: [`DropKey`](crate::DropKey) to the number of drops.
    pub const COUNTS: &str = "COUNTS";
    /// Array of a per-CPU hash map for each generation: the [`KeyWords`](crate::row::KeyWords) of a row to the number of drops.
    pub const ROWS: &str = "ROWS";
    /// Array that is mapped into memory: a [`Bucket`](crate::bucket::Bucket) of rows by CPU, generation and hash, in front of
    /// [`ROWS`].
    pub const BUCKETS: &str = "BUCKETS";
    /// Global `u32`: how many of them a CPU has for a generation; 0 if they are not used.
    pub const BUCKET_COUNT: &str = "BUCKET_COUNT";
    /// Global `u32`: the [`KeyWords`](crate::row::KeyWords) of rows.
    pub const KEY_WORDS: &str = "KEY_WORDS";
    /// Global `u32`: how many these are.
    pub const KEY_LENGTH: &str = "KEY_LENGTH";
    /// Global [`PlainKeys`](crate::row::PlainKeys).
    pub const PLAIN: &str = "PLAIN";
    /// Array of one: the number of the generation that counts.
    pub const GENERATION: &str = "GENERATION";
    /// Per-CPU array: [`Loss`](crate::Loss) to the number of drops lost that way.
    pub const LEDGER: &str = "LEDGER";
    /// Array of a hash map for each generation: a number to a [`Chain`](crate::chain::Chain).
    pub const CHAINS: &str = "CHAINS";
    /// Hash map: what a network namespace is known by to whether user space knows its names, 0 or 1.
    pub const NAMESPACES: &str = "NAMESPACES";
    /// Hash map: a [`LongName`](crate::chain::LongName) to its [`NameBits`](crate::probe::NameBits).
    pub const INTERFACES: &str = "INTERFACES";
    /// Array of one [`Trampolines`](crate::trampoline::Trampolines), a section of data.
    pub const TRAMPOLINES: &str = ".data.trampolines";
    /// Array of [`RangeSet`](crate::probe::RangeSet), by the set's number in the filter.
    pub const RANGES: &str = "RANGES";
    /// Global `u8`: 1 if the tracepoint has the `reason` argument (Linux 5.17 and some 5.15).
    pub const HAS_REASON: &str = "HAS_REASON";
    /// Global `u8`: 1 if the tracepoint has the `rx_sk` argument (Linux 6.11).
    pub const HAS_SOCK: &str = "HAS_SOCK";
    /// Global `u8`: 1 if a drop can interrupt the counting of another one on the same CPU.
    pub const NESTED: &str = "NESTED";
    /// Global [`KindReasons`](crate::probe::KindReasons).
    pub const KIND_REASONS: &str = "KIND_REASONS";
    /// Global `u8`: 1 if [`CACHE`] is used.
    pub const CACHED: &str = "CACHED";
    /// Global `u32`: bits of [`keys`](crate::probe::keys).
    pub const KEYS: &str = "KEYS";
    /// Global `u32`: bits of [`gather`](crate::probe::gather).
    pub const GATHER: &str = "GATHER";
    /// Global [`Offsets`](crate::probe::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// The number that a call has in place of that of `bpf_rdonly_cast`, which is different on each kernel.
    pub const CAST: i32 = 0x6472_7774;
    /// Global `u8`: 1 if the kernel has it, and takes any address.
    pub const CASTS: &str = "CASTS";
    /// The function that decides whether a drop passes, in whose place the filter's own is put.
    pub const DECIDE: &str = "decide";
    /// Global `u32`: all [`Cases`](crate::program::Cases) of the filter, as bits; 0 if the kernel decides alone.
    pub const CASES: &str = "CASES";
    /// Hash map: a [`DropKey`](crate::DropKey) of kind 0 to the [`Cases`](crate::program::Cases) that it can be, as bits.
    pub const POSSIBLE: &str = "POSSIBLE";
    /// The program that puts drops with their packets into the ring buffer, a raw tracepoint with types.
    pub const TRACE_DROP: &str = "trace_drop";
    /// The same, with the socket that a packet belongs to.
    pub const TRACE_SOCKET_DROP: &str = "trace_socket_drop";
    /// The program that puts a few drops of each kind into [`RING`], a raw tracepoint with types.
    pub const SAMPLE_DROP: &str = "sample_drop";
    /// Hash map: [`DropKey`](crate::DropKey) to the number of the interval in which drops of it were taken last, in the high
    /// half, and how many were.
    pub const SAMPLED: &str = "SAMPLED";
    /// Array of one `u32`: the number of the interval.
    pub const SAMPLE_INTERVAL: &str = "SAMPLE_INTERVAL";
    /// Global `u32`: the most samples of a location and a reason in an interval.
    pub const SAMPLE_QUOTA: &str = "SAMPLE_QUOTA";
    /// Global [`SampleOffsets`](crate::sample::SampleOffsets).
    pub const SAMPLE_OFFSETS: &str = "SAMPLE_OFFSETS";
    /// Ring buffer of [`DropEvent`](crate::event::DropEvent) and what follows them.
    pub const RING: &str = "RING";
    /// Per-CPU array: [`LeftOut`](crate::event::LeftOut) to the number of drops that are in no record.
    pub const LEFT_OUT: &str = "LEFT_OUT";
    /// Array of one [`RateState`](crate::event::RateState).
    pub const RATE_STATE: &str = "RATE_STATE";
    /// Global [`TraceOffsets`](crate::event::TraceOffsets).
    pub const TRACE_OFFSETS: &str = "TRACE_OFFSETS";
    /// Global `u32`: the most bytes of a frame that are captured.
    pub const SNAPLEN: &str = "SNAPLEN";
    /// Global `u32`: the most drops a second that are put into the ring buffer; 0 if there is no limit.
    pub const RATE: &str = "RATE";
    /// Global `u8`: 1 if call chains are recorded.
    pub const STACK: &str = "STACK";
    /// Global `u64`: the ring buffer's size.
    pub const RING_SIZE: &str = "RING_SIZE";
    /// Global `u8`: 1 if drops have to pass [`DECIDE`].
    pub const FILTERED: &str = "FILTERED";
    /// The program of `dig` at the tracepoint: as [`TRACE_DROP`], and marks the walk that a drop is in.
    pub const DIG_DROP: &str = "dig_drop";
    /// The program of `dig` where functions are called.
    pub const DIG_CALL: &str = "dig_call";
    /// The program of `dig` where functions return.
    pub const DIG_RETURN: &str = "dig_return";
    /// The program of `dig` for both, on kernels that run one at both ends of a function.
    pub const DIG_SESSION: &str = "dig_session";
    /// The function that says at which of them [`DIG_SESSION`] is, in whose place a call of the kernel's own is put.
    pub const IS_RETURN: &str = "is_return";
    /// The program that reads the kernel's text, a raw tracepoint that is only run on request.
    pub const READ_TEXT: &str = "read_text";
    /// Array of one, [`TEXT`](crate::dig::TEXT) bytes: what it has read.
    pub const TEXT: &str = "TEXT";
    /// Array: the place of a task to what is there while it is in a walk, see [`walker`](crate::dig::walker); 0 if none is.
    pub const WALKERS: &str = "WALKERS";
    /// Array: the number of a [`Walk`](crate::dig::Walk) to the task that has it; 0 if none has.
    pub const HOLDERS: &str = "HOLDERS";
    /// Per-CPU array of `u64`, by [`Counted`](crate::dig::Counted).
    pub const WALK_COUNTS: &str = "WALK_COUNTS";
    /// Ring buffer of [`Walk`](crate::dig::Walk), of packets that match.
    pub const DUG: &str = "DUG";
    /// Array of one `u64`: where a drop must be for its walk to be handed over; 0 if none is to be.
    pub const DIG_PLACE: &str = "DIG_PLACE";
    /// Global `u8`: 1 on arm64.
    pub const ARM: &str = "ARM";
}

const _: () = assert!(size_of::<DropKey>() == 16 && align_of::<DropKey>() == 8);

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "a promise to aya that any bytes make a value")]
mod user {
    /// `bytemuck` proves that any bytes make a value and that none of them is padding; aya has a trait of its own.
    macro_rules! pod {
        ($($name:path),* $(,)?) => {$(
            // SAFETY: the bound of `proved`.
            unsafe impl aya::Pod for $name {}
            const _: () = proved::<$name>();
        )*};
    }

    const fn proved<T: bytemuck::Pod>() {}

    pod!(
        super::DropKey,
        super::cache::Cache,
        super::row::RowKey,
        super::row::PlainKeys,
        super::chain::Chain,
        super::dig::Step,
        super::dig::WalkHead,
        super::probe::Offsets,
        super::probe::RangeSet,
        super::probe::KindReasons,
        super::probe::NameBits,
        super::event::TraceOffsets,
        super::event::RateState,
        super::program::Insn,
        super::program::Cases,
        super::socket::SocketKey,
        super::socket::SocketSeen,
        super::socket::SocketOffsets,
        super::socket::OpenSocket,
        super::socket::ListedProcess,
        super::trampoline::Trampolines,
        super::sample::Sample,
        super::sample::SocketView,
        super::sample::SampleOffsets,
    );
}
