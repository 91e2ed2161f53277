//! Queue disciplines: which of them dropped, and how full it is.

use std::time::Duration;

use super::{Question, compared::Compared, device::Device, route_netlink};
use crate::{
    evidence::{
        places::Inside,
        qdiscs::{self, Dropped, Hidden, Limit, SPECIAL},
    },
    model::{
        counter::Qdisc,
        evidence::{Certainty, Evidence, Kind},
        plural::counted,
    },
};

/// What queue disciplines had dropped when they were looked at before.
#[derive(Debug, Default)]
pub struct Statistics {
    compared: Compared<Vec<Dropped>>,
}

impl Statistics {
    /// Notes what the queue disciplines of a namespace have counted so far.
    pub fn note(&mut self, netns: u32, inside: Inside<'_>) {
        let now = route_netlink(inside).and_then(|netlink| qdiscs::read(&netlink, Hidden::Listed).ok());
        if let Some(now) = now {
            self.compared.note(netns, now);
        }
    }

    /// A report begins: forgets namespaces that have gone.
    pub fn begin(&mut self, is_there: &dyn Fn(u32) -> bool) {
        self.compared.begin(is_there);
    }

    /// The queue disciplines that dropped such packets.
    pub fn find(&mut self, question: &Question, netns: u32, inside: Inside<'_>) -> Vec<Evidence> {
        self.compare(question, netns, inside).unwrap_or_default()
    }

    fn compare(&mut self, question: &Question, netns: u32, inside: Inside<'_>) -> Option<Vec<Evidence>> {
        let index = question.iface.as_ref()?.0;
        let netlink = route_netlink(inside)?;
        let now = qdiscs::read(&netlink, Hidden::Listed).ok()?;
        let device = Device::get(&netlink, index).ok()?;
        let before = self.compared.turn(netns, now.clone());
        let of_tc = question.reason.as_deref().is_some_and(|reason| reason.starts_with("TC_"));
        let is_it = |dropped: &Dropped| dropped.index == index && is_filter_place(&dropped.qdisc) == of_tc;
        let own: Vec<_> = now.into_iter().filter(is_it).collect();
        let moved = moved(&own, before.as_ref().map(|(_, before)| before.as_slice()));
        let since = before.map(|(since, _)| since);
        let suspects = suspects(&own, &moved, since.is_some()).into_iter();
        Some(suspects.map(|(dropped, drops, sure)| describe(&device, dropped, drops, since, sure)).collect())
    }
}

/// Whether it holds no packets, but filters that decide about them.
fn is_filter_place(qdisc: &Qdisc) -> bool {
    qdisc.kind == *"clsact" || qdisc.kind == *"ingress"
}

/// What each dropped itself since it was read before, or since it was made.
fn moved(now: &[Dropped], before: Option<&[Dropped]>) -> Vec<(Qdisc, u64)> {
    let had = |now: &Dropped| {
        let same = |before: &&Dropped| before.index == now.index && before.qdisc == now.qdisc;
        before.and_then(|before| before.iter().find(same)).map_or(0, |before| before.drops)
    };
    // One that was made anew meanwhile has counted from zero.
    let delta = |now: &Dropped| now.drops.checked_sub(had(now)).unwrap_or(now.drops);
    let deltas: Vec<_> = now.iter().map(|now| (now.qdisc.clone(), delta(now).into())).collect();
    qdiscs::without_children(&deltas)
}

/// The queue disciplines of a device that have dropped anything themselves, with how much, and how sure it is that they
/// dropped these packets.
///
/// The one that has dropped alone did; where nothing is known of what they had counted before, several may have.
fn suspects<'a>(
    all: &'a [Dropped],
    moved: &[(Qdisc, u64)],
    is_compared: bool,
) -> Vec<(&'a Dropped, u64, Certainty)> {
    let is_counted = is_compared || moved.len() == 1;
    let certainty = if is_counted { Certainty::Counted } else { Certainty::Possible };
    let mut found: Vec<_> = all
        .iter()
        .filter_map(|dropped| {
            let (_, drops) = moved.iter().find(|(qdisc, _)| *qdisc == dropped.qdisc)?;
            Some((dropped, *drops, certainty))
        })
        .collect();
    found.sort_by_key(|(_, drops, _)| std::cmp::Reverse(*drops));
    found
}

