//! A report: an interval with names, in order, cut to what was asked for.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use dropwatch_common::{
    chain::DeviceKey,
    row::{RowKey, known},
};
use serde::Serialize;

use crate::{
    aggregate::{Count, Interval},
    keys::Key,
    protocols,
    reasons::Reason,
    references::References,
    snapshot::Ledger,
    source_lines::SourceLine,
    symbols::Location,
};

/// Everything a reader is told about one interval.
#[derive(Clone, Debug)]
pub struct Report {
    /// The interval's end.
    pub time: SystemTime,
    /// The interval's length.
    pub elapsed: Duration,
    /// What a row stands for, in the order asked for.
    pub by: Vec<Key>,
    /// The rows shown, largest count first, ties by name.
    pub rows: Vec<Row>,
    /// The rows not shown.
    pub cut: Cut,
    /// Drops in this interval: of all rows and of what was cut.
    pub drops: u64,
    /// Drops since the probe was attached.
    pub total: u64,
    /// What was lost in this interval.
    pub ledger: Ledger,
}

/// One line of a report.
#[derive(Clone, Debug)]
pub struct Row {
    /// Drops in the interval.
    pub count: u64,
    /// Drops since the probe was attached; unknown once there have been more keys than are remembered.
    pub total: Option<u64>,
    /// The values of the report's keys, in the same order.
    pub values: Vec<Value>,
}

/// The value of a key.
#[derive(Clone, Debug)]
pub enum Value {
    /// An address, with the function it lies in if that is known.
    Location {
        /// The address.
        location: Location,
        /// The line of the kernel's source, where its debug information is installed.
        source: Option<SourceLine>,
    },
    /// The kernel's reason; none on kernels that give none.
    Reason(Option<Reason>),
    /// An interface.
    Iface(Option<Iface>),
    /// A network namespace.
    Netns(Option<Netns>),
    /// An ethertype.
    Protocol(Option<u16>),
    /// A protocol above IP.
    IpProto(Option<u8>),
    /// The source or the destination.
    Address(Option<IpAddr>),
    /// Of the source or of the destination.
    Port(Option<u16>),
    /// A CPU's number.
    Cpu(u32),
    /// A call chain, innermost frame first, starting at the drop.
    Stack(Option<Vec<Location>>),
}

/// An interface, by its number in its namespace and the name it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Iface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: Option<Arc<str>>,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Netns {
    /// Its inode number.
    pub inum: u32,
    /// Where it is mounted, or who is in it.
    pub name: Option<Arc<str>>,
}

impl Value {
    /// The value in words; `-` for what is not known.
    #[must_use]
    pub fn words(&self) -> String {
        let words = match self {
            Self::Location { location, .. } => Some(location.to_string()),
            Self::Reason(reason) => reason.as_ref().map(ToString::to_string),
            Self::Iface(iface) => iface.as_ref().map(|Iface { index, name }| match name {
                Some(name) => name.to_string(),
                None => format!("#{index}"),
            }),
            Self::Netns(netns) => netns.as_ref().map(|Netns { inum, name }| match name {
                Some(name) => format!("{inum}({name})"),
                None => inum.to_string(),
            }),
            Self::Protocol(number) => number.map(|number| protocols::ethertype(number).into_owned()),
            Self::IpProto(number) => number.map(|number| protocols::ip_protocol(number).into_owned()),
            Self::Address(address) => address.map(|address| address.to_string()),
            Self::Port(port) => port.map(|port| port.to_string()),
            Self::Cpu(cpu) => Some(cpu.to_string()),
            Self::Stack(frames) => {
                frames.as_ref().map(|frames| frames.iter().map(frame).collect::<Vec<_>>().join(";"))
            }
        };
        words.unwrap_or_else(|| "-".to_owned())
    }

