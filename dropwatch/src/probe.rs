//! The probe in the kernel: load, attach, read, detach.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData, MapError};
use dropwatch_common::{
    cache, names,
    probe::{RangeSet, gather, keys},
    rules::{RuleTable, need},
};

use crate::{
    btf::KernelBtf,
    count_map::{Counters, Drops, Rows},
    filter::Filter,
    kernel_types::{KernelTypes, drops_nest},
    keys::Key,
    loader::{Arguments, Loaded, Loader, Refused},
    references::Resolver,
    snapshot::{Losses, Snapshot},
    sys::{self, ProgramStats},
};

/// Room for chains: a kernel has far fewer ways to drop a packet. Each takes a kilobyte.
const MOST_CHAINS: u32 = 16_384;
/// Room for names of interfaces.
const MOST_DEVICES: u32 = 4096;

/// What the probe is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// What a row stands for.
    pub by: Vec<Key>,
    /// Room for distinct keys.
    pub max_rows: u32,
    /// Which drops are counted at all.
    pub filter: Option<KernelFilter>,
}

/// What the kernel needs of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFilter {
    /// The rules.
    pub table: RuleTable,
    /// What they ask about a drop: bits of [`need`].
    pub needs: u32,
    /// The values that their sets have at the start.
    pub sets: Vec<RangeSet>,
}

impl KernelFilter {
    /// The filter, as its names are understood at the start.
    #[must_use]
    pub fn new(filter: &Filter, sets: Vec<RangeSet>) -> Self {
        Self { table: *filter.table(), needs: filter.needs(), sets }
    }

    /// What the probe has to find out to decide.
    pub(crate) fn gathered(&self) -> u32 {
        [
            (need::PACKET, gather::HEADERS),
            (need::LENGTH, gather::LENGTH),
            (need::NETNS, gather::NETNS),
            (need::IFACE, gather::IFACE | gather::IFACE_NAME),
        ]
        .into_iter()
        .filter(|(needed, _)| self.needs & needed != 0)
        .fold(0, |bits, (_, gathered)| bits | gathered)
    }
}

impl ProbeConfig {
    /// Whether location and reason are all that is asked for, which takes no type information and less time.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.filter.is_none() && self.by.iter().all(|key| matches!(key, Key::Location | Key::Reason))
    }

    fn keys(&self) -> u32 {
        self.by.iter().fold(0, |bits, key| bits | key.bit())
    }

    fn gathered(&self) -> u32 {
        let filter = self.filter.as_ref().map_or(0, KernelFilter::gathered);
        self.by.iter().fold(filter, |bits, key| bits | key.gathered())
    }
}

/// A probe that counts drops from [`Probe::attach`] until [`Probe::detach`] or its end.
///
/// Nothing is pinned: when the process dies, however it dies, the kernel takes the probe away.
pub struct Probe {
    counters: Counters,
    losses: Losses,
    resolver: Resolver,
    /// Until somebody else takes care of them.
    ranges: Option<Array<MapData, RangeSet>>,
    program: Arc<OwnedFd>,
    /// What keeps the program attached.
    link: Option<OwnedFd>,
    has_reason: bool,
    #[cfg(feature = "bpf-log")]
    log: aya_log::EbpfLogger<&'static dyn log::Log>,
}

impl Probe {
    /// Loads and attaches; every drop after this call is counted.
    ///
    /// # Errors
    /// A refusal by the kernel, with what can be done about it.
    pub fn attach(config: &ProbeConfig, kernel: &KernelBtf) -> Result<Self> {
        if config.is_plain() { Self::attach_plain(config) } else { Self::attach_typed(config, kernel) }
            .map_err(|error| {
                explain(error, &format!("{} rows: ask for fewer with --max-rows", config.max_rows))
            })
    }

    /// The kernel itself says whether the tracepoint has a `reason` argument: a program that could read a
    /// missing argument is refused at attach. That needs no BTF and trusts no version.
    fn attach_plain(config: &ProbeConfig) -> Result<Self> {
        let nested = drops_nest();
        log::debug!("drops can nest on this kernel: {nested}");
        match Self::attach_variant(config, nested, true) {
            Err(error) if is_missing_argument(&error) => {
                log::debug!("the tracepoint has no reason argument");
                Self::attach_variant(config, nested, false)
            }
            probe => probe,
        }
    }

    fn attach_variant(config: &ProbeConfig, nested: bool, has_reason: bool) -> Result<Self> {
        // The cache is room beside the rows asked for: who asks for fewer than it has means it.
        let cached = !nested && config.max_rows as usize > cache::SLOTS;
        let mut loaded = Loader::default()
            .constant(names::HAS_REASON, u8::from(has_reason))
            .constant(names::NESTED, u8::from(nested))
            .constant(names::CACHED, u8::from(cached))
            .max_entries(names::COUNTS, config.max_rows)
            .load(names::COUNT_DROP, Arguments::Raw)?;
        let drops = Drops::new(loaded.take(names::CACHE)?, loaded.take(names::COUNTS)?)?;
        Self::new(loaded, Counters::Drops(drops), None, has_reason)
    }

