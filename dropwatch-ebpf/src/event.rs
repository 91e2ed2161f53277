//! One drop with its packet, put into the ring buffer.
//!
//! The bytes are read right into the ring: nothing is put together elsewhere, so nothing has to be kept apart where
//! one drop interrupts another. A reservation must have a size that the verifier knows, hence the classes of sizes.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::{bpf_get_stack, bpf_probe_read_kernel},
    },
    programs::BtfTracePointContext,
};
use dropwatch_common::{
    event::{DropEvent, SLOTS, Unshown, known},
    probe::gather,
};

use crate::{
    count::increment,
    drop::Drop,
    maps::{
        GATHER, HAS_REASON, HAS_SOCK, RING, RING_SIZE, SNAPLEN, STACK, UNSHOWN, any, offset, trace_offset,
    },
    rate,
    skb::{self, Kernel},
};

/// The head of a record.
const HEAD: usize = size_of::<DropEvent>();
/// Room for a call chain.
const CHAIN: usize = SLOTS * 8;
/// The smallest record.
const SMALLEST: usize = HEAD + 112;
/// What the ring buffer puts in front of a record.
const RING_HEADER: usize = 8;
/// `mac_header` of a packet that has none.
const UNSET: u32 = 0xffff;
/// The link header of a frame that nobody has looked into yet.
const ETHERNET: u32 = 14;

/// Puts a drop that the filter has let pass into the ring buffer, or counts it as not shown.
///
/// What decides that it is not shown comes first: a flood that nobody can read costs little.
#[inline(always)]
pub fn record(ctx: &BtfTracePointContext, drop: &Drop) {
    // SAFETY: it has no arguments and no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if !rate::admits(now) {
        return leave_out(Unshown::Sampled);
    }
    if !has_room(SMALLEST) {
        return leave_out(Unshown::RingFull);
    }
    let skb: Kernel = ctx.arg(0);
    let span = Span::of(skb);
    let mut head = DropEvent {
        time: now,
        location: drop.facts.location,
        reason: drop.facts.reason,
        // SAFETY: as above.
        cpu: unsafe { bpf_get_smp_processor_id() },
        length: span.length,
        frame_length: span.frame_length,
        captured: span.captured,
        link_length: span.link_length,
        protocol: u16::from_be(skb::load(skb, offset!(skb_protocol))),
        ..DropEvent::default()
    };
    if HAS_REASON.load() != 0 {
        head.known |= known::REASON;
    }
    device(&mut head, ctx, drop);
    vlan(&mut head, skb);
    by_size(ctx, &mut head, span.start);
}

/// Whether the ring buffer has room for so many bytes.
///
/// A reservation takes a lock, on all CPUs the same one: where there is no room, nobody has to wait for it.
#[inline(always)]
fn has_room(size: usize) -> bool {
    RING.query(0) + (size + RING_HEADER) as u64 <= RING_SIZE.load()
}

/// Counts a drop that is in no record.
#[inline(always)]
fn leave_out(why: Unshown) {
    if let Some(counter) = UNSHOWN.get_ptr_mut(why as u32) {
        increment(counter);
    }
}

/// Where a packet's linear bytes are, and how much of them is wanted.
struct Span {
    start: u64,
    captured: u32,
    length: u32,
    frame_length: u32,
    link_length: u32,
}

impl Span {
    /// From the link header on if there is one, else from the network header.
    #[inline(always)]
    fn of(skb: Kernel) -> Self {
        let head: u64 = skb::load(skb, offset!(skb_head));
        let data: u64 = skb::load(skb, offset!(skb_data));
        let data = (data as u32).wrapping_sub(head as u32);
        let len: u32 = skb::load(skb, offset!(skb_len));
        let tail: u32 = skb::load(skb, offset!(skb_tail));
        let mac = u32::from(skb::load::<u16>(skb, offset!(skb_mac_header)));
        let network = match u32::from(skb::load::<u16>(skb, offset!(skb_network_header))) {
            header if header != 0 && header < tail => header,
            // None is set: the data starts there, or with the link header of a frame nobody has looked into.
            _ if mac == data && len >= ETHERNET => data.wrapping_add(ETHERNET),
            _ => data,
        };
        let start = if mac != UNSET && mac < network { mac } else { network };
        // The data may start in front of either header or behind it.
        let frame_length = length(len, data, start);
        let linear = tail.saturating_sub(start);
        Self {
            start: head.wrapping_add(u64::from(start)),
            captured: linear.min(frame_length).min(SNAPLEN.load()),
            length: length(len, data, network),
            frame_length,
            link_length: (network - start).min(frame_length),
        }
    }
}

