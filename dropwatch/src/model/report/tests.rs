//! Reports of a few counts, named by a kernel of a few functions.

use dropwatch_common::kind;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{self, select},
};

use super::*;
use crate::{
    fakes::Kernel,
    model::{
        counter::{InRows, MovedCounter, Part},
        foreign::Foreign,
        reason::Reason,
    },
};

fn as_words(bytes: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*bytes);
    [u64::try_from(both & u128::from(u64::MAX)).unwrap_or(0), u64::try_from(both >> 64).unwrap_or(0)]
}

/// Names every address and every reason by its number; the reason is the class.
fn plain() -> Kernel {
    Kernel {
        reason: |code| Some(Reason { code, subsystem: None, name: Some(format!("R{code}").into()) }),
        class: |reason, _| Some(Class::ALL[reason as usize % 3]),
        ..Kernel::nameless()
    }
}

fn interval(counts: Vec<Count>) -> Interval {
    Interval { elapsed: Duration::from_secs(2), ..Interval::of(counts) }
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
                peak: None,
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
        order in select(&[Order::Class, Order::Count][..]),
        fold in any::<bool>(),
    ) {
        let all: u64 = counts.iter().map(|count| count.count).sum();
        let keys = counts.len();
        let by = [Key::Location, Key::Reason];
        let view = View { top, min, order, fold };
        let report = Report::new(interval(counts), &by, view, &mut plain());
        let sum = |rows: &[Row]| rows.iter().map(|row| row.count).sum::<u64>();
        prop_assert_eq!(report.drops, all);
        prop_assert_eq!(sum(&report.rows) + sum(&report.folded) + report.cut.drops, all);
        prop_assert_eq!((report.rows.len() + report.folded.len()) as u64 + report.cut.rows, keys as u64);
        prop_assert!(report.rows.len() <= top.unwrap_or(usize::MAX));
        prop_assert!(report.rows.iter().all(|row| row.count >= min));
        let split = report.split.unwrap_or_default();
        prop_assert_eq!(Class::ALL.map(|class| split.of(class)).iter().sum::<u64>(), all);
    }

    #[test]
    fn what_is_lost_is_shown_before_all_else(counts in counts(), top in 1_usize..10, fold in any::<bool>()) {
        let by = [Key::Location, Key::Reason];
        let report = |view| Report::new(interval(counts.clone()), &by, view, &mut plain());
        let all = report(View { order: Order::Class, fold, ..View::default() });
        let place = |row: &Row| (row.class, Reverse(row.count));
        prop_assert!(all.rows.is_sorted_by_key(place));
        let is_folded = |row: &Row| fold && row.class == Some(Class::Harmless);
        prop_assert!(!all.rows.iter().any(is_folded) && all.folded.iter().all(is_folded));
        let cut = report(View { top: Some(top), order: Order::Class, fold, ..View::default() });
        prop_assert_eq!(&shown(&cut)[..], &shown(&all)[..top.min(all.rows.len())]);
        prop_assert_eq!(cut.folded.len(), all.folded.len());
    }

    #[test]
    fn a_name_of_an_interface_ends_at_its_zero(
        name in vec(1..=u8::MAX, 0..17),
        behind in any::<[u8; 16]>(),
    ) {
        let mut bytes = behind;
        bytes[..name.len()].copy_from_slice(&name);
        if let Some(end) = bytes.get_mut(name.len()) {
            *end = 0;
        }
        let words = dropwatch_common::chain::ended(as_words(&bytes));
        let ended = words.map(|[first, last]| (u128::from(last) << 64 | u128::from(first)).to_le_bytes());
        prop_assert_eq!(ended.is_some(), (1..16).contains(&name.len()));
        if let Some(ended) = ended {
            prop_assert_eq!(&ended[..name.len()], &name);
            prop_assert!(ended[name.len()..].iter().all(|byte| *byte == 0));
            let text = Some(Foreign::from(name));
            prop_assert_eq!(device_name(&ended), text);
        }
    }

    #[test]
    fn the_order_does_not_depend_on_the_kernels(counts in counts(), seed in any::<u64>()) {
        let mut shuffled = counts.clone();
        shuffled.sort_by_key(|count| count.key.location.wrapping_mul(seed | 1));
        for by in [&[Key::Location][..], &[Key::Reason], &[Key::Location, Key::Reason]] {
            let one = Report::new(interval(counts.clone()), by, View::default(), &mut plain());
            let other = Report::new(interval(shuffled.clone()), by, View::default(), &mut plain());
            prop_assert_eq!(shown(&one), shown(&other));
            prop_assert!(one.rows.is_sorted_by_key(|row| Reverse(row.count)));
        }
    }
}

