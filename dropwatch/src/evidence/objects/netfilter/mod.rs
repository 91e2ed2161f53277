//! Rules and chains of nftables and iptables.
//!
//! The chains of the hook that the packet was dropped at are run again with what is known of the packet, as far as it gets
//! in them; rules that may have dropped it are compared by their counters.

mod decide;
mod flows;
mod hook;
mod legacy;
mod meta;
mod noted;
mod packet;
mod programs;
mod read;
mod rules;
mod text;
mod trace;
mod words;

use std::{
    collections::HashMap,
    io,
    path::Path,
    time::{Duration, Instant},
};

use nix::net::if_::if_indextoname;

#[cfg(feature = "fakes")]
pub use self::legacy::read_saved;
pub use self::programs::LISTING_RULES;
use self::{
    decide::{Candidate, Counter, Decision},
    flows::{Flows, Told},
    hook::{Hook, Level, Place},
    legacy::Legacy,
    noted::{Counters, Key, counters},
    packet::Packet,
    programs::Missing,
    read::{Kept, Live},
    rules::BaseChain,
    text::Texts,
    words::{Others, Suspect, remark},
};
use super::{Question, Rules};
use crate::{
    evidence::{budget::Budget, places::Inside},
    model::evidence::{Certainty, Evidence},
};

/// More rules are not named for one drop.
const MOST_NAMED: usize = 3;
/// What noting a namespace's counters may cost.
const NOTING: Duration = Duration::from_millis(100);

/// Whether packets can be traced through rules here; where there are no rules, nothing is lost by waiting for some.
///
/// # Errors
/// They cannot, with the reason and what else can be done.
pub fn can_trace() -> Result<(), String> {
    if !read::is_there() {
        return Ok(());
    }
    trace::probe().map_err(|error| format!("{error}; --explain without --nft compares the counters of rules"))
}

/// Whether this kernel has rules of iptables-legacy, or had some.
pub fn has_legacy_rules() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|file| Path::new("/proc/net").join(file).exists())
}

/// A ruleset as it was when it was looked at before.
#[derive(Debug, Default)]
struct Noted {
    generation: Option<u32>,
    /// That of the report before, or from the start.
    before: Option<u32>,
    counters: Counters<Key>,
    /// The report of the last look.
    report: u64,
}

impl Noted {
    /// A look begins, of the report with this number.
    fn begin(&mut self, report: u64) {
        if self.report != report {
            (self.before, self.report) = (self.generation, report);
        }
        self.counters.begin(report);
    }
}

/// What is known of rulesets, by namespace.
#[derive(Debug, Default)]
pub struct Rulesets {
    legacy: Legacy,
    noted: HashMap<u32, Noted>,
    kept: HashMap<u32, Kept>,
    texts: Texts,
    /// If the user allows tracing.
    flows: Option<Flows>,
    /// The number of the report.
    report: u64,
}

/// A ruleset's answer.
struct Looked {
    generation: u32,
    decision: Decision,
    /// Whether there are chains that packets pass at this hook.
    has_chains: bool,
    live: Live,
    at: Instant,
}

impl Rulesets {
    /// Nothing is known yet.
    pub fn new(rules: Rules) -> Self {
        Self { flows: (rules == Rules::Trace).then(Flows::default), ..Self::default() }
    }

    /// Notes what the namespace's rules have counted.
    pub fn note(&mut self, netns: u32, inside: Inside<'_>) {
        if !inside.is_entered {
            return;
        }
        self.legacy.note(netns, inside);
        if !read::is_there() {
            return;
        }
        let read = || -> io::Result<Noted> {
            let mut live = Live::open(Budget::of(NOTING))?;
            let mut noted = Noted { generation: Some(live.generation()?), ..Noted::default() };
            if !live.base_chains()?.is_empty() {
                let rules = live.all_rules()?;
                let rules = rules.iter().map(|(table, rule)| (table, rule));
                noted.counters.note(Instant::now(), counters(rules));
            }
            Ok(noted)
        };
        match read() {
            Ok(noted) => drop(self.noted.insert(netns, noted)),
            Err(error) => log::debug!("the rules of namespace {netns} are not noted: {error}"),
        }
    }

    /// A report begins: forgets namespaces that have gone.
    pub fn begin(&mut self, is_there: &dyn Fn(u32) -> bool) {
        self.report += 1;
        self.noted.retain(|netns, _| is_there(*netns));
        self.kept.retain(|netns, _| is_there(*netns));
        self.kept.values_mut().for_each(Kept::age);
        self.legacy.begin(is_there);
        self.texts.keep(is_there);
        if let Some(flows) = &mut self.flows {
            flows.keep(is_there);
        }
    }

