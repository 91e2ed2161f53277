//! Opens what a run reads: symbols, and a probe with its filter.

use std::{ops::ControlFlow, os::fd::OwnedFd, path::Path, time::Duration};

use anyhow::Context as _;
use aya::sys::{Stats, enable_stats};
use dropwatch_common::probe::RangeSet;

use crate::{
    cli::config::Query,
    filter::Filter,
    kernel::{
        btf::KernelBtf,
        classes::Classes,
        kallsyms::saved::{Running, Saved},
        namespaces::Namespaces,
        owners::Owners,
        symbols::{CodeWatch, KallsymsSource, Symbols, Table},
    },
    model::keys::{Key, counted},
    probe::{
        code_events::CodeEvents,
        kfree_skb::{
            count::{Probe, ProbeConfig},
            sample::Sampler,
            typed::KernelFilter,
        },
        source::{AttachError, FilterMaps, Filtered},
    },
    process::{
        failure::{Failure, Refusal},
        notice::Notices,
    },
    session::{
        decide::{self, Known, Teller},
        follow::{self, Meanings},
        interfaces,
        life::Life,
        namespaces::{self, Doubts},
        owners,
        samples::Samples,
    },
};

/// The time from one look for containers to the next.
const PATIENCE: Duration = Duration::from_millis(100);

/// What opening needs of the command.
#[derive(Debug)]
pub struct Opener {
    /// The running kernel's type information.
    pub kernel: KernelBtf,
    /// The network namespaces of this host.
    pub namespaces: Namespaces,
    /// Where notices go.
    pub notices: Notices,
    /// What may make figures wrong.
    pub doubts: Doubts,
    /// Whether symbols are read before drops are counted: what hides locations is known from the first drop on.
    pub symbols_first: bool,
}

/// A probe that is attached, and what names what it counts.
pub struct Opened<P> {
    /// The probe.
    pub probe: P,
    /// The kernel's symbols.
    pub symbols: Symbols,
    /// The owners of sockets, if rows or the filter need them.
    pub owners: Option<Owners>,
    /// What keeps both up to date lives as long as this.
    pub life: Life,
}

/// Has the kernel measure BPF programs until this is dropped, if that is `wanted`. It does so for all of them.
///
/// # Errors
/// The kernel refuses.
pub fn statistics(wanted: bool) -> Result<Option<OwnedFd>, Refusal> {
    let statistics = wanted.then(|| enable_stats(Stats::RunTime)).transpose();
    statistics.map_err(|error| Refusal::new(format!("cannot switch on BPF statistics: {error}")))
}

impl Opener {
    /// The running kernel's symbols, if any are needed, or those of a file that has been found to fit it.
    ///
    /// # Errors
    /// The file cannot be read, or is not of this kernel.
    pub fn symbol_source(&self, file: Option<&Path>, are_needed: bool) -> Result<KallsymsSource, Refusal> {
        let Some(file) = file else {
            return Ok(if are_needed { KallsymsSource::Running } else { KallsymsSource::Nothing });
        };
        let saved = Saved::load(file, &Running::read()).map_err(|error| Refusal::new(error.to_string()))?;
        for warning in &saved.warnings {
            self.notices.warn(warning.to_string());
        }
        Ok(KallsymsSource::Saved(saved))
    }

