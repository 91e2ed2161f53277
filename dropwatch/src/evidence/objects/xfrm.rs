//! XFRM: what its counters and policies say.

use std::{collections::BTreeMap, fs, net::IpAddr, time::Duration};

use super::{Question, compared::Compared, fib::covers, route::is_received};
use crate::{
    evidence::{
        counters::{self, parse},
        netlink::{Netlink, attribute, u32_at},
        places::Inside,
    },
    model::{
        evidence::{Certainty, Evidence, Kind},
        plural::counted,
    },
};

/// `XFRM_MSG_GETSA` and `XFRM_MSG_GETPOLICY`.
const GET_STATE: u16 = 0x12;
const GET_POLICY: u16 = 0x15;
/// `struct xfrm_selector`: destination, source, ports with masks, family, lengths, protocol.
const DPORT: usize = 32;
const SPORT: usize = 36;
const FAMILY: usize = 40;
const LENGTHS: usize = 42;
const PROTOCOL: usize = 44;
/// `struct xfrm_userpolicy_info`: a selector, lifetimes, then these.
const PRIORITY: usize = 152;
const DIRECTION: usize = 160;
const ACTION: usize = 161;
const POLICY: usize = 168;
/// `XFRM_POLICY_BLOCK`.
const BLOCK: u8 = 1;
/// `XFRMA_TMPL`: `struct xfrm_user_tmpl`, once or more often.
const TEMPLATES: u16 = 5;
const TEMPLATE: usize = 64;
/// `struct xfrm_usersa_info`: a selector, the identity, the source, and so on.
const STATE_TO: usize = 56;
const STATE_PROTOCOL: usize = 76;
const STATE_REQUEST: usize = 208;
const STATE_FAMILY: usize = 212;
const MODES: [&str; 2] = ["transport", "tunnel"];

/// What the counters of `IPsec` were when they were looked at before.
#[derive(Debug, Default)]
pub struct Counters {
    compared: Compared<Numbers>,
}

type Numbers = BTreeMap<String, u64>;

/// Which policies apply, by `XFRM_POLICY_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    In,
    Out,
    Forward,
}

impl Direction {
    fn of(question: &Question) -> Self {
        let is_in =
            |name: &str| question.is_in(&[name]) || question.callers.iter().any(|caller| caller == name);
        if is_in("ip_forward") || is_in("ip6_forward") {
            return Self::Forward;
        }
        let sends = question.function.as_deref().is_some_and(|function| function.contains("out"));
        if question.is_for("XFRM_POLICY") || (is_received(question) && !sends) { Self::In } else { Self::Out }
    }

    fn word(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Forward => "fwd",
        }
    }

    /// Whether a counter is of it; what is forwarded is also received before, and sent after.
    fn counts(self, counter: &str) -> bool {
        let starts: &[&str] = match self {
            Self::In => &["XfrmIn"],
            Self::Out => &["XfrmOut", "XfrmAcquireError"],
            Self::Forward => &["XfrmIn", "XfrmFwd", "XfrmOut"],
        };
        starts.iter().any(|start| counter.starts_with(start))
    }
}

impl Counters {
    /// Notes what has been counted so far.
    pub fn note(&mut self, netns: u32, inside: Inside<'_>) {
        if let Some(now) = read(inside) {
            self.compared.note(netns, now);
        }
    }

    /// A report begins: forgets namespaces that have gone.
    pub fn begin(&mut self, is_there: &dyn Fn(u32) -> bool) {
        self.compared.begin(is_there);
    }

    /// The counters that moved, and the policy that applies.
    pub fn find(&mut self, question: &Question, netns: u32, inside: Inside<'_>) -> Vec<Evidence> {
        let direction = Direction::of(question);
        let Some(now) = read(inside) else { return Vec::new() };
        let before = self.compared.turn(netns, now.clone());
        let mut found = moved(&now, before.as_ref(), direction);
        found.extend(policy(question, direction, inside));
        found
    }
}

fn read(inside: Inside<'_>) -> Option<Numbers> {
    let text = fs::read_to_string(inside.directory.join("xfrm_stat")).ok()?;
    Some(parse::pairs(&text).map(|(prefix, name, number)| (format!("{prefix}{name}"), number)).collect())
}

