//! One drop, as far as somebody asks for it.

use aya_ebpf::programs::BtfTracePointContext;
use dropwatch_common::{
    packet,
    probe::gather,
    rules::{Facts, known},
};

use crate::{
    maps::{GATHER, HAS_REASON, HAS_SOCK, any},
    skb::{self, Device, Headers, Kernel},
};

/// Zero, which the verifier does not know: user space could write it, and never does.
#[unsafe(no_mangle)]
static mut ZERO: u64 = 0;

/// What is known about a drop; what nobody asked for is empty.
pub struct Drop {
    /// What the filter decides by.
    pub facts: Facts,
    /// Where it happened.
    pub device: Device,
}

impl Drop {
    /// A drop of which nothing is known.
    #[inline(always)]
    pub fn new() -> Self {
        Self { facts: Facts::default(), device: Device::UNKNOWN }
    }

    /// `skb:kfree_skb`: `(skb, location[, reason[, rx_sk]])`.
    #[inline(always)]
    pub fn gather(&mut self, ctx: &BtfTracePointContext) {
        let skb: Kernel = ctx.arg(0);
        self.facts.location = ctx.arg(1);
        // The verifier knows these constants: what they rule out is removed, and with it the arguments that this
        // kernel's tracepoint does not have.
        if HAS_REASON.load() != 0 {
            self.facts.reason = ctx.arg(2);
            self.facts.known |= known::REASON;
        }
        if any(&GATHER, gather::PROTOCOL | gather::LENGTH | gather::HEADERS) {
            gather_packet(&mut self.facts, skb);
            forget(&mut self.facts);
        }
        if any(&GATHER, gather::IFACE | gather::NETNS) {
            let rx_sock = if HAS_SOCK.load() != 0 { ctx.arg(3) } else { core::ptr::null() };
            self.device = skb::device(skb, rx_sock);
            gather_device(&mut self.facts, &mut self.device);
        }
    }
}

/// Makes the verifier forget what it knows of the facts.
///
/// It follows every path by which a packet can be read, with what is known at its end, and would go through all that
/// comes after again for each. Of unknown facts there is one path.
#[inline(always)]
fn forget(facts: &mut Facts) {
    const WORDS: usize = size_of::<Facts>() / size_of::<u64>();
    // SAFETY: a word of a map, and whole words of a structure of integers.
    unsafe {
        let zero = (&raw const ZERO).read_volatile();
        let words: *mut u64 = (&raw mut *facts).cast();
        let mut index = 0;
        while index < WORDS {
            let word = words.add(index);
            word.write_volatile(word.read_volatile() | zero);
            index += 1;
        }
    }
}

#[inline(always)]
fn gather_device(facts: &mut Facts, device: &mut Device) {
    facts.netns = device.netns;
    if device.netns != 0 {
        facts.known |= known::NETNS;
    }
    if any(&GATHER, gather::IFACE_NAME) && device.read_name(&mut facts.iface) {
        facts.known |= known::IFACE;
    }
}

#[inline(always)]
fn gather_packet(facts: &mut Facts, skb: Kernel) {
    let layout = skb::layout(skb).untagged();
    facts.length = layout.length;
    facts.known |= known::LENGTH;
    if any(&GATHER, gather::HEADERS) {
        packet::parse_into(&Headers::read(&layout), layout.protocol, &mut facts.packet);
    } else {
        facts.packet.ethertype = layout.protocol;
    }
}
