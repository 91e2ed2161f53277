//! The Ethernet header and the VLAN tags of a packet, for a filter.

use dropwatch_common::program::{Facts, TAGGED, known};

use crate::{
    maps::{offset, trace_offset},
    skb::{self, Kernel},
};

/// `mac_header` of a packet that has none.
const UNSET: u16 = 0xffff;
/// The length of an Ethernet header.
const ETHERNET: u16 = 14;
/// The length of a tag.
const TAG: u16 = 4;

/// Whether an ethertype announces a tag.
#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

/// Two bytes of the packet, as the number that they are.
#[inline(always)]
fn number(address: u64) -> u16 {
    u16::from_be_bytes(skb::read(address).unwrap_or_default())
}

/// Where the Ethernet header is; zero if there is none.
///
/// Nothing in a packet says of which kind the bytes in front of its network header are. They are taken for an
/// Ethernet header if they have its length, tags included, and the ethertype that the kernel has noted.
#[inline(always)]
fn header(skb: Kernel) -> u64 {
    let mac: u16 = skb::load(skb, offset!(skb_mac_header));
    let network: u16 = skb::load(skb, offset!(skb_network_header));
    let head: u64 = skb::load(skb, offset!(skb_head));
    if mac == UNSET {
        return 0;
    }
    let address = head + u64::from(mac);
    let protocol = u16::from_be(skb::load(skb, offset!(skb_protocol)));
    let ethertype = number(address + 12);
    let length = network.wrapping_sub(mac);
    // A number below the ethertypes is a length; then the kernel's own number stands for the protocol.
    let is_plain = length == ETHERNET && (ethertype == protocol || ethertype < 0x600);
    let is_tagged = (length == ETHERNET + TAG || length == ETHERNET + 2 * TAG) && is_tag(ethertype);
    if is_plain || is_tagged { address } else { 0 }
}

/// Notes the header's addresses.
#[inline(always)]
pub fn addresses(skb: Kernel, facts: &mut Facts) {
    let address = header(skb);
    if address == 0 {
        return;
    }
    let Some(addresses) = skb::read::<[u8; 12]>(address) else { return };
    facts.link = addresses;
    facts.known |= known::LINK;
}

/// Notes the two outermost tags: first the one that the kernel has taken out of the frame, then those in it. False if
/// one of these is where it is not read.
#[inline(always)]
pub fn tags(skb: Kernel, facts: &mut Facts) -> bool {
    let beside = beside(skb);
    facts.tags[0] = beside;
    let address = header(skb);
    if address == 0 || !is_tag(number(address + 12)) {
        return true;
    }
    let head: u64 = skb::load(skb, offset!(skb_head));
    let end = head + u64::from(skb::load::<u32>(skb, offset!(skb_tail)));
    if end < address + 18 {
        return false;
    }
    let first = tag(number(address + 14));
    if beside != 0 {
        facts.tags[1] = first;
        return true;
    }
    facts.tags[0] = first;
    if !is_tag(number(address + 16)) {
        return true;
    }
    if end < address + 20 {
        return false;
    }
    facts.tags[1] = tag(number(address + 18));
    true
}

/// The number in a tag that is there.
#[inline(always)]
fn tag(control: u16) -> u16 {
    TAGGED | control & 0xfff
}

/// The tag that stands beside the frame; zero if there is none.
#[inline(always)]
fn beside(skb: Kernel) -> u16 {
    let protocol: u16 = skb::load(skb, trace_offset!(skb_vlan_proto));
    let tci: u16 = skb::load(skb, trace_offset!(skb_vlan_tci));
    let mask = trace_offset!(vlan_present_mask);
    let is_there = if mask == 0 {
        protocol != 0 || tci != 0
    } else {
        u32::from(skb::load::<u8>(skb, trace_offset!(skb_vlan_present))) & mask != 0
    };
    if is_there { tag(tci) } else { 0 }
}
