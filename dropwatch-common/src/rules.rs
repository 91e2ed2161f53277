//! A filter expression, compiled: what the kernel decides by.
//!
//! An expression is an array of rules. Each tests one field and names the rule to go to when the test holds and
//! when it does not, always forward, so that `and`, `or` and `not` cost nothing and an answer ends the walk.
//!
//! The meaning is libpcap's. A field that the packet does not have fails its test. A field that the packet
//! should have and that lies beyond its bytes ends the walk: no such packet passes, not even under `not`.

use crate::packet::{Packet, cut, family};

/// How many rules an expression has at most.
pub const MAX_RULES: usize = 64;

/// The target that lets the drop pass.
pub const ACCEPT: u8 = 255;

/// The target that refuses it.
pub const REJECT: u8 = 254;

/// What a rule tests; the first byte of [`Rule::head`].
///
/// Each names the words it compares with.
pub mod field {
    /// Nothing: the drop passes. An array of zeros is a filter that everything passes.
    pub const PASS: u8 = 0;
    /// The ethertype is `value[0]`.
    pub const ETHERTYPE: u8 = 1;
    /// The protocol byte of an IP header is `value[0]`, or an IPv6 fragment header right behind it says so;
    /// `select` has the bits of [`family`](crate::packet::family) that are meant.
    pub const PROTOCOL: u8 = 2;
    /// The source address under `mask` is `value`; `select` has bits of [`family`](crate::packet::family).
    pub const SADDR: u8 = 3;
    /// The same for the destination address.
    pub const DADDR: u8 = 4;
    /// The source port is in `value[0]..=value[1]`; `select` has bits of
    /// [`transport`](crate::packet::transport).
    pub const SPORT: u8 = 5;
    /// The same for the destination port.
    pub const DPORT: u8 = 6;
    /// The length is in `value[0]..=value[1]`.
    pub const LENGTH: u8 = 7;
    /// The network namespace is `value[0]`.
    pub const NETNS: u8 = 8;
    /// The interface's name is `value`, as bytes padded with zeros.
    pub const IFACE: u8 = 9;
    /// The location is in the set `value[0]`.
    pub const LOCATION: u8 = 10;
    /// The reason is in the set `value[0]`.
    pub const REASON: u8 = 11;
}

/// Bits of what a filter asks for: the rest need not be gathered.
pub mod need {
    /// The ethertype and the protocol byte of the IP header.
    pub const PROTOCOL: u32 = 1;
    /// Addresses.
    pub const ADDRESSES: u32 = 2;
    /// Ports.
    pub const PORTS: u32 = 4;
    /// The length.
    pub const LENGTH: u32 = 8;
    /// The network namespace.
    pub const NETNS: u32 = 16;
    /// The interface's name.
    pub const IFACE: u32 = 32;
    /// The location.
    pub const LOCATION: u32 = 64;
    /// The reason.
    pub const REASON: u32 = 128;
    /// Whatever is read from the packet's headers.
    pub const PACKET: u32 = PROTOCOL | ADDRESSES | PORTS;
}

/// Bits of [`Facts::known`].
pub mod known {
    /// The length.
    pub const LENGTH: u32 = 1;
    /// The network namespace.
    pub const NETNS: u32 = 2;
    /// The interface's name.
    pub const IFACE: u32 = 4;
    /// The reason: old kernels give none.
    pub const REASON: u32 = 8;
}

/// One test and where it leads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What is compared with: one number, a range's ends, a set's number, or the bytes of an address or a name
    /// in the order they have there.
    pub value: [u64; 2],
    /// Which bits of an address count.
    pub mask: [u64; 2],
    /// [`field`], select, the target if the test holds, the target if not: a byte each, lowest first, so that
    /// the kernel reads one word.
    pub head: u32,
    /// Keeps the size a multiple of eight; always zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Rule>() == 40 && align_of::<Rule>() == 8);
const _: () = assert!(MAX_RULES <= REJECT as usize);

/// An expression: its rules, and after them such as are never reached.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleTable(pub [Rule; MAX_RULES]);

impl Default for RuleTable {
    fn default() -> Self {
        Self([Rule::default(); MAX_RULES])
    }
}

