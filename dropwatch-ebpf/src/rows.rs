//! Rows that stand for more than a location and a reason.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_smp_processor_id,
        generated::{bpf_map_lookup_elem, bpf_map_update_elem},
    },
    programs::BtfTracePointContext,
};
use dropwatch_common::{
    Loss, bucket,
    packet::{self, Packet, family, plain::Plain},
    probe::keys,
    program,
    row::{RowKey, known, word},
};

use crate::{
    chain,
    count::{E2BIG, EEXIST, increment, lose},
    drop::Drop,
    filter, kind,
    maps::{
        BUCKET_COUNT, BUCKETS, GENERATION, HAS_REASON, KEY_LENGTH, KEY_WORDS, KEYS, PLAIN, ROWS, Rows, any,
    },
    skb::{self, Kernel, unknown},
};

/// A member of [`PLAIN`].
macro_rules! plain {
    ($field:ident) => {
        // SAFETY: a field of a static.
        unsafe { (&raw const (*PLAIN.as_ptr()).$field).read_volatile() }
    };
}
/// Repeats something for each of so many words: without a loop, so that the verifier, which knows how many there are, decides
/// once and for all.
macro_rules! for_each_word {
    ($length:expr, |$number:ident| $do:expr) => {
        for_each_word!(@ $length, $number, $do, 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $length:expr, $number:ident, $do:expr, $($word:literal)*) => {
        'words: {
            $({
                const $number: usize = $word;
                if $length <= $word {
                    break 'words;
                }
                $do;
            })*
        }
    };
}

/// Adds one drop of a socket to its row, or to the ledger.
#[inline(always)]
pub fn count(ctx: &BtfTracePointContext, drop: &Drop, socket: u64) {
    // Read once: a row and its chain are of one generation, whether it is in a bucket or in the map.
    let generation = generation();
    let mut row = Row(MaybeUninit::uninit());
    let mut key = row.narrow();
    fill(&mut key, ctx, drop, generation, socket);
    let hash = key.hash;
    row.add(generation, hash);
}

/// The same, if the packet is one of the most frequent kind and nothing else is to be found out: without any detour. False if it
/// is another.
#[inline(always)]
pub fn count_plain(ctx: &BtfTracePointContext, location: u64) -> bool {
    if plain!(are_told) == 0 {
        return false;
    }
    let skb: Kernel = ctx.arg(0);
    let reason: u32 = if HAS_REASON.load() != 0 { ctx.arg(2) } else { 0 };
    let mut start = MaybeUninit::<Plain>::uninit();
    if any(&KEYS, keys::KIND) && !kind::is_plain(skb, reason) || !skb::ipv4_start(skb, &mut start) {
        return false;
    }
    // SAFETY: it has been read.
    let start = unsafe { start.assume_init_ref() };
    if !start.is_plain() {
        return false;
    }
    if filter::passes_plain(skb, location, reason, start) {
        let mut row = Row(MaybeUninit::uninit());
        let mut key = row.narrow();
        fill_plain(&mut key, start, location, reason);
        let hash = key.hash;
        row.add(generation(), hash);
    }
    true
}

/// The key of a row, as narrow as the question.
struct Row(MaybeUninit<[u64; word::COUNT]>);

impl Row {
    #[inline(always)]
    fn narrow(&mut self) -> Narrow {
        Narrow { next: self.0.as_mut_ptr().cast(), taken: KEY_WORDS.load(), hash: 0 }
    }

    /// Adds one drop.
    ///
    /// Most drops end in a bucket. Of the others the common case is a look-up, which takes no lock.
    #[inline(always)]
    fn add(&self, generation: u32, hash: u64) {
        if self.count_in_bucket(generation, hash) {
            return;
        }
        let Some(rows) = ROWS.get(generation) else { return lose(Loss::UpdateFailed) };
        let key = self.0.as_ptr().cast_mut().cast();
        match find(rows, key) {
            Some(counter) => increment(counter),
            None => count_first(rows, key),
        }
    }