    /// The rules that may have dropped the packet.
    pub fn find(
        &mut self,
        question: &Question,
        netns: u32,
        inside: Inside<'_>,
        budget: Budget,
    ) -> Vec<Evidence> {
        if !inside.is_entered {
            return Vec::new();
        }
        let place = Place::of(question.function.iter().chain(&question.callers).map(String::as_str));
        let packet = packet(question, place);
        let mut evidence = Vec::new();
        // Rules of nftables have a function of their own in newer kernels.
        if !is_by_nftables(question) {
            evidence = self.legacy.find(question, netns, inside, place, &packet);
        }
        if read::is_there() {
            evidence.extend(self.of_nftables(question, netns, inside, place, &packet, budget));
        }
        evidence
    }

    /// The rules of nftables that may have dropped the packet.
    fn of_nftables(
        &mut self,
        question: &Question,
        netns: u32,
        inside: Inside<'_>,
        place: Place,
        packet: &Packet,
        budget: Budget,
    ) -> Vec<Evidence> {
        let why = match self.traced(question, netns, place, inside, budget) {
            Some(Traced::Known(evidence)) => return evidence,
            Some(Traced::Not(why)) => Some(remark(why)),
            None => None,
        };
        let mut evidence = match self.look(netns, place, packet, budget) {
            Ok(looked) => self.named(question, netns, place, looked),
            Err(error) => vec![remark(why_not(&error))],
        };
        let is_certain = evidence.iter().any(|evidence| evidence.certainty == Certainty::Certain);
        evidence.extend(why.filter(|_| !is_certain));
        evidence
    }

    /// What the kernel's trace tells of the packet's flow, if it may be traced.
    fn traced(
        &mut self,
        question: &Question,
        netns: u32,
        place: Place,
        inside: Inside<'_>,
        budget: Budget,
    ) -> Option<Traced> {
        let flows = self.flows.as_mut()?;
        let mut live = Live::open(budget).ok()?;
        let before = live.generation().ok()?;
        let told = flows.tell(question, netns, place, inside, &mut live);
        let generation = live.generation().ok()?;
        // Our own table is no change of the rules that were noted or listed.
        self.texts.carry(netns, before, generation);
        if let Some(noted) = self.noted.get_mut(&netns).filter(|noted| noted.generation == Some(before)) {
            noted.generation = Some(generation);
            noted.before = noted.before.map(|_| generation);
        }
        let verdicts = match told {
            Told::Dropped(verdicts) => verdicts,
            Told::Waiting => {
                return Some(Traced::Not(
                    "this flow is traced from now on: the next report can tell the rule".to_owned(),
                ));
            }
            Told::Refused(why) => return Some(Traced::Not(format!("not traced: {why}"))),
        };
        let suspects = verdicts.into_iter().map(|verdict| Suspect {
            candidate: verdict.candidate,
            certainty: verdict.certainty,
            moved: None,
            text: None,
            traced: Some(verdict.packets),
        });
        Some(Traced::Known(self.worded(netns, generation, place, suspects.collect(), false, &live)))
    }

    /// Runs the packet through the chains of its hook.
    fn look(&mut self, netns: u32, place: Place, packet: &Packet, budget: Budget) -> io::Result<Looked> {
        let generation = Live::open(budget)?.generation()?;
        let mut live = Live::with(self.kept.remove(&netns), generation, budget)?;
        let chains = live.base_chains()?.iter().filter(|chain| is_passed(chain, place, packet));
        let chains: Vec<_> = chains.cloned().collect();
        let mut decision = decide::decide(&chains, packet, &mut live);
        decision.candidates.iter_mut().for_each(|candidate| refresh(candidate, &live));
        if live.is_cut() && decision.candidates.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Rules that changed meanwhile may be of two rulesets.
        decision.is_partial |= live.is_cut() || live.generation()? != generation;
        Ok(Looked { generation, decision, has_chains: !chains.is_empty(), live, at: Instant::now() })
    }

    /// Compares what was found with what was noted before, and names it.
    fn named(&mut self, question: &Question, netns: u32, place: Place, looked: Looked) -> Vec<Evidence> {
        let Looked { generation, decision, has_chains, live, at } = looked;
        let noted = self.noted.entry(netns).or_default();
        noted.begin(self.report);
        let is_unchanged = noted.before == Some(generation) && !decision.is_partial;
        let is_by_rule = is_by_nftables(question);
        let is_partial = decision.is_partial;
        let of_candidates: Vec<_> = decision.candidates.iter().filter_map(Candidate::counted).collect();
        let mut suspects: Vec<_> = decision
            .candidates
            .into_iter()
            .filter_map(|candidate| suspect(candidate, &noted.counters, at, question.began))
            .collect();
        noted.counters.note(at, counters(live.seen()).chain(of_candidates));
        noted.generation = Some(generation);
        doubt(&mut suspects, question.count);
        suspects.sort_by_key(|suspect| (suspect.certainty, !suspect.candidate.is_match));
        if let ([only], true, true) = (&mut suspects[..], is_unchanged, is_by_rule && place.hook.is_some()) {
            only.certainty = Certainty::Certain;
        }
        let mut evidence = self.worded(netns, generation, place, suspects, is_partial, &live);
        self.kept.insert(netns, live.into_kept());
        if evidence.is_empty() && is_by_rule && has_chains && !is_partial {
            evidence.push(remark("no rule drops such packets now: the ruleset has changed since the drop"));
        }
        evidence
    }