fn describe(
    device: &Device,
    dropped: &Dropped,
    drops: u64,
    since: Option<Duration>,
    certainty: Certainty,
) -> Evidence {
    let Dropped { qdisc, packets, bytes, .. } = dropped;
    let limit = dropped.limit.or_else(|| {
        // It has no limit of its own.
        (qdisc.kind == *"pfifo_fast").then_some(Limit::Packets(device.queue))
    });
    let drops_words = counted(drops, "packet");
    let dropped_words = match since {
        Some(since) => format!("dropped {drops_words} in {:.1} s", since.as_secs_f64()),
        None => format!("has dropped {drops_words} so far"),
    };
    let most = match limit {
        Some(Limit::Packets(most)) => format!(", at most {most}"),
        Some(Limit::Bytes(most)) => format!(", at most {most} bytes"),
        None => String::new(),
    };
    let holds = if is_filter_place(qdisc) {
        String::new()
    } else {
        format!("; {} ({bytes} bytes) in it now{most}", counted(u64::from(*packets), "packet"))
    };
    let text = format!("{}: {} {} {dropped_words}{holds}", device.name, qdisc.kind, place(qdisc));
    let hidden = if qdisc.handle == 0 { " invisible" } else { "" };
    let source = format!("tc -s qdisc show dev {}{hidden}", device.name);
    let mut found = Evidence::new(Kind::Qdisc, certainty, text, source)
        .with("device", &device.name)
        .with("qdisc", &qdisc.kind)
        .with("handle", handle(qdisc.handle))
        .with("parent", handle(qdisc.parent))
        .with("drops", drops)
        .with("waiting_packets", *packets)
        .with("waiting_bytes", *bytes);
    match limit {
        Some(Limit::Packets(most)) => found = found.with("limit_packets", most),
        Some(Limit::Bytes(most)) => found = found.with("limit_bytes", most),
        None => {}
    }
    found
}

/// Where it is: its handle, and in which class; `10: (root)`, `20: (in 10:1)`, `0: (in 10:1)`.
fn place(qdisc: &Qdisc) -> String {
    let parent = match qdisc.parent {
        u32::MAX => "root".to_owned(),
        parent if parent >= SPECIAL => "ingress and egress".to_owned(),
        parent => format!("in {}", handle(parent)),
    };
    format!("{} ({parent})", handle(qdisc.handle))
}

/// As `tc` writes it.
fn handle(handle: u32) -> String {
    match (handle, handle >> 16, handle & 0xffff) {
        (u32::MAX, ..) => "root".to_owned(),
        (_, major, 0) => format!("{major:x}:"),
        (_, major, minor) => format!("{major:x}:{minor:x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(kind: &str, handle: u32, parent: u32, drops: u32) -> Dropped {
        let qdisc = Qdisc { kind: kind.into(), handle, parent };
        Dropped { index: 7, qdisc, drops, packets: 10, bytes: 840, limit: None }
    }

    #[test]
    fn the_leaf_whose_drops_moved_is_named_among_look_alikes() {
        let before = [
            dropped("htb", 0x10_0000, u32::MAX, 5),
            dropped("pfifo", 0x20_0000, 0x10_0001, 5),
            dropped("pfifo", 0x30_0000, 0x10_0002, 0),
        ];
        let mut now = before.clone();
        (now[0].drops, now[2].drops) = (98, 93);
        let moved = moved(&now, Some(&before));
        let found = suspects(&now, &moved, true);
        assert_eq!(found, [(&now[2], 93, Certainty::Counted)]);
    }

    #[test]
    fn without_anything_to_compare_only_a_single_one_is_sure() {
        let one = [dropped("htb", 0x10_0000, u32::MAX, 5), dropped("pfifo", 0, 0x10_0001, 5)];
        assert_eq!(suspects(&one, &moved(&one, None), false), [(&one[1], 5, Certainty::Counted)]);
        let two = [dropped("pfifo", 0x10_0000, 0x90_0001, 5), dropped("pfifo", 0x20_0000, 0x90_0002, 9)];
        let found = suspects(&two, &moved(&two, None), false);
        assert_eq!(found, [(&two[1], 9, Certainty::Possible), (&two[0], 5, Certainty::Possible)]);
    }

    #[test]
    fn what_was_made_anew_counts_from_zero() {
        let (before, now) =
            ([dropped("tbf", 0x10_0000, u32::MAX, 50)], [dropped("tbf", 0x10_0000, u32::MAX, 3)]);
        assert_eq!(moved(&now, Some(&before))[0].1, 3);
    }

    #[test]
    fn places_read_as_in_tc() {
        let named = |handle, parent| place(&dropped("pfifo", handle, parent, 0).qdisc);
        assert_eq!(named(0x10_0000, u32::MAX), "10: (root)");
        assert_eq!(named(0, 0x10_000a), "0: (in 10:a)");
        assert_eq!(named(0xffff_0000, 0xffff_fff1), "ffff: (ingress and egress)");
    }
}