    /// Adds one drop to the key's row in its bucket, if it has one or can have one.
    ///
    /// Not where a drop can interrupt the counting of another: both could take one row.
    #[inline(always)]
    fn count_in_bucket(&self, generation: u32, hash: u64) -> bool {
        let buckets = BUCKET_COUNT.load();
        if buckets == 0 {
            return false;
        }
        // SAFETY: it has no arguments and no conditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let place = bucket::first(cpu, generation, buckets) + bucket::place(hash, buckets);
        let Some(bucket) = BUCKETS.get_ptr_mut(place) else { return false };
        let (bucket, tag, length) = (bucket.cast::<u64>(), bucket::tag(hash), KEY_LENGTH.load());
        let mut way = 0;
        while way < bucket::WAYS {
            // SAFETY: words of a value of a map, which has as many as the keys are long. Only this CPU writes them.
            unsafe {
                let (mark, count) = (bucket.add(way), bucket.add(bucket::COUNTS + way));
                let key = bucket.add(bucket::KEYS).add(way * length as usize);
                let found = mark.read_volatile();
                if found == tag && self.is(key, length) {
                    *count += 1;
                    return true;
                }
                if found == 0 {
                    // The tag comes last: it marks the row as taken.
                    for_each_word!(length, |NUMBER| key.add(NUMBER).write_volatile(self.word(NUMBER)));
                    count.write_volatile(1);
                    mark.write_volatile(tag);
                    return true;
                }
            }
            way += 1;
        }
        false
    }

    /// Whether a key in a bucket is its.
    #[inline(always)]
    unsafe fn is(&self, other: *const u64, length: u32) -> bool {
        let mut differences = 0;
        // SAFETY: the key in a bucket is as long.
        for_each_word!(length, |NUMBER| differences |=
            self.word(NUMBER) ^ unsafe { other.add(NUMBER).read() });
        differences == 0
    }

    #[inline(always)]
    fn word(&self, number: usize) -> u64 {
        // Volatile, or the compiler would read all of them ahead, also those that there are not.
        // SAFETY: callers keep to the words that there are.
        unsafe { self.0.as_ptr().cast::<u64>().add(number).read_volatile() }
    }
}

/// The generation that counts.
#[inline(always)]
fn generation() -> u32 {
    // SAFETY: a word of a map, which user space may write meanwhile.
    GENERATION.get_ptr(0).map_or(0, |generation| unsafe { generation.read_volatile() })
}

/// The counter of a row of which there is one on any CPU.
#[inline(always)]
fn find(rows: &Rows, key: *mut c_void) -> Option<*mut u64> {
    // SAFETY: the key is as long as the map's keys.
    let counter: *mut u64 = unsafe { bpf_map_lookup_elem(in_kernel(rows), key) }.cast();
    if counter.is_null() { None } else { Some(counter) }
}

/// The count of a row that is new.
static ONE: u64 = 1;

/// The first drop of a row on any CPU; another CPU may be inserting the same one.
#[inline(always)]
fn count_first(rows: &Rows, key: *mut c_void) {
    // SAFETY: the key is as long as the map's keys, and a value is one word.
    let answer =
        unsafe { bpf_map_update_elem(in_kernel(rows), key, (&raw const ONE).cast(), u64::from(BPF_NOEXIST)) };
    match answer as i32 {
        0 => {}
        EEXIST => match find(rows, key) {
            Some(counter) => increment(counter),
            None => lose(Loss::UpdateFailed),
        },
        E2BIG => lose(Loss::MapFull),
        _ => lose(Loss::UpdateFailed),
    }
}

/// A map as helpers take it: by its address.
#[inline(always)]
fn in_kernel(rows: &Rows) -> *mut c_void {
    ptr::from_ref(rows).cast_mut().cast()
}

/// Where the words of a key go, in the order of their numbers.
pub trait Words {
    /// Whether the key has the word with this number.
    fn takes<const WORD: usize>(&self) -> bool;

    /// Adds it to the key.
    fn put<const WORD: usize>(&mut self, value: u64);
}

/// All words, where a key is.
pub struct Whole(pub *mut RowKey);

impl Words for Whole {
    #[inline(always)]
    fn takes<const WORD: usize>(&self) -> bool {
        true
    }

