//! Flows that are traced, and what their traces tell.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    decide::{Candidate, Ending, Named, Ruleset},
    hook::{Hook, Level, Place},
    read::Live,
    rules::{Expression, Rule, Table},
    trace::{End, Refused, Traced, Tracer},
};
use crate::{
    evidence::{objects::Question, places::Inside},
    model::evidence::Certainty,
};

/// More are not traced at once.
const MOST: usize = 8;
/// How long the first packet of a flow is waited for.
const WAIT: Duration = Duration::from_millis(300);
/// A flow of which nothing is dropped any more is not traced for longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Names of tables in use, by files of the namespace.
const LEGACY: [&str; 2] = ["ip_tables_names", "ip6_tables_names"];

/// What tells a flow from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flow {
    netns: u32,
    hook: Option<(Level, Hook)>,
    protocol: Option<u16>,
    ipproto: Option<u8>,
    ends: [Option<IpAddr>; 2],
    port: Option<u16>,
}

/// The flows that are traced now.
#[derive(Debug, Default)]
pub struct Flows {
    tracers: HashMap<Flow, Tracer>,
    number: u32,
    waited: Option<Instant>,
}

/// What a flow's trace tells.
#[derive(Debug)]
pub enum Told {
    /// What dropped its packets.
    Dropped(Vec<Verdict>),
    /// Nothing yet.
    Waiting,
    /// It cannot be traced, because of this.
    Refused(String),
}

/// What dropped packets of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub candidate: Candidate,
    pub certainty: Certainty,
    /// How many packets were seen to end there.
    pub packets: u64,
}

impl Flows {
    /// What dropped packets like this one, as the kernel tells; the thread is in their namespace.
    pub fn tell(
        &mut self,
        question: &Question,
        netns: u32,
        place: Place,
        inside: Inside<'_>,
        live: &mut Live,
    ) -> Told {
        if has_legacy(inside) {
            let why = "iptables-legacy is in use here, and would log every traced packet";
            return Told::Refused(why.to_owned());
        }
        let flow = flow(question, netns, place);
        let is_new = !self.tracers.contains_key(&flow);
        if is_new && self.tracers.len() >= MOST {
            return Told::Refused(format!("{MOST} flows are traced already"));
        }
        if is_new && let Err(error) = self.start(flow.clone(), question, place) {
            return Told::Refused(error.to_string());
        }
        let wait = if is_new { self.wait() } else { Duration::ZERO };
        let Some(tracer) = self.tracers.get_mut(&flow) else { return Told::Waiting };
        let dropped = tracer.dropped(wait);
        if dropped.is_empty() {
            return Told::Waiting;
        }
        let verdicts = verdicts(&dropped, question.length, live);
        self.tracers.remove(&flow);
        Told::Dropped(verdicts)
    }

    /// Ends what has been traced for long enough, or is in a namespace that has gone.
    pub fn keep(&mut self, is_there: &dyn Fn(u32) -> bool) {
        self.tracers.retain(|flow, tracer| is_there(flow.netns) && tracer.since.elapsed() < LONGEST);
    }

    /// How long may be waited: a report with many rows waits for one of them.
    fn wait(&mut self) -> Duration {
        let is_again = self.waited.is_some_and(|waited| waited.elapsed() < WAIT * 2);
        if is_again {
            return Duration::ZERO;
        }
        self.waited = Some(Instant::now());
        WAIT
    }

    fn start(&mut self, flow: Flow, question: &Question, place: Place) -> Result<(), Refused> {
        self.number += 1;
        let tracer = Tracer::start(question, place, self.number)?;
        self.tracers.insert(flow, tracer);
        Ok(())
    }
}

/// Whether tables of iptables-legacy are in use.
fn has_legacy(inside: Inside<'_>) -> bool {
    let names = |file| fs::read_to_string(inside.directory.join(file)).unwrap_or_default();
    LEGACY.into_iter().any(|file| !names(file).trim().is_empty())
}

fn flow(question: &Question, netns: u32, place: Place) -> Flow {
    Flow {
        netns,
        hook: place.hook,
        protocol: question.protocol,
        ipproto: question.ipproto,
        ends: [question.saddr, question.daddr],
        port: question.dport,
    }
}

/// What ended the packets, the same ends together. Of several, the one of packets as long as ours is meant.
fn verdicts(dropped: &[&Traced], length: u32, ruleset: &mut dyn Ruleset) -> Vec<Verdict> {
    let mut ends: Vec<(&Traced, u64, bool)> = Vec::new();
    for packet in dropped {
        let is_alike = packet.length == Some(length);
        let same = |(known, ..): &&mut (&Traced, u64, bool)| {
            (&known.table, &known.path, known.end) == (&packet.table, &packet.path, packet.end)
        };
        match ends.iter_mut().find(same) {
            Some((_, packets, alike)) => {
                *packets += 1;
                *alike |= is_alike;
            }
            None => ends.push((packet, 1, is_alike)),
        }
    }
    if ends.iter().any(|(.., is_alike)| *is_alike) {
        ends.retain(|(.., is_alike)| *is_alike);
    }
    let certainty = if ends.len() == 1 { Certainty::Certain } else { Certainty::Possible };
    let verdict = |(packet, packets, _): (&Traced, u64, bool)| {
        Some(Verdict { candidate: candidate(packet, ruleset)?, certainty, packets })
    };
    ends.into_iter().filter_map(verdict).collect()
}

fn candidate(packet: &Traced, ruleset: &mut dyn Ruleset) -> Option<Candidate> {
    let (table, path) = (packet.table.clone()?, packet.path.clone());
    let ending = match packet.end? {
        End::Policy => Ending::Policy,
        End::Rule(handle) => ending(handle, &table, path.last()?, ruleset),
    };
    Some(Candidate { table, path, ending, is_sure: true, is_match: true, counter: None })
}

/// A rule by its handle; the trace does not tell whether it rejects.
fn ending(handle: u64, table: &Table, chain: &[u8], ruleset: &mut dyn Ruleset) -> Ending {
    let rules = ruleset.rules(table, chain).unwrap_or_default();
    let rule = rules.iter().find(|rule| rule.handle == handle);
    let named = Named { handle, comment: rule.and_then(|rule| rule.comment.clone()) };
    let rejects = |rule: &Rule| {
        rule.expressions.iter().find_map(|expression| match expression {
            Expression::Reject(reject) => Some(*reject),
            _ => None,
        })
    };
    match rule.and_then(rejects) {
        Some(reject) => Ending::Reject(named, reject),
        None => Ending::Drop(named),
    }
}