    /// The first of some suspects, with the texts of their rules.
    fn worded(
        &mut self,
        netns: u32,
        generation: u32,
        place: Place,
        suspects: Vec<Suspect>,
        is_partial: bool,
        live: &Live,
    ) -> Vec<Evidence> {
        let others = Others { all: suspects.len(), is_partial };
        let hook = place.hook.map(|(_, hook)| hook);
        let mut evidence = Vec::new();
        let mut is_without_nft = false;
        for mut suspect in suspects.into_iter().take(MOST_NAMED) {
            let Candidate { table, path, ending, .. } = &suspect.candidate;
            if let (Some(chain), Some(handle)) = (path.last(), ending.handle()) {
                let size = live.size(table, chain);
                match self.texts.of(netns, generation, (table, chain), size, handle) {
                    Ok(text) => suspect.text = Some(text),
                    Err(missing) => is_without_nft |= missing == Missing::Program,
                }
            }
            evidence.push(suspect.evidence(hook, others));
        }
        if is_without_nft {
            evidence.push(remark("nft is not installed, so the text of rules is not known"));
        }
        evidence
    }
}

/// What tracing told.
enum Traced {
    Known(Vec<Evidence>),
    /// Nothing, because of this.
    Not(String),
}

/// Why rules were not looked at.
fn why_not(error: &io::Error) -> String {
    if error.raw_os_error() == Some(libc::EPERM) {
        return "rules are not looked at: that requires CAP_NET_ADMIN".to_owned();
    }
    if error.kind() == io::ErrorKind::TimedOut {
        return "rules are not looked at: reading them takes longer than a report may".to_owned();
    }
    format!("rules cannot be read: {error}")
}

/// The packet as its hook sees it.
fn packet(question: &Question, place: Place) -> Packet {
    let is_at_ip = place.hook.is_some_and(|(level, _)| level == Level::Ip);
    let mut packet = Packet::of(question, place.hook.map(|(_, hook)| hook), is_at_ip);
    packet.egress = question.egress.and_then(|index| {
        let name = if_indextoname(index).ok()?;
        Some((index, name.into_bytes()))
    });
    packet
}

/// Whether the function runs rules of nftables, and nothing else.
fn is_by_nftables(question: &Question) -> bool {
    question.function.as_deref().is_some_and(|function| function.starts_with("nft_do_chain"))
}

/// Whether packets at this place pass a chain.
fn is_passed(chain: &BaseChain, place: Place, packet: &Packet) -> bool {
    let is_of_device = match (&packet.iface, packet.hook) {
        (Some((_, name)), Some(Hook::Ingress | Hook::Egress)) => {
            chain.devices.is_empty() || chain.devices.contains(name)
        }
        _ => true,
    };
    is_of_device && place.may_be(chain.table.family, chain.hook, packet.family())
}

/// Reads a candidate's counter again if that was read for an earlier report.
fn refresh(candidate: &mut Candidate, live: &Live) {
    let (Some(chain), Some(handle)) = (candidate.path.last(), candidate.ending.handle()) else { return };
    if live.is_old(&candidate.table, chain) {
        let now = live.rule(&candidate.table, chain, handle).as_ref().and_then(noted::counter);
        candidate.counter =
            candidate.counter.zip(now).map(|(counter, packets)| Counter { packets, ..counter });
    }
}

/// Where counters moved less than there were drops, something without a counter dropped the others, or all of them.
fn doubt(suspects: &mut [Suspect], drops: u64) {
    let counted = |suspect: &&Suspect| suspect.certainty == Certainty::Counted;
    let moved = suspects.iter().filter(counted).filter_map(|suspect| suspect.moved);
    if moved.map(|moved| moved.packets).fold(0, u64::saturating_add) < drops {
        for suspect in suspects {
            suspect.certainty = Certainty::Possible;
        }
    }
}

/// What its counter tells of a candidate; none if that rules it out.
fn suspect(
    candidate: Candidate,
    noted: &Counters<Key>,
    now: Instant,
    began: Option<Instant>,
) -> Option<Suspect> {
    let counter = candidate.counter;
    let moved = candidate.ending.handle().zip(counter).and_then(|(handle, counter)| {
        noted.moved(now, &(candidate.table.clone(), handle), counter.packets, began)
    });
    let certainty = match (moved, counter) {
        (Some(moved), _) if moved.packets == 0 => return None,
        (Some(_), Some(counter)) if counter.is_behind => Certainty::Counted,
        _ => Certainty::Possible,
    };
    Some(Suspect { candidate, certainty, moved, text: None, traced: None })
}
/// Reads a message as a table, a chain, a rule, the elements of a set, and a trace.
#[cfg(feature = "fakes")]
pub(super) fn read_answer(message: &[u8]) {
    let _ = (rules::a_table(message), rules::base_chain(message), rules::rule(message));
    let _ = (rules::chain_of_rule(message), rules::elements(message), rules::verdict(message));
    trace::follow(&mut Vec::new(), message, "");
}