proptest! {
    /// Also where a number that stands for the start of a row's values decides, or nearly does.
    #[test]
    fn rows_with_the_same_count_are_in_order_by_name(flows in vec(flow(), 0..60), by in sample::subsequence(
        vec![Key::Sport, Key::Saddr, Key::Cpu, Key::Daddr, Key::Dport, Key::IpProto], 1..=6).prop_shuffle(),
    ) {
        let counts = flows.into_iter().map(|key| Count { key, count: 1, total: None, peak: None }).collect();
        let report = Report::new(interval(counts), &by, View::default(), &mut plain());
        let in_order = |row: &Row, other: &Row| row.count > other.count
            || row.count == other.count && by_name(row, other).is_le();
        prop_assert!(report.rows.is_sorted_by(in_order), "{:?}", shown(&report));
    }
}

/// Of few values, the least and the largest among them.
fn flow() -> impl Strategy<Value = RowKey> {
    let port = || select(&[0, 1, u16::MAX][..]);
    let address = || select(&[[0; 16], [1; 16], [u8::MAX; 16]][..]);
    let known = select(&[0, known::IPV4, known::IPV6][..]);
    (known, any::<bool>(), address(), address(), port(), port(), 0_u32..2).prop_map(
        |(ip, has_ports, saddr, daddr, sport, dport, cpu)| {
            let known = ip | if has_ports { known::PORTS } else { 0 };
            RowKey { saddr, daddr, sport, dport, cpu, known, ..RowKey::default() }
        },
    )
}

#[test]
fn rates_and_shares_are_of_the_whole_interval() {
    let count = |location, count| Count { key: key(location, 0), count, total: Some(count), peak: None };
    let report = Report::new(
        interval(vec![count(1, 30), count(2, 10)]),
        &[Key::Location],
        View { top: Some(1), ..View::default() },
        &mut plain(),
    );
    assert!((report.rate(30) - 15.0).abs() < 1e-9);
    assert!((report.share(30) - 0.75).abs() < 1e-9, "the cut row counts as well");
}

fn two_functions() -> Kernel {
    Kernel { functions: &[(0x100, "ip_rcv", "kernel"), (0x200, "gre_rcv", "ip_gre")], ..Kernel::nameless() }
}

#[test]
fn a_function_is_one_row_whatever_the_offset() {
    let count = |location, cpu, count| Count {
        key: RowKey { location, cpu, ..RowKey::default() },
        count,
        total: (location < 0x200).then_some(count * 2),
        peak: Some(1.0),
    };
    let counts =
        vec![count(0x110, 0, 3), count(0x120, 0, 4), count(0x110, 1, 5), count(0x210, 0, 1), count(9, 0, 2)];
    let report =
        |by: &[Key]| Report::new(interval(counts.clone()), by, View::default(), &mut two_functions());
    let words = |report: &Report| -> Vec<_> {
        report.rows.iter().map(|row| (row.count, row.total, row.values[0].words())).collect()
    };
    let functions = report(&[Key::Function, Key::Cpu]);
    let expected = [
        (7, Some(14), "ip_rcv".to_owned()),
        (5, Some(10), "ip_rcv".to_owned()),
        (2, Some(4), "-".to_owned()),
        (1, None, "gre_rcv[ip_gre]".to_owned()),
    ];
    assert_eq!(words(&functions), expected);
    let peaks: Vec<_> = functions.rows.iter().map(|row| row.peak).collect();
    assert_eq!(peaks, [None, Some(1.0), Some(1.0), Some(1.0)], "two locations need not peak together");
    assert_eq!(report(&[Key::Function, Key::Location]).rows.len(), 4, "the location tells them apart");
    // In the first step one location of the function, in the second both.
    let steps = [vec![(0, 2), (2, 5)], vec![(0, 1), (1, 4), (3, 1), (4, 2)]];
    let steps = steps.map(|counts| Step { seconds: 0.5, counts }).to_vec();
    let interval = Interval { steps, ..interval(counts) };
    let functions = Report::new(interval, &[Key::Function, Key::Cpu], View::default(), &mut two_functions());
    assert_eq!(functions.rows[0].peak, Some(10.0), "five in half a second");
    assert_eq!(functions.rows[1].peak, Some(1.0), "as the probe's own row had it");
}