    /// What a key's part says, with names.
    /// Orders two values of one key by name, those that have none by number; what is not known comes first.
    fn cmp_name(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Location { location, .. }, Self::Location { location: other, .. }) => {
                place(location).cmp(&place(other))
            }
            (Self::Reason(reason), Self::Reason(other)) => {
                let name = |reason: &Option<Reason>| reason.as_ref().map(|it| (it.name.clone(), it.code));
                name(reason).cmp(&name(other))
            }
            (Self::Iface(iface), Self::Iface(other)) => {
                let name = |iface: &Option<Iface>| iface.as_ref().map(|it| (it.name.clone(), it.index));
                name(iface).cmp(&name(other))
            }
            (Self::Netns(netns), Self::Netns(other)) => {
                let number = |netns: &Option<Netns>| netns.as_ref().map(|it| it.inum);
                number(netns).cmp(&number(other))
            }
            (Self::Protocol(number), Self::Protocol(other)) => {
                number.map(protocols::ethertype).cmp(&other.map(protocols::ethertype))
            }
            (Self::IpProto(number), Self::IpProto(other)) => {
                number.map(protocols::ip_protocol).cmp(&other.map(protocols::ip_protocol))
            }
            (Self::Address(address), Self::Address(other)) => address.cmp(other),
            (Self::Port(port), Self::Port(other)) => port.cmp(other),
            (Self::Cpu(cpu), Self::Cpu(other)) => cpu.cmp(other),
            (Self::Stack(Some(frames)), Self::Stack(Some(other))) => {
                frames.iter().map(place).cmp(other.iter().map(place))
            }
            // A chain that is not known beside one that is.
            _ => matches!(self, Self::Stack(Some(_))).cmp(&matches!(other, Self::Stack(Some(_)))),
        }
    }

    fn new(key: Key, row: &RowKey, references: &References, names: &mut impl Names) -> Self {
        let when = |bit: u8| row.known & bit != 0;
        match key {
            Key::Location => {
                let location = names.location(row.location);
                Self::Location { source: names.source(&location), location }
            }
            Key::Reason => Self::Reason(names.reason(row.reason)),
            Key::Iface => Self::Iface(when(known::IFACE).then(|| {
                let device = DeviceKey { netns: row.netns, ifindex: row.ifindex };
                Iface { index: row.ifindex, name: references.devices.get(&device).cloned() }
            })),
            Key::Netns => Self::Netns(
                when(known::NETNS).then(|| Netns { inum: row.netns, name: names.netns(row.netns) }),
            ),
            Key::Protocol => Self::Protocol(when(known::PROTOCOL).then_some(row.protocol)),
            Key::IpProto => Self::IpProto(when(known::IPPROTO).then_some(row.ipproto)),
            Key::Saddr => Self::Address(address(row.saddr, row.known)),
            Key::Daddr => Self::Address(address(row.daddr, row.known)),
            Key::Sport => Self::Port(when(known::PORTS).then_some(row.sport)),
            Key::Dport => Self::Port(when(known::PORTS).then_some(row.dport)),
            Key::Cpu => Self::Cpu(row.cpu),
            Key::Stack => Self::Stack(when(known::STACK).then(|| {
                let frames = references.chains.get(&row.stack);
                let frames = frames.into_iter().flat_map(|frames| frames.iter());
                frames.map(|&frame| names.frame(frame)).collect()
            })),
        }
    }
}

/// What locations are in order by: those without a name by their addresses, before those with one.
fn place(location: &Location) -> (Option<(&str, u64, &str)>, u64) {
    let name = location.symbol.as_ref().map(|symbol| (&*symbol.name, symbol.offset, &*symbol.module));
    (name, location.address)
}

/// A frame in words without blanks: `tcp_v4_rcv+0xaa/0x8d0`, `gre_rcv+0x1e/0x80[gre]`.
fn frame(frame: &Location) -> String {
    frame.to_string().replace(" [kernel]", "").replace(' ', "")
}

fn address(bytes: [u8; 16], known: u8) -> Option<IpAddr> {
    if known & known::IPV6 != 0 {
        return Some(Ipv6Addr::from(bytes).into());
    }
    let [a, b, c, d, ..] = bytes;
    (known & known::IPV4 != 0).then(|| Ipv4Addr::new(a, b, c, d).into())
}

/// Rows that are not shown, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// How many.
    pub rows: u64,
    /// The drops they count.
    pub drops: u64,
}

/// Which rows to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The largest so many; all, if none.
    pub top: Option<usize>,
    /// Those with at least so many drops.
    pub min: u64,
}

/// Gives names to what the kernel counts by number.
pub trait Names {
    /// The function at an address where a packet was freed.
    fn location(&mut self, address: u64) -> Location;
    /// The function that a call returns to.
    ///
    /// A call that never returns can be the last of its function: what is looked for is the call.
    fn frame(&mut self, address: u64) -> Location {
        let mut frame = self.location(address.wrapping_sub(1));
        frame.address = address;
        if let Some(symbol) = &mut frame.symbol {
            symbol.offset += 1;
        }
        frame
    }
    /// The name of a network namespace.
    fn netns(&mut self, inum: u32) -> Option<Arc<str>>;
    /// The line of source at a location.
    fn source(&mut self, location: &Location) -> Option<SourceLine>;
    /// The reason with a number; none on kernels that give none.
    fn reason(&mut self, code: u32) -> Option<Reason>;
}

impl Report {
    /// Names, sorts and cuts.
    pub fn new(interval: Interval, by: &[Key], limits: Limits, names: &mut impl Names) -> Self {
        let Interval { ended, elapsed, counts, total, ledger, references } = interval;
        let drops = counts.iter().map(|count| count.count).sum();
        let rows = counts.iter().map(|count| Row::new(count, by, &references, names)).collect();
        let (rows, cut) = cut(sorted(rows), limits);
        Self { time: ended, elapsed, by: by.to_vec(), rows, cut, drops, total, ledger }
    }

    /// Drops a second.
    #[must_use]
    pub fn rate(&self, drops: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { precise(drops) / seconds } else { 0.0 }
    }

    /// The part of this interval's drops, from 0 to 1.
    #[must_use]
    pub fn share(&self, drops: u64) -> f64 {
        if self.drops > 0 { precise(drops) / precise(self.drops) } else { 0.0 }
    }
}

