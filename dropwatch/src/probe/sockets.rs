//! Reads from the kernel the sockets that rows refer to by number, and gives each a permanent number.

use std::{collections::HashMap, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::maps::{self, Map};
use dropwatch_common::socket::{LOST, SocketKey, SocketSeen};

use crate::model::{snapshot::Counts, socket::Socket};
use crate::sys::{self, BatchReader};

/// How many sockets are remembered: some 100 MB. Beyond that, one that drops packets again is a new row.
const REMEMBERED: usize = 1 << 18;

/// The map of sockets.
pub struct Sockets {
    map: Map,
    batch: BatchReader<SocketKey>,
    /// Our numbers by the kernel's: of rows that are counted now, and of those before them. Counting may still be under
    /// way with a number of before.
    numbers: [HashMap<u64, u64>; 2],
    known: Known,
}

/// Every socket that was seen, by what tells it from others.
#[derive(Default)]
struct Known {
    by_cookie: HashMap<u64, u64>,
    by_inode: HashMap<u64, u64>,
    /// Those that have neither.
    by_key: HashMap<SocketKey, u64>,
    sockets: HashMap<u64, Socket>,
    given: u64,
}

impl Sockets {
    /// A reader of the map.
    pub fn new(map: Map) -> Self {
        Self {
            map,
            batch: BatchReader::new(size_of::<SocketSeen>() / size_of::<u64>()),
            numbers: Default::default(),
            known: Known::default(),
        }
    }

    /// Gives sockets that are the same, however the kernel saw them, the same number. `last` says that these are the last
    /// counts of their rows: then the kernel has room again.
    pub fn number(&mut self, counts: &mut Counts, last: bool) -> Result<()> {
        let read = self.read().context("cannot read the sockets from the kernel")?;
        for (key, _) in counts {
            // It was kept before its drop was counted.
            let find = |numbers: &HashMap<u64, u64>| numbers.get(&key.socket).copied();
            if key.socket != 0 {
                key.socket = self.numbers.iter().find_map(find).unwrap_or(LOST);
            }
        }
        if last {
            let mut map = maps::HashMap::<_, SocketKey, SocketSeen>::try_from(&mut self.map)?;
            for key in read {
                // Another drop may bring it back at once, under another number.
                let _ = map.remove(&key);
            }
            let [now, before] = &mut self.numbers;
            *before = std::mem::take(now);
            self.known.forget(before);
        }
        Ok(())
    }

    /// A socket by our number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Socket> {
        self.known.sockets.get(&number)
    }

    fn read(&mut self) -> std::io::Result<Vec<SocketKey>> {
        let Map::HashMap(map) = &self.map else { return Err(std::io::ErrorKind::InvalidInput.into()) };
        let (mut keys, known) = (Vec::new(), &mut self.known);
        let [numbers, _] = &mut self.numbers;
        self.batch.read(map.fd().as_fd(), |key, words| {
            let key = &key[0];
            keys.push(*key);
            let bytes: Vec<u8> = words.iter().flat_map(sys::bytes_of).copied().collect();
            let Some(seen) = sys::values_of::<SocketSeen>(&bytes).pop() else { return };
            numbers.insert(seen.number, known.number(*key, seen));
        })?;
        Ok(keys)
    }
}

impl Known {
    /// The number of a socket, which is the same whether it had a cookie or an inode when it was seen.
    fn number(&mut self, key: SocketKey, seen: SocketSeen) -> u64 {
        let number = self.find(&key).unwrap_or_else(|| {
            self.given += 1;
            self.given
        });
        let socket = self.sockets.entry(number).or_insert(Socket { key, seen });
        let SocketKey { cookie, inode, cgroup, of_kernel, .. } = socket.key;
        let (first_comm, first_tgid) = (socket.seen.comm, socket.seen.tgid);
        *socket = Socket { key, seen: SocketSeen { number, ..seen } };
        // What was known of it stays so.
        let keep = |now: &mut u64, before: u64| *now = if *now == 0 { before } else { *now };
        keep(&mut socket.key.cookie, cookie);
        keep(&mut socket.key.inode, inode);
        keep(&mut socket.key.cgroup, cgroup);
        socket.key.of_kernel |= of_kernel;
        if seen.tgid == 0 {
            (socket.seen.comm, socket.seen.tgid) = (first_comm, first_tgid);
        }
        let SocketKey { cookie, inode, .. } = socket.key;
        if cookie != 0 {
            self.by_cookie.insert(cookie, number);
        }
        if inode != 0 {
            self.by_inode.insert(inode, number);
        }
        if cookie == 0 && inode == 0 {
            self.by_key.insert(key, number);
        }
        number
    }

