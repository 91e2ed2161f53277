//! What moved between two looks at a namespace, a loss once.

use std::collections::{BTreeMap, HashMap};

use super::{
    catalogue::{COUNTERS, Counter, Source},
    links::Link,
    numbers::{Delta, Numbers, Subject},
    sockets::Listening,
    visit::{Found, LISTEN_DROPS, ONLY},
};
use crate::evidence::qdiscs;
use crate::model::{
    counter::{InRows, Listener, MovedCounter, Part, Qdisc, SlowSocket},
    foreign::Foreign,
    report::Iface,
};

/// Reasons of drops that a queue discipline counts.
const OF_QDISCS: InRows = InRows {
    reasons: &[
        "QDISC_DROP",
        "QDISC_OVERLIMIT",
        "QDISC_CONGESTED",
        "QDISC_BURST_DROP",
        "CAKE_FLOOD",
        "FQ_BAND_LIMIT",
        "FQ_FLOW_LIMIT",
        "FQ_HORIZON_LIMIT",
        "DUALPI2_STEP_DROP",
        "TC_INGRESS",
        "TC_EGRESS",
        "TC_CHAIN_NOTFOUND",
        "TC_COOKIE_ERROR",
        "TC_RECLASSIFY_LOOP",
        "NOT_SPECIFIED",
    ],
    functions: &[],
    partly: false,
};

/// What of a device's own numbers has rows: packets that were one already when its XDP program refused them.
const OF_VETH: InRows = InRows { reasons: &[], functions: &["veth_xdp_rcv", "veth_poll"], partly: true };
/// What a driver does not send may have rows.
const OF_SENDING: InRows =
    InRows { reasons: &["NOT_SPECIFIED", "DEV_READY", "NOMEM"], functions: &[], partly: false };

/// A loss with the sockets at fault, whose owners are to be found.
#[derive(Debug)]
pub struct Moved {
    /// What moved.
    pub counter: MovedCounter,
    /// The inode numbers of its listeners and sockets, in their order.
    pub inodes: Vec<u32>,
}

impl From<MovedCounter> for Moved {
    fn from(counter: MovedCounter) -> Self {
        Self { counter, inodes: Vec::new() }
    }
}

/// What moved in a namespace.
pub fn moved(netns: u32, before: &HashMap<Subject, Numbers>, found: &Found) -> Vec<Moved> {
    let look = Looks { netns: Some(netns), before, found };
    let mut moved = look.of_the_namespace();
    moved.extend(look.of_sockets("NetlinkDrops", |subject| match subject {
        Subject::NetlinkSocket(socket) => socket.rsplit(' ').next()?.parse().ok(),
        _ => None,
    }));
    moved.extend(look.of_sockets("PacketSocketDrops", |subject| match subject {
        Subject::PacketSocket(id) => Some(id.inode),
        _ => None,
    }));
    for link in &found.links {
        let own: Vec<_> = look.of_interface(link).collect();
        let of_driver = look.of_driver(link).into_iter();
        // Drivers count again by queue and by cause what the interface counts as a whole.
        let is_told = |name: &Foreign| own.iter().any(|counter| direction(&counter.name) == direction(name));
        moved.extend(of_driver.filter(|counter| !is_told(&counter.name)).map(Moved::from));
        moved.extend(own.into_iter().map(Moved::from));
        moved.extend(look.of_qdiscs(link).map(Moved::from));
    }
    moved
}

/// What moved for the whole host.
pub fn of_host(before: &Numbers, now: &Numbers) -> Vec<MovedCounter> {
    let delta = Delta::new(Some(before), now);
    let listed = COUNTERS.iter().filter(|counter| counter.source == Source::Softnet);
    listed.filter_map(|counter| listed_one(None, counter, &delta)).collect()
}

/// A counter of the catalogue, if it moved.
fn listed_one(netns: Option<u32>, counter: &Counter, delta: &Delta<'_>) -> Option<MovedCounter> {
    let count = delta.of(counter.name);
    let is_told = counter.unless.is_some_and(|other| delta.of(other) > 0);
    (count > 0 && !is_told).then(|| MovedCounter {
        name: counter.name.into(),
        count,
        netns,
        part: Part::default(),
        meaning: meaning(counter, count, delta, true),
        rows: counter.rows,
        is_loss: counter.is_loss,
    })
}