/// The bytes from an offset to the packet's end, when there are `len` of them from `data` on.
#[inline(always)]
fn length(len: u32, data: u32, from: u32) -> u32 {
    len.wrapping_add(data).saturating_sub(from)
}

/// The interface; read here if the filter has not asked for it.
#[inline(always)]
fn device(head: &mut DropEvent, ctx: &BtfTracePointContext, drop: &Drop) {
    let mut device = if any(&GATHER, gather::IFACE | gather::NETNS) {
        drop.device
    } else {
        let rx_sock = if HAS_SOCK.load() != 0 { ctx.arg(3) } else { core::ptr::null() };
        skb::device(ctx.arg(0), rx_sock)
    };
    if device.has_name() && device.find() != 0 {
        if !device.read_name(&mut head.iface) {
            // What has a name that is none is no interface.
            head.iface = [0; 16];
            return;
        }
        head.link_type = skb::read(device.address + u64::from(trace_offset!(device_type))).unwrap_or(0);
        head.known |= known::DEVICE_NAME;
    }
    if device.ifindex != 0 {
        head.ifindex = device.ifindex;
        head.known |= known::DEVICE;
    }
    if device.netns != 0 {
        head.netns = device.netns;
        head.known |= known::NETNS;
    }
}

/// The tag that the kernel took out of the frame.
#[inline(always)]
fn vlan(head: &mut DropEvent, skb: Kernel) {
    let protocol = u16::from_be(skb::load(skb, trace_offset!(skb_vlan_proto)));
    let tci: u16 = skb::load(skb, trace_offset!(skb_vlan_tci));
    let mask = trace_offset!(vlan_present_mask);
    let is_there = if mask == 0 {
        protocol != 0 || tci != 0
    } else {
        u32::from(skb::load::<u8>(skb, trace_offset!(skb_vlan_present))) & mask != 0
    };
    if is_there {
        (head.vlan_protocol, head.vlan_tci) = (protocol, tci);
        head.known |= known::VLAN;
    }
}

/// The smallest record that holds what is captured: small packets, full ones of Ethernet, jumbo frames, and what
/// segmentation offload makes of them.
#[inline(always)]
fn by_size(ctx: &BtfTracePointContext, head: &mut DropEvent, start: u64) {
    match head.captured {
        0..=112 => put::<{ SMALLEST - HEAD }>(ctx, head, start),
        113..=240 => put::<240>(ctx, head, start),
        241..=624 => put::<624>(ctx, head, start),
        625..=1520 => put::<1520>(ctx, head, start),
        1521..=4080 => put::<4080>(ctx, head, start),
        4081..=16_368 => put::<16_368>(ctx, head, start),
        16_369..=65_664 => put::<65_664>(ctx, head, start),
        _ => put::<262_144>(ctx, head, start),
    }
}

/// Puts a record with room for so many bytes into the ring buffer.
#[inline(always)]
fn put<const ROOM: usize>(ctx: &BtfTracePointContext, head: &mut DropEvent, start: u64) {
    if STACK.load() == 0 {
        put_sized::<ROOM, 0>(ctx, head, start);
    } else {
        put_sized::<ROOM, CHAIN>(ctx, head, start);
    }
}

#[inline(always)]
fn put_sized<const ROOM: usize, const CHAIN: usize>(
    ctx: &BtfTracePointContext,
    head: &mut DropEvent,
    start: u64,
) {
    let size = HEAD + CHAIN + ROOM;
    if !has_room(size) {
        return leave_out(Unshown::RingFull);
    }
    let Some(mut entry) = RING.reserve_bytes(size, 0) else { return leave_out(Unshown::RingFull) };
    let record = entry.as_mut_ptr();
    // SAFETY: all of it is inside the entry, whose size the verifier knows.
    unsafe {
        if CHAIN > 0 {
            head.slots = SLOTS as u16;
            let bytes = bpf_get_stack(ctx.as_ptr(), record.add(HEAD).cast(), CHAIN as u32, 0);
            if bytes > 0 {
                head.frames = (bytes / 8) as u16;
            } else {
                head.known |= known::STACK_FAILED;
            }
        }
        let captured = bounded(head.captured, ROOM as u32);
        if bpf_probe_read_kernel(record.add(HEAD + CHAIN).cast(), captured, start as *const _) != 0 {
            head.captured = 0;
        }
        record.cast::<DropEvent>().write(*head);
    }
    entry.submit(0);
}

/// The number, which is no larger than the bound; said in a way that the compiler does not take for known.
#[inline(always)]
fn bounded(mut number: u32, bound: u32) -> u32 {
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags)) };
    if number > bound { bound } else { number }
}
