mod classic;
mod expressions;
mod grammar;
mod libpcap;
mod meaning;
#[path = "../../../../tests/support/packets.rs"]
mod packets;

use dropwatch_common::{
    packet,
    rules::{self, Facts, Ranges},
};

use super::{Filter, FilterError, Resolver, Set};
use crate::check::rule::Vocabulary;

/// A host with two reasons and two namespaces.
struct Host;

impl Vocabulary for Host {
    fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
        match name {
            "NO_SOCKET" => Ok(vec![3]),
            "NETFILTER_DROP" | "core:12" => Ok(vec![12, 70]),
            _ => Err(format!("this kernel has no reason '{name}': did you mean 'NO_SOCKET'?")),
        }
    }
}

impl Resolver for Host {
    fn netns(&self, name: &str) -> Result<u32, String> {
        match name {
            "self" => Ok(4_026_531_840),
            "blue" | "/run/netns/blue" => Ok(4_026_532_100),
            _ => Err(format!("there is no network namespace '{name}'")),
        }
    }
}

/// The sets as they are: a function is the addresses from 0x1000 to 0x10ff.
struct Sets<'a>(&'a [Set]);

impl Ranges for Sets<'_> {
    fn contains(&self, set: u32, value: u64) -> bool {
        match &self.0[set as usize] {
            Set::Location(_) => (0x1000..0x1100).contains(&value),
            Set::Reason { codes, .. } => codes.iter().any(|code| u64::from(*code) == value),
        }
    }
}

fn filter(text: &str) -> Filter {
    try_filter(text).unwrap_or_else(|error| panic!("{error}"))
}

fn try_filter(text: &str) -> Result<Filter, FilterError> {
    Filter::parse(text, &Host)
}

/// Whether a drop with these facts passes.
fn passes(filter: &Filter, facts: &Facts) -> bool {
    rules::decide(&filter.table().0[..], facts, &Sets(filter.sets()))
}

/// What is known of a packet by its bytes alone.
fn facts(ethertype: u16, bytes: &[u8]) -> Facts {
    Facts {
        packet: packet::parse(bytes, ethertype),
        length: bytes.len().try_into().expect("a length"),
        known: rules::known::LENGTH,
        ..Facts::default()
    }
}
