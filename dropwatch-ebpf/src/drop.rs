//! What is gathered about one drop, as far as the keys and the filter need it.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::BtfTracePointContext};
use dropwatch_common::{
    Loss, packet,
    probe::gather,
    program::{Facts, Place, known},
};

use crate::{
    caller,
    count::lose,
    link,
    maps::{GATHER, HAS_REASON, HAS_SOCK, NAMESPACES, any},
    names,
    skb::{self, Device, Headers, Kernel, unknown},
};

/// Zero, which the verifier does not know: user space could write it, and never does.
#[unsafe(no_mangle)]
pub static mut ZERO: u64 = 0;

/// What is gathered from the packet itself.
const PACKET: u32 =
    gather::PROTOCOL | gather::LENGTH | gather::HEADERS | gather::BYTES | gather::LINK | gather::VLAN;

/// What is known about a drop; parts that are not needed are empty.
pub struct Drop {
    /// What the filter decides by.
    pub facts: Facts,
    /// The packet's bytes, where they are.
    pub bytes: Place,
    /// Where it happened.
    pub device: Device,
}

impl Drop {
    /// A drop of which nothing is known.
    #[inline(always)]
    pub fn new() -> Self {
        Self { facts: Facts::default(), bytes: Place::default(), device: Device::UNKNOWN }
    }

    /// `skb:kfree_skb`: `(skb, location[, reason[, rx_sk]])`. `TRACED` is with all that is shown of an interface.
    #[inline(always)]
    pub fn gather<const TRACED: bool>(&mut self, ctx: &BtfTracePointContext) {
        self.gather_at::<TRACED>(ctx, caller::location(ctx, ctx.arg(1)));
    }

    /// The same where the location is known.
    #[inline(always)]
    pub fn gather_at<const TRACED: bool>(&mut self, ctx: &BtfTracePointContext, location: u64) {
        let skb: Kernel = ctx.arg(0);
        self.facts.location = location;
        // The verifier knows these constants: what they rule out is removed, and with it the arguments that this
        // kernel's tracepoint does not have.
        if HAS_REASON.load() != 0 {
            self.facts.reason = ctx.arg(2);
            self.facts.known |= known::REASON;
        }
        if any(&GATHER, gather::PROTOCOL | gather::LENGTH | gather::HEADERS | gather::BYTES) {
            self.gather_packet(skb);
        }
        if any(&GATHER, gather::LINK) {
            link::addresses(skb, &mut self.facts);
        }
        if any(&GATHER, gather::VLAN) && !link::tags(skb, &mut self.facts) {
            self.bytes.missed = 1;
        }
        if any(&GATHER, gather::LINK | gather::VLAN) {
            forget(&mut self.facts);
        } else if any(&GATHER, PACKET) {
            // Of the others, no way leads to something else.
            forget(&mut self.facts.packet);
        }
        if any(&GATHER, PACKET) {
            forget(&mut self.bytes);
        }
        if any(&GATHER, gather::IFACE | gather::NETNS) {
            let rx_sock = if HAS_SOCK.load() != 0 { ctx.arg(3) } else { core::ptr::null() };
            self.device = skb::device::<TRACED>(skb, rx_sock, &mut self.facts.iface);
            gather_device(&mut self.facts, &mut self.device);
        }
    }

    /// Enters the drop into the ledger if it could not be counted or decided by all that it should have been.
    #[inline(always)]
    pub fn note_missed(&self) {
        if any(&GATHER, PACKET) && self.bytes.missed != 0 {
            lose(Loss::HeadersUnreadable);
        }
    }

    #[inline(always)]
    fn gather_packet(&mut self, skb: Kernel) {
        let layout = skb::layout(skb).untagged();
        self.facts.length = layout.length;
        self.facts.known |= known::LENGTH;
        if any(&GATHER, gather::BYTES) {
            self.bytes = layout.place();
        }
        if any(&GATHER, gather::HEADERS) {
            packet::parse_into(&Headers::read(&layout), layout.protocol, &mut self.facts.packet);
            if layout.hides(&self.facts.packet) {
                self.bytes.missed = 1;
            }
        } else {
            self.facts.packet.ethertype = layout.protocol;
        }
    }
}

/// Makes the verifier forget what it knows of the facts.
///
/// It follows every path by which a packet can be read, with what is known at its end, and would go through all that
/// comes after again for each. Of unknown facts there is one path.
#[inline(always)]
pub fn forget<T>(facts: &mut T) {
    let words_in_it = const { size_of::<T>() / size_of::<u64>() };
    // SAFETY: a word of a map, and whole words of a structure of integers.
    unsafe {
        let zero = (&raw const ZERO).read_volatile();
        let words: *mut u64 = (&raw mut *facts).cast();
        let mut index = 0;
        while index < words_in_it {
            let word = words.add(index);
            word.write_volatile(word.read_volatile() | zero);
            index += 1;
        }
    }
}

#[inline(always)]
fn gather_device(facts: &mut Facts, device: &mut Device) {
    facts.netns = device.netns;
    // A key of maps, from where it stands: the stack has no room for a copy.
    facts.cookie = unknown(if device.cookie == 0 { u64::from(device.netns) } else { device.cookie });
    if device.netns != 0 {
        facts.known |= known::NETNS;
    }
    if any(&GATHER, gather::NETNS_NAMES) && device.netns != 0 && !has_known_names(&facts.cookie) {
        facts.known |= known::UNDECIDED;
    }
    if any(&GATHER, gather::IFACE_NAME) && device.is_named != 0 {
        facts.known |= known::IFACE;
    }
    // By these, ways differ.
    facts.known = unknown(facts.known.into()) as u32;
    if any(&GATHER, gather::IFACE_NAMES) && facts.known & known::IFACE != 0 {
        names::gather(device, facts);
    }
}

/// Whether user space knows the names of a namespace.
#[inline(always)]
fn has_known_names(namespace: &u64) -> bool {
    // SAFETY: a value of a map, of one word.
    NAMESPACES.get_ptr(namespace).is_some_and(|known| unsafe { known.read_volatile() != 0 })
}

/// Shows user space a namespace whose names it does not know, in which a drop has passed the filter.
#[inline(always)]
pub fn show_namespace(facts: &Facts) {
    if any(&GATHER, gather::NETNS_NAMES) && facts.known & known::UNDECIDED != 0 {
        // Without room it stays unknown. Most are there already, which costs no lock.
        if NAMESPACES.get_ptr(&facts.cookie).is_none() {
            let _ = NAMESPACES.insert(&facts.cookie, &0, u64::from(BPF_NOEXIST));
        }
    }
}
