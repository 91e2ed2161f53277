//! What is read of a namespace: numbers by name, each set of one subject.

use std::{borrow::Cow, collections::HashMap};

use super::sockets::Id;
use crate::model::{counter::Qdisc, foreign::Foreign};

/// Numbers by the names that tools print.
pub type Numbers = HashMap<Cow<'static, str>, u64>;

/// Whose numbers they are: what counts from zero when it is new.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The namespace.
    Namespace,
    /// An interface, by its number and name.
    Interface(u32, Foreign),
    /// The driver of an interface.
    Driver(u32, Foreign),
    /// A queue discipline of an interface.
    Qdisc(u32, Qdisc),
    /// A socket of netlink, by what `/proc/net/netlink` shows of it: its protocol, its port, its inode number.
    NetlinkSocket(String),
    /// A packet socket.
    PacketSocket(Id),
    /// A listening socket.
    Listener(Id),
}

/// What moved between two readings of one subject.
#[derive(Clone, Copy, Debug)]
pub struct Delta<'a> {
    before: Option<&'a Numbers>,
    now: &'a Numbers,
}

impl<'a> Delta<'a> {
    /// Since a reading; since zero without one.
    pub fn new(before: Option<&'a Numbers>, now: &'a Numbers) -> Self {
        // A counter never goes back: it is another one that has the place.
        let goes_back = |before: &&Numbers| {
            before.iter().any(|(name, before)| now.get(name).is_some_and(|now| now < before))
        };
        Self { before: before.filter(|before| !goes_back(before)), now }
    }

    /// By how much a counter moved.
    pub fn of(&self, name: &str) -> u64 {
        let before = self.before.and_then(|before| before.get(name)).copied().unwrap_or(0);
        self.now.get(name).map_or(0, |now| now - before)
    }

    /// The counters that moved.
    pub fn moved(&self) -> impl Iterator<Item = (&'a str, u64)> {
        let moved = self.now.keys().map(|name| (&**name, self.of(name)));
        moved.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(pairs: &[(&'static str, u64)]) -> Numbers {
        pairs.iter().map(|&(name, number)| (name.into(), number)).collect()
    }

    #[test]
    fn counters_that_go_back_are_those_of_another() {
        let before = numbers(&[("IpOutNoRoutes", 10), ("TcpExtListenDrops", 3)]);
        let now = numbers(&[("IpOutNoRoutes", 2), ("TcpExtListenDrops", 3)]);
        let delta = Delta::new(Some(&before), &now);
        assert_eq!((delta.of("IpOutNoRoutes"), delta.of("TcpExtListenDrops")), (2, 3));
        assert_eq!(Delta::new(Some(&now), &now).moved().count(), 0);
    }
}