/// Drops at one place are harmless, unless they were for an application's group.
fn by_kind() -> Kernel {
    Kernel {
        class: |_, destination| match destination {
            Destination::Unknown => None,
            Destination::Group => Some(Class::Lost),
            _ => Some(Class::Harmless),
        },
        ..two_functions()
    }
}

#[test]
fn kinds_of_packets_at_one_place_are_rows_by_their_class() {
    let count = |location, kind, count| Count {
        key: RowKey { location, kind, known: known::KIND, ..RowKey::default() },
        count,
        total: Some(count),
        peak: None,
    };
    let mut counts = vec![
        count(0x110, kind::GROUP, 3),
        count(0x110, kind::LINK_GROUP, 4),
        count(0x110, kind::NOT_IP, 5),
        count(0x120, kind::LINK_GROUP, 1),
    ];
    counts.push(Count { key: RowKey { known: 0, ..counts[0].key }, count: 2, total: Some(2), peak: None });
    let rows = |by: &[Key]| -> Vec<_> {
        let report = Report::new(interval(counts.clone()), by, View::default(), &mut by_kind());
        assert_eq!(report.rows.iter().map(|row| row.count).sum::<u64>(), 15, "every drop is in a row");
        report.rows.iter().map(|row| (row.count, row.unclassed, row.class)).collect()
    };
    let (lost, harmless) = (Some(Class::Lost), Some(Class::Harmless));
    assert_eq!(rows(&[Key::Location, Key::Reason]), [(9, 0, harmless), (5, 2, lost), (1, 0, harmless)]);
    assert_eq!(rows(&[Key::Class]), [(10, 0, harmless), (5, 2, lost)]);
    assert_eq!(rows(&[Key::Function, Key::Class]), [(10, 0, harmless), (5, 2, lost)]);
    assert_eq!(rows(&[Key::Location]), [(14, 0, None), (1, 0, None)], "a reason is missing");
    assert_eq!(rows(&[Key::Reason]), [(15, 0, None)], "a place is missing");
}

#[test]
fn a_counter_is_listed_if_no_row_accounts_for_it() {
    let moved = |name: &str, reasons| MovedCounter {
        name: name.into(),
        count: 5,
        netns: Some(7),
        part: Part::default(),
        meaning: "why".into(),
        rows: InRows { reasons, ..InRows::default() },
        is_loss: true,
    };
    let listed = |by: &[Key], reason| {
        let counters = vec![moved("ListenDrops", &[]), moved("RcvbufErrors", &["R3"])];
        let rows = vec![Count { key: key(1, reason), count: 5, total: Some(5), peak: None }];
        let interval = Interval { counters, ..interval(rows) };
        let report = Report::new(interval, by, View::default(), &mut plain());
        report.counters.iter().map(|counter| counter.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[Key::Reason], 3), ["ListenDrops"], "the row is the same loss");
    assert_eq!(listed(&[Key::Reason], 4), ["ListenDrops", "RcvbufErrors"]);
    assert_eq!(listed(&[Key::Location], 4), ["ListenDrops"], "the rows may well account for it");
}