    #[inline(always)]
    fn put<const WORD: usize>(&mut self, value: u64) {
        // SAFETY: callers hand over a key to be written, which has so many words.
        unsafe { self.0.cast::<u64>().add(WORD).write(value) };
    }
}

/// The words that differ from row to row, one behind the other.
struct Narrow {
    /// Where the next one goes.
    next: *mut u64,
    /// Which there are; the verifier knows it.
    taken: u32,
    hash: u64,
}

impl Words for Narrow {
    #[inline(always)]
    fn takes<const WORD: usize>(&self) -> bool {
        self.taken & 1 << WORD != 0
    }

    #[inline(always)]
    fn put<const WORD: usize>(&mut self, value: u64) {
        // SAFETY: there is room for all words.
        unsafe {
            self.next.write(value);
            self.next = self.next.add(1);
        }
        self.hash = self.hash.wrapping_add(bucket::mixed(WORD, value));
    }
}

/// Puts a word, which is worked out only if it is taken.
macro_rules! put {
    ($key:ident, $word:expr, $value:expr) => {
        if $key.takes::<{ $word }>() {
            let value: u64 = $value;
            $key.put::<{ $word }>(value);
        }
    };
}

/// The words of the key, as far as they were requested and are known; zeros otherwise.
#[inline(always)]
pub fn fill(key: &mut impl Words, ctx: &BtfTracePointContext, drop: &Drop, generation: u32, socket: u64) {
    let facts = &drop.facts;
    let mut seen = u64::from(filter::cases(facts));
    // First, while there is one path for the verifier to follow: its loops are long.
    let stack = if any(&KEYS, keys::STACK) { stack(ctx, generation, &mut seen) } else { 0 };
    put!(key, word::LOCATION, if any(&KEYS, keys::LOCATION) { facts.location } else { 0 });
    put!(key, word::STACK, stack);
    addresses(key, &facts.packet, &mut seen);
    let place = Place::of(drop, &mut seen);
    put!(key, word::IFACE, place.iface[0]);
    put!(key, word::IFACE + 1, place.iface[1]);
    put!(key, word::COOKIE, place.cookie);
    put!(key, word::SOCKET, socket);
    let packet = packet(&facts.packet, &mut seen);
    if any(&KEYS, keys::KIND) {
        seen |= u64::from(known::KIND);
    }
    let reason = if any(&KEYS, keys::REASON) { facts.reason } else { 0 };
    put!(key, word::REASON, u64::from(reason) | seen << 32);
    put!(key, word::NETNS, u64::from(place.netns) | u64::from(place.ifindex) << 32);
    put!(key, word::CPU, cpu() | u64::from(place.names) << 32);
    // Last, since many ways lead out of it.
    let kind = if any(&KEYS, keys::KIND) { unknown(kind::of(ctx.arg(0), facts.reason).into()) } else { 0 };
    put!(key, word::PACKET, packet | kind << 56);
}

/// The same for a packet of IPv4 of the most frequent kind, of which no more has to be found out.
#[inline(always)]
fn fill_plain(key: &mut Narrow, start: &Plain, location: u64, reason: u32) {
    put!(key, word::LOCATION, location);
    put!(key, word::SADDR, start.saddr().into());
    put!(key, word::SADDR + 1, 0);
    put!(key, word::DADDR, start.daddr().into());
    put!(key, word::DADDR + 1, 0);
    put!(key, word::REASON, plain!(known) | u64::from(reason) & plain!(reason));
    put!(key, word::CPU, cpu());
    put!(key, word::PACKET, start.word() & plain!(packet));
}

/// The number of the call chain; zero if it could not be kept.
#[inline(always)]
fn stack(ctx: &BtfTracePointContext, generation: u32, seen: &mut u64) -> u64 {
    let number = chain::number(ctx, generation);
    if number == chain::NONE {
        lose(Loss::StackFailed);
    } else {
        *seen |= u64::from(known::STACK);
    }
    number
}

#[inline(always)]
fn cpu() -> u64 {
    // SAFETY: it has no arguments and no conditions.
    if any(&KEYS, keys::CPU) { unsafe { bpf_get_smp_processor_id() }.into() } else { 0 }
}

