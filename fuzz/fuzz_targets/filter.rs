//! Any text as a filter, any bytes as the packet it decides on.
#![no_main]

use dropwatch::{
    check::rule::Vocabulary,
    filter::{Filter, Resolver},
};
use dropwatch_common::{
    packet,
    rules::{self, Facts, Ranges},
};
use libfuzzer_sys::fuzz_target;

/// A host on which every name means something.
struct Host;

impl Vocabulary for Host {
    fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
        Ok(vec![name.len() as u32])
    }
}

impl Resolver for Host {
    fn netns(&self, name: &str) -> Result<u32, String> {
        Ok(name.len() as u32)
    }
}

struct Odd;

impl Ranges for Odd {
    fn contains(&self, _set: u32, value: u64) -> bool {
        value % 2 == 1
    }
}

fuzz_target!(|input: (&str, u16, &[u8], u32)| {
    let (text, ethertype, bytes, number) = input;
    let filter = match Filter::parse(text, &Host) {
        Ok(filter) => filter,
        Err(error) => {
            assert_eq!(error.to_string().lines().count(), 3);
            return;
        }
    };
    let again = Filter::parse(&filter.to_string(), &Host).expect("what is printed is read");
    assert_eq!(again.expression(), filter.expression());
    let packet = packet::parse(bytes, ethertype);
    let facts = Facts { packet, length: number, netns: number, reason: number, known: !0, ..Facts::default() };
    let _ = rules::decide(&filter.table().0[..], &facts, &Odd);
});
