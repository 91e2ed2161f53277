//! The code that the kernel runs, against the interpreter: random programs over random facts.

#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of tests are small, and registers are taken apart as the bits they are"
)]

use std::cell::Cell;

use dropwatch_common::{
    packet::{NEAR, family, parse},
    probe::{Range, RangeSet},
    program::{ACCEPT, Cases, FIRST, Facts, Insn, MAX_INSNS, NO_SLOT, REJECT, SLOTS, alu, base, known, op},
};
use dropwatch_testing::packets::{self, PORTS, PROTOCOLS, Random, Sample};
use proptest::prelude::*;

use super::machine::{Decider, Packet};

/// Sets with some of the values that facts have.
fn sets() -> Vec<RangeSet> {
    let mut sets = vec![RangeSet::default(); 3];
    for (place, start) in (0..16).zip((0..).step_by(3)) {
        sets[1].0[place] = Range { start, length: 1 + place as u64 % 2 };
    }
    sets[2].0[0] = Range { start: 1 << 40, length: u64::from(u32::MAX) };
    sets
}

/// Numbers that facts are made of, and words that differ in one half.
const COOKIES: [u64; 4] = [1, 0xffff_0001, 1 << 32 | 1, u64::MAX];
const TEXT: [u64; 3] = [0xffff_ffff_8123_4567, 0xffff_ffff_8123_4568, 0xffff_fffe_8123_4567];

fn name(random: &mut Random) -> [u8; 16] {
    let mut name = [0; 16];
    let text = random.pick(&["lo", "eth0", "eth1", "enp0s31f6np0", "vethabcdefghijk"]);
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

fn facts(random: &mut Random, sample: &Sample) -> Facts {
    let mut facts = Facts {
        packet: parse(&sample.bytes[..], sample.ethertype),
        location: random.pick(&TEXT),
        iface: name(random),
        cookie: random.pick(&COOKIES),
        names: 1 << random.below(64),
        length: random.pick(&[0, 1, sample.bytes.len() as u32, u32::MAX]),
        netns: 0xefff_fff0 + random.below(3) as u32,
        reason: random.below(50) as u32,
        known: random.below(64) as u32 | if random.chance(70) { !0 >> 16 } else { 0 },
        ..Facts::default()
    };
    facts.link.copy_from_slice(&sample.frame(random.pick(&packets::HARDWARE))[..12]);
    if random.chance(30) {
        facts.tags = [random.number() as u16, random.number() as u16];
    }
    facts
}

/// Bits of a word that matter: all, those of a prefix, some.
fn mask(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => 0,
        1 => u64::MAX,
        2 => (u64::MAX << random.below(64)).to_be(),
        _ => random.number(),
    }
}

/// What an instruction compares with: sometimes what the facts have.
fn compared(random: &mut Random, have: [u64; 2]) -> [u64; 2] {
    let other = [random.number(), random.number()];
    if random.chance(70) {
        have
    } else {
        [random.pick(&[have[0], other[0]]), random.pick(&[have[1], other[1]])]
    }
}

fn range(random: &mut Random, most: u64) -> [u64; 2] {
    let ends = [0, 1, 52, 53, 54, 80, 443, most / 2, most - 1, most, most + 1, u64::MAX];
    let (one, other) = (random.pick(&ends), random.pick(&ends));
    [one.min(other), one.max(other)]
}

