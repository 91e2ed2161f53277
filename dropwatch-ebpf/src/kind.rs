//! Whom a packet was for, where the class of its drop depends on that.

use core::arch::asm;

use dropwatch_common::kind::{self, UNICAST, link};

use crate::{
    maps::{HAS_REASON, KIND_REASONS, offset},
    skb::{self, Headers, Kernel},
};

/// The kind of a dropped packet: most are known by their reason, or came in for this host.
#[inline(always)]
pub fn of(skb: Kernel, reason: u32) -> u8 {
    if is_plain(skb, reason) {
        return UNICAST;
    }
    if HAS_REASON.load() == 0 && is_for_one(skb) {
        return without_reason(skb);
    }
    let layout = skb::layout(skb).untagged();
    kind::of(link(skb), layout.protocol, &Headers::read(&layout))
}

/// Whether a packet counts as one for a single host, whatever its headers say.
#[inline(always)]
pub fn is_plain(skb: Kernel, reason: u32) -> bool {
    HAS_REASON.load() != 0 && (!matters(reason) || is_for_one(skb))
}

/// Whether a packet came in for one host.
#[inline(always)]
fn is_for_one(skb: Kernel) -> bool {
    let link = link(skb);
    // `pkt_type` is not set in outgoing packets, which have no interface that they came in on.
    (link == link::HOST || link == link::OTHER_HOST) && skb::load::<u32>(skb, offset!(skb_iif)) != 0
}

#[inline(always)]
fn link(skb: Kernel) -> u8 {
    skb::load::<u8>(skb, offset!(skb_pkt_type)) & link::MASK
}

/// The kind of a packet that came in for one host, on a kernel that does not say why it is dropped.
#[inline(always)]
fn without_reason(skb: Kernel) -> u8 {
    let layout = skb::layout(skb).untagged();
    let is_empty = kind::is_empty_segment(layout.protocol, &Headers::read(&layout));
    if is_empty { kind::EMPTY_SEGMENT } else { UNICAST }
}

/// Whether the class of a drop with this reason depends on whom the packet was for.
#[inline(always)]
fn matters(reason: u32) -> bool {
    let mut index = u64::from(reason / 64);
    // The verifier has to see the mask, which the compiler would leave out where it knows that the number is small.
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) index, options(pure, nomem, nostack, preserves_flags)) };
    // SAFETY: a word of a static that has four.
    let word = unsafe { KIND_REASONS.as_ptr().cast::<u64>().add((index & 3) as usize).read_volatile() };
    reason < 4 * 64 && word >> (reason % 64) & 1 != 0
}
