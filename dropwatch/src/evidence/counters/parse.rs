//! Files of `/proc/net` as names and numbers, with the names that `nstat` prints.

use std::{iter, ops::AddAssign};

/// `netstat` and `snmp`: a line of names under a prefix, then a line of numbers under the same one.
///
/// Negative numbers are settings, not counters, and are left out.
pub fn tables(text: &str) -> impl Iterator<Item = (&str, &str, u64)> {
    let mut lines = text.lines();
    let pairs = iter::from_fn(move || Some((lines.next()?, lines.next()?)));
    pairs.flat_map(|(names, numbers)| {
        let split = names.split_once(": ").zip(numbers.split_once(": "));
        let same = split.filter(|((prefix, _), (other, _))| prefix == other);
        same.into_iter().flat_map(|((prefix, names), (_, numbers))| {
            let pairs = names.split(' ').zip(numbers.split(' '));
            pairs.filter_map(move |(name, number)| Some((prefix, name, number.parse().ok()?)))
        })
    })
}

/// `snmp6` and `xfrm_stat`: a name and a number on each line; names have no prefix.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str, u64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some(("", words.next()?, words.next()?.parse().ok()?))
    })
}

/// What the CPUs could not take from network cards: `softnet_stat`, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softnet {
    /// Packets that found the backlog full.
    pub dropped: u64,
    /// Packets that the flow limit of the backlog turned away.
    pub flow_limited: u64,
    /// How often a CPU ended its turn with packets left: its budget of packets or its time was spent.
    pub squeezed: u64,
}

/// `softnet_stat`: a line of hexadecimal numbers for each CPU.
#[must_use]
pub fn softnet(text: &str) -> Softnet {
    let mut sum = Softnet::default();
    for line in text.lines() {
        let number = |column| {
            let word = line.split_ascii_whitespace().nth(column)?;
            u64::from_str_radix(word, 16).ok()
        };
        sum.dropped.add_assign(number(1).unwrap_or(0));
        sum.squeezed.add_assign(number(2).unwrap_or(0));
        sum.flow_limited.add_assign(number(10).unwrap_or(0));
    }
    sum
}

/// `netlink`: messages that each socket lost because its buffer was full, with what tells it from others.
pub fn netlink_drops(text: &str) -> impl Iterator<Item = (String, u64)> {
    let mut lines = text.lines();
    let head: Vec<_> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let column = |name: &str| head.iter().position(|found| *found == name);
    let columns = column("Drops").zip(column("Eth")).zip(column("Pid")).zip(column("Inode"));
    lines.filter_map(move |line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let (((drops, family), port), inode) = columns?;
        let word = |column: usize| words.get(column).copied();
        let socket = format!("{} {} {}", word(family)?, word(port)?, word(inode)?);
        Some((socket, word(drops)?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_is_two_lines() {
        let text = "TcpExt: SyncookiesSent ListenDrops\nTcpExt: 1 225\nIp: Forwarding MaxConn InDiscards\nIp: 2 -1 7\n";
        let expected = [
            ("TcpExt", "SyncookiesSent", 1),
            ("TcpExt", "ListenDrops", 225),
            ("Ip", "Forwarding", 2),
            ("Ip", "InDiscards", 7),
        ];
        assert!(tables(text).eq(expected));
        assert_eq!(tables("Tcp: A\nUdp: 1\n").count(), 0, "of two protocols");
        assert_eq!(tables("Tcp: A B\nTcp: 1\n").count(), 1, "cut short");
    }

    #[test]
    fn a_pair_is_a_line() {
        let found: Vec<_> = pairs("XfrmInError             \t4\nIp6InDiscards  \t5\nhalf\n").collect();
        assert_eq!(found, [("", "XfrmInError", 4), ("", "Ip6InDiscards", 5)]);
    }

    #[test]
    fn cpus_are_summed() {
        let line = |dropped: &str, limited: &str| {
            format!("014e39cf {dropped} 0000000b 0 0 0 0 0 0 0 {limited} 00000000 00000000\n")
        };
        let sum = softnet(&(line("0000000a", "00000002") + &line("00000010", "00000000")));
        assert_eq!(sum, Softnet { dropped: 26, squeezed: 22, flow_limited: 2 });
        assert_eq!(
            softnet("1 2\n"),
            Softnet { dropped: 2, ..Softnet::default() },
            "an old kernel has fewer columns"
        );
    }

    #[test]
    fn netlink_sockets_have_their_own_drops() {
        let text = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                    0000000000000000 0   1          00000000 0        0        0     2        3        1\n\
                    0000000000000000 16  2          00000000 0        0        0     2        12       2\n";
        let expected = [("0 1 1", 3), ("16 2 2", 12)].map(|(socket, drops)| (socket.to_owned(), drops));
        assert!(netlink_drops(text).eq(expected));
        assert_eq!(netlink_drops("nothing\n1 2\n").count(), 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text in "(\\PC|\n| |:|[0-9]){0,200}") {
            let _ = (tables(&text).count(), pairs(&text).count(), softnet(&text), netlink_drops(&text).count());
        }

        #[test]
        fn what_a_table_says_is_read(values in prop::collection::vec(("[A-Z][A-Za-z0-9]{1,8}", any::<u64>()), 1..20)) {
            let names: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
            let numbers: Vec<_> = values.iter().map(|(_, number)| number.to_string()).collect();
            let text = format!("Udp: {}\nUdp: {}\n", names.join(" "), numbers.join(" "));
            let expected = values.iter().map(|(name, number)| ("Udp", name.as_str(), *number));
            prop_assert!(tables(&text).eq(expected));
        }
    }
}