impl Rule {
    /// Packs a rule's head.
    #[must_use]
    pub const fn pack(field: u8, select: u8, yes: u8, no: u8) -> u32 {
        u32::from_le_bytes([field, select, yes, no])
    }

    /// What it tests, one of [`field`].
    #[must_use]
    pub const fn field(&self) -> u8 {
        self.head.to_le_bytes()[0]
    }
}

/// Where the rules are: an array here, a frozen global in the kernel, which reads only the words it needs.
pub trait Rules {
    /// [`Rule::head`]; `None` beyond the last rule.
    fn head(&self, index: u32) -> Option<u32>;
    /// One word of [`Rule::value`]; `WORD` is 0 or 1, and the index one that has a head.
    fn value<const WORD: usize>(&self, index: u32) -> u64;
    /// One word of [`Rule::mask`].
    fn mask<const WORD: usize>(&self, index: u32) -> u64;
}

/// The numbered sets that `location` and `reason` are looked up in. They change while a program runs.
pub trait Ranges {
    /// Whether a set has a value.
    fn contains(&self, set: u32, value: u64) -> bool;
}

/// What is known of a drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What its headers say; all zeros for a packet without any.
    pub packet: Packet,
    /// The address where it died.
    pub location: u64,
    /// The interface's name, padded with zeros.
    pub iface: [u8; 16],
    /// Bytes from the network header on.
    pub length: u32,
    /// The network namespace's number.
    pub netns: u32,
    /// Why it died.
    pub reason: u32,
    /// Bits of [`known`].
    pub known: u32,
}

const _: () = assert!(size_of::<Facts>() == 88 && align_of::<Facts>() == 8);

/// Whether a drop passes.
///
/// In the kernel the facts must be such as the verifier knows nothing about, and be loaded anew by each rule: then
/// two ways to one rule are the same to it. What it learns on each way tells them apart otherwise, and 64 rules with
/// many an `or` are more than it takes (over a million instructions on Linux 6.18, instead of 60 000).
#[inline(always)]
#[must_use]
pub fn decide(rules: &(impl Rules + ?Sized), facts: &Facts, ranges: &impl Ranges) -> bool {
    let mut index = 0;
    // Nothing else is carried around: a verifier that meets a rule again by another way must find nothing new,
    // or it would follow each way through every `or` on its own.
    loop {
        let next = step(rules, index, facts, ranges);
        if next >= u32::from(REJECT) || next <= index {
            return next == u32::from(ACCEPT);
        }
        index = next;
    }
}

/// Applies one rule: the index of the next, or [`ACCEPT`] or [`REJECT`].
#[inline(always)]
#[must_use]
pub fn step(rules: &(impl Rules + ?Sized), index: u32, facts: &Facts, ranges: &impl Ranges) -> u32 {
    let Some(head) = rules.head(index) else { return u32::from(REJECT) };
    match test(rules, index, head, facts, ranges) {
        Outcome::Yes => (head >> 16) & 0xff,
        Outcome::No => head >> 24,
        Outcome::Reject => u32::from(REJECT),
        Outcome::Accept => u32::from(ACCEPT),
    }
}

/// What came of a test.
enum Outcome {
    Yes,
    No,
    /// The packet ends before the field: no further question.
    Reject,
    /// There is no test.
    Accept,
}

