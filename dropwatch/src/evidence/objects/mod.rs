//! The objects that drop packets: sockets, rules, queues, programs, routes, settings.
//!
//! A question is about one dropped packet that stands for a row. It is answered after the drop, in the packet's network
//! namespace, by what the knowledge says is worth a look. What is only likely says so.

mod bridge;
mod compared;
mod conntrack;
mod device;
mod fib;
mod link;
mod neighbour;
mod netfilter;
mod netns_names;
mod program;
mod qdisc;
mod route;
mod socket;
mod sysctl;
mod tc;
mod xfrm;

use std::{net::IpAddr, time::Instant};

use nix::sys::socket::SockProtocol;

pub use self::netfilter::LISTING_RULES;
use super::{budget::Budget, netlink::Netlink, places::Inside};
use crate::model::{
    container::Container,
    evidence::{Evidence, Kind},
    foreign::Foreign,
    sample::Program,
    socket::{Ownership, Socket},
};

/// A dropped packet, and what to look for.
#[derive(Clone, Debug, Default)]
#[expect(dead_code, reason = "not every collector needs all of it")]
pub struct Question {
    /// What the knowledge says is worth a look, most telling first.
    pub kinds: Vec<Kind>,
    /// The reason's name.
    pub reason: Option<String>,
    /// The function it was dropped in.
    pub function: Option<String>,
    /// The functions that called it, innermost first; empty if they are not known.
    pub callers: Vec<String>,
    /// The address it was dropped at.
    pub location: u64,
    /// The interface, by number and name.
    pub iface: Option<(u32, Foreign)>,
    /// The ethertype.
    pub protocol: Option<u16>,
    /// The protocol above IP.
    pub ipproto: Option<u8>,
    /// The packet's source and destination.
    pub saddr: Option<IpAddr>,
    pub daddr: Option<IpAddr>,
    /// Its ports.
    pub sport: Option<u16>,
    pub dport: Option<u16>,
    /// Bytes from the network header.
    pub length: u32,
    /// The packet from its network header, as far as it was captured.
    pub packet: Vec<u8>,
    /// Its link header; empty if it had none.
    pub link: Vec<u8>,
    /// Its mark.
    pub mark: u32,
    /// The number of the transmit queue it was mapped to.
    pub queue: u16,
    /// The number of the interface that its route leads to, if it had a route.
    pub egress: Option<u32>,
    /// The socket that the packet belonged to, as the kernel handed it over.
    pub socket: Option<Socket>,
    /// Whose it is.
    pub owner: Option<Ownership>,
    /// What its owner runs in.
    pub container: Option<Container>,
    /// The socket's own filter.
    pub filter: Option<Program>,
    /// The programs that the socket's cgroup has for what is received.
    pub of_cgroup: Vec<Program>,
    /// How many such drops there were in this interval.
    pub count: u64,
    /// When the interval began, if it is one.
    pub began: Option<Instant>,
}

impl Question {
    /// Whether it was dropped in one of these functions.
    fn is_in(&self, functions: &[&str]) -> bool {
        self.function.as_deref().is_some_and(|function| functions.contains(&base(function)))
    }

    /// Whether it was dropped for this reason.
    fn is_for(&self, reason: &str) -> bool {
        self.reason.as_deref() == Some(reason)
    }
}

/// A function's name in the source: compilers add to it where they clone functions.
fn base(function: &str) -> &str {
    function.split('.').next().unwrap_or(function)
}

/// A socket for questions about interfaces, routes and neighbours, if the thread is in the namespace.
fn route_netlink(inside: Inside<'_>) -> Option<Netlink> {
    if inside.is_entered { Netlink::open(SockProtocol::NetlinkRoute).ok() } else { None }
}

/// How the rule that drops packets is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// What rules and their counters tell.
    Compare,
    /// Where that is possible, the kernel traces packets.
    Trace,
}

/// Whether packets can be traced through rules here.
///
/// # Errors
/// They cannot, with the reason and what else can be done.
pub fn can_trace() -> Result<(), String> {
    netfilter::can_trace()
}

/// Whether this kernel has rules of iptables-legacy, or had some.
#[must_use]
pub fn has_legacy_rules() -> bool {
    netfilter::has_legacy_rules()
}

/// Looks at objects. What has to be compared with what was there before is kept in here.
#[derive(Debug, Default)]
pub struct Objects {
    netfilter: netfilter::Rulesets,
    qdiscs: qdisc::Statistics,
    xfrm: xfrm::Counters,
}