/// A count as a number to divide; beyond 2^53 the last digits go, which no rate shows.
#[expect(clippy::cast_precision_loss, reason = "rates and shares are shown to a few digits")]
fn precise(drops: u64) -> f64 {
    drops as f64
}

impl Row {
    fn new(count: &Count, by: &[Key], references: &References, names: &mut impl Names) -> Self {
        let values = by.iter().map(|&key| Value::new(key, &count.key, references, names)).collect();
        Self { count: count.count, total: count.total, values }
    }
}

/// Largest first, ties by name, so that two reports of the same drops read the same.
fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_unstable_by(|row, other| {
        let values = row.values.iter().zip(&other.values);
        let by_name = || values.map(|(value, other)| value.cmp_name(other)).find(|order| order.is_ne());
        other.count.cmp(&row.count).then_with(|| by_name().unwrap_or(Ordering::Equal))
    });
    rows
}

/// Splits off what is not to be shown.
fn cut(mut rows: Vec<Row>, limits: Limits) -> (Vec<Row>, Cut) {
    let large = rows.partition_point(|row| row.count >= limits.min);
    let rest = rows.split_off(large.min(limits.top.unwrap_or(usize::MAX)));
    let cut = Cut { rows: rest.len() as u64, drops: rest.iter().map(|row| row.count).sum() };
    (rows, cut)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Names every address by its number, and no reason.
    struct Plain;

    impl Names for Plain {
        fn location(&mut self, address: u64) -> Location {
            Location { address, symbol: None }
        }

        fn source(&mut self, _location: &Location) -> Option<SourceLine> {
            None
        }

        fn netns(&mut self, _inum: u32) -> Option<Arc<str>> {
            None
        }

        fn reason(&mut self, code: u32) -> Option<Reason> {
            Some(Reason { code, subsystem: None, name: Some(format!("R{code}").into()) })
        }
    }

    fn interval(counts: Vec<Count>) -> Interval {
        let total = counts.iter().filter_map(|count| count.total).sum();
        Interval {
            ended: SystemTime::UNIX_EPOCH,
            elapsed: Duration::from_secs(2),
            counts,
            total,
            ledger: Ledger::default(),
            references: References::default(),
        }
    }

    fn key(location: u64, reason: u32) -> RowKey {
        RowKey { location, reason, ..RowKey::default() }
    }

    fn counts() -> impl Strategy<Value = Vec<Count>> {
        vec((0_u64..20, 0_u32..4, 1_u64..50), 0..40).prop_map(|counts| {
            let mut counts: Vec<_> = counts
                .into_iter()
                .map(|(location, reason, count)| Count {
                    key: key(location, reason),
                    count,
                    total: Some(count * 2),
                })
                .collect();
            counts.sort_unstable_by_key(|count| count.key);
            counts.dedup_by_key(|count| count.key);
            counts
        })
    }

    fn shown(report: &Report) -> Vec<(u64, Vec<String>)> {
        report.rows.iter().map(|row| (row.count, row.values.iter().map(Value::words).collect())).collect()
    }

    proptest! {
        #[test]
        fn every_drop_is_in_a_row_or_cut(
            counts in counts(),
            top in proptest::option::of(1_usize..10),
            min in 0_u64..60,
        ) {
            let all: u64 = counts.iter().map(|count| count.count).sum();
            let keys = counts.len() as u64;
            let by = [Key::Location, Key::Reason];
            let report = Report::new(interval(counts), &by, Limits { top, min }, &mut Plain);
            let rows: u64 = report.rows.iter().map(|row| row.count).sum();
            prop_assert_eq!(report.drops, all);
            prop_assert_eq!(rows + report.cut.drops, all);
            prop_assert_eq!(report.rows.len() as u64 + report.cut.rows, keys);
            prop_assert!(report.rows.len() <= top.unwrap_or(usize::MAX));
            prop_assert!(report.rows.iter().all(|row| row.count >= min));
        }

        #[test]
        fn the_order_does_not_depend_on_the_kernels(counts in counts(), seed in any::<u64>()) {
            let mut shuffled = counts.clone();
            shuffled.sort_by_key(|count| count.key.location.wrapping_mul(seed | 1));
            for by in [&[Key::Location][..], &[Key::Reason], &[Key::Location, Key::Reason]] {
                let one = Report::new(interval(counts.clone()), by, Limits::default(), &mut Plain);
                let other = Report::new(interval(shuffled.clone()), by, Limits::default(), &mut Plain);
                prop_assert_eq!(shown(&one), shown(&other));
                prop_assert!(one.rows.is_sorted_by_key(|row| std::cmp::Reverse(row.count)));
            }
        }
    }

    #[test]
    fn rates_and_shares_are_of_the_whole_interval() {
        let count = |location, count| Count { key: key(location, 0), count, total: Some(count) };
        let report = Report::new(
            interval(vec![count(1, 30), count(2, 10)]),
            &[Key::Location],
            Limits { top: Some(1), min: 0 },
            &mut Plain,
        );
        assert!((report.rate(30) - 15.0).abs() < 1e-9);
        assert!((report.share(30) - 0.75).abs() < 1e-9, "the cut row counts as well");
    }
}
