//! One run of `dig`: a first drop says where to look, the next one in the same place is looked into. Where it has been
//! called through a pointer what refused that one, more functions are followed for another one.

mod code;
pub mod row;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    env::consts::ARCH,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow};
use dropwatch_common::dig::WALKS;
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep, sleep_until},
};

use self::code::KernelCode;
use crate::{
    cli::config::DigSearch,
    dig::{
        output::Dug,
        plan::{self, Function, MOST_FUNCTIONS, Plan, Reach, Wanted},
        scan::Machine,
        tree::Tree,
        verdict::Finding,
    },
    escape::Escaped,
    evidence::objects::Rules,
    filter::assume::Decision,
    kernel::{
        btf::{HOOK_STATE, KernelBtf, PACKET, Prototype},
        code::FunctionProbes,
        names::KernelNames,
        netns::entering,
        symbols::Status,
    },
    model::report::{Names as _, Row},
    probe::{
        clock::Clock,
        dig::{DigProbe, WalkCounts, walk_of},
        source::Decide,
    },
    process::{
        failure::{Failure, Refusal},
        notice::Notices,
        signals::Stop,
    },
    session::evidence::Looker,
    sys,
    trace::{dropped_packet::DroppedPacket, event::Event, printer::question},
};

/// How many functions of the call chain are roots.
const ROOTS: usize = 3;
/// How many functions are followed at first where each has probes of its own, which are slow, and how many more each time.
const MOST_EACH: usize = 40;
/// In how many steps these are called from the one that decides.
const DEPTH_EACH: usize = 2;
/// How often more functions are followed in one place.
const MOST_ROUNDS: usize = 6;
/// The most drops that wait for their walk, which is handed over when the outermost root returns.
const WAITING: usize = 256;
/// A walk is handed over so soon after its drop that others can be read with it.
const GATHER: Duration = Duration::from_millis(2);
/// So many drops in the place that is followed, but in no walk, and it is given up.
const MOST_OUTSIDE: usize = 20;

/// Whose code this kernel's functions are.
///
/// # Errors
/// The processor is one whose code is not read.
pub fn machine() -> Result<Machine, Refusal> {
    Machine::here().ok_or_else(|| {
        Refusal::new(format!(
            "dig reads the kernel's code to see which functions call which, and it knows that of x86-64 and arm64 only: this \
             is {ARCH}. `dropwatch trace --stack` shows the chain of calls to each drop"
        ))
    })
}