    fn find(&self, key: &SocketKey) -> Option<u64> {
        let is_it = |number: &u64| self.sockets.get(number).is_some_and(|known| may_be(&known.key, key));
        let by_cookie = self.by_cookie.get(&key.cookie).copied().filter(is_it);
        let by_inode = || self.by_inode.get(&key.inode).copied().filter(is_it);
        by_cookie.or_else(by_inode).or_else(|| self.by_key.get(key).copied())
    }

    /// Forgets the sockets of rows that have ended, if there are too many.
    fn forget(&mut self, kept: &HashMap<u64, u64>) {
        if self.sockets.len() <= REMEMBERED {
            return;
        }
        let kept: std::collections::HashSet<_> = kept.values().copied().collect();
        self.sockets.retain(|number, _| kept.contains(number));
        for numbers in [&mut self.by_cookie, &mut self.by_inode] {
            numbers.retain(|_, number| kept.contains(number));
        }
        self.by_key.retain(|_, number| kept.contains(number));
    }
}

/// Whether two views can be of one socket, which have a cookie or an inode in common.
fn may_be(one: &SocketKey, other: &SocketKey) -> bool {
    let agree = |one: u64, other: u64| one == 0 || other == 0 || one == other;
    one.form == other.form
        && one.netns == other.netns
        && one.family == other.family
        && agree(one.cookie, other.cookie)
        && agree(one.inode, other.inode)
}

#[cfg(test)]
mod tests {
    use dropwatch_common::socket::form;

    use super::*;

    fn key(address: u64, cookie: u64, inode: u64) -> SocketKey {
        SocketKey { address, cookie, inode, family: 2, ..SocketKey::default() }
    }

    #[test]
    fn one_socket_is_the_same_with_and_without_a_cookie_and_a_file() {
        let mut known = Known::default();
        let seen = SocketSeen::default();
        let first = known.number(key(1, 0, 7), SocketSeen { tgid: 3, ..seen });
        assert_eq!(known.number(key(1, 9, 7), seen), first, "a cookie was requested");
        assert_eq!(known.number(key(1, 9, 0), seen), first, "it was closed");
        let socket = &known.sockets[&first];
        assert_eq!((socket.key.inode, socket.key.cookie, socket.seen.tgid), (7, 9, 3));
        assert_ne!(known.number(key(1, 0, 8), seen), first, "another one at the same address");
        assert_ne!(known.number(key(1, 10, 0), seen), first);
        let rest = SocketKey { form: form::TIME_WAIT, ..key(2, 9, 0) };
        assert_ne!(known.number(rest, seen), first, "what is left of it is said as such");
    }

    #[test]
    fn one_without_either_is_known_by_its_addresses() {
        let mut known = Known::default();
        let seen = SocketSeen::default();
        let one = known.number(key(1, 0, 0), seen);
        assert_eq!(known.number(key(1, 0, 0), seen), one);
        assert_ne!(known.number(SocketKey { remote_port: 5, ..key(1, 0, 0) }, seen), one);
    }

    #[test]
    fn those_of_ended_rows_are_forgotten_when_there_are_too_many() {
        let mut known = Known::default();
        for inode in 1..=REMEMBERED as u64 + 1 {
            known.number(key(1, 0, inode), SocketSeen::default());
        }
        let kept = known.number(key(1, 0, 5), SocketSeen::default());
        known.forget(&HashMap::from([(77, kept)]));
        assert_eq!(known.sockets.len(), 1);
        assert_eq!(known.number(key(1, 0, 5), SocketSeen::default()), kept);
        assert!(
            known.number(key(1, 0, 6), SocketSeen::default()) > REMEMBERED as u64,
            "a number is given once"
        );
    }
}
