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
    event::{DropEvent, LeftOut, SLOTS, known},
    probe::gather,
    program::{self, Facts},
    sample::SocketView,
};

use crate::{
    count::increment,
    drop::Drop,
    filter,
    maps::{
        GATHER, HAS_REASON, HAS_SOCK, LEFT_OUT, RING, RING_SIZE, SNAPLEN, STACK, any, offset, trace_offset,
    },
    rate,
    skb::{self, Device, Kernel, unknown},
    socket::{Held, NONE},
};

/// The head of a record.
const HEAD: usize = size_of::<DropEvent>();
/// Room for a call chain.
const CHAIN: usize = SLOTS * 8;
/// What a record has beside the bytes of the packet: nothing.
pub const PACKET: usize = 0;
/// The socket that it belongs to.
pub const PACKET_AND_SOCKET: usize = size_of::<SocketView>();
/// The smallest record.
const SMALLEST: usize = HEAD + 112;
/// What the ring buffer puts in front of a record.
const RING_HEADER: usize = 8;
/// `mac_header` of a packet that has none.
const UNSET: u32 = 0xffff;
/// The link header of a frame that has not been parsed yet.
const ETHERNET: u32 = 14;

/// Whether the last drop that was tried found no room in the ring buffer.
#[unsafe(no_mangle)]
static mut IS_FULL: u64 = 0;

const _: () = assert!(HEAD <= size_of::<Facts>());

/// Puts a drop that the filter has let pass into the ring buffer, or counts it as not shown. When it happened, if it is
/// tried.
///
/// The checks that it is not shown come first, so that a flood that cannot be read costs little.
#[inline(always)]
pub fn record<const WITH: usize>(ctx: &BtfTracePointContext, drop: &mut Drop) -> Option<u64> {
    // SAFETY: it has no arguments and no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let cases = filter::cases(&drop.facts);
    // Which of those are shown that are not decided about yet is not known here: user space, which decides, holds to the
    // limit.
    if cases == 0 && !rate::admits(now) {
        leave_out(LeftOut::SampledOut);
        return None;
    }
    if is_full() && !has_room(SMALLEST + WITH) {
        leave_out(LeftOut::Lost);
        return None;
    }
    // First, as in rows: its loops are long.
    let held = (WITH == PACKET_AND_SOCKET).then(|| Held::of::<true>(ctx));
    let skb: Kernel = ctx.arg(0);
    let Facts { location, reason, known: facts, iface, .. } = drop.facts;
    // The facts have been used, and the stack has no room for both.
    // SAFETY: the record's head is no larger and no more aligned, and any bytes make one.
    let head = unsafe { &mut *(&raw mut drop.facts).cast::<DropEvent>() };
    *head = DropEvent::default();
    head.iface = iface;
    head.time = now;
    head.location = location;
    head.reason = reason;
    // SAFETY: as above.
    head.cpu = unsafe { bpf_get_smp_processor_id() };
    head.protocol = u16::from_be(skb::load(skb, offset!(skb_protocol)));
    if HAS_REASON.load() != 0 {
        head.known |= known::REASON;
    }
    if facts & program::known::UNDECIDED != 0 {
        head.known |= known::UNDECIDED;
    }
    head.known |= cases;
    device(head, ctx, drop.device);
    vlan(head, skb);
    let span = Span::of(skb);
    head.length = span.length;
    head.frame_length = span.frame_length;
    head.captured = span.captured;
    head.link_length = span.link_length;
    let record = Record { ctx, start: span.start, socket: held.and_then(Held::view) };
    if let Some(held) = held {
        head.known |= known::SOCKET;
        if record.socket.is_none() && held.number != NONE {
            head.known |= known::SOCKET_FAILED;
        }
    }
    // By these, ways differ.
    head.known = unknown(head.known.into()) as u32;
    record.by_size::<WITH>(head);
    if let Some(held) = held {
        held.leave();
    }
    Some(now)
}