/// What a run digs for.
pub trait Purpose {
    /// Whether a drop that the filter lets pass is of interest.
    fn includes(&mut self, event: &Event<'_>, names: &mut KernelNames) -> bool;

    /// Shows a finding.
    ///
    /// # Errors
    /// It cannot be shown; the run ends.
    fn show(&mut self, dug: &Dug<'_>) -> Result<()>;
}

/// What looks for the cause of a drop, which other parts of the same run may use too.
pub type SharedLooker = Arc<Mutex<Looker>>;

/// What the kernel says of itself, and where what is said of a run goes.
pub struct Means {
    /// Whose code its functions are.
    pub machine: Machine,
    /// Names, which are its own.
    pub names: KernelNames,
    /// Types.
    pub kernel: KernelBtf,
    /// What shows the cause of a drop.
    pub looker: SharedLooker,
    /// How far the run has come, and what goes wrong.
    pub notices: Notices,
}

/// A run.
pub struct Digger<P> {
    search: DigSearch,
    machine: Machine,
    purpose: P,
    probe: DigProbe,
    decide: Option<Decide>,
    names: KernelNames,
    kernel: KernelBtf,
    looker: SharedLooker,
    notices: Notices,
    /// What has been read of the kernel's text for the place that is followed.
    code: plan::Read,
    /// Places that have been looked into.
    done: HashSet<u64>,
    shown: u64,
    following: Option<Following>,
}

/// A place that is looked into.
struct Following {
    location: u64,
    wanted: Wanted,
    plan: Plan,
    prototypes: Vec<Option<Prototype>>,
    rounds: usize,
    /// What is shown if no more is found out.
    found: Option<Found>,
    /// Drops there, whose walks have not come yet.
    drops: VecDeque<Vec<u8>>,
    outside: usize,
    /// When it began: drops before are in no walk.
    since: SystemTime,
    /// What the probes had missed at the start, if that is counted.
    missed: Option<u64>,
}

/// A drop that was looked into.
struct Found {
    /// Its record.
    drop: Vec<u8>,
    finding: Finding,
    /// What the probes had missed meanwhile, if that is counted.
    missed: Option<u64>,
    /// How far the calls of the function that decides were followed.
    reach: Option<Reach>,
}

/// The most drops that are read before walks are.
const BATCH: usize = 1000;

/// What reading has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// All that there was is read.
    All,
    /// There may be more.
    Some,
    /// Enough places have been looked into.
    Enough,
}

impl<P: Purpose> Digger<P> {
    /// A run with a probe that is attached.
    ///
    /// # Errors
    /// The kernel hides its functions, or a root is none of them.
    pub fn new(search: DigSearch, purpose: P, mut probe: DigProbe, means: Means) -> Result<Self, Failure> {
        let Means { machine, mut names, kernel, looker, notices } = means;
        if let Status::Hidden | Status::Unavailable(_) = names.table().status() {
            let cure = "dig needs the addresses of functions: run with CAP_SYSLOG and kernel.kptr_restrict at 0 or 1";
            return Err(Refusal::new(cure).into());
        }
        if let Some(root) = &search.root
            && code::named(&names.table(), root).is_empty()
        {
            return Err(Failure::Usage(format!(
                "invalid value '{}' for '--root': this kernel has no such function",
                Escaped::new(root)
            )));
        }
        let decide = probe.take_decide();
        let (code, done, shown, following) = (plan::Read::default(), HashSet::new(), 0, None);
        Ok(Self {
            search,
            machine,
            purpose,
            probe,
            decide,
            names,
            kernel,
            looker,
            notices,
            code,
            done,
            shown,
            following,
        })
    }

    /// Until enough places have been looked into, the time is over, or a signal ends it.
    ///
    /// # Errors
    /// What the kernel refuses, and what cannot be shown.
    pub async fn run(mut self, stop: &Stop) -> Result<(), Failure> {
        let ready = |fd: io::Result<OwnedFd>| anyhow::Ok(sys::readable(fd?)?);
        let drops = ready(self.probe.drops.as_fd().try_clone_to_owned()).context("cannot wait for drops")?;
        let walks = ready(self.probe.walks.as_fd().try_clone_to_owned()).context("cannot wait for drops")?;
        let end = self.search.duration.map(|duration| Instant::now() + duration);
        let mut read = Read::All;
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => break,
                () = until(end) => break,
                () = stop.report_wanted() => { self.notices.info(self.state()); continue; }
                () = std::future::ready(()), if read == Read::Some => {}
                ready = readable(&drops) => ready?,
                ready = readable(&walks) => ready?,
            }
            sleep(GATHER).await;
            read = match self.read() {
                Ok(Read::Enough) => return Ok(()),
                Ok(read) => read,
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        match self.give_in() {
            Err(error) if is_closed(&error) => return Ok(()),
            given_in => given_in?,
        }
        self.notices.info(self.state());
        self.leave()?;
        Ok(())
    }

    fn state(&self) -> String {
        match &self.following {
            _ if self.shown > 0 => {
                format!("{} of {} places looked into", self.shown, self.search.count)
            }
            Some(following) if following.drops.is_empty() && following.outside == 0 => {
                "no second drop in the place of the first: nothing was looked into".to_owned()
            }
            Some(_) => format!(
                "drops in the place of the first were in no call of the functions that are followed: nothing was looked \
                 into{}",
                self.unseen()
            ),
            None => "no drop to dig into".to_owned(),
        }
    }