    /// Watches names of network namespaces from now on.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn watch_namespaces(&self) -> Result<(), Failure> {
        let watched = self.namespaces.watch(None, |_| ControlFlow::Continue(()));
        Ok(watched.context("cannot watch the names of network namespaces")?)
    }

    /// The same with those of containers, which come and go without a mount.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn watch_containers(&self) -> Result<(), Failure> {
        let look = |namespaces: &Namespaces| {
            namespaces.look_for_containers();
            ControlFlow::Continue(())
        };
        let watched = self.namespaces.watch(Some(PATIENCE), look);
        Ok(watched.context("cannot watch the names of network namespaces")?)
    }

    /// Attaches a probe for the requested keys, and starts reading symbols.
    ///
    /// # Errors
    /// What cannot be done here.
    pub fn count(&self, query: &Query, source: KallsymsSource) -> Result<Opened<Probe>, Failure> {
        self.attach(query.filter.as_ref(), &query.by, source, self.counting(query))
    }

    /// The same, with symbols that are there already, as beside another probe.
    ///
    /// # Errors
    /// What cannot be done here.
    pub fn count_with(&self, query: &Query, symbols: &Symbols) -> Result<Opened<Probe>, Failure> {
        self.attach_with(query.filter.as_ref(), &query.by, symbols, self.counting(query))
    }

    fn counting(&self, query: &Query) -> impl FnOnce(Option<KernelFilter>) -> Result<Probe, AttachError> {
        let Query { by, max_rows, interfaces, .. } = query;
        let (by, max_rows, interfaces) = (counted(by), *max_rows, interfaces.clone());
        move |filter| Probe::attach(&ProbeConfig { by, max_rows, filter, interfaces }, &self.kernel)
    }

    /// Attaches a probe that hands over some of the drops that another one counts, for what shows their cause, if that
    /// is `wanted`. Where it cannot be attached there is none, and `refused` gets the reason. The owners of sockets become known.
    ///
    /// # Errors
    /// Our own failure.
    pub fn sample(
        &self,
        opened: &mut Opened<Probe>,
        wanted: bool,
        refused: impl FnOnce(String),
    ) -> Result<Option<Samples>, Failure> {
        if !wanted {
            return Ok(None);
        }
        match Sampler::attach(&opened.probe, &self.kernel) {
            Ok(probe) => {
                let owners = Owners::new(Box::new(probe.lister()), true);
                let samples = Samples::start(probe, &owners, &mut opened.life)?;
                opened.owners.get_or_insert(owners);
                Ok(Some(samples))
            }
            Err(AttachError::Refused(why)) => {
                refused(format!("nothing is looked for that shows the cause of drops: {why}"));
                Ok(None)
            }
            Err(AttachError::Failed(error)) => Err(error.into()),
        }
    }

    /// Attaches a probe, and keeps up to date what its filter's names mean and which trampolines hide locations.
    ///
    /// Symbols are read once drops are counted, unless a filter or the rules of a check need them first.
    ///
    /// # Errors
    /// What cannot be done here.
    pub fn attach<P: Filtered>(
        &self,
        filter: Option<&Filter>,
        by: &[Key],
        source: KallsymsSource,
        attach: impl FnOnce(Option<KernelFilter>) -> Result<P, AttachError>,
    ) -> Result<Opened<P>, Failure> {
        let follows_modules = filter.is_some_and(Filter::follows_modules);
        let source = match source {
            KallsymsSource::Nothing if follows_modules => KallsymsSource::Modules,
            source => source,
        };
        let reads_symbols = matches!(source, KallsymsSource::Running);
        let start = || Symbols::watching(source, reads_symbols.then(code_events).flatten());
        let (probe, symbols, table) = if follows_modules || self.symbols_first {
            let symbols = start();
            let table = symbols.table();
            (attach(self.kernel_filter(filter, &table)?)?, symbols, Some(table))
        } else {
            (attach(self.kernel_filter(filter, &Table::default())?)?, start(), None)
        };
        self.keep_up(probe, symbols, table.as_deref(), by, filter)
    }

    /// Attaches another probe, with symbols that are there already.
    ///
    /// # Errors
    /// What cannot be done here.
    pub fn attach_with<P: Filtered>(
        &self,
        filter: Option<&Filter>,
        by: &[Key],
        symbols: &Symbols,
        attach: impl FnOnce(Option<KernelFilter>) -> Result<P, AttachError>,
    ) -> Result<Opened<P>, Failure> {
        let table = symbols.table();
        let probe = attach(self.kernel_filter(filter, &table)?)?;
        self.keep_up(probe, symbols.clone(), Some(&table), by, filter)
    }

    /// Keeps up to date what a probe's filter and rows mean. `table` is the one that the filter was resolved with.
    fn keep_up<P: Filtered>(
        &self,
        mut probe: P,
        symbols: Symbols,
        table: Option<&Table>,
        by: &[Key],
        filter: Option<&Filter>,
    ) -> Result<Opened<P>, Failure> {
        let follows_modules = filter.is_some_and(Filter::follows_modules);
        let mut life = Life::default();
        let owners = owners::watch(&mut probe, by, filter, &mut life)?;
        let mut meanings = Meanings { sets: None, trampolines: probe.take_trampolines() };
        if let Some(filter) = filter {
            interfaces::warn_of_missing(filter, &self.notices);
            if let Some(maps) = probe.take_filter_maps() {
                let ranges = maps.ranges.clone().filter(|_| follows_modules);
                meanings.sets = ranges.map(|ranges| (filter.sets().to_vec(), ranges));
                self.decide(filter, maps, &mut probe, &symbols, owners.clone(), &mut life)?;
            }
        }
        self.follow(meanings, &symbols, table, &mut life)?;
        Ok(Opened { probe, symbols, owners, life })
    }

    /// Decides what the kernel cannot, and tells it what the names of namespaces mean.
    fn decide(
        &self,
        filter: &Filter,
        maps: FilterMaps,
        probe: &mut impl Filtered,
        symbols: &Symbols,
        owners: Option<Owners>,
        life: &mut Life,
    ) -> Result<(), Failure> {
        let FilterMaps { ranges, namespaces, possible } = maps;
        let classes = || Teller::new(Classes::new(symbols.clone(), &self.kernel), possible);
        let classes = filter.cases().ask_for_classes().then(classes);
        let known = Known { namespaces: self.namespaces.clone(), classes, owners };
        if let Some(decide) = decide::decider(filter, known) {
            probe.decide_by(decide);
        }
        let (doubts, notices) = (self.doubts.clone(), self.notices.clone());
        let follower = |ranges| namespaces::Follower::new(filter, ranges, namespaces, doubts, notices);
        if let Some(follower) = ranges.and_then(follower) {
            follower.start(&self.namespaces, life)?;
        }
        Ok(())
    }

    /// What the kernel needs of a filter, as its names are understood by this table.
    fn kernel_filter(&self, filter: Option<&Filter>, table: &Table) -> Result<Option<KernelFilter>, Failure> {
        let Some(filter) = filter else { return Ok(None) };
        let sets = if filter.follows_modules() {
            follow::resolve(filter, table, &self.notices)
                .map_err(|error| Failure::Usage(format!("invalid value for '--filter': {error}")))?
        } else {
            vec![RangeSet::default(); filter.sets().len()]
        };
        Ok(Some(KernelFilter::new(filter, sets)))
    }

    /// Tells the kernel what this table says, if one has been read, and what all tables after it say.
    fn follow(
        &self,
        mut meanings: Meanings,
        symbols: &Symbols,
        table: Option<&Table>,
        life: &mut Life,
    ) -> Result<(), Failure> {
        if let Some(table) = table {
            meanings.tell_trampolines(table)?;
        }
        match symbols.follower(table.unwrap_or(&Table::default())) {
            Some(follower) => meanings.start(follower, self.notices.clone(), life)?,
            // The table that is there stays.
            None => meanings.tell_trampolines(&symbols.table())?,
        }
        Ok(())
    }
}

/// Announcements of trampolines; without them, only those that are there when symbols are read are known.
fn code_events() -> Option<Box<dyn CodeWatch>> {
    match CodeEvents::open() {
        Ok(events) => Some(Box::new(events)),
        Err(error) => {
            log::info!("return probes that begin from now on may hide locations: {error}");
            None
        }
    }
}
