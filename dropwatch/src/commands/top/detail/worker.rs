//! The second probe of a pane: counts the drops of one row by all that tells them apart.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;

use super::{
    Target, Tools,
    breakdown::{BY, Breakdown},
    meaning::Meaning,
    view::{DetailView, Stage},
};
use crate::{
    cli::config::Query,
    filter::{
        Filter,
        of_row::{self, For},
    },
    kernel::names::KernelNames,
    model::{
        identity::Identity,
        keys::Key,
        report::{Report, Row, View},
        socket::Socket,
    },
    process::{
        failure::Failure,
        notice::{Notice, Notices},
        privileges,
    },
    session::{
        collector::Collector,
        life::Life,
        open::{Opened, Opener},
    },
};

/// How often the counts are read.
const TICK: Duration = Duration::from_millis(200);
/// Room for distinct drops between two readings: some megabytes in the kernel.
const ROOM: u32 = 4096;
/// How many rows each table has.
const SHOWN: usize = 8;
/// How many different losses are shown.
const LOSSES: usize = 4;

/// A view that a pane's threads write and its screen reads.
#[derive(Clone)]
pub struct Shared {
    view: Arc<Mutex<DetailView>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Shared {
    pub fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { view: Arc::default(), wake }
    }

    pub fn lock(&self) -> MutexGuard<'_, DetailView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, and has it shown.
    pub fn change(&self, change: impl FnOnce(&mut DetailView)) {
        change(&mut self.lock());
        (self.wake)();
    }
}

/// What tells a row's drops from others: in the kernel as far as it can, and here.
pub struct Sought {
    /// What the kernel decides by; none if it can say nothing of the row.
    pub filter: Option<Filter>,
    /// What decides in the end.
    pub identity: Identity,
}

impl Sought {
    /// What is looked for.
    pub fn new(target: &Target) -> Self {
        let user = target.filter.as_ref();
        let expression =
            of_row::expression(user.map(Filter::expression), &target.by, &target.row, For::Kernel);
        // Where the user's leaves no room, all that matches it is looked through here.
        let filter = expression.and_then(|it| Filter::of(it).ok()).or_else(|| user.cloned());
        Self { filter, identity: Identity::new(&target.by, &target.row) }
    }

    /// Whether packets must come with their sockets to be told apart.
    pub fn needs_sockets(&self) -> bool {
        let of_sockets = |key| matches!(key, Key::Socket | Key::Process | Key::Container);
        let names_owners = self.filter.as_ref().is_some_and(|it| !it.cases().belongings().is_empty());
        names_owners || self.identity.shown().any(of_sockets)
    }
}