/// `rx` or `tx`, as names of counters begin.
fn direction(name: &Foreign) -> Vec<u8> {
    name.bytes().iter().copied().take(2).collect()
}

/// Two looks at a namespace.
#[derive(Clone, Copy)]
struct Looks<'a> {
    netns: Option<u32>,
    before: &'a HashMap<Subject, Numbers>,
    found: &'a Found,
}

impl<'a> Looks<'a> {
    fn before(&self, subject: &Subject) -> Option<&'a Numbers> {
        self.before.get(subject)
    }

    fn delta(&self, subject: &Subject) -> Option<Delta<'a>> {
        Some(Delta::new(self.before(subject), self.found.numbers.get(subject)?))
    }

    fn moved(&self, name: impl Into<Foreign>, count: u64, meaning: String, rows: InRows) -> MovedCounter {
        let (name, netns, part) = (name.into(), self.netns, Part::default());
        MovedCounter { name, count, netns, part, meaning, rows, is_loss: true }
    }

    fn of_the_namespace(&self) -> Vec<Moved> {
        let Some(delta) = self.delta(&Subject::Namespace) else { return Vec::new() };
        let listed = COUNTERS.iter().filter(|counter| Source::OF_NAMESPACE.contains(&counter.source));
        listed
            .filter_map(|counter| {
                let mut listed = Moved::from(listed_one(self.netns, counter, &delta)?);
                if counter.name == LISTEN_DROPS {
                    let full = self.listeners();
                    listed.inodes = full.iter().map(|(_, inode)| *inode).collect();
                    listed.counter.part.listeners = full.into_iter().map(|(listener, _)| listener).collect();
                    if !listed.counter.part.listeners.is_empty() {
                        let count = listed.counter.count;
                        listed.counter.meaning = meaning(counter, count, &delta, false);
                    }
                }
                Some(listed)
            })
            .collect()
    }

    /// The listening sockets that lost something, with their inode numbers, those that lost most first.
    fn listeners(&self) -> Vec<(Listener, u32)> {
        let lost = |listening: &Listening| {
            let id = listening.socket.id;
            let drops = self.delta(&Subject::Listener(id)).map_or(0, |delta| delta.of(ONLY));
            let Listening { local, queue, limit, .. } = *listening;
            (drops > 0).then_some((Listener { local, queue, limit, drops, process: None }, id.inode))
        };
        let mut lost: Vec<_> = self.found.listeners.iter().filter_map(lost).collect();
        lost.sort_by_key(|(listener, _)| (std::cmp::Reverse(listener.drops), listener.local));
        lost
    }

    /// What all sockets of a kind lost, with each of them.
    fn of_sockets(&self, name: &str, inode: impl Fn(&Subject) -> Option<u32>) -> Option<Moved> {
        let lost = self.found.numbers.keys().filter_map(|subject| {
            let inode = inode(subject)?;
            Some((self.delta(subject)?.of(ONLY), inode)).filter(|(drops, _)| *drops > 0)
        });
        let mut lost: Vec<_> = lost.collect();
        lost.sort_unstable_by_key(|&(drops, inode)| (std::cmp::Reverse(drops), inode));
        let (counter, count) = (Counter::named(name)?, lost.iter().map(|(drops, _)| drops).sum::<u64>());
        let mut counter = self.moved(counter.name, count, counter.meaning.to_owned(), counter.rows);
        let socket = |&(drops, _): &(u64, u32)| SlowSocket { drops, process: None };
        counter.part.sockets = lost.iter().map(socket).collect();
        (count > 0).then(|| Moved { counter, inodes: lost.iter().map(|(_, inode)| *inode).collect() })
    }

    fn of_interface(&self, link: &'a Link) -> impl Iterator<Item = MovedCounter> {
        let subject = Subject::Interface(link.index, link.name.clone());
        let delta = self.delta(&subject).filter(|_| self.has_counted_from_zero(link, &subject));
        let listed = COUNTERS.iter().filter(|counter| counter.is_for(link));
        listed
            .filter_map(move |counter| listed_one(self.netns, counter, delta.as_ref()?))
            .map(|counter| on(link, counter))
    }

    /// What a driver counts by names of its own: of counters that differ only by a queue, and of their sum, one.
    fn of_driver(&self, link: &Link) -> Vec<MovedCounter> {
        let subject = Subject::Driver(link.index, link.name.clone());
        let delta = self.delta(&subject).filter(|_| self.has_counted_from_zero(link, &subject));
        let mut kinds = BTreeMap::<String, Queues>::new();
        for (name, count) in delta.iter().flat_map(Delta::moved) {
            kinds.entry(without_queue(name)).or_default().add(name, count);
        }
        let listed = kinds.into_values().map(|queues| {
            let (name, count) = queues.largest();
            let meaning = if name.contains("xdp") {
                "packets that an XDP program dropped in the driver (ethtool -S, ip -d link)"
            } else {
                "packets that the driver or the card dropped (ethtool -S)"
            };
            let rows = match () {
                () if link.is("veth") => OF_VETH,
                () if name.starts_with("tx") => OF_SENDING,
                () => InRows::default(),
            };
            on(link, self.moved(name.as_str(), count, meaning.to_owned(), rows))
        });
        listed.collect()
    }

    fn of_qdiscs(&self, link: &'a Link) -> impl Iterator<Item = MovedCounter> {
        let deltas: Vec<(Qdisc, u64)> = self
            .found
            .numbers
            .keys()
            .filter_map(|subject| match subject {
                Subject::Qdisc(index, qdisc) if *index == link.index => {
                    Some((qdisc.clone(), self.delta(subject)?.of(ONLY)))
                }
                _ => None,
            })
            .collect();
        let mut own = qdiscs::without_children(&deltas);
        own.sort_by_key(|(qdisc, _)| qdisc.handle);
        own.into_iter().map(move |(qdisc, drops)| {
            let meaning = "packets that a queue discipline dropped in the card (tc -s qdisc)".to_owned();
            let mut counter = on(link, self.moved("qdisc_drops", drops, meaning, OF_QDISCS));
            counter.part.qdisc = Some(qdisc);
            counter
        })
    }

    /// A card that is new here has counted elsewhere before; what is made of software is made with zeros.
    fn has_counted_from_zero(&self, link: &Link, subject: &Subject) -> bool {
        self.before(subject).is_some() || !link.is_card()
    }
}

