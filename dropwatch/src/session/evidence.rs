//! What shows the cause of a report's lost rows: looked for after the drops, a few rows at a time.

use std::{
    panic,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};

use crate::{
    evidence::{
        budget::{Allowance, Budget},
        objects::{Objects, Question},
        places::Places,
    },
    kernel::names::KernelNames,
    knowledge::{Entry, Meanings},
    model::{
        class::Class,
        evidence::Evidence,
        report::{self, Names as _, Report, Row, Value},
        sample::Sample,
    },
    process::privileges,
};
use dropwatch_common::row::known;

/// The processor time that looking may take for one report, on average.
const BUDGET: Duration = Duration::from_millis(20);
/// What reports have left unused is kept up to this. The first report has all of it: most objects are new then.
const MOST_BUDGET: Duration = Duration::from_millis(500);
/// The most rows that are looked at for one report: there is no time for more.
const MOST: usize = 64;
/// The same time for what there is at the start, of all namespaces.
const BUDGET_AT_START: Duration = Duration::from_secs(1);

/// Which rows are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The largest of each of so many meanings.
    Kinds(usize),
    /// All of them, the largest first, and then those that were refused.
    All,
}

/// Looks for what shows the cause of lost rows.
pub struct Looker {
    which: Which,
    meanings: Meanings,
    state: State,
}

/// Until the start has been looked at, what will be compared later is not here.
enum State {
    Starting(JoinHandle<There>),
    There(Box<There>),
    Failed,
}

struct There {
    places: Places,
    objects: Objects,
    allowance: Allowance,
}

impl Looker {
    /// Notes what is there now, which later looks compare with, in a thread that ends afterwards.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(which: Which, objects: Objects) -> Result<Self> {
        let note = || {
            privileges::give_up_in_thread();
            let mut there = There {
                allowance: Allowance::full(BUDGET, MOST_BUDGET),
                places: Places::of_this_host(),
                objects,
            };
            there.note(Budget::of(BUDGET_AT_START));
            there
        };
        let noting = thread::Builder::new().name("evidence".into()).spawn(note);
        let state = State::Starting(noting.context("cannot start a thread")?);
        Ok(Self { which, meanings: Meanings::default(), state })
    }

    /// The same, once all there is has been noted.
    #[must_use]
    pub fn ready(mut self) -> Self {
        self.there();
        self
    }

    /// Adds what is found to a report's lost rows.
    pub fn look(&mut self, report: &mut Report, names: &mut KernelNames) {
        report.is_explained = true;
        let chosen = self.chosen(report);
        for (index, _) in &chosen {
            let Some(row) = report.rows.iter_mut().chain(&mut report.folded).nth(*index) else { continue };
            let sampled =
                row.sample.as_ref().map(|sample| Value::of_drop(&sample.key, &mut names.for_report()));
            row.sampled = sampled.unwrap_or_default();
        }
        let began = began(report);
        let ask = |(index, entry): (usize, Option<&'static Entry>)| {
            let row = report.rows.iter().chain(&report.folded).nth(index)?;
            let sample = row.sample.as_ref()?;
            Some((index, sample.key.netns, question(row, sample, entry?, names, began)))
        };
        let questions: Vec<_> = chosen.into_iter().filter_map(ask).collect();
        for (index, evidence) in self.answers(&questions) {
            if let Some(row) = report.rows.iter_mut().chain(&mut report.folded).nth(index) {
                row.evidence = Some(evidence);
            }
        }
    }

    /// Adds what is found to the row of a drop, whatever its class.
    pub fn look_at(&mut self, row: &mut Row, names: &mut KernelNames) {
        let (Some(entry), Some(sample)) = (self.meanings.entry(&row.values), &row.sample) else { return };
        let question = (0, sample.key.netns, question(row, sample, entry, names, None));
        row.evidence = self.answers(&[question]).pop().map(|(_, evidence)| evidence);
    }

    /// What is found about packets of namespaces, by the numbers of their rows.
    fn answers(&mut self, questions: &[(usize, u32, Question)]) -> Vec<(usize, Vec<Evidence>)> {
        if questions.is_empty() {
            return Vec::new();
        }
        let Some(there) = self.there() else { return Vec::new() };
        // It goes from one namespace to the next, and ends in any.
        let found = thread::scope(|scope| {
            let look = || there.look(questions);
            let looking = thread::Builder::new().name("evidence".into()).spawn_scoped(scope, look);
            looking.map_err(|error| log::warn!("cannot start a thread: {error}")).ok()?.join().ok()
        });
        found.unwrap_or_default()
    }

    /// The rows to look at by their places, those that are summed at the end, with what they mean.
    fn chosen(&mut self, report: &Report) -> Vec<(usize, Option<&'static Entry>)> {
        let (kinds, others) = self.meanings.largest(&report.rows, Class::Lost);
        let in_doubt = self.meanings.in_doubt(report.rows.iter().chain(&report.folded));
        match self.which {
            Which::Kinds(most) => kinds.into_iter().take(most).chain(in_doubt).collect(),
            Which::All => {
                let (refused, more) = self.meanings.largest(&report.rows, Class::Refused);
                kinds
                    .into_iter()
                    .chain(others)
                    .chain(refused)
                    .chain(more)
                    .chain(in_doubt)
                    .take(MOST)
                    .collect()
            }
        }
    }

    fn there(&mut self) -> Option<&mut There> {
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Starting(noting) => {
                State::There(Box::new(noting.join().unwrap_or_else(|panic| panic::resume_unwind(panic))))
            }
            there => there,
        };
        match &mut self.state {
            State::There(there) => Some(there),
            _ => None,
        }
    }
}