    /// The program reads structures of the kernel, where its type information says they are.
    fn attach_typed(config: &ProbeConfig, kernel: &KernelBtf) -> Result<Self> {
        let types =
            KernelTypes::read(kernel, "keys and filters beyond location and reason take", |_| Ok(()))?;
        log::debug!("drops can nest on this kernel: {}", types.nested);
        let (keys, filter) = (config.keys(), config.filter.as_ref());
        let mut loaded = typed_loader(&types, filter, config.gathered())?
            .constant(names::KEYS, keys)
            .max_entries(names::DEVICES, if keys & DEVICE_KEYS == 0 { 1 } else { MOST_DEVICES })
            .max_entries(names::CHAINS, if keys & keys::STACK == 0 { 1 } else { MOST_CHAINS })
            .load(names::COUNT_ROW, Arguments::Typed(types.layout.tracepoint.type_id))?;
        let rows = Rows::new(loaded.take(names::ROWS)?, config.max_rows)?;
        let ranges = ranges(&mut loaded, filter)?;
        Self::new(loaded, Counters::Rows(rows), Some(ranges), types.layout.has_reason())
    }

    /// Attaches what is loaded, and ready to count.
    fn new(
        mut loaded: Loaded,
        counters: Counters,
        ranges: Option<Array<MapData, RangeSet>>,
        has_reason: bool,
    ) -> Result<Self> {
        Ok(Self {
            counters,
            losses: Losses::new(loaded.take(names::LEDGER)?)?,
            resolver: Resolver::new(loaded.take(names::DEVICES)?, loaded.take(names::CHAINS)?)?,
            ranges,
            link: Some(loaded.attach()?),
            program: loaded.program(),
            has_reason,
            #[cfg(feature = "bpf-log")]
            log: aya_log::EbpfLogger::init_from_id(sys::program_id(loaded.program().as_fd())?)
                .context("this is no object built for logging")?,
        })
    }

    /// Whether this kernel gives reasons for drops.
    #[must_use]
    pub fn has_reason(&self) -> bool {
        self.has_reason
    }

    /// The filter's sets, for one who keeps them right.
    pub fn take_ranges(&mut self) -> Option<Array<MapData, RangeSet>> {
        self.ranges.take()
    }

    /// What rows refer to.
    pub fn resolver(&mut self) -> &mut Resolver {
        &mut self.resolver
    }

    /// Everything counted since the probe was attached, or since a snapshot that was the last of its counters.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        // The counts first: a loss that is read later than the drops beside it is never missed.
        let (counts, last) = self.counters.read()?;
        #[cfg(feature = "bpf-log")]
        self.log.flush();
        let ledger = self.losses.read(self.stats()?.recursion_missed)?;
        Ok(Snapshot { counts, last, ledger })
    }

    /// What the kernel counts about the probe itself.
    pub fn stats(&self) -> Result<ProgramStats> {
        sys::program_stats(self.program.as_fd()).context("cannot read the probe's statistics")
    }

    /// Stops counting; what has been counted can still be read.
    pub fn detach(&mut self) {
        self.link = None;
    }
}

/// Keys that refer to interfaces.
const DEVICE_KEYS: u32 = keys::IFACE | keys::NETNS;

/// What every program with types is loaded with: what it is to gather, and the filter.
pub(crate) fn typed_loader<T>(
    types: &KernelTypes<T>,
    filter: Option<&KernelFilter>,
    gathered: u32,
) -> Result<Loader> {
    let loader = Loader::default()
        .constant(names::HAS_REASON, u8::from(types.layout.has_reason()))
        .constant(names::HAS_SOCK, u8::from(types.layout.has_sock()))
        .constant(names::NESTED, u8::from(types.nested))
        .constant(names::OFFSETS, types.layout.offsets)
        .constant(names::GATHER, gathered)
        .max_entries(names::COUNTS, 1);
    let Some(filter) = filter else { return Ok(loader) };
    Ok(loader
        .constant(names::FILTERED, 1_u8)
        .constant(names::RULES, filter.table)
        .max_entries(names::RANGES, u32::try_from(filter.sets.len())?.max(1)))
}

/// The filter's sets, with the values that they have at the start.
pub(crate) fn ranges(loaded: &mut Loaded, filter: Option<&KernelFilter>) -> Result<Array<MapData, RangeSet>> {
    let mut ranges = Array::try_from(loaded.take(names::RANGES)?)?;
    for (number, set) in (0..).zip(filter.map_or(&[][..], |filter| &filter.sets)) {
        ranges.set(number, *set, 0)?;
    }
    Ok(ranges)
}

/// Whether attaching failed because the program reads an argument that the tracepoint does not have.
fn is_missing_argument(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref();
    matches!(refused, Some(Refused::Attach(error)) if error.raw_os_error() == Some(libc::EINVAL))
}

/// Adds to a failure to load or attach what it means to the person who started us. The largest map is what there
/// may be no memory for.
pub(crate) fn explain(error: anyhow::Error, largest: &str) -> anyhow::Error {
    let errno = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    let making_map = error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(Refused::Map { .. }))
            || matches!(cause.downcast_ref(), Some(MapError::CreateError { .. }))
    });
    let advice = match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "the kernel refused although the capabilities are there: in a container it takes those of the \
             host (not of a user namespace) and a seccomp profile that allows bpf(2)"
                .to_owned()
        }
        Some(libc::ENOMEM | libc::E2BIG) if making_map => {
            format!("the kernel has no memory for {largest}")
        }
        Some(libc::ENOENT) => "this kernel has no tracepoint skb:kfree_skb".to_owned(),
        _ => return error.context("cannot attach the probe to skb:kfree_skb"),
    };
    error.context(format!("cannot attach the probe to skb:kfree_skb: {advice}"))
}