/// Says which interface counted.
fn on(link: &Link, mut counter: MovedCounter) -> MovedCounter {
    counter.part.iface =
        Some(Iface { index: link.index, name: Some(link.name.clone()), netns: None, altnames: Vec::new() });
    counter
}

/// Counters of a driver that differ only by a queue.
#[derive(Default)]
struct Queues {
    whole: Vec<(String, u64)>,
    of_queues: Vec<(String, u64)>,
}

impl Queues {
    fn add(&mut self, name: &str, count: u64) {
        let is_of_queue = without_queue(name) != name;
        let list = if is_of_queue { &mut self.of_queues } else { &mut self.whole };
        list.push((name.to_owned(), count));
    }

    /// The sum over the queues, or what counts them all, whichever has more.
    fn largest(&self) -> (String, u64) {
        let sum = self.of_queues.iter().map(|(_, count)| count).sum();
        let queues = match &self.of_queues[..] {
            [one] => one.clone(),
            [] => (String::new(), 0),
            [(first, _), ..] => (with_any_queue(first), sum),
        };
        let whole = self.whole.iter().max_by_key(|(_, count)| *count).cloned();
        whole.filter(|(_, count)| *count >= queues.1).unwrap_or(queues)
    }
}

/// `rx_queue_*_drops` of `rx_queue_0_drops`.
fn with_any_queue(name: &str) -> String {
    let parts: Vec<_> = name.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    let ends_with_queue = name.ends_with(|c: char| c.is_ascii_digit());
    parts.join("*") + if ends_with_queue { "*" } else { "" }
}

/// `rx_drop` of `rx_queue_0_drops` and of `rx0_drop`.
fn without_queue(name: &str) -> String {
    let words = name.split(|c: char| c == '_' || c.is_ascii_digit());
    let words: Vec<_> = words.filter(|word| !matches!(*word, "" | "queue" | "q" | "ring")).collect();
    words.join("_").trim_end_matches('s').to_owned()
}