impl There {
    /// Notes what later looks compare with, in every namespace.
    fn note(&mut self, budget: Budget) {
        for place in self.places.now() {
            if budget.is_spent() {
                log::info!("not all network namespaces have been looked at before the first drop");
                break;
            }
            place.visit(|inside| {
                self.objects.note(place.inum, inside);
                Some(())
            });
        }
    }

    /// Answers questions about packets of namespaces, until the time is spent.
    fn look(&mut self, questions: &[(usize, u32, Question)]) -> Vec<(usize, Vec<Evidence>)> {
        let budget = self.allowance.begin();
        let mut found = Vec::new();
        let places = &self.places;
        self.objects.begin(&|inum| places.has(inum));
        for (index, netns, question) in questions {
            if budget.is_spent() {
                break;
            }
            let place = self.places.find(*netns);
            let objects = &mut self.objects;
            let looked = place
                .and_then(|place| place.visit(|inside| Some(objects.look(question, *netns, inside, budget))));
            let evidence = looked.or_else(|| {
                // Finding nothing does not mean that there is nothing.
                Some(Objects::at_hand(question)).filter(|found| !found.is_empty())
            });
            found.extend(evidence.map(|evidence| (*index, evidence)));
        }
        self.allowance.end(budget);
        log::debug!("evidence for {} rows took {:?} of processor time", found.len(), budget.spent());
        found
    }
}

/// What is asked about a row's sample.
fn question(
    row: &Row,
    sample: &Sample,
    entry: &Entry,
    names: &mut KernelNames,
    began: Option<Instant>,
) -> Question {
    let key = &sample.key;
    let knows = |bits: u32| key.known & bits != 0;
    let mut names = names.for_report();
    let callers = sample.chain.iter().flat_map(|chain| chain.iter()).skip(1);
    let owner = sample.socket.as_ref().map(|socket| names.owner(socket));
    let container = sample.socket.as_ref().and_then(|socket| names.container(socket));
    Question {
        kinds: entry.evidence.to_vec(),
        reason: names.reason(key.reason).map(|reason| reason.to_string()),
        function: names.location(key.location).symbol.map(|symbol| symbol.name.to_string()),
        callers: callers
            .filter_map(|&frame| names.frame(frame).symbol.map(|symbol| symbol.name.to_string()))
            .collect(),
        location: key.location,
        iface: knows(known::IFACE)
            .then(|| (key.ifindex, report::device_name(&key.iface).unwrap_or_else(|| "".into()))),
        protocol: knows(known::PROTOCOL).then_some(key.protocol),
        ipproto: knows(known::IPPROTO).then_some(key.ipproto),
        saddr: report::address(key.saddr, key.known),
        daddr: report::address(key.daddr, key.known),
        sport: knows(known::PORTS).then_some(key.sport),
        dport: knows(known::PORTS).then_some(key.dport),
        length: sample.length,
        packet: sample.packet.clone(),
        link: sample.link.clone(),
        mark: sample.mark,
        queue: sample.queue,
        egress: sample.egress,
        socket: sample.socket.clone(),
        owner,
        container,
        filter: sample.filter.clone(),
        of_cgroup: sample.of_cgroup.clone(),
        count: row.count,
        began,
    }
}

/// When a report's interval began, if that is not before all else.
fn began(report: &Report) -> Option<Instant> {
    let since_end = SystemTime::now().duration_since(report.time).unwrap_or_default();
    Instant::now().checked_sub(since_end + report.elapsed)
}
