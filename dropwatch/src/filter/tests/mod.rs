mod cases;
mod classic;
mod code;
mod expressions;
mod grammar;
mod libpcap;
mod machine;
mod meaning;
mod of_row;

use dropwatch_common::{
    packet,
    probe::{Range, RangeSet},
    program::{self, Facts},
};
use dropwatch_testing::packets;

use self::machine::Decider;
use super::{Filter, FilterError, Set};
use crate::fakes::Host;

/// The sets as the kernel gets them: a function is the addresses from 0x1000 to 0x10ff.
fn ranges(sets: &[Set]) -> Vec<RangeSet> {
    let ranges = |set: &Set| match set {
        Set::Netns(name) if name == "blue" => vec![Range { start: 4_026_532_100, length: 1 }],
        Set::Netns(_) => Vec::new(),
        Set::Location(_) => vec![Range { start: 0x1000, length: 0x100 }],
        Set::Reason { codes, .. } => {
            codes.iter().map(|&code| Range { start: code.into(), length: 1 }).collect()
        }
    };
    let set = |set: &Set| {
        let mut place = RangeSet::default();
        for (place, range) in place.0.iter_mut().zip(ranges(set)) {
            *place = range;
        }
        place
    };
    sets.iter().map(set).collect()
}

fn filter(text: &str) -> Filter {
    try_filter(text).unwrap_or_else(|error| panic!("{error}"))
}

fn try_filter(text: &str) -> Result<Filter, FilterError> {
    Filter::parse(text, &Host)
}

/// Whether a drop with these facts passes.
fn passes(filter: &Filter, facts: &Facts) -> bool {
    passes_with(filter, facts, &[])
}

/// The same with a packet of which any byte may be read.
fn passes_with(filter: &Filter, facts: &Facts, bytes: &[u8]) -> bool {
    cases(filter, facts, bytes) != 0
}

/// In which cases it passes, by the interpreter and by the code for the kernel alike.
fn cases(filter: &Filter, facts: &Facts, bytes: &[u8]) -> u32 {
    let passed = decider(filter).decide(facts, &machine::Packet::whole(bytes));
    passed.try_into().expect("a bit for each case")
}

fn decider(filter: &Filter) -> Decider {
    Decider::new(filter.insns(), filter.starts(), ranges(filter.sets()))
}

/// What is known of a packet by its bytes alone.
fn facts(ethertype: u16, bytes: &[u8]) -> Facts {
    Facts {
        packet: packet::parse(bytes, ethertype),
        length: bytes.len().try_into().expect("a length"),
        known: program::known::LENGTH,
        ..Facts::default()
    }
}