/// The causes that are known, with their shares if there are several or a rest.
fn meaning(counter: &Counter, count: u64, delta: &Delta<'_>, with_advice: bool) -> String {
    let causes = counter.causes.iter().map(|cause| {
        let advice = cause.advice.filter(|_| with_advice).map(|advice| format!(": {advice}"));
        (format!("{}{}", cause.meaning, advice.unwrap_or_default()), delta.of(cause.name))
    });
    let causes: Vec<_> = causes.filter(|(_, count)| *count > 0).collect();
    match &causes[..] {
        [] => counter.meaning.to_owned(),
        [(cause, all)] if *all >= count => cause.clone(),
        _ => {
            let causes: Vec<_> = causes.iter().map(|(cause, count)| format!("{count}: {cause}")).collect();
            format!("{}; {}", counter.meaning, causes.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: u32 = 2;

    fn numbers(pairs: &[(&'static str, u64)]) -> Numbers {
        pairs.iter().map(|&(name, number)| (name.into(), number)).collect()
    }

    fn link(kind: Option<&str>) -> Link {
        let kind = kind.map(Into::into);
        Link { index: CARD, name: "eth0".into(), kind, has_xdp: false, numbers: Numbers::new(), sum: 0 }
    }

    fn interface() -> Subject {
        Subject::Interface(CARD, "eth0".into())
    }

    fn driver() -> Subject {
        Subject::Driver(CARD, "eth0".into())
    }

    fn found(kind: Option<&str>, subjects: Vec<(Subject, Numbers)>) -> Found {
        Found {
            numbers: subjects.into_iter().collect(),
            links: vec![link(kind)],
            is_entered: true,
            ..Found::default()
        }
    }

    /// What moved from zero to these numbers, of subjects that were there.
    fn counts(kind: Option<&str>, subjects: Vec<(Subject, Numbers)>) -> Vec<(String, u64, String)> {
        let before = subjects.iter().map(|(subject, _)| (subject.clone(), Numbers::new())).collect();
        let moved = moved(7, &before, &found(kind, subjects));
        let words = |moved: Moved| {
            let MovedCounter { name, count, meaning, .. } = moved.counter;
            (name.to_string(), count, meaning)
        };
        moved.into_iter().map(words).collect()
    }

    fn names(kind: Option<&str>, subjects: Vec<(Subject, Numbers)>) -> Vec<(String, u64)> {
        counts(kind, subjects).into_iter().map(|(name, count, _)| (name, count)).collect()
    }

    #[test]
    fn the_cause_of_refused_connections_is_named() {
        let both = numbers(&[("TcpExtListenDrops", 225), ("TcpExtListenOverflows", 225)]);
        let [(name, 225, meaning)] = &counts(None, vec![(Subject::Namespace, both)])[..] else {
            panic!("one line for one loss")
        };
        assert_eq!(name, "TcpExtListenDrops");
        assert!(meaning.starts_with("accept queue full: the server"), "{meaning}");
    }

    #[test]
    fn a_squeeze_is_listed_and_is_no_loss() {
        let now = numbers(&[("SoftnetDropped", 3), ("SoftnetSqueezed", 12)]);
        let moved = of_host(&Numbers::new(), &now);
        let moved: Vec<_> = moved.iter().map(|one| (one.name.text(), one.count, one.is_loss)).collect();
        assert_eq!(moved, [("SoftnetDropped".into(), 3, true), ("SoftnetSqueezed".into(), 12, false)]);
    }

    #[test]
    fn several_causes_have_their_shares() {
        let now = numbers(&[
            ("TcpExtListenDrops", 400),
            ("TcpExtListenOverflows", 5),
            ("TcpExtTCPReqQFullDrop", 395),
        ]);
        let [(_, 400, meaning)] = &counts(None, vec![(Subject::Namespace, now)])[..] else {
            panic!("one line for one loss")
        };
        assert!(meaning.contains("395: SYN queue full"), "{meaning}");
        assert!(meaning.contains("5: accept queue full"), "{meaning}");
    }

    #[test]
    fn a_card_counts_a_loss_once() {
        let own = numbers(&[("rx_errors", 8), ("rx_crc_errors", 5), ("rx_fifo_errors", 3)]);
        let all = counts(None, vec![(interface(), own)]);
        let [(name, 8, meaning)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(name, "rx_errors");
        assert!(meaning.contains("5: wrong checksum"), "{meaning}");
        let of_the_queue = numbers(&[("rx_fifo_errors", 3), ("rx_missed_errors", 4)]);
        let expected = [("rx_missed_errors".to_owned(), 4), ("rx_fifo_errors".to_owned(), 3)];
        assert_eq!(names(None, vec![(interface(), of_the_queue)]), expected);
    }

    #[test]
    fn a_driver_tells_what_the_interface_does_not() {
        let of_driver = || numbers(&[("rx_queue_0_drops", 3), ("rx_queue_1_drops", 4), ("tx_drop", 1)]);
        let of_interface = numbers(&[("rx_missed_errors", 7)]);
        let expected = [("rx_queue_*_drops".to_owned(), 7), ("tx_drop".to_owned(), 1)];
        assert_eq!(names(None, vec![(driver(), of_driver())]), expected);
        let both = names(None, vec![(driver(), of_driver()), (interface(), of_interface)]);
        assert_eq!(both, [("tx_drop".to_owned(), 1), ("rx_missed_errors".to_owned(), 7)]);
        let sum_too = numbers(&[("rx0_xdp_drop", 3), ("rx1_xdp_drop", 4), ("rx_xdp_drop", 7)]);
        assert_eq!(names(None, vec![(driver(), sum_too)]), [("rx_xdp_drop".to_owned(), 7)]);
        let one = numbers(&[("rx_queue_0_xdp_drops", 3), ("rx_queue_1_xdp_drops", 0)]);
        assert_eq!(names(Some("veth"), vec![(driver(), one)]), [("rx_queue_0_xdp_drops".to_owned(), 3)]);
    }

    #[test]
    fn software_frees_where_the_tracepoint_sees_it() {
        let own = || numbers(&[("rx_errors", 8), ("rx_missed_errors", 1), ("rx_dropped", 5)]);
        assert_eq!(names(Some("gre"), vec![(interface(), own())]), []);
        assert_eq!(names(Some("tun"), vec![(interface(), own())]), [("rx_dropped".to_owned(), 5)]);
    }

    #[test]
    fn a_card_that_is_new_has_counted_elsewhere() {
        let now = vec![(interface(), numbers(&[("rx_missed_errors", 9)]))];
        assert!(moved(7, &HashMap::new(), &found(None, now.clone())).is_empty());
        assert_eq!(names(None, now).len(), 1);
    }

    #[test]
    fn the_deepest_queue_discipline_is_listed() {
        const ROOT: u32 = u32::MAX;
        let qdisc = |kind: &str, handle, parent| Qdisc { kind: kind.into(), handle, parent };
        let subject = |qdisc| (Subject::Qdisc(CARD, qdisc), numbers(&[(ONLY, 154)]));
        let subjects =
            vec![subject(qdisc("tbf", 0x10_0000, ROOT)), subject(qdisc("pfifo", 0x20_0000, 0x10_0001))];
        let before = subjects.iter().map(|(subject, _)| (subject.clone(), Numbers::new())).collect();
        let all = moved(7, &before, &found(None, subjects));
        let [Moved { counter, .. }] = &all[..] else { panic!("{all:?}") };
        assert_eq!(counter.count, 154);
        assert_eq!(counter.part.qdisc, Some(qdisc("pfifo", 0x20_0000, 0x10_0001)));
        assert_eq!(counter.part.iface.as_ref().and_then(|iface| iface.name.clone()), Some("eth0".into()));
    }

    #[test]
    fn a_socket_that_closed_makes_no_loss_of_the_others() {
        let socket = |name: &str, drops| (Subject::NetlinkSocket(name.to_owned()), numbers(&[(ONLY, drops)]));
        let before = [socket("0 1 11", 15), socket("0 2 12", 2)].into();
        let all = moved(7, &before, &found(None, vec![socket("0 2 12", 5)]));
        let [Moved { counter, inodes }] = &all[..] else { panic!("{all:?}") };
        assert_eq!(
            (counter.name.to_string(), counter.count, &inodes[..]),
            ("NetlinkDrops".to_owned(), 3, &[12][..])
        );
    }
}
