//! The network namespaces of this host, and a filter's names for them kept right while they come and go.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{self, Array, MapData};
use dropwatch_common::probe::{RANGES_PER_SET, Range, RangeSet};

use crate::{
    filter::{Filter, Set},
    kernel::{
        btf::KernelBtf,
        namespaces::{Identify, ListProcesses, Namespaces},
    },
    model::namespace::Namespace,
    probe::{lister::ProcessLister, namespace_cookie::CookieReader},
    process::notice::Notices,
    session::life::Life,
    sys,
};

/// How long a namespace that drops are seen in for the first time may have to wait until it is looked at.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a new namespace may stay without its name: until then its drops are decided about here.
const GRACE: Duration = Duration::from_secs(1);
/// How many namespaces the kernel may know, before it is made to forget those that may have gone.
const MANY: usize = 4096;

/// Identifies namespaces by a program in the kernel, which is loaded when it is first needed.
struct ByProgram {
    kernel: KernelBtf,
    reader: OnceLock<Option<CookieReader>>,
}

impl Identify for ByProgram {
    fn is_network(&self, file: BorrowedFd<'_>) -> bool {
        sys::is_net_namespace(file)
    }

    fn cookie(&self, namespace: BorrowedFd<'_>) -> u64 {
        let load = || {
            let loaded = CookieReader::load(self.kernel.get().ok()?);
            loaded.inspect_err(|error| log::debug!("cannot read cookies of namespaces: {error}")).ok()?
        };
        let reader = self.reader.get_or_init(load).as_ref();
        reader.and_then(|reader| reader.read(namespace).ok()).unwrap_or(0)
    }

    fn lister(&self) -> Option<Box<dyn ListProcesses>> {
        let loaded = ProcessLister::load(self.kernel.get().ok()?);
        let lister =
            loaded.inspect_err(|error| log::debug!("processes are listed by /proc: {error:#}")).ok()?;
        Some(Box::new(lister))
    }
}

/// The network namespaces of this host.
#[must_use]
pub fn of_this_host(kernel: &KernelBtf) -> Namespaces {
    Namespaces::new(Box::new(ByProgram { kernel: kernel.clone(), reader: OnceLock::new() }))
}

/// That a name came and went before it was looked at.
#[must_use]
pub fn missed_name(name: &str) -> String {
    format!(
        "network namespace '{name}' was there too shortly to be looked at, or more names came and went than are \
         remembered: drops in it may be missing"
    )
}

/// How many doubts are kept.
const MOST_DOUBTS: usize = 64;

/// What may make a gate's figures wrong, as sentences. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Doubts(Arc<Mutex<Vec<String>>>);

impl Doubts {
    fn add(&self, doubt: String) {
        let mut doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One is enough to fail a gate.
        if doubts.len() < MOST_DOUBTS && !doubts.contains(&doubt) {
            doubts.push(doubt);
        }
    }

    /// Those there are by now.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A filter's names for namespaces, and what the kernel knows of them.
pub struct Follower {
    /// By the set's number.
    names: Vec<(u32, String, Vec<Namespace>)>,
    ranges: Arc<Mutex<Array<MapData, RangeSet>>>,
    known: maps::HashMap<MapData, u64, u64>,
    /// Names of which one came and went before it was looked at, as far as that was said.
    missed: Vec<String>,
    /// Namespaces without a name, and when drops in each were noticed.
    nameless: HashMap<u64, Instant>,
    doubts: Doubts,
    notices: Notices,
}

impl Follower {
    /// None for a filter without such names.
    #[must_use]
    pub fn new(
        filter: &Filter,
        ranges: Arc<Mutex<Array<MapData, RangeSet>>>,
        known: maps::HashMap<MapData, u64, u64>,
        doubts: Doubts,
        notices: Notices,
    ) -> Option<Self> {
        let names: Vec<_> = (0..)
            .zip(filter.sets())
            .filter_map(|(number, set)| match set {
                Set::Netns(name) => Some((number, name.clone(), Vec::new())),
                _ => None,
            })
            .collect();
        (!names.is_empty()).then(|| Self {
            names,
            ranges,
            known,
            missed: Vec::new(),
            nameless: HashMap::new(),
            doubts,
            notices,
        })
    }

    /// Keeps them right from now on, as long as `life` lasts.
    ///
    /// # Errors
    /// The kernel does not report mounts.
    pub fn start(mut self, namespaces: &Namespaces, life: &mut Life) -> Result<()> {
        namespaces.refresh();
        self.look_for_containers(namespaces, false);
        self.warn_of_missing(namespaces);
        let is_ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_ended);
        life.at_end(move || end.store(true, Ordering::Relaxed));
        let follow = move |namespaces: &Namespaces| {
            if is_ended.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            if let Err(error) = self.follow(namespaces) {
                self.doubt(format!(
                    "the filter could not be updated and keeps the old meaning of its names: {error:#}"
                ));
            }
            ControlFlow::Continue(())
        };
        namespaces.watch(Some(PATIENCE), follow).context("cannot watch the names of network namespaces")
    }