    /// What was not seen, which may be why a drop is in no call, as the end of a sentence; empty if that was nothing.
    fn unseen(&self) -> String {
        let WalkCounts { passed_over, .. } = self.probe.walk_counts().unwrap_or_default();
        let missed = self.probe.missed().ok().flatten().unwrap_or(0);
        let passed_over = (passed_over > 0).then(|| {
            format!(
                "there is room for the calls of {WALKS} tasks at a time, and {passed_over} times those of a task found none"
            )
        });
        let missed = (missed > 0).then(|| format!("the kernel left out {missed} calls or returns"));
        let why: Vec<_> = passed_over.into_iter().chain(missed).collect();
        if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) }
    }

    /// Reads drops, then walks: a walk comes after its drop.
    fn read(&mut self) -> Result<Read> {
        let mut count = 0;
        while count < BATCH
            && let Some(record) = self.probe.drops.next().map(|record| record.to_vec())
        {
            count += 1;
            self.take_drop(record)?;
        }
        while let Some(record) = self.probe.walks.next().map(|record| record.to_vec()) {
            if self.take_walk(&record)? {
                return Ok(Read::Enough);
            }
        }
        Ok(if count < BATCH { Read::All } else { Read::Some })
    }

    fn take_drop(&mut self, record: Vec<u8>) -> Result<()> {
        let Ok(event) = Event::parse(&record) else { return Ok(()) };
        if self.done.contains(&event.head.location) || !self.matches(&event) {
            return Ok(());
        }
        let Some(following) = &mut self.following else { return self.follow(&event) };
        if event.head.location == following.location && Clock::now().time(event.head.time) >= following.since
        {
            if following.drops.len() == WAITING {
                following.drops.pop_front();
                following.outside += 1;
            }
            following.drops.push_back(record);
            if following.outside > MOST_OUTSIDE && following.found.is_some() {
                self.give_in()?;
            } else if following.outside > MOST_OUTSIDE {
                let place = self.names.table().locate(following.location);
                let unseen = self.unseen();
                self.notices.warn(format!(
                    "drops at {place} are in no call of the functions that are followed: given up there{unseen}"
                ));
                self.leave()?;
            }
        }
        Ok(())
    }

    /// Whether a drop is of interest, if the kernel could not decide it.
    fn matches(&mut self, event: &Event<'_>) -> bool {
        let decided = question(event, None).is_none_or(|question| {
            let Some(decide) = &mut self.decide else { return false };
            decide(&[question], &|_| None).first() == Some(&Decision::Matches)
        });
        decided && self.purpose.includes(event, &mut self.names)
    }

    /// Follows the functions on the way of a drop, for the next one.
    fn follow(&mut self, event: &Event<'_>) -> Result<()> {
        let location = event.head.location;
        let table = self.names.table();
        let chain = code::chain(&table, event);
        let way = chain.iter().map(|function| function.start).collect();
        let candidates = match &self.search.root {
            Some(root) => code::named(&table, root),
            None => chain,
        };
        self.code = plan::Read::default();
        let most = match self.probe.how() {
            FunctionProbes::AtOnce => MOST_FUNCTIONS,
            FunctionProbes::Each => MOST_EACH,
        };
        let depth = self.search.depth;
        let wanted = Wanted { candidates, most_roots: ROOTS, way, depth, most, ..Wanted::default() };
        let place = table.locate(location);
        self.probe.leave()?;
        let machine = self.machine;
        let plan = self.with_code(|code, read| Plan::new(machine, &wanted, code, read));
        let Some(following) = self.attach(location, wanted, plan)? else {
            self.done.insert(location);
            self.notices.warn(format!(
                "a drop at {place}: no function on its way can be followed; waiting for one elsewhere"
            ));
            return Ok(());
        };
        if let Some(first) = following.plan.functions.first() {
            let (count, first) = (following.plan.functions.len(), first.source_name());
            self.notices.info(format!(
                "A drop at {place}: following {count} functions from {first} on; the next drop there is dug into"
            ));
        }
        self.following = Some(following);
        if self.search.rules == Rules::Trace {
            // From now on: what is dropped before the tree is known may be told already.
            self.row(event);
        }
        Ok(())
    }

    /// A drop as a row, with what shows its cause.
    fn row(&mut self, event: &Event<'_>) -> Row {
        let mut row = row::of(event, &mut self.names.for_report());
        self.looker.lock().unwrap_or_else(PoisonError::into_inner).look_at(&mut row, &mut self.names);
        row
    }

    /// Something that reads the kernel's text.
    fn with_code<T>(&mut self, work: impl FnOnce(&mut KernelCode<'_>, &mut plan::Read) -> T) -> T {
        let table = self.names.table();
        let mut code = KernelCode::new(&table, &self.probe.text, &self.kernel);
        work(&mut code, &mut self.code)
    }

    /// Attaches to what is planned; nothing if there is no root.
    fn attach(&mut self, location: u64, wanted: Wanted, plan: Plan) -> Result<Option<Following>> {
        if plan.roots == 0 {
            return Ok(None);
        }
        let begun = Instant::now();
        let prototypes = code::of_functions(&self.kernel, &plan.functions);
        let places: HashMap<_, _> =
            plan.functions.iter().zip(&prototypes).map(|(function, known)| (function.start, known)).collect();
        let packet = |function: &Function| {
            let known = places.get(&function.start).copied().and_then(Option::as_ref);
            known?.packet.filter(|_| !function.is_changed())
        };
        let refused = self.probe.follow(&plan.cookies(packet), location)?;
        log::info!(
            "{} functions attached in {:?}; {} found no room, {refused} were refused, unfit on the way: {:?}",
            plan.functions.len(),
            begun.elapsed(),
            plan.left_out,
            plan.unfit.iter().map(|function| function.name.to_string()).collect::<Vec<_>>()
        );
        let since = SystemTime::now();
        let missed = self.probe.missed()?;
        let (drops, outside, rounds, found) = (VecDeque::new(), 0, 0, None);
        Ok(Some(Following {
            location,
            wanted,
            plan,
            prototypes,
            rounds,
            found,
            drops,
            outside,
            since,
            missed,
        }))
    }

    /// A walk in which a drop was: shows it if it is the one. Whether that is enough.
    fn take_walk(&mut self, record: &[u8]) -> Result<bool> {
        let (Some((head, steps)), Some(following)) = (walk_of(record), &mut self.following) else {
            return Ok(false);
        };
        // One that began before has functions by other numbers.
        if Clock::now().time(head.started) < following.since {
            return Ok(false);
        }
        let is_its =
            |record: &Vec<u8>| Event::parse(record).is_ok_and(|event| event.head.time == head.dropped);
        let Some(place) = following.drops.iter().position(is_its) else { return Ok(false) };
        let Some(drop) = following.drops.remove(place) else { return Ok(false) };
        log::debug!("a walk of {} steps, the packet's end is number {}", head.steps, head.freed);
        let finding = Tree::new(&head, &steps)
            .and_then(|tree| Finding::new(&tree, &following.plan.functions, &following.prototypes));
        let Some(finding) = finding else {
            following.outside += 1;
            return Ok(false);
        };
        let before = following.missed.unwrap_or(0);
        let missed = self.probe.missed()?.map(|missed| missed.saturating_sub(before));
        let reach = following.plan.reach(finding.decides.start);
        following.found = Some(Found { drop, finding, missed, reach });
        if !self.widen()? {
            self.give_in()?;
        }
        Ok(self.shown == self.search.count)
    }

    /// Follows more functions, if the one that decides may have called them. Whether it does.
    fn widen(&mut self) -> Result<bool> {
        let Some(Following { location, wanted, plan, prototypes, rounds, found: Some(found), .. }) =
            &self.following
        else {
            return Ok(false);
        };
        let (location, rounds, how, machine) = (*location, rounds + 1, self.probe.how(), self.machine);
        let (decides, mut wanted) = (found.finding.decides.clone(), wanted.clone());
        let name = decides.source_name();
        let calls_hooks = plan.functions.iter().zip(prototypes).any(|(function, known)| {
            function.start == decides.start && known.as_ref().is_some_and(|known| known.is_hook)
        });
        let (of, reach) = ((machine, &decides), found.reach);
        let why = match reach {
            _ if rounds > MOST_ROUNDS || wanted.below.contains(&decides) => return Ok(false),
            Some(Reach::Itself) => {
                wanted.below.push(decides.clone());
                format!("what {name} calls is followed for the next drop there")
            }
            Some(Reach::Named) if how == FunctionProbes::AtOnce => {
                wanted.others = code::with(&[PACKET], &self.names.table(), &self.kernel);
                format!(
                    "{name} calls functions by pointers: all that get packets are followed for the next drop there"
                )
            }
            Some(Reach::Named) if calls_hooks => {
                wanted.others = code::with(&[PACKET, HOOK_STATE], &self.names.table(), &self.kernel);
                format!("{name} calls hooks by pointers: they are followed for the next drop there")
            }
            Some(Reach::Named | Reach::Whole) | None => return Ok(false),
        };
        self.notices.info(why);
        let plan = match how {
            FunctionProbes::AtOnce => {
                // Functions are read as they are without our own probes.
                self.probe.leave()?;
                self.with_code(|code, read| Plan::new(machine, &wanted, code, read))
            }
            FunctionProbes::Each => {
                let plan = plan.clone();
                self.probe.rest()?;
                self.with_code(|code, read| match reach {
                    Some(Reach::Named) => plan.joined(of, (&wanted.others, MOST_EACH), code, read),
                    _ => plan.deepened(of, (DEPTH_EACH, MOST_EACH), code, read),
                })
            }
        };
        let Some(following) = self.attach(location, wanted, plan)? else { return Ok(false) };
        let found = self.following.take().and_then(|before| before.found);
        self.following = Some(Following { rounds, found, ..following });
        Ok(true)
    }

    /// Shows the best that was found in the place that is followed, and leaves it.
    fn give_in(&mut self) -> Result<()> {
        let Some(mut found) = self.following.as_mut().and_then(|following| following.found.take()) else {
            return Ok(());
        };
        match self.probe.how() {
            FunctionProbes::AtOnce => {
                self.leave()?;
                self.show(&mut found)?;
            }
            // To leave takes long.
            FunctionProbes::Each => {
                self.probe.rest()?;
                self.show(&mut found)?;
                self.leave()?;
            }
        }
        self.shown += 1;
        Ok(())
    }

    /// Ends what is followed.
    fn leave(&mut self) -> Result<()> {
        self.probe.leave()?;
        if let Some(following) = self.following.take() {
            self.done.insert(following.location);
        }
        Ok(())
    }

    fn show(&mut self, found: &mut Found) -> Result<()> {
        let event = Event::parse(&found.drop).map_err(|error| anyhow!(error))?;
        let row = self.row(&event);
        let mut names = self.names.for_report();
        found.finding.root.find_sources(&mut |function| {
            let start = names.location(function.start.wrapping_add(1));
            names.source(&start)
        });
        let drop = DroppedPacket::new(event, Clock::now(), &mut names, false);
        let Found { finding, missed, reach, .. } = &*found;
        let (missed, reach, row) = (*missed, *reach, Some(&row));
        let dug = Dug { drop: &drop, finding, missed, reach, row, by: &row::BY, enter: entering };
        self.purpose.show(&dug)
    }
}

async fn readable(ring: &AsyncFd<OwnedFd>) -> Result<()> {
    ring.readable().await.context("cannot wait for drops")?.clear_ready();
    Ok(())
}

/// Waits for a time, for ever if there is none.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Whether the reader of findings has gone.
fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
