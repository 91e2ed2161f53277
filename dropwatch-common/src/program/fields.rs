//! Tests of the fields that are known of a drop.

use super::{FIRST, Facts, Insn, Outcome, TAGGED};
use crate::packet::{LATER, Packet, cut, family};

/// The protocol byte, and what an IPv6 fragment header right behind it says instead.
pub(super) fn protocol(packet: &Packet, select: u8, wanted: u64) -> Outcome {
    if packet.family & select == 0 {
        return Outcome::No;
    }
    if packet.cut & cut::NEXT_HEADER != 0 {
        return Outcome::Reject;
    }
    if u64::from(packet.next_header) == wanted {
        return (select & FIRST == 0 || packet.ipv4_header & LATER == 0).into();
    }
    if select & FIRST != 0
        || packet.family != family::IPV6
        || packet.next_header != crate::packet::protocol::FRAGMENT
    {
        return Outcome::No;
    }
    if packet.cut & cut::FRAGMENT_NEXT != 0 {
        return Outcome::Reject;
    }
    (u64::from(packet.fragment_next) == wanted).into()
}

/// Sixteen bytes as the two words that instructions compare with.
#[must_use]
pub fn as_words(bytes: &[u8; 16]) -> [u64; 2] {
    let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else { return [0; 2] };
    [u64::from_ne_bytes(*first), u64::from_ne_bytes(*last)]
}

/// Two words as the bytes that they stand for.
#[must_use]
pub fn as_bytes([first, last]: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (start, end) = bytes.split_at_mut(8);
    start.copy_from_slice(&first.to_ne_bytes());
    end.copy_from_slice(&last.to_ne_bytes());
    bytes
}

/// Whether two words under the mask are the value.
pub(super) fn masked(insn: &Insn, [high, low]: [u64; 2]) -> Outcome {
    let high = (high ^ insn.value[0]) & insn.mask[0];
    let low = (low ^ insn.value[1]) & insn.mask[1];
    (high | low == 0).into()
}

/// The address in the order that libpcap compares it: what is there may differ before the cut is met.
pub(super) fn address(insn: &Insn, bytes: &[u8; 16], is_selected: bool, whole_words: u8) -> Outcome {
    if !is_selected {
        return Outcome::No;
    }
    let (value, mask) = (as_bytes(insn.value), as_bytes(insn.mask));
    for at in 0..bytes.len() {
        if at / 4 >= whole_words.into() {
            return Outcome::Reject;
        }
        if (bytes[at] ^ value[at]) & mask[at] != 0 {
            return Outcome::No;
        }
    }
    Outcome::Yes
}

/// A port of a range; one that is cut ends the walk if it would be compared.
pub(super) fn port(insn: &Insn, port: u16, is_selected: bool, is_cut: bool) -> Outcome {
    match (is_selected, is_cut) {
        (false, _) => Outcome::No,
        (true, true) => Outcome::Reject,
        (true, false) => (insn.value[0] <= port.into() && u64::from(port) <= insn.value[1]).into(),
    }
}

/// Kernels without cookies know a namespace only by its number, which may be reused.
pub(super) fn namespace(insn: &Insn, facts: &Facts) -> Outcome {
    let cookie = insn.value[1];
    let is_it = u64::from(facts.netns) == insn.value[0] && (cookie == 0 || cookie == facts.cookie);
    is_it.into()
}

pub(super) fn name(insn: &Insn, facts: &Facts) -> Outcome {
    let [high, low] = as_words(&facts.iface);
    let is_own = (high ^ insn.value[0]) | (low ^ insn.value[1]) == 0;
    (is_own | (facts.names & insn.mask[0] != 0)).into()
}

/// The number in a tag is its lower twelve bits.
pub(super) fn vlan(insn: &Insn, facts: &Facts) -> Outcome {
    let (low, high) = (insn.value[0], insn.value[1]);
    let is = |tag: u16| tag & TAGGED != 0 && low <= u64::from(tag & 0xfff) && u64::from(tag & 0xfff) <= high;
    (is(facts.tags[0]) || is(facts.tags[1])).into()
}
