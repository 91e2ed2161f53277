//! A few drops of each kind in each interval, with all that may show their cause.
//!
//! A kind is a location and a reason, which are at hand: a flood that has had its samples ends after one look-up.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_stack, bpf_probe_read_kernel},
    },
    programs::BtfTracePointContext,
};
use dropwatch_common::{
    DropKey,
    chain::FRAMES,
    sample::{CAPTURED, PROGRAMS, ProgramSeen, Sample, SocketView},
    socket::form,
};

use crate::{
    count::EEXIST,
    drop::Drop,
    event::{Span, bounded, has_room},
    maps::{RING, SAMPLE_INTERVAL, SAMPLE_QUOTA, SAMPLED, sample_offset, socket_offset},
    rows::{self, Whole},
    skb::{self, Kernel, load, read},
    socket,
};

/// Whether more drops of this kind are wanted in this interval.
#[inline(always)]
pub fn is_wanted(location: u64, reason: u32) -> bool {
    match SAMPLED.get_ptr(&DropKey { location, reason, kind: 0 }) {
        // SAFETY: a word of a map.
        Some(taken) => has_quota(unsafe { taken.read_volatile() }, interval()),
        None => true,
    }
}

/// Puts a drop that the filter has let pass into the ring buffer.
#[inline(always)]
pub fn take(ctx: &BtfTracePointContext, drop: &Drop) {
    let size = size_of::<Sample>();
    if !has_room(size) || !note(drop.facts.location, drop.facts.reason) {
        return;
    }
    let Some(mut entry) = RING.reserve_bytes(size, 0) else { return };
    // SAFETY: the entry is as large, and aligned to eight bytes.
    unsafe { fill(&mut *entry.as_mut_ptr().cast(), ctx, drop) };
    entry.submit(0);
}

/// The number of the interval.
#[inline(always)]
fn interval() -> u32 {
    // SAFETY: a word of a map, which user space may write meanwhile.
    SAMPLE_INTERVAL.get_ptr(0).map_or(0, |interval| unsafe { interval.read_volatile() })
}

/// Whether a quota that has been used so far has something left in this interval.
#[inline(always)]
fn has_quota(taken: u64, interval: u32) -> bool {
    (taken >> 32) as u32 != interval || (taken as u32) < SAMPLE_QUOTA.load()
}

/// Uses one of the quota. Two CPUs may use the same one: then there is a sample more.
#[inline(always)]
fn note(location: u64, reason: u32) -> bool {
    let interval = interval();
    let key = DropKey { location, reason, kind: 0 };
    let first = u64::from(interval) << 32 | 1;
    let Some(taken) = SAMPLED.get_ptr_mut(&key) else {
        return matches!(SAMPLED.insert(&key, &first, u64::from(BPF_NOEXIST)), Ok(()) | Err(EEXIST));
    };
    // SAFETY: a word of a map, written whole.
    unsafe {
        let before = taken.read_volatile();
        let is_of_interval = (before >> 32) as u32 == interval;
        taken.write_volatile(if is_of_interval { before + 1 } else { first });
        has_quota(before, interval)
    }
}

/// Everything is written right into the record, where the verifier keeps no track of it: so it does not follow each way
/// through the one part for each way through the others.
#[inline(always)]
fn fill(sample: &mut Sample, ctx: &BtfTracePointContext, drop: &Drop) {
    let skb: Kernel = ctx.arg(0);
    // SAFETY: it has no arguments and no conditions.
    sample.time = unsafe { bpf_ktime_get_ns() };
    sample.mark = load(skb, sample_offset!(skb_mark));
    sample.queue = load(skb, sample_offset!(skb_queue));
    sample.egress = skb::egress(skb);
    sample.pad = 0;
    chain(sample, ctx);
    packet(sample, skb);
    sample.filter = ProgramSeen::default();
    sample.of_cgroup = [ProgramSeen::default(); PROGRAMS];
    if !socket::describe_any(ctx, &mut sample.socket) {
        sample.socket = SocketView::default();
    } else if sample.socket.key.form == form::FULL {
        programs(sample);
    }
    sample.key = Default::default();
    // Last, since many ways lead out of it.
    rows::fill(&mut Whole(&raw mut sample.key), ctx, drop, 0, socket::NONE);
}

#[inline(always)]
fn chain(sample: &mut Sample, ctx: &BtfTracePointContext) {
    // SAFETY: as many bytes of the record as are there.
    let bytes = unsafe {
        bpf_get_stack(ctx.as_ptr(), sample.chain.as_mut_ptr().cast(), size_of::<[u64; FRAMES]>() as u32, 0)
    };
    sample.frames = if bytes > 0 { bytes as u32 / 8 } else { 0 };
}

#[inline(always)]
fn packet(sample: &mut Sample, skb: Kernel) {
    let span = Span::of(skb);
    sample.length = span.length;
    sample.link_length = span.link_length;
    let captured = bounded(span.captured, CAPTURED as u32);
    // SAFETY: no more bytes than there are in the record.
    let failed =
        unsafe { bpf_probe_read_kernel(sample.bytes.as_mut_ptr().cast(), captured, span.start as *const _) };
    sample.captured = if failed == 0 { captured } else { 0 };
}

/// The programs that may have dropped the packet at its socket.
#[inline(always)]
fn programs(sample: &mut Sample) {
    let at = |address: u64, offset: u32| read::<u64>(address + u64::from(offset)).unwrap_or(0);
    let filter = at(sample.socket.key.address, sample_offset!(sock_filter));
    if sample_offset!(sock_filter) != 0 && filter != 0 {
        program(&mut sample.filter, at(filter, sample_offset!(filter_prog)));
    }
    if sample_offset!(cgroup_effective) == 0 || socket_offset!(sock_cgroup) == 0 {
        return;
    }
    let cgroup = at(sample.socket.key.address, socket_offset!(sock_cgroup));
    let effective = at(cgroup, sample_offset!(cgroup_effective));
    let mut index = 0;
    while effective != 0 && index < PROGRAMS {
        let item = sample_offset!(array_items) + index as u32 * sample_offset!(item_size);
        let found = at(effective, item);
        if found == 0 {
            return;
        }
        program(&mut sample.of_cgroup[index], found);
        index += 1;
    }
}

#[inline(always)]
fn program(seen: &mut ProgramSeen, program: u64) {
    let aux = read::<u64>(program + u64::from(sample_offset!(prog_aux))).unwrap_or(0);
    if aux == 0 {
        // It stands in the place of one that was taken away.
        return;
    }
    seen.id = match read::<u32>(aux + u64::from(sample_offset!(aux_id))) {
        Some(id) if id != 0 => id,
        _ => ProgramSeen::UNNAMED,
    };
    if let Some(name) = read(aux + u64::from(sample_offset!(aux_name))) {
        seen.name = name;
    }
}
