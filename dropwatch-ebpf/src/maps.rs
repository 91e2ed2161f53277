//! The maps and the constants that user space fills in before the program is loaded.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{ArrayOfMaps, HashMap as InnerHashMap, PerCpuHashMap as InnerPerCpuHashMap},
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use dropwatch_common::{
    DropKey, Loss,
    bucket::Bucket,
    cache::Cache,
    chain::{Chain, LongName},
    dig::{Counted, TEXT as TEXT_SIZE, WALKERS as PLACES, WALKS as WALK_COUNT, Walk},
    event::{LeftOut, RateState, TraceOffsets},
    probe::{KindReasons, NameBits, Offsets, RangeSet},
    row::{GENERATIONS, PlainKeys, RowKey, word},
    sample::SampleOffsets,
    socket::{SocketKey, SocketOffsets, SocketSeen},
};

use crate::socket::Room;

/// Drops by the keys that came first.
#[map]
pub static CACHE: PerCpuArray<Cache> = PerCpuArray::with_max_entries(1, 0);

/// Drops by key. User space sets the real size; the default is what `--max-rows` defaults to.
#[map]
pub static COUNTS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::with_max_entries(16384, 0);

/// Drops that were seen and are in no row, by [`Loss`].
#[map]
pub static LEDGER: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// What [`ROWS`] refers to. User space makes the real ones, of the requested size.
pub type Rows = InnerPerCpuHashMap<RowKey, u64, 1>;

/// What [`CHAINS`] refers to; the same holds for its size.
pub type Chains = InnerHashMap<u64, Chain, 1>;

/// Drops by the keys of a row, a map for each generation: user space begins the other one with fresh maps and reads
/// the old ones to their end, so that keys which come and go do not fill them for good.
#[btf_map]
pub static ROWS: ArrayOfMaps<Rows, GENERATIONS> = ArrayOfMaps::new();

/// Drops by the keys of the rows that came first in a generation, for each CPU. User space, which
/// maps it into its memory, sets the real size.
#[map]
pub static BUCKETS: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How many of [`BUCKETS`] a CPU has for a generation; 0 if they are not used.
#[unsafe(no_mangle)]
pub static BUCKET_COUNT: Global<u32> = Global::new(0);

/// Which words of a key are kept.
#[unsafe(no_mangle)]
pub static KEY_WORDS: Global<u32> = Global::new((1 << word::COUNT) - 1);

/// How many these are.
#[unsafe(no_mangle)]
pub static KEY_LENGTH: Global<u32> = Global::new(word::COUNT as u32);

/// What the keys of plain packets have, if these are counted without any detour.
#[unsafe(no_mangle)]
pub static PLAIN: Frozen<PlainKeys> = Frozen(PlainKeys { are_told: 0, known: 0, reason: 0, packet: 0 });

/// The call chains that the rows of the same generation refer to, by number.
#[btf_map]
pub static CHAINS: ArrayOfMaps<Chains, GENERATIONS> = ArrayOfMaps::new();

/// Which generation counts.
#[map]
pub static GENERATION: Array<u32> = Array::with_max_entries(1, 0);

/// Where a chain is put together, one for each level at which a drop can interrupt another.
#[map]
pub static CHAIN_ROOM: PerCpuArray<Chain> = PerCpuArray::with_max_entries(CHAIN_LEVELS, 0);

/// How many of them are in use on this CPU.
#[map]
pub static CHAIN_LEVEL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The names of interfaces that the filter and the rules have.
#[map]
pub static INTERFACES: HashMap<LongName, NameBits> = HashMap::with_max_entries(1, 0);

/// Where a name is read, one for each level as in [`CHAIN_ROOM`].
#[map]
pub static NAME_ROOM: PerCpuArray<LongName> = PerCpuArray::with_max_entries(CHAIN_LEVELS, 0);

/// Sockets that dropped packets belong to. User space sets the real size.
#[map]
pub static SOCKETS: HashMap<SocketKey, SocketSeen> = HashMap::with_max_entries(1, 0);

/// Wakes user space for a new socket, by the number of its inode.
#[map]
pub static SOCKET_BELL: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Where a socket is put together, one for each level, as for chains.
#[map]
pub static SOCKET_ROOM: PerCpuArray<Room> = PerCpuArray::with_max_entries(SOCKET_LEVELS, 0);