/// Whether the ring buffer was full for the last drop.
///
/// A reservation takes a lock that all CPUs share, which a flood that nothing has room for must not wait for. A query of
/// the room costs as much as the rest of the check, so it is made only after there was none.
#[inline(always)]
fn is_full() -> bool {
    // SAFETY: a word of a map. CPUs may see each other's writes late: it only says what to try first.
    unsafe { (&raw const IS_FULL).read_volatile() != 0 }
}

#[inline(always)]
fn set_full(is_full: bool) {
    // SAFETY: as above.
    unsafe { (&raw mut IS_FULL).write_volatile(is_full.into()) };
}

/// Whether the ring buffer has room for so many bytes.
#[inline(always)]
pub fn has_room(size: usize) -> bool {
    RING.query(0) + (size + RING_HEADER) as u64 <= RING_SIZE.load()
}

/// Counts a drop that is in no record.
#[inline(always)]
fn leave_out(why: LeftOut) {
    if let Some(counter) = LEFT_OUT.get_ptr_mut(why as u32) {
        increment(counter);
    }
}

/// Where a packet's linear bytes are, and how many of them to capture.
pub struct Span {
    pub start: u64,
    pub captured: u32,
    pub length: u32,
    frame_length: u32,
    pub link_length: u32,
}

impl Span {
    /// From the link header on if there is one, else from the network header.
    #[inline(always)]
    pub fn of(skb: Kernel) -> Self {
        let head: u64 = skb::load(skb, offset!(skb_head));
        let data: u64 = skb::load(skb, offset!(skb_data));
        let data = (data as u32).wrapping_sub(head as u32);
        let len: u32 = skb::load(skb, offset!(skb_len));
        let tail: u32 = skb::load(skb, offset!(skb_tail));
        let mac = u32::from(skb::load::<u16>(skb, offset!(skb_mac_header)));
        let network = match u32::from(skb::load::<u16>(skb, offset!(skb_network_header))) {
            header if header != 0 && header < tail => header,
            // None is set: the data starts there, or with the link header of a frame that has not been parsed.
            _ if mac == data && len >= ETHERNET => data.wrapping_add(ETHERNET),
            _ => data,
        };
        let network = unknown(network.into()) as u32;
        let start = unknown(if mac != UNSET && mac < network { mac } else { network }.into()) as u32;
        // The data may start in front of either header or behind it.
        let end = len.wrapping_add(data);
        let frame_length = beyond(end, start);
        Self {
            start: head.wrapping_add(u64::from(start)),
            captured: smaller(smaller(beyond(tail, start), frame_length), SNAPLEN.load()),
            length: beyond(end, network),
            frame_length,
            link_length: smaller(network - start, frame_length),
        }
    }
}

/// How much a number is larger than another one, at least zero. Without a branch: a verifier would follow each.
#[inline(always)]
fn beyond(one: u32, other: u32) -> u32 {
    let mut difference = u64::from(one).wrapping_sub(other.into());
    // SAFETY: calculates with registers: the difference without the bits of its sign.
    unsafe {
        asm!("{1} = {0}", "{1} s>>= 63", "{1} ^= -1", "{0} &= {1}", inout(reg) difference, out(reg) _,
            options(pure, nomem, nostack));
    }
    difference as u32
}

/// The smaller of two numbers, without a branch either.
#[inline(always)]
fn smaller(one: u32, other: u32) -> u32 {
    one - beyond(one, other)
}

/// The interface; read here if the filter has not needed it.
#[inline(always)]
fn device(head: &mut DropEvent, ctx: &BtfTracePointContext, gathered: Device) {
    let device = if any(&GATHER, gather::IFACE | gather::NETNS) {
        gathered
    } else {
        let rx_sock = if HAS_SOCK.load() != 0 { ctx.arg(3) } else { core::ptr::null() };
        skb::device::<true>(ctx.arg(0), rx_sock, &mut head.iface)
    };
    head.link_type = device.kind;
    if device.is_named != 0 {
        head.known |= known::DEVICE_NAME;
    }
    // Where these are unknown, they are zero.
    (head.ifindex, head.netns, head.cookie) = (device.ifindex, device.netns, device.cookie);
    if device.ifindex != 0 {
        head.known |= known::DEVICE;
    }
    if device.netns != 0 {
        head.known |= known::NETNS;
    }
    head.known = unknown(head.known.into()) as u32;
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

/// What a record is made of, beside its head.
struct Record<'a> {
    ctx: &'a BtfTracePointContext,
    /// The packet's bytes.
    start: u64,
    socket: Option<*const SocketView>,
}