impl Objects {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { netfilter: netfilter::Rulesets::new(rules), ..Self::default() }
    }

    /// Notes what later looks compare with: at the start, before any drop, and of namespaces that appear.
    ///
    /// The thread is in the namespace already, as for [`Self::look`].
    pub fn note(&mut self, netns: u32, inside: Inside<'_>) {
        self.netfilter.note(netns, inside);
        self.qdiscs.note(netns, inside);
        self.xfrm.note(netns, inside);
    }

    /// What a packet itself shows, where its namespace cannot be looked into.
    pub fn at_hand(question: &Question) -> Vec<Evidence> {
        if question.kinds.contains(&Kind::Socket) { socket::find(question, None) } else { Vec::new() }
    }

    /// A report begins: all its looks compare with what there was before it. Forgets what was noted of namespaces that have
    /// gone.
    pub fn begin(&mut self, is_there: &dyn Fn(u32) -> bool) {
        self.netfilter.begin(is_there);
        self.qdiscs.begin(is_there);
        self.xfrm.begin(is_there);
    }

    /// What is found in the packet's namespace, in the order of `kinds`.
    ///
    /// The thread is in that namespace already, if `inside` says so; what is opened here must not outlive the call.
    /// Ends early when the budget is spent.
    pub fn look(
        &mut self,
        question: &Question,
        netns: u32,
        inside: Inside<'_>,
        budget: Budget,
    ) -> Vec<Evidence> {
        let mut found = Vec::new();
        for kind in &question.kinds {
            if budget.is_spent() {
                break;
            }
            found.extend(match kind {
                Kind::Socket => socket::find(question, Some(inside)),
                Kind::Netfilter => self.netfilter.find(question, netns, inside, budget),
                Kind::Conntrack => conntrack::find(question, inside),
                Kind::Qdisc => self.qdiscs.find(question, netns, inside),
                Kind::Program => program::find(question, inside),
                Kind::Route => route::find(question, inside),
                Kind::Neighbour => neighbour::find(question, inside),
                Kind::Link => link::find(question, inside, budget),
                Kind::Sysctl => sysctl::find(question, inside),
                Kind::Xfrm => self.xfrm.find(question, netns, inside),
                Kind::Bridge => bridge::find(question, inside),
            });
        }
        once(found)
    }
}

/// Programs that two looks found are there once: as the later one has them, which knows their place, and as sure as either.
fn once(found: Vec<Evidence>) -> Vec<Evidence> {
    let id =
        |it: &Evidence| it.fields.get("id").filter(|id| it.kind == Kind::Program && id.is_u64()).cloned();
    let mut told: Vec<Evidence> = Vec::new();
    for mut it in found {
        if let Some(place) = told.iter().position(|before| id(before).is_some() && id(before) == id(&it)) {
            it.certainty = it.certainty.min(told.remove(place).certainty);
        }
        told.push(it);
    }
    told
}

/// Reads what may be the rules of iptables-legacy.
#[cfg(feature = "fakes")]
pub use netfilter::read_saved;

/// Reads a message as all kinds of objects.
#[cfg(feature = "fakes")]
pub(super) fn read_answer(message: &[u8]) {
    let to = std::net::Ipv4Addr::new(192, 0, 2, 1).into();
    let flow = fib::Flow { to, received: None, mark: 0, tos: 0 };
    let _ = (fib::Route::parse(message), fib::rule(message, flow, Some(to)), device::Device::parse(message));
    let _ = (tc::parse(message), xfrm::Policy::parse(message), socket::Now::parse(message));
    netfilter::read_answer(message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::evidence::Certainty;

    #[test]
    fn a_program_that_two_looks_found_is_there_once() {
        let program = |certainty, id: Option<u64>| {
            Evidence::new(Kind::Program, certainty, "a program", "bpftool").with("id", id)
        };
        let (certain, possible) = (Certainty::Certain, Certainty::Possible);
        let found = once(vec![
            program(certain, Some(7)),
            program(possible, None),
            program(possible, None),
            program(possible, Some(7)),
            program(possible, Some(8)),
        ]);
        let told: Vec<_> = found.iter().map(|it| (it.certainty, it.fields["id"].as_u64())).collect();
        assert_eq!(told, [(possible, None), (possible, None), (certain, Some(7)), (possible, Some(8))]);
    }
}