/// How many of them are in use on this CPU.
#[map]
pub static SOCKET_LEVEL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// As for chains.
pub const SOCKET_LEVELS: u32 = CHAIN_LEVELS;

/// A task, a softirq, a hardirq and an NMI.
pub const CHAIN_LEVELS: u32 = 4;

/// 1 if the tracepoint has a `reason` argument.
#[unsafe(no_mangle)]
pub static HAS_REASON: Global<u8> = Global::new(1);

/// 1 if the tracepoint has an `rx_sk` argument.
#[unsafe(no_mangle)]
pub static HAS_SOCK: Global<u8> = Global::new(1);

/// 1 if a drop can interrupt this program on the same CPU (before Linux 6.1).
#[unsafe(no_mangle)]
pub static NESTED: Global<u8> = Global::new(1);

/// 1 if [`CACHE`] is used.
#[unsafe(no_mangle)]
pub static CACHED: Global<u8> = Global::new(0);

/// 1 if the kernel makes pointers of addresses, through which loads cannot fault (since Linux 6.17).
#[unsafe(no_mangle)]
pub static CASTS: Global<u8> = Global::new(0);

/// With which reasons it matters whom a packet was for.
#[unsafe(no_mangle)]
pub static KIND_REASONS: Frozen<KindReasons> = Frozen(KindReasons([0; 4]));

/// Network namespaces that drops were seen in: whether user space has looked which names each has.
#[map]
pub static NAMESPACES: HashMap<u64, u64> = HashMap::with_max_entries(1, 0);

/// What a row is counted by: bits of [`dropwatch_common::probe::keys`].
#[unsafe(no_mangle)]
pub static KEYS: Global<u32> = Global::new(0);

/// What is gathered about a drop: bits of [`dropwatch_common::probe::gather`].
#[unsafe(no_mangle)]
pub static GATHER: Global<u32> = Global::new(0);

/// The values that the filter's locations and reasons mean. Only the filter's own code refers to it.
#[map]
pub static RANGES: Array<RangeSet> = Array::with_max_entries(1, 0);

/// 1 if drops have to pass the filter.
#[unsafe(no_mangle)]
pub static FILTERED: Global<u8> = Global::new(0);

/// All cases of the filter, as bits; 0 if the kernel decides alone.
#[unsafe(no_mangle)]
pub static CASES: Global<u32> = Global::new(0);

/// Which cases drops can be, as far as user space has found out. User space sets the real size.
#[map]
pub static POSSIBLE: HashMap<DropKey, u64> = HashMap::with_max_entries(1, 0);

/// Where the running kernel keeps what is read.
#[unsafe(no_mangle)]
pub static OFFSETS: Frozen<Offsets> = Frozen(Offsets {
    skb_dev: 0,
    skb_dst: 0,
    skb_sk: 0,
    skb_iif: 0,
    skb_pkt_type: 0,
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
    device_name_node: 0,
    name_list: 0,
    name_device: 0,
    name_text: 0,
    net_inum: 0,
    net_cookie: 0,
    net_index_table: 0,
    dst_dev: 0,
    sock_net: 0,
});

/// Drops with their packets. User space sets the real size; what does not trace takes a page.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Drops that are in no record, by [`LeftOut`].
#[map]
pub static LEFT_OUT: PerCpuArray<u64> = PerCpuArray::with_max_entries(LeftOut::COUNT, 0);

/// What `--rate` has taken, and is to take.
#[map]
pub static RATE_STATE: Array<RateState> = Array::with_max_entries(1, 0);

/// The most drops a second that are put into [`RING`]; 0 if there is no limit.
#[unsafe(no_mangle)]
pub static RATE: Global<u32> = Global::new(0);

/// The most bytes of a frame that are captured.
#[unsafe(no_mangle)]
pub static SNAPLEN: Global<u32> = Global::new(0);

/// 1 if call chains are recorded.
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

/// How many drops of a location and a reason were taken as samples in which interval.
#[map]
pub static SAMPLED: HashMap<DropKey, u64> = HashMap::with_max_entries(4096, 0);