/// The counters that moved; those of all times, if it is not known what they were.
fn moved(now: &Numbers, before: Option<&(Duration, Numbers)>, direction: Direction) -> Vec<Evidence> {
    let had = |name: &String| before.and_then(|(_, before)| before.get(name)).copied().unwrap_or(0);
    let deltas = now.iter().map(|(name, number)| (name, number.saturating_sub(had(name))));
    let deltas: Vec<_> = deltas.filter(|(name, moved)| *moved > 0 && direction.counts(name)).collect();
    let is_counted = before.is_some() || deltas.len() == 1;
    let certainty = if is_counted { Certainty::Counted } else { Certainty::Possible };
    let tell = |(name, moved): &(&String, u64)| {
        let since = before
            .map_or_else(|| "so far".to_owned(), |(since, _)| format!("in {:.1} s", since.as_secs_f64()));
        let meaning =
            counters::meaning(name).map(|meaning| meaning.strip_prefix("IPsec: ").unwrap_or(meaning));
        let meaning = meaning.map_or_else(String::new, |meaning| format!(": {meaning}"));
        let text = format!("{name} counted {} {since}{meaning}", counted(*moved, "packet"));
        let found = Evidence::new(Kind::Xfrm, certainty, text, "/proc/net/xfrm_stat");
        found.with("counter", name).with("count", moved)
    };
    deltas.iter().map(tell).collect()
}

/// The policy that applies to the packet, if it refuses, or if nothing fits what it requires.
fn policy(question: &Question, direction: Direction, inside: Inside<'_>) -> Option<Evidence> {
    if !inside.is_entered {
        return None;
    }
    let netlink = Netlink::open_xfrm().ok()?;
    let listed = netlink.dump(GET_POLICY, &[]).ok()?;
    let policies = listed.iter().filter_map(|message| Policy::parse(message));
    let fitting =
        policies.filter(|policy| policy.direction == direction as u8 && policy.selector.fits(question));
    let policy = fitting.min_by_key(|policy| policy.priority)?;
    let place = format!("policy {} for {}", direction.word(), policy.selector.words());
    let rest = if policy.action == BLOCK {
        "blocks".to_owned()
    } else {
        let required: Vec<_> = policy.required.iter().map(Required::words).collect();
        let required = format!("requires {}", required.join(" and "));
        let missing = policy.missing(&netlink, question)?;
        match (direction, missing) {
            (_, true) => format!("{required}, and no state (SA) fits that"),
            (Direction::Out, false) => format!("{required}, for which there is a state (SA)"),
            (_, false) => required,
        }
    };
    let found =
        Evidence::new(Kind::Xfrm, Certainty::Certain, format!("{place} {rest} now"), "ip xfrm policy show");
    let found = found.with("direction", direction.word()).with("selector", policy.selector.words());
    Some(found.with("priority", policy.priority).with("blocks", policy.action == BLOCK))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    selector: Selector,
    priority: u32,
    direction: u8,
    action: u8,
    required: Vec<Required>,
}

/// Which packets it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selector {
    to: (IpAddr, u8),
    from: (IpAddr, u8),
    /// Destination and source, and which bits of them count.
    ports: [(u16, u16); 2],
    protocol: u8,
}

/// A protection that it requires.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Required {
    protocol: u8,
    to: IpAddr,
    from: IpAddr,
    request: u32,
    mode: u8,
}

impl Policy {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let templates = attribute(message, POLICY, TEMPLATES).unwrap_or_default();
        Some(Self {
            selector: Selector::parse(message)?,
            priority: u32_at(message, PRIORITY)?,
            direction: *message.get(DIRECTION)?,
            action: *message.get(ACTION)?,
            required: templates.chunks_exact(TEMPLATE).filter_map(Required::parse).collect(),
        })
    }

    /// Whether there is no state for something that it requires; none if it requires nothing.
    fn missing(&self, netlink: &Netlink, question: &Question) -> Option<bool> {
        if self.required.is_empty() {
            return None;
        }
        let states = netlink.dump(GET_STATE, &[]).ok()?;
        Some(
            self.required.iter().any(|required| !states.iter().any(|state| required.is_met(state, question))),
        )
    }
}

impl Selector {
    fn parse(message: &[u8]) -> Option<Self> {
        let family = u16::from_ne_bytes(*message.get(FAMILY..)?.first_chunk()?);
        let port = |at: usize| {
            let number = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
            Some((number(at)?, number(at + 2)?))
        };
        Some(Self {
            to: (address(message, 0, family)?, *message.get(LENGTHS)?),
            from: (address(message, 16, family)?, *message.get(LENGTHS + 1)?),
            ports: [port(DPORT)?, port(SPORT)?],
            protocol: *message.get(PROTOCOL)?,
        })
    }