/// A test of an expression, without its targets.
fn test(random: &mut Random, facts: &Facts) -> Insn {
    let any = |random: &mut Random, bits: &[u8]| random.pick(bits);
    let families = [1, 2, 4, 8, 3, 15];
    let (op, select, value, mask) = match random.below(15) {
        0 => (op::ETHERTYPE, 0, [facts.packet.ethertype.into(), 0], [0; 2]),
        1 => {
            let protocol = random.pick(&PROTOCOLS).into();
            (op::PROTOCOL, any(random, &families) | any(random, &[0, FIRST]), [protocol, 0], [0; 2])
        }
        end @ (2 | 3) => {
            let (op, address) =
                if end == 2 { (op::SADDR, &facts.packet.saddr) } else { (op::DADDR, &facts.packet.daddr) };
            let value = compared(random, program_words(address));
            if facts.packet.family == family::IPV6 || random.chance(30) {
                (op, any(random, &families), value, [mask(random), mask(random)])
            } else {
                let mask = u64::from_ne_bytes([0xff, 0xff, 0xff, random.byte(), 0, 0, 0, 0]);
                (op, any(random, &[1, 4, 8, 13]), value, [mask, 0])
            }
        }
        4 => (
            op::SPORT,
            any(random, &[1, 2, 4, 7]),
            range(random, u16::MAX.into()).map(|end| end.min(0xffff)),
            [0; 2],
        ),
        5 => (op::DPORT, any(random, &[1, 2, 4, 7]), [random.pick(&PORTS).into(); 2], [0; 2]),
        6 => (op::LENGTH, 0, range(random, u32::MAX.into()), [0; 2]),
        7 => {
            let cookie = random.pick(&[0, facts.cookie, COOKIES[0], COOKIES[1]]);
            (op::NETNS, 0, [facts.netns.into(), cookie], [0; 2])
        }
        8 => (op::NETNS_NAMED, any(random, &[0, 1]), [random.below(4) as u64, 0], [0; 2]),
        9 => {
            let own = if random.chance(50) { facts.iface } else { name(random) };
            (op::IFACE, 0, program_words(&own), [random.pick(&[0, u64::MAX, 1 << 40, 1]), 0])
        }
        10 => (op::LOCATION, 0, [random.below(4) as u64, 0], [0; 2]),
        11 => (op::REASON, 0, [random.below(4) as u64, 0], [0; 2]),
        12 => (op::ADDRESS, 0, [random.pick(&TEXT), 0], [0; 2]),
        13 => {
            let mut link = [0; 16];
            link[..12].copy_from_slice(&facts.link);
            link[12..14].copy_from_slice(&facts.packet.ethertype.to_be_bytes());
            let value = compared(random, program_words(&link));
            (op::LINK, 0, value, [mask(random), mask(random)])
        }
        _ => (op::VLAN, 0, range(random, 0xfff), [0; 2]),
    };
    Insn { value, mask, head: Insn::head(op, select, 0, NO_SLOT), targets: 0 }
}

fn program_words(bytes: &[u8; 16]) -> [u64; 2] {
    dropwatch_common::program::as_words(bytes)
}

/// An offset: near, at ends of headers, behind any packet.
fn offset(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => u64::from(u32::MAX) - random.below(8) as u64,
        1 => random.number() & 0xffff,
        _ => random.below(60) as u64,
    }
}

/// An instruction on bytes or numbers.
fn number(random: &mut Random, facts: &Facts) -> Insn {
    let select = random.pick(&[base::LINK, base::NETWORK, base::TRANSPORT, base::LENGTH]);
    let bytes = select | random.pick(&[1, 2, 4]) << 4;
    let (a, b) = (random.below(SLOTS) as u8, random.below(SLOTS) as u8);
    let b = random.pick(&[b, NO_SLOT]);
    let small = random.pick(&[0, 1, 2, 3, 7, 8, 20, 31, 32, 40, 0x8000_0000, u32::MAX]);
    let (op, select, a, b, value, mask) = match random.below(4) {
        0 => {
            let ethertype = random.pick(&[0, facts.packet.ethertype.into()]);
            let protocol = random.pick(&[NO_SLOT, NO_SLOT, facts.packet.next_header, 17]);
            let mask = random.pick(&[u32::MAX, 0xff, 1, 0xf0]);
            let a = random.below(6) as u8;
            (
                op::BYTES,
                bytes,
                a,
                protocol,
                [offset(random), u64::from(small) & 0xff],
                [mask.into(), ethertype],
            )
        }
        1 => (op::LOAD, bytes, a, b, [offset(random), random.pick(&[0, 0, 40, u32::MAX.into()])], [0; 2]),
        2 => {
            let select = random.below(usize::from(alu::RSH) + 1) as u8 | random.pick(&[0, alu::REVERSED]);
            (op::ALU, select, a, b, [small.into(), 0], [0; 2])
        }
        _ => (op::COMPARE, random.below(6) as u8, a, b, [small.into(), 0], [0; 2]),
    };
    Insn { value, mask, head: Insn::head(op, select, a, b), targets: 0 }
}