impl From<bool> for Outcome {
    #[inline(always)]
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

#[inline(always)]
fn test(
    rules: &(impl Rules + ?Sized),
    index: u32,
    head: u32,
    facts: &Facts,
    ranges: &impl Ranges,
) -> Outcome {
    let packet = &facts.packet;
    let select = (head >> 8) as u8;
    let is = |fact: u64| Outcome::from(fact == rules.value::<0>(index));
    let is_in = |fact: u64| Outcome::from(rules.value::<0>(index) <= fact && fact <= rules.value::<1>(index));
    match head as u8 {
        field::PASS => Outcome::Accept,
        field::ETHERTYPE => is(packet.ethertype.into()),
        field::PROTOCOL => protocol(rules, index, packet, select),
        field::SADDR if packet.family & select == 0 => Outcome::No,
        field::SADDR => {
            let words = whole_words(packet.cut & cut::SADDR, packet.saddr_words);
            address(rules, index, &packet.saddr, words)
        }
        field::DADDR if packet.family & select == 0 => Outcome::No,
        field::DADDR => {
            let words = whole_words(packet.cut & cut::DADDR, packet.daddr_words);
            address(rules, index, &packet.daddr, words)
        }
        field::SPORT | field::DPORT if packet.transport & select == 0 => Outcome::No,
        field::SPORT if packet.cut & cut::SPORT != 0 => Outcome::Reject,
        field::SPORT => is_in(packet.sport.into()),
        field::DPORT if packet.cut & cut::DPORT != 0 => Outcome::Reject,
        field::DPORT => is_in(packet.dport.into()),
        field::LENGTH if facts.known & known::LENGTH != 0 => is_in(facts.length.into()),
        field::NETNS if facts.known & known::NETNS != 0 => is(facts.netns.into()),
        field::IFACE if facts.known & known::IFACE != 0 => name(rules, index, &facts.iface),
        field::LOCATION => ranges.contains(rules.value::<0>(index) as u32, facts.location).into(),
        field::REASON if facts.known & known::REASON != 0 => {
            ranges.contains(rules.value::<0>(index) as u32, facts.reason.into()).into()
        }
        _ => Outcome::No,
    }
}

/// The protocol byte, and what an IPv6 fragment header right behind it says instead.
#[inline(always)]
fn protocol(rules: &(impl Rules + ?Sized), index: u32, packet: &Packet, select: u8) -> Outcome {
    if packet.family & select == 0 {
        return Outcome::No;
    }
    if packet.cut & cut::NEXT_HEADER != 0 {
        return Outcome::Reject;
    }
    let wanted = rules.value::<0>(index);
    if u64::from(packet.next_header) == wanted {
        return Outcome::Yes;
    }
    if packet.family != family::IPV6 || packet.next_header != crate::packet::protocol::FRAGMENT {
        return Outcome::No;
    }
    if packet.cut & cut::FRAGMENT_NEXT != 0 {
        return Outcome::Reject;
    }
    (u64::from(packet.fragment_next) == wanted).into()
}

/// How many words of an address there are; four, unless it is cut.
#[inline(always)]
fn whole_words(is_cut: u8, words: u8) -> u8 {
    if is_cut == 0 { 4 } else { words }
}

/// Sixteen bytes as the two words that rules compare with.
#[inline(always)]
#[must_use]
pub fn as_words(bytes: &[u8; 16]) -> [u64; 2] {
    let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else { return [0; 2] };
    [u64::from_ne_bytes(*first), u64::from_ne_bytes(*last)]
}

/// The address in the order that libpcap compares it: what is there may differ before the cut is met.
#[inline(always)]
fn address(rules: &(impl Rules + ?Sized), index: u32, bytes: &[u8; 16], words: u8) -> Outcome {
    let [high, low] = as_words(bytes);
    let mut high = (high ^ rules.value::<0>(index)) & rules.mask::<0>(index);
    let mut low = (low ^ rules.value::<1>(index)) & rules.mask::<1>(index);
    if words == 4 {
        return (high | low == 0).into();
    }
    let half = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    low &= if words > 2 { half } else { 0 };
    high &= match words {
        0 => 0,
        1 => half,
        _ => u64::MAX,
    };
    if high | low == 0 { Outcome::Reject } else { Outcome::No }
}

#[inline(always)]
fn name(rules: &(impl Rules + ?Sized), index: u32, bytes: &[u8; 16]) -> Outcome {
    let [high, low] = as_words(bytes);
    ((high ^ rules.value::<0>(index)) | (low ^ rules.value::<1>(index)) == 0).into()
}

impl Rules for [Rule] {
    #[inline(always)]
    fn head(&self, index: u32) -> Option<u32> {
        self.get(index as usize).map(|rule| rule.head)
    }

    #[inline(always)]
    fn value<const WORD: usize>(&self, index: u32) -> u64 {
        self.get(index as usize).and_then(|rule| rule.value.get(WORD)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn mask<const WORD: usize>(&self, index: u32) -> u64 {
        self.get(index as usize).and_then(|rule| rule.mask.get(WORD)).copied().unwrap_or(0)
    }
}