/// Where a drop happened, as far as a row depends on it.
struct Place {
    iface: [u64; 2],
    cookie: u64,
    netns: u32,
    ifindex: u32,
    names: u32,
}

impl Place {
    #[inline(always)]
    fn of(drop: &Drop, seen: &mut u64) -> Self {
        let device = &drop.device;
        let mut place = Self { iface: [0; 2], cookie: 0, netns: 0, ifindex: 0, names: 0 };
        let mut has_namespace = false;
        if any(&KEYS, keys::IFACE) && device.ifindex != 0 {
            // The number says nothing without the namespace, and the name may change.
            has_namespace = true;
            place.ifindex = device.ifindex;
            // SAFETY: as many bytes.
            place.iface = unsafe { (&raw const drop.facts.iface).cast::<[u64; 2]>().read() };
            *seen |= u64::from(known::IFACE);
            if any(&KEYS, keys::IFACE_NAMES) {
                place.names = device.names as u32;
            }
        }
        if any(&KEYS, keys::NETNS) && device.netns != 0 {
            has_namespace = true;
            *seen |= u64::from(known::NETNS);
        }
        if drop.facts.known & program::known::UNDECIDED != 0 {
            has_namespace = true;
            *seen |= u64::from(known::UNDECIDED);
        }
        if has_namespace {
            place.netns = device.netns;
            place.cookie = device.cookie;
        }
        place
    }
}

/// One if all of these bits are set: calculated, for a verifier follows both ways of a comparison.
#[inline(always)]
fn all_of<const ONE: u8, const OTHER: u8>(bits: u8) -> u64 {
    u64::from(bits >> ONE.trailing_zeros() & bits >> OTHER.trailing_zeros() & 1)
}

/// The addresses of IP.
#[inline(always)]
fn addresses(key: &mut impl Words, packet: &Packet, seen: &mut u64) {
    let are_known = all_of::<{ packet::known::SADDR }, { packet::known::DADDR }>(packet.known);
    let word = |address: &[u8; 16], half: usize| {
        // SAFETY: the address has two words.
        let word = unsafe { ptr::from_ref(address).cast::<u64>().add(half).read() };
        word & 0_u64.wrapping_sub(are_known)
    };
    if any(&KEYS, keys::SADDR) {
        put!(key, word::SADDR, word(&packet.saddr, 0));
        put!(key, word::SADDR + 1, word(&packet.saddr, 1));
    }
    if any(&KEYS, keys::DADDR) {
        put!(key, word::DADDR, word(&packet.daddr, 0));
        put!(key, word::DADDR + 1, word(&packet.daddr, 1));
    }
    if any(&KEYS, keys::SADDR | keys::DADDR) {
        const { assert!(known::IPV6 == known::IPV4 << 1 && family::IPV4 == 1 && family::IPV6 == 2) };
        *seen |= (are_known * u64::from(known::IPV6)) >> (packet.family & family::IPV4);
    }
}

/// Ports and protocols.
#[inline(always)]
fn packet(packet: &Packet, seen: &mut u64) -> u64 {
    let mut all = 0;
    if any(&KEYS, keys::SPORT | keys::DPORT) {
        let are_known = all_of::<{ packet::known::SPORT }, { packet::known::DPORT }>(packet.known);
        let mut ports = 0;
        if any(&KEYS, keys::SPORT) {
            ports |= u64::from(packet.sport);
        }
        if any(&KEYS, keys::DPORT) {
            ports |= u64::from(packet.dport) << 16;
        }
        all |= ports & 0_u64.wrapping_sub(are_known);
        *seen |= are_known * u64::from(known::PORTS);
    }
    if any(&KEYS, keys::PROTOCOL) && packet.ethertype != 0 {
        all |= u64::from(packet.ethertype) << 32;
        *seen |= u64::from(known::PROTOCOL);
    }
    if any(&KEYS, keys::IPPROTO) {
        let is_known = all_of::<{ packet::known::IPPROTO }, { packet::known::IPPROTO }>(packet.known);
        all |= (u64::from(packet.ipproto) & 0_u64.wrapping_sub(is_known)) << 48;
        *seen |= is_known * u64::from(known::IPPROTO);
    }
    all
}