/// A target behind an instruction.
fn target(random: &mut Random, index: usize, length: usize) -> u16 {
    match random.below(10) {
        0 => ACCEPT,
        1 => REJECT,
        2 if index + 1 < length => (index + 1 + random.below(length - index - 1)) as u16,
        _ if index + 1 < length => index as u16 + 1,
        _ => random.pick(&[ACCEPT, REJECT]),
    }
}

/// A program, which first puts numbers into all slots: no expression reads one that has none.
fn program(random: &mut Random, facts: &Facts, length: usize) -> Vec<Insn> {
    let set = |slot| Insn {
        head: Insn::head(op::ALU, alu::SET, slot as u8, NO_SLOT),
        value: [slot as u64 * 13, 0],
        ..Insn::default()
    };
    let mut insns: Vec<_> = (0..SLOTS).map(set).collect();
    for _ in 0..length {
        let is_number = random.chance(40);
        insns.push(if is_number { number(random, facts) } else { test(random, facts) });
    }
    let length = insns.len();
    for (index, insn) in insns.iter_mut().enumerate() {
        let (yes, no) = (target(random, index, length), target(random, index, length));
        insn.targets = if index < SLOTS {
            Insn::targets(index as u16 + 1, index as u16 + 1)
        } else {
            Insn::targets(yes, no)
        };
    }
    insns
}

/// A packet whose end may be elsewhere, or unreadable.
fn packet<'a>(random: &mut Random, bytes: &'a [u8]) -> Packet<'a> {
    let length = bytes.len() as u64;
    let linear = if random.chance(40) { random.below(NEAR.min(bytes.len()) + 1) as u64 } else { length };
    let readable = if random.chance(5) { random.below(bytes.len() + 1) } else { bytes.len() };
    Packet {
        bytes: &bytes[..readable],
        linear,
        length: if linear < length { length } else { 0 },
        missed: Cell::new(false),
    }
}

fn compare(seed: u64) {
    let mut random = Random::new(seed);
    let length = 1 + random.below(12);
    let first = Sample::any(&mut random);
    let of_program = facts(&mut random, &first);
    let mut cases = Cases::default();
    let insns = if random.chance(30) {
        let mut insns: Vec<Insn> = Vec::new();
        for _ in 0..=random.below(8) {
            let start = insns.len() as u16;
            let moved =
                |target: u32| if target >= u32::from(REJECT) { target } else { target + u32::from(start) };
            let case = program(&mut random, &of_program, 1 + length / 3).into_iter().map(|insn| Insn {
                targets: moved(insn.targets & 0xffff) | moved(insn.targets >> 16) << 16,
                ..insn
            });
            insns.extend(case);
            cases = cases.with(random.pick(&[start, start, start, ACCEPT, REJECT]));
        }
        insns
    } else {
        program(&mut random, &of_program, length)
    };
    let decider = Decider::new(&insns, cases, sets());
    for _ in 0..40 {
        let sample = if random.chance(50) { first.clone() } else { Sample::any(&mut random) };
        let facts = facts(&mut random, &sample);
        let packet = packet(&mut random, &sample.bytes);
        decider.decide(&facts, &packet);
    }
}

/// More code than a jump reaches over: on the way there are jumps that go on.
#[test]
fn jumps_reach_the_end_of_long_code() {
    let test = |index: u16| Insn {
        head: Insn::head(op::REASON, 0, 0, NO_SLOT),
        value: [2, 0],
        targets: Insn::targets(if index == 0 { MAX_INSNS as u16 - 1 } else { ACCEPT }, index + 1),
        ..Insn::default()
    };
    let last = Insn { value: [1, 0], targets: Insn::targets(ACCEPT, REJECT), ..test(0) };
    let mut insns: Vec<_> = (0..MAX_INSNS as u16 - 1).map(test).collect();
    insns.push(last);
    let decider = Decider::new(&insns, Cases::default(), sets());
    let decide = |reason| {
        let facts = Facts { reason, known: known::REASON, ..Facts::default() };
        decider.decide(&facts, &Packet::whole(&[]))
    };
    assert_eq!((decide(0), decide(2)), (1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_code_decides_as_the_interpreter_does(seed: u64) {
        compare(seed);
    }
}