impl Record<'_> {
    /// Puts it into the smallest one that holds what is captured: small packets, full ones of Ethernet, jumbo frames, and
    /// what segmentation offload makes of them.
    #[inline(always)]
    fn by_size<const WITH: usize>(&self, head: &mut DropEvent) {
        match head.captured {
            0..=112 => self.put::<{ SMALLEST - HEAD }, WITH>(head),
            113..=240 => self.put::<240, WITH>(head),
            241..=624 => self.put::<624, WITH>(head),
            625..=1520 => self.put::<1520, WITH>(head),
            1521..=4080 => self.put::<4080, WITH>(head),
            4081..=16_368 => self.put::<16_368, WITH>(head),
            16_369..=65_664 => self.put::<65_664, WITH>(head),
            _ => self.put::<262_144, WITH>(head),
        }
    }

    /// Puts it into one with room for so many bytes.
    #[inline(always)]
    fn put<const ROOM: usize, const WITH: usize>(&self, head: &mut DropEvent) {
        if STACK.load() == 0 {
            self.put_sized::<ROOM, 0, WITH>(head);
        } else {
            self.put_sized::<ROOM, CHAIN, WITH>(head);
        }
    }

    #[inline(always)]
    fn put_sized<const ROOM: usize, const CHAIN: usize, const WITH: usize>(&self, head: &mut DropEvent) {
        let size = HEAD + WITH + CHAIN + ROOM;
        // Whether there is room for the smallest is known.
        if size > SMALLEST + WITH && is_full() && !has_room(size) {
            return leave_out(LeftOut::Lost);
        }
        let Some(mut entry) = RING.reserve_bytes(size, 0) else {
            set_full(true);
            return leave_out(LeftOut::Lost);
        };
        if is_full() {
            set_full(false);
        }
        let record = entry.as_mut_ptr();
        // SAFETY: all of it is inside the entry, whose size the verifier knows.
        unsafe {
            if WITH == PACKET_AND_SOCKET {
                copy(record.add(HEAD).cast(), self.socket);
            }
            if CHAIN > 0 {
                head.slots = SLOTS as u16;
                let chain = record.add(HEAD + WITH);
                let bytes = bpf_get_stack(self.ctx.as_ptr(), chain.cast(), CHAIN as u32, 0);
                if bytes > 0 {
                    head.frames = (bytes / 8) as u16;
                } else {
                    head.known |= known::STACK_FAILED;
                }
            }
            let captured = bounded(head.captured, ROOM as u32);
            let bytes = record.add(HEAD + WITH + CHAIN);
            if bpf_probe_read_kernel(bytes.cast(), captured, self.start as *const _) != 0 {
                head.captured = 0;
            }
            record.cast::<DropEvent>().write(*head);
        }
        entry.submit(0);
    }
}

/// Writes a socket, zeros if there is none.
///
/// # Safety
/// `to` has room for one.
#[inline(always)]
unsafe fn copy(to: *mut u64, socket: Option<*const SocketView>) {
    let mut word = 0;
    while word < const { size_of::<SocketView>() / size_of::<u64>() } {
        // SAFETY: whole words of both.
        unsafe {
            let value = socket.map_or(0, |socket| socket.cast::<u64>().add(word).read_volatile());
            to.add(word).write_volatile(value);
        }
        word += 1;
    }
}

/// The number, which is no larger than the bound; said in a way that the compiler does not take for known.
#[inline(always)]
pub fn bounded(mut number: u32, bound: u32) -> u32 {
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags)) };
    if number > bound { bound } else { number }
}