    fn fits(&self, question: &Question) -> bool {
        let port = |(port, mask): (u16, u16), of: Option<u16>| {
            mask == 0 || of.is_some_and(|of| of & mask == port & mask)
        };
        question.daddr.is_some_and(|to| covers(self.to, to))
            && question.saddr.is_some_and(|from| covers(self.from, from))
            && (self.protocol == 0 || question.ipproto == Some(self.protocol))
            && port(self.ports[0], question.dport)
            && port(self.ports[1], question.sport)
    }

    /// `10.98.0.0/16 > 10.99.0.2/32`
    fn words(&self) -> String {
        let port = |(port, mask): (u16, u16)| if mask == 0 { String::new() } else { format!(" port {port}") };
        let ((from, from_bits), (to, to_bits)) = (self.from, self.to);
        format!("{from}/{from_bits}{} > {to}/{to_bits}{}", port(self.ports[1]), port(self.ports[0]))
    }
}

impl Required {
    fn parse(template: &[u8]) -> Option<Self> {
        let family = u16::from_ne_bytes(*template.get(24..)?.first_chunk()?);
        Some(Self {
            protocol: *template.get(20)?,
            to: address(template, 0, family)?,
            from: address(template, 28, family)?,
            request: u32_at(template, 44)?,
            mode: *template.get(48)?,
        })
    }

    /// Whether a state is what is required; without addresses, for those of the packet.
    fn is_met(&self, state: &[u8], question: &Question) -> bool {
        let to = if self.to.is_unspecified() { question.daddr } else { Some(self.to) };
        let found = || {
            let family = u16::from_ne_bytes(*state.get(STATE_FAMILY..)?.first_chunk()?);
            let fits = address(state, STATE_TO, family) == to
                && *state.get(STATE_PROTOCOL)? == self.protocol
                && (self.request == 0 || u32_at(state, STATE_REQUEST)? == self.request);
            Some(fits)
        };
        found().unwrap_or(false)
    }

    /// `esp tunnel 192.0.2.1 > 192.0.2.2 (reqid 7)`
    fn words(&self) -> String {
        let protocol = match self.protocol {
            50 => "esp",
            51 => "ah",
            108 => "comp",
            _ => "another protocol",
        };
        let mode = MODES.get(usize::from(self.mode)).copied().unwrap_or("another mode");
        let ends =
            if self.to.is_unspecified() { String::new() } else { format!(" {} > {}", self.from, self.to) };
        let request = if self.request == 0 { String::new() } else { format!(" (reqid {})", self.request) };
        format!("{protocol} {mode}{ends}{request}")
    }
}

/// An address, which has sixteen bytes of space in either family.
fn address(bytes: &[u8], at: usize, family: u16) -> Option<IpAddr> {
    let bytes = bytes.get(at..)?.first_chunk::<16>()?;
    let [a, b, c, d, ..] = *bytes;
    Some(if i32::from(family) == libc::AF_INET { [a, b, c, d].into() } else { (*bytes).into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(pairs: &[(&str, u64)]) -> Numbers {
        pairs.iter().map(|&(name, number)| (name.to_owned(), number)).collect()
    }

    #[test]
    fn of_several_counters_the_one_that_moved_is_named() {
        let before = (
            Duration::from_secs(2),
            numbers(&[("XfrmOutNoStates", 3), ("XfrmOutError", 5), ("XfrmInError", 0)]),
        );
        let now = numbers(&[("XfrmOutNoStates", 7), ("XfrmOutError", 5), ("XfrmInError", 9)]);
        let found = moved(&now, Some(&before), Direction::Out);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].certainty, &found[0].fields["count"]), (Certainty::Counted, &4.into()));
        assert!(
            found[0].text.starts_with("XfrmOutNoStates counted 4 packets in 2.0 s: a policy "),
            "{}",
            found[0].text
        );
        let unsure: Vec<_> = moved(&now, None, Direction::Out).iter().map(|found| found.certainty).collect();
        assert_eq!(unsure, [Certainty::Possible; 2]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = (Policy::parse(&bytes), Required::parse(&bytes));
        }
    }
}
