//! A filter expression, compiled: what the kernel decides by, once code has been made of it.
//!
//! A program is an array of instructions. A test names the instruction to go to when it holds and when it does
//! not, always forward, so that `and`, `or` and `not` cost nothing and an answer ends the walk. The others put a
//! number into a slot and go on, for comparisons like `tcp[13] & 2 != 0`.
//!
//! The meaning is libpcap's. A field that the packet does not have fails its test. A field that the packet
//! should have and that lies beyond its bytes ends the walk: no such packet passes, not even under `not`.

mod cases;
mod code;
mod fields;
mod insn;
mod numbers;

pub use self::{
    cases::{CASES, Cases},
    code::{FIRST, alu, base, compare, known, need, op},
    fields::{as_bytes, as_words},
    insn::{ACCEPT, Insn, MAX_INSNS, NO_SLOT, REJECT, SLOTS},
};
use self::{
    fields::{address, masked, name, namespace, port, protocol, vlan},
    numbers::{bytes, calculate, compared, link_words, load, operand, slot},
};
use crate::packet::{Bytes, Packet, cut};

/// The numbered sets that `location` and `reason` are looked up in. They change while a program runs.
pub trait Ranges {
    /// Whether a set has a value.
    fn contains(&self, set: u32, value: u64) -> bool;
}

/// What is known of a drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Facts {
    /// What its headers say; all zeros for a packet without any.
    pub packet: Packet,
    /// The address where it died.
    pub location: u64,
    /// The interface's name, padded with zeros.
    pub iface: [u8; 16],
    /// The Ethernet addresses, first the destination. The ethertype is [`Packet::ethertype`].
    pub link: [u8; 12],
    /// The numbers of the outermost VLAN tag and the one inside it, each with [`TAGGED`], or zero.
    pub tags: [u16; 2],
    /// What the network namespace is known by: its cookie, or its inode number on kernels without cookies.
    pub cookie: u64,
    /// The names of the filter that the interface has besides its own, as bits.
    pub names: u64,
    /// Bytes from the network header on.
    pub length: u32,
    /// The network namespace's inode number.
    pub netns: u32,
    /// Why it died.
    pub reason: u32,
    /// Bits of [`known`], and above them the [`Cases`] in which it passes.
    pub known: u32,
}

/// The bit of a VLAN tag that is there.
pub const TAGGED: u16 = 1 << 15;

const _: () = assert!(size_of::<Facts>() == 120 && align_of::<Facts>() == 8);

/// Where the kernel keeps a packet's bytes, for those that a decision reads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The address of the network header.
    pub network: u64,
    /// Bytes from there to the end of the linear part.
    pub linear: u64,
    /// Bytes from there to the end of a packet of which a part is elsewhere; else zero.
    pub length: u64,
    /// Not zero if bytes were needed that the packet has elsewhere, where they are not read.
    pub missed: u64,
}

/// Where a decision gets what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, B: ?Sized, R> {
    /// What is known of the drop.
    pub facts: &'a Facts,
    /// The packet's bytes from its network header on, for those that have no place in the facts.
    pub bytes: &'a B,
    /// The sets.
    pub ranges: &'a R,
}

/// Whether a drop passes.
///
/// The kernel runs code that is made of the instructions; this is what they mean.
#[must_use]
pub fn decide<B: Bytes + ?Sized, R: Ranges>(insns: &[Insn], input: &Input<'_, B, R>) -> bool {
    decide_from(insns, 0, input)
}

/// The same from another instruction on, or from [`ACCEPT`] or [`REJECT`]: one of several programs in one array.
#[must_use]
pub fn decide_from<B: Bytes + ?Sized, R: Ranges>(
    insns: &[Insn],
    start: u16,
    input: &Input<'_, B, R>,
) -> bool {
    let mut slots = [0; SLOTS];
    let mut index = start;
    while let Some(insn) = insns.get(usize::from(index)) {
        let next = match run(insn, input, &mut slots) {
            Outcome::Yes => insn.targets as u16,
            Outcome::No => (insn.targets >> 16) as u16,
            Outcome::Reject => REJECT,
            Outcome::Accept => ACCEPT,
        };
        index = if next > index { next } else { REJECT };
    }
    index == ACCEPT
}

/// What came of an instruction.
enum Outcome {
    Yes,
    No,
    /// The packet ends before the field: nothing more is tested.
    Reject,
    /// There is no test.
    Accept,
}

impl From<bool> for Outcome {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

fn run<B: Bytes + ?Sized, R: Ranges>(
    insn: &Insn,
    input: &Input<'_, B, R>,
    slots: &mut [u32; SLOTS],
) -> Outcome {
    let Input { facts, ranges, .. } = input;
    let head = insn.head;
    let packet = &facts.packet;
    let select = (head >> 8) as u8;
    let is = |fact: u64| Outcome::from(fact == insn.value[0]);
    let is_in = |fact: u64| Outcome::from(insn.value[0] <= fact && fact <= insn.value[1]);
    match head as u8 {
        op::PASS => Outcome::Accept,
        op::ETHERTYPE => is(packet.ethertype.into()),
        op::PROTOCOL => protocol(packet, select, insn.value[0]),
        op::SADDR => {
            let whole_words = if packet.cut & cut::SADDR == 0 { 4 } else { packet.saddr_words };
            address(insn, &packet.saddr, packet.family & select != 0, whole_words)
        }
        op::DADDR => {
            let whole_words = if packet.cut & cut::DADDR == 0 { 4 } else { packet.daddr_words };
            address(insn, &packet.daddr, packet.family & select != 0, whole_words)
        }
        op::SPORT => port(insn, packet.sport, packet.transport & select != 0, packet.cut & cut::SPORT != 0),
        op::DPORT => port(insn, packet.dport, packet.transport & select != 0, packet.cut & cut::DPORT != 0),
        op::LENGTH if facts.known & known::LENGTH != 0 => is_in(facts.length.into()),
        op::NETNS if facts.known & known::NETNS != 0 => namespace(insn, facts),
        op::NETNS_NAMED if facts.known & known::NETNS != 0 => {
            let is_named = ranges.contains(insn.value[0] as u32, facts.cookie);
            (is_named || facts.known & known::UNDECIDED != 0 && select != 0).into()
        }
        op::IFACE if facts.known & known::IFACE != 0 => name(insn, facts),
        op::LOCATION => ranges.contains(insn.value[0] as u32, facts.location).into(),
        op::REASON if facts.known & known::REASON != 0 => {
            ranges.contains(insn.value[0] as u32, facts.reason.into()).into()
        }
        op::ADDRESS => is(facts.location),
        op::LINK if facts.known & known::LINK != 0 => masked(insn, link_words(facts)),
        op::VLAN => vlan(insn, facts),
        op::LOAD => load(insn, head, input, slots),
        op::ALU => calculate(insn, head, slots),
        op::COMPARE => {
            let (one, other) = (*slot(slots, head >> 16), operand(insn, head, slots));
            compared(one, select, other)
        }
        op::BYTES => bytes(insn, head, input),
        _ => Outcome::No,
    }
}