/// Counts until the pane is closed.
pub fn run(target: &Target, tools: &Tools, shared: &Shared, closed: &Receiver<()>) {
    privileges::give_up_in_thread();
    let counting = Counting::open(target, tools, shared);
    let mut counting = match counting {
        Ok(counting) => counting,
        Err(failure) => return shared.change(|view| view.stage = Stage::Failed(words(failure))),
    };
    let begun = Instant::now();
    loop {
        if let Err(error) = counting.count() {
            let why = format!("the counts of this pane can no longer be read: {error:#}");
            return shared.change(|view| view.stage = Stage::Failed(why));
        }
        shared.change(|view| {
            view.elapsed = begun.elapsed();
            view.drops = counting.breakdown.drops();
            view.tables = counting.breakdown.tables(SHOWN);
            view.meaning.clone_from(&counting.meaning.lines);
            view.looked = counting.meaning.time;
        });
        match closed.recv_timeout(TICK.min(target.interval)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Why there is no probe, in words.
pub fn words(failure: Failure) -> String {
    match failure {
        Failure::Usage(text) => text,
        Failure::Refused(refusal) => refusal.to_string(),
        Failure::Failed(error) => format!("{error:#}"),
    }
}

/// Drops of one row as they are counted.
struct Counting {
    collector: Collector,
    by: Vec<Key>,
    identity: Identity,
    names: KernelNames,
    breakdown: Breakdown,
    meaning: Meaning,
    /// What keeps the probe up to date; it goes with the probe.
    _life: Life,
}

impl Counting {
    fn open(target: &Target, tools: &Tools, shared: &Shared) -> Result<Self, Failure> {
        let Sought { filter, identity } = Sought::new(target);
        let mut by = BY.to_vec();
        by.extend(target.by.iter().copied().filter(|key| !BY.contains(key)));
        let query = Query { by, max_rows: ROOM, filter, interfaces: Vec::new() };
        let (mut opened, by) = attach(query, tools, shared)?;
        let since = SystemTime::now();
        shared.change(|view| (view.stage, view.since) = (Stage::Open, Some(since)));
        let less = |why: String| shared.change(|view| view.less.push(why));
        let samples = tools.opener.sample(&mut opened, true, less)?;
        let Opened { probe, symbols, owners, life } = opened;
        let Opener { kernel, namespaces, .. } = &*tools.opener;
        let notices = Notices::to(losses(shared.clone()));
        let names = KernelNames::new(
            symbols,
            probe.has_reason(),
            kernel.clone(),
            namespaces.clone(),
            notices.clone(),
        );
        let collector = Collector::new(Box::new(probe), notices, false).with_samples(samples);
        let names = names.with_owners(owners);
        let (breakdown, meaning) = (Breakdown::default(), Meaning::new(target.clone(), tools.looker.clone()));
        Ok(Self { collector, by, identity, names, breakdown, meaning, _life: life })
    }

    /// Adds what has been counted since the last time.
    fn count(&mut self) -> Result<()> {
        let interval = self.collector.interval()?;
        // Each drop comes with its process once.
        let inodes = interval.references.sockets.values().map(Socket::owned_inode);
        self.names.look_for_owners(&inodes.filter(|inode| *inode != 0).collect::<Vec<_>>());
        let report = Report::new(interval, &self.by, View::default(), &mut self.names.for_report());
        let own: Vec<_> = report.rows.into_iter().filter(|row| self.is_own(row)).collect();
        for row in &own {
            self.breakdown.add(&self.by, row);
        }
        self.meaning.look(&self.by, &own, &mut self.names);
        Ok(())
    }

    fn is_own(&self, row: &Row) -> bool {
        self.identity.is(&row.key, row.class, |key| {
            let place = self.by.iter().position(|it| *it == key)?;
            row.values.get(place)
        })
    }
}

/// Attaches a probe by as much as the kernel can count by.
fn attach(
    query: Query,
    tools: &Tools,
    shared: &Shared,
) -> Result<(Opened<crate::probe::kfree_skb::count::Probe>, Vec<Key>), Failure> {
    const OF_SOCKETS: [Key; 3] = [Key::Socket, Key::Process, Key::Container];
    match tools.opener.count_with(&query, &tools.symbols) {
        Ok(opened) => Ok((opened, query.by)),
        Err(Failure::Refused(why)) => {
            let by: Vec<_> = query.by.iter().copied().filter(|key| !OF_SOCKETS.contains(key)).collect();
            let query = Query { by, ..query };
            let opened = tools.opener.count_with(&query, &tools.symbols)?;
            shared.change(|view| view.less.push(format!("without sockets and processes: {why}")));
            Ok((opened, query.by))
        }
        Err(failure) => Err(failure),
    }
}

/// What is said of drops that are in no table; the newest of each kind.
fn losses(shared: Shared) -> impl Fn(Notice) + Send + Sync + 'static {
    move |notice| {
        shared.change(|view| {
            let text = notice.text.replace("; see --max-rows", "");
            let kind = |text: &str| text.split(": ").last().unwrap_or_default().to_owned();
            view.losses.retain(|known| kind(known) != kind(&text));
            view.losses.push(text);
            let surplus = view.losses.len().saturating_sub(LOSSES);
            view.losses.drain(..surplus);
        });
    }
}