/// The number of the interval, which user space raises at each report.
#[map]
pub static SAMPLE_INTERVAL: Array<u32> = Array::with_max_entries(1, 0);

/// The most samples of a location and a reason in an interval.
#[unsafe(no_mangle)]
pub static SAMPLE_QUOTA: Global<u32> = Global::new(1);

/// Where the running kernel keeps what only samples need.
#[unsafe(no_mangle)]
pub static SAMPLE_OFFSETS: Frozen<SampleOffsets> = Frozen(SampleOffsets {
    skb_mark: 0,
    skb_queue: 0,
    sock_filter: 0,
    filter_prog: 0,
    prog_aux: 0,
    aux_id: 0,
    aux_name: 0,
    cgroup_effective: 0,
    array_items: 0,
    item_size: 0,
});

/// What tasks are doing below a root.
#[map]
pub static WALKS: Array<Walk> = Array::with_max_entries(WALK_COUNT, 0);

/// The task that has each of them; 0 if none has.
#[map]
pub static HOLDERS: Array<u64> = Array::with_max_entries(WALK_COUNT, 0);

/// Which of them a task has, in a place that depends on the task; 0 if none has one there.
#[map]
pub static WALKERS: Array<u64> = Array::with_max_entries(PLACES, 0);

/// How many walks there were.
#[map]
pub static WALK_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counted::COUNT, 0);

/// The walks of packets that match. User space sets the real size.
#[map]
pub static DUG: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Where a packet that matches is dropped; 0 while none is looked for.
#[map]
pub static DIG_PLACE: Array<u64> = Array::with_max_entries(1, 0);

/// The part of the kernel's text that was read last.
#[map]
pub static TEXT: Array<[u8; TEXT_SIZE]> = Array::with_max_entries(1, 0);

/// 1 on arm64.
#[unsafe(no_mangle)]
pub static ARM: Global<u8> = Global::new(0);

/// Where the running kernel keeps what only sockets need.
#[unsafe(no_mangle)]
pub static SOCKET_OFFSETS: Frozen<SocketOffsets> = Frozen(SocketOffsets {
    sock_family: 0,
    sock_state: 0,
    sock_num: 0,
    sock_dport: 0,
    sock_saddr: 0,
    sock_daddr: 0,
    sock_saddr6: 0,
    sock_daddr6: 0,
    sock_listener: 0,
    sock_cookie: 0,
    sock_protocol: 0,
    sock_type: 0,
    sock_kern: 0,
    sock_kern_mask: 0,
    sock_uid: 0,
    sock_rmem: 0,
    sock_rcvbuf: 0,
    sock_socket: 0,
    sock_ino: 0,
    sock_cgroup: 0,
    sock_cgroup_value: 0,
    cgroup_node: 0,
    node_id: 0,
    socket_file: 0,
    socket_ino: 0,
    task_files: 0,
    files_table: 0,
    table_array: 0,
    table_size: 0,
    task_leader: 0,
    task_comm: 0,
    task_tgid: 0,
    task_pid: 0,
    task_memory: 0,
    task_start: 0,
    task_cgroups: 0,
    cgroups_default: 0,
    task_namespaces: 0,
    namespaces_uts: 0,
    uts_nodename: 0,
    uts_inum: 0,
    namespaces_net: 0,
    net_inum: 0,
    net_cookie: 0,
    file_inode: 0,
    inode_number: 0,
    inode_block: 0,
    block_magic: 0,
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

/// An offset of [`SOCKET_OFFSETS`].
macro_rules! socket_offset {
    ($field:ident) => {
        // SAFETY: a field of a static.
        unsafe { core::ptr::read_volatile(&raw const (*$crate::maps::SOCKET_OFFSETS.as_ptr()).$field) }
    };
}
pub(crate) use socket_offset;

/// An offset of [`SAMPLE_OFFSETS`].
macro_rules! sample_offset {
    ($field:ident) => {
        // SAFETY: a field of a static.
        unsafe { core::ptr::read_volatile(&raw const (*$crate::maps::SAMPLE_OFFSETS.as_ptr()).$field) }
    };
}
pub(crate) use sample_offset;

/// Whether any of these bits are in a constant.
#[inline(always)]
pub fn any(constant: &Global<u32>, bits: u32) -> bool {
    constant.load() & bits != 0
}
