//! Queue disciplines and what they dropped, as `tc -s qdisc` shows it.

use std::io;

use super::netlink::{Netlink, attribute, put, text, u32_at};
use crate::model::{counter::Qdisc, foreign::Foreign};

/// `RTM_GETQDISC`.
const GET: u16 = 38;
/// `struct tcmsg`.
const HEADER: usize = 20;
const INDEX: usize = 4;
const HANDLE: usize = 8;
const PARENT: usize = 12;
/// Attributes, `TCA_…`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const STATS2: u16 = 7;
const DUMP_INVISIBLE: u16 = 10;
/// `TCA_STATS_QUEUE`: packets, bytes, drops.
const STATS_QUEUE: u16 = 3;
const BYTES: usize = 4;
const DROPS: usize = 8;
/// In a parent: the class within it.
const CLASS: u32 = 0xffff;
/// Parents from here on are no queue disciplines: the root, and what stands before it.
pub const SPECIAL: u32 = 0xffff_fff0;

/// Whether those are listed that the kernel made by itself in classes, which `tc` lists as `invisible`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// They are.
    Listed,
    /// They are not.
    LeftOut,
}

/// A queue discipline with what it dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The number of the interface.
    pub index: u32,
    /// Which one it is.
    pub qdisc: Qdisc,
    /// What it, and those below it, dropped.
    pub drops: u32,
    /// Packets that wait in it.
    pub packets: u32,
    /// Bytes that wait in it.
    pub bytes: u32,
    /// How many may wait, where it says so.
    pub limit: Option<Limit>,
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many packets.
    Packets(u32),
    /// So many bytes.
    Bytes(u32),
}

/// The queue disciplines of the socket's namespace.
///
/// # Errors
/// They could not be read whole.
pub fn read(netlink: &Netlink, hidden: Hidden) -> io::Result<Vec<Dropped>> {
    let mut request = vec![0; HEADER];
    if hidden == Hidden::Listed {
        put(&mut request, DUMP_INVISIBLE, &[]);
    }
    Ok(netlink.dump(GET, &request)?.iter().filter_map(|message| parse(message)).collect())
}

pub(super) fn parse(message: &[u8]) -> Option<Dropped> {
    let stats = attribute(message, HEADER, STATS2)?;
    let kind: Foreign = text(attribute(message, HEADER, KIND)?).into();
    let queue = attribute(stats, 0, STATS_QUEUE)?;
    let options = attribute(message, HEADER, OPTIONS).unwrap_or_default();
    Some(Dropped {
        index: u32_at(message, INDEX)?,
        limit: limit(&kind.text(), options),
        qdisc: Qdisc { kind, handle: u32_at(message, HANDLE)?, parent: u32_at(message, PARENT)? },
        drops: u32_at(queue, DROPS)?,
        packets: u32_at(queue, 0)?,
        bytes: u32_at(queue, BYTES)?,
    })
}

/// The limit among the options, which each kind has in a place of its own: `TCA_<KIND>_…` or a structure.
fn limit(kind: &str, options: &[u8]) -> Option<Limit> {
    let in_attribute = |number| attribute(options, 0, number).and_then(|value| u32_at(value, 0));
    match kind {
        "pfifo" | "pfifo_head_drop" => u32_at(options, 0).map(Limit::Packets),
        "bfifo" => u32_at(options, 0).map(Limit::Bytes),
        "netem" => u32_at(options, 4).map(Limit::Packets),
        "sfq" => u32_at(options, 8).map(Limit::Packets),
        "fq" | "dualpi2" => in_attribute(1).map(Limit::Packets),
        "fq_codel" | "codel" | "pie" | "fq_pie" => {
            in_attribute(if kind == "fq_pie" { 1 } else { 2 }).map(Limit::Packets)
        }
        "tbf" => u32_at(attribute(options, 0, 1)?, 24).map(Limit::Bytes),
        "red" => u32_at(attribute(options, 0, 1)?, 0).map(Limit::Bytes),
        _ => None,
    }
}

/// What each dropped itself: one with others below it counts theirs too.
///
/// The deltas are of one interface.
pub fn without_children(deltas: &[(Qdisc, u64)]) -> Vec<(Qdisc, u64)> {
    let below = |handle: u32| {
        let children = deltas.iter().filter(move |(child, _)| {
            handle != 0 && child.parent < SPECIAL && child.parent & !CLASS == handle
        });
        children.map(|(_, drops)| drops).sum::<u64>()
    };
    let own = deltas.iter().map(|(qdisc, drops)| (qdisc.clone(), drops.saturating_sub(below(qdisc.handle))));
    own.filter(|(_, drops)| *drops > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qdisc(kind: &str, handle: u32, parent: u32) -> Qdisc {
        Qdisc { kind: kind.into(), handle, parent }
    }

    #[test]
    fn a_parent_does_not_count_what_its_children_dropped() {
        const ROOT: u32 = u32::MAX;
        let deltas = [
            (qdisc("tbf", 0x10_0000, ROOT), 154),
            (qdisc("pfifo", 0x20_0000, 0x10_0001), 154),
            (qdisc("clsact", 0xffff_0000, 0xffff_fff1), 3),
        ];
        assert_eq!(
            without_children(&deltas),
            [(qdisc("pfifo", 0x20_0000, 0x10_0001), 154), (qdisc("clsact", 0xffff_0000, 0xffff_fff1), 3)]
        );
        let of_its_own = [(qdisc("htb", 0x10_0000, ROOT), 10), (qdisc("pfifo", 0x20_0000, 0x10_0002), 4)];
        assert_eq!(without_children(&of_its_own)[0], (qdisc("htb", 0x10_0000, ROOT), 6));
    }

    #[test]
    fn what_is_cut_short_is_none() {
        assert_eq!(parse(&[0; 30]), None);
    }
}
