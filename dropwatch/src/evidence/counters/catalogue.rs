//! The counters that are read, as `catalogue.toml` lists them.

pub use crate::model::words::Source;

use super::links::Link;
use crate::model::counter::InRows;

/// A counter of losses, or of what leads to them.
#[derive(Debug)]
pub struct Counter {
    /// As `nstat` or `ip -s -s link` prints it.
    pub name: &'static str,
    /// Where it is counted.
    pub source: Source,
    /// What was lost, and why.
    pub meaning: &'static str,
    /// The rows that account for the same loss.
    pub rows: InRows,
    /// Whether what it counts is lost.
    pub is_loss: bool,
    /// A counter that may count the same losses: where that one moved, this one is not listed.
    pub unless: Option<&'static str>,
    /// The kinds of interfaces that it is listed for.
    kinds: &'static [&'static str],
    /// Counters that count the same losses by their cause.
    pub causes: &'static [Cause],
}

/// A counter that tells the cause of some of another one's losses.
#[derive(Debug)]
pub struct Cause {
    /// As the same tool prints it.
    pub name: &'static str,
    /// The cause.
    pub meaning: &'static str,
    /// What to look at where the object at fault is not known.
    pub advice: Option<&'static str>,
}

/// Every counter that is read.
pub static COUNTERS: &[Counter] = include!(concat!(env!("OUT_DIR"), "/counters.rs"));

impl Source {
    /// The files of numbers that a namespace has of its own.
    pub const OF_NAMESPACE: [Self; 4] = [Self::Netstat, Self::Snmp, Self::Snmp6, Self::Xfrm];

    /// Its name in `/proc/net`, if it is a file.
    #[must_use]
    pub fn file(self) -> Option<&'static str> {
        match self {
            Self::Netstat => Some("netstat"),
            Self::Snmp => Some("snmp"),
            Self::Snmp6 => Some("snmp6"),
            Self::Xfrm => Some("xfrm_stat"),
            Self::Softnet => Some("softnet_stat"),
            Self::Netlink => Some("netlink"),
            Self::PacketSockets | Self::Link => None,
        }
    }
}

impl Counter {
    /// The one of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        COUNTERS.iter().find(|counter| counter.name == name)
    }

    /// Whether it counts losses without rows on an interface.
    pub fn is_for(&self, link: &Link) -> bool {
        let is = |&kind: &&str| if kind == "card" { link.is_card() } else { link.is(kind) };
        self.source == Source::Link && self.kinds.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_listed_once() {
        let mut names: Vec<_> = COUNTERS.iter().map(|counter| counter.name).collect();
        names.extend(COUNTERS.iter().flat_map(|counter| counter.causes).map(|cause| cause.name));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_is_no_loss_says_so_first() {
        for counter in COUNTERS {
            assert_eq!(counter.is_loss, !counter.meaning.starts_with("not a loss: "), "{}", counter.name);
        }
        assert!(COUNTERS.iter().any(|counter| !counter.is_loss));
    }

    #[test]
    fn what_may_count_the_same_is_a_counter() {
        for other in COUNTERS.iter().filter_map(|counter| counter.unless) {
            assert!(Counter::named(other).is_some(), "{other}");
        }
    }
}