    fn warn_of_missing(&self, namespaces: &Namespaces) {
        let missing = self.names.iter().map(|(_, name, _)| name);
        for name in missing.filter(|name| namespaces.bearers(name).is_empty()) {
            let current = namespaces.current();
            let hint = crate::model::suggestions::hint(name, current.iter().map(String::as_str));
            self.notices.warn(format!(
                "there is no network namespace '{name}' now, and the filter waits for one of that name{hint}"
            ));
        }
    }

    /// A name that no namespace was given may be a container's; of a known one there may be more. Names of namespaces are not
    /// seen meanwhile.
    fn look_for_containers(&self, namespaces: &Namespaces, are_waiting: bool) {
        let may_be_one = |name: &str| !namespaces.is_given(name);
        let is_due = |name: &str| are_waiting || namespaces.bearers(name).is_empty();
        if self.names.iter().any(|(_, name, _)| may_be_one(name) && is_due(name)) {
            namespaces.look_for_containers();
        }
    }

    fn doubt(&self, doubt: String) {
        self.notices.warn(doubt.clone());
        self.doubts.add(doubt);
    }

    /// Writes to the kernel which namespaces have the names, and which have been looked at.
    fn follow(&mut self, namespaces: &Namespaces) -> Result<()> {
        let waiting: Vec<u64> = self.entries()?.filter(|(_, known)| *known == 0).map(|(id, _)| id).collect();
        if !waiting.is_empty() {
            // Drops were seen in them before this: names that they had then are read now.
            namespaces.refresh();
        }
        self.look_for_containers(namespaces, !waiting.is_empty());
        self.write_sets(namespaces)?;
        self.check_missed(namespaces);
        self.nameless.retain(|id, _| waiting.contains(id));
        for id in waiting {
            let is_named = self.names.iter().any(|(_, _, bearers)| bearers.iter().any(|it| it.id() == id));
            let noticed = self.nameless.entry(id).or_insert_with(Instant::now);
            if is_named || noticed.elapsed() >= GRACE {
                self.known.insert(id, 1, 0)?;
            }
        }
        if self.entries()?.count() > MANY {
            self.forget()?;
        }
        Ok(())
    }

    fn entries(&self) -> Result<impl Iterator<Item = (u64, u64)>> {
        Ok(self.known.iter().collect::<Result<Vec<_>, _>>()?.into_iter())
    }

    /// Marks all of them as unknown in the kernel again.
    fn forget(&mut self) -> Result<()> {
        let ids: Vec<u64> = self.entries()?.map(|(id, _)| id).collect();
        for id in ids {
            // It may have gone.
            let _ = self.known.remove(&id);
        }
        Ok(())
    }

    fn write_sets(&mut self, namespaces: &Namespaces) -> Result<()> {
        let mut names = std::mem::take(&mut self.names);
        for (number, name, bearers) in &mut names {
            let now = namespaces.bearers(name);
            if now == *bearers {
                continue;
            }
            self.write_set(*number, &now)?;
            for namespace in now.iter().filter(|namespace| !bearers.contains(namespace)) {
                self.check_late(name, *namespace);
            }
            *bearers = now;
            if bearers.iter().any(|namespace| namespace.cookie == 0) {
                // A number may be given to another namespace: all are looked at again.
                self.forget()?;
            }
        }
        self.names = names;
        Ok(())
    }

    fn write_set(&self, number: u32, bearers: &[Namespace]) -> Result<()> {
        let mut set = RangeSet::default();
        for (range, namespace) in set.0.iter_mut().zip(bearers.iter().take(RANGES_PER_SET)) {
            *range = Range { start: namespace.id(), length: 1 };
        }
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        // Clear first, so that a half-written range never matches.
        ranges.set(number, RangeSet::default(), 0)?;
        Ok(ranges.set(number, set, 0)?)
    }

    /// Drops in a namespace that had a name for a moment may not be counted.
    fn check_missed(&mut self, namespaces: &Namespaces) {
        let missed: Vec<String> = self
            .names
            .iter()
            .map(|(_, name, _)| name)
            .filter(|name| !self.missed.contains(name) && namespaces.has_missed(name))
            .cloned()
            .collect();
        for name in missed {
            self.doubt(missed_name(&name));
            self.missed.push(name);
        }
    }

    /// A namespace that was marked as having no name of the filter now has one: drops in between may be missing.
    fn check_late(&self, name: &str, namespace: Namespace) {
        if namespace.cookie != 0 && self.known.get(&namespace.id(), 0).is_ok_and(|known| known == 1) {
            self.doubt(format!(
                "network namespace {} got the name '{name}' while drops in it were seen: some right after that may \
                 be missing",
                namespace.inum
            ));
        }
    }
}
