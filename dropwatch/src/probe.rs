//! The probe in the kernel: load, attach, read, detach.

use std::{io, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapError},
    programs::{
        BtfTracePoint, ProgramError, ProgramFd, RawTracePoint, raw_trace_point::RawTracePointLink,
        tp_btf::BtfTracePointLink,
    },
};
use dropwatch_common::{
    cache, names,
    probe::{RangeSet, gather, keys},
    rules::{RuleTable, need},
};

use crate::{
    count_map::{Counters, Drops, Rows},
    filter::Filter,
    groundwork::{KernelTypes, beside_loader, discard, drops_nest},
    keys::Key,
    offsets::KernelLayout,
    references::Resolver,
    snapshot::{Losses, Snapshot},
    sys::{self, ProgramStats},
};

/// The BPF object: the committed one, or the one `DROPWATCH_BPF_OBJECT` named when this was built.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROPWATCH_BPF_OBJECT"));

/// The tracepoint.
pub(crate) const TRACEPOINT: &str = "kfree_skb";
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
    program: ProgramFd,
    link: Option<Link>,
    has_reason: bool,
    #[cfg(feature = "bpf-log")]
    log: aya_log::EbpfLogger<&'static dyn log::Log>,
}

/// What keeps a program attached.
#[expect(dead_code, reason = "held for what happens when it is dropped")]
enum Link {
    Raw(RawTracePointLink),
    Typed(BtfTracePointLink),
}

impl Probe {
    /// Loads and attaches; every drop after this call is counted.
    ///
    /// # Errors
    /// A refusal by the kernel, with what can be done about it.
    pub fn attach(config: &ProbeConfig) -> Result<Self> {
        if config.is_plain() { Self::attach_plain(config) } else { Self::attach_typed(config) }.map_err(
            |error| explain(error, &format!("{} rows: ask for fewer with --max-rows", config.max_rows)),
        )
    }

    /// The kernel itself says whether the tracepoint has a `reason` argument: a program that could read a
    /// missing argument is refused at attach. That needs no BTF and trusts no version.
    fn attach_plain(config: &ProbeConfig) -> Result<Self> {
        let (loader, nested) = beside_loader(drops_nest);
        log::debug!("drops can nest on this kernel: {nested}");
        match Self::attach_variant(config, loader, nested, true) {
            Err(error) if is_missing_argument(&error) => {
                log::debug!("the tracepoint has no reason argument");
                Self::attach_variant(config, EbpfLoader::new(), nested, false)
            }
            probe => probe,
        }
    }

    fn attach_variant(
        config: &ProbeConfig,
        mut loader: EbpfLoader<'static>,
        nested: bool,
        has_reason: bool,
    ) -> Result<Self> {
        let flag = |is_set| if is_set { &1_u8 } else { &0 };
        // The cache is room beside the rows asked for: who asks for fewer than it has means it.
        let cached = !nested && config.max_rows as usize > cache::SLOTS;
        let mut ebpf = loader
            .override_global(names::HAS_REASON, flag(has_reason), true)
            .override_global(names::NESTED, flag(nested), true)
            .override_global(names::CACHED, flag(cached), true)
            .map_max_entries(names::COUNTS, config.max_rows)
            .load(OBJECT)?;
        let counters =
            Counters::Drops(Drops::new(take(&mut ebpf, names::CACHE)?, take(&mut ebpf, names::COUNTS)?)?);
        let program: &mut RawTracePoint = program(&mut ebpf, names::COUNT_DROP)?.try_into()?;
        program.load()?;
        let link = program.attach(TRACEPOINT).and_then(|id| program.take_link(id))?;
        discard(loader);
        let program = program.fd()?.try_clone()?;
        Self::new(ebpf, counters, program, Link::Raw(link), has_reason)
    }

    /// The program reads structures of the kernel, where its type information says they are.
    fn attach_typed(config: &ProbeConfig) -> Result<Self> {
        let read =
            || KernelTypes::read("keys and filters beyond location and reason take", KernelLayout::read);
        let (mut loader, types) = beside_loader(read);
        let KernelTypes { layout: KernelLayout { offsets, arguments }, nested, btf } = types?;
        log::debug!("drops can nest on this kernel: {nested}");
        let has_reason = arguments > 2;
        let keys = config.keys();
        let filter = config.filter.as_ref();
        let rules = filter.map_or_else(RuleTable::default, |filter| filter.table);
        let sets = filter.map_or(&[][..], |filter| &filter.sets);
        let mut ebpf = loader
            .override_global(names::HAS_REASON, &u8::from(has_reason), true)
            .override_global(names::HAS_SOCK, &u8::from(arguments > 3), true)
            .override_global(names::NESTED, &u8::from(nested), true)
            .override_global(names::KEYS, &keys, true)
            .override_global(names::GATHER, &config.gathered(), true)
            .override_global(names::OFFSETS, &offsets, true)
            .override_global(names::FILTERED, &u8::from(filter.is_some()), true)
            .override_global(names::RULES, &rules, true)
            .map_max_entries(names::RANGES, u32::try_from(sets.len())?.max(1))
            .map_max_entries(names::COUNTS, 1)
            .map_max_entries(names::DEVICES, if keys & DEVICE_KEYS == 0 { 1 } else { MOST_DEVICES })
            .map_max_entries(names::CHAINS, if keys & keys::STACK == 0 { 1 } else { MOST_CHAINS })
            .load(OBJECT)?;
        let counters = Counters::Rows(Rows::new(take(&mut ebpf, names::ROWS)?, config.max_rows)?);
        let ranges = ranges(&mut ebpf, sets)?;
        let program: &mut BtfTracePoint = program(&mut ebpf, names::COUNT_ROW)?.try_into()?;
        program.load(TRACEPOINT, &btf)?;
        if let Some(instructions) = program.info().ok().and_then(|info| info.verified_instruction_count()) {
            log::debug!("the kernel's verifier looked at {instructions} instructions");
        }
        let link = program.attach().and_then(|id| program.take_link(id))?;
        let program = program.fd()?.try_clone()?;
        let probe = Self::new(ebpf, counters, program, Link::Typed(link), has_reason)?;
        Ok(Self { ranges: Some(ranges), ..probe })
    }

    fn new(
        mut ebpf: Ebpf,
        counters: Counters,
        program: ProgramFd,
        link: Link,
        has_reason: bool,
    ) -> Result<Self> {
        Ok(Self {
            counters,
            losses: Losses::new(take(&mut ebpf, names::LEDGER)?)?,
            resolver: Resolver::new(take(&mut ebpf, names::DEVICES)?, take(&mut ebpf, names::CHAINS)?)?,
            ranges: None,
            program,
            link: Some(link),
            has_reason,
            #[cfg(feature = "bpf-log")]
            log: aya_log::EbpfLogger::init(&mut ebpf).context("this is no object built for logging")?,
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

pub(crate) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the BPF object has no map {name}"))
}

pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))
}

/// The filter's sets, with the values that they have at the start.
pub(crate) fn ranges(ebpf: &mut Ebpf, sets: &[RangeSet]) -> Result<Array<MapData, RangeSet>> {
    let mut ranges = Array::try_from(take(ebpf, names::RANGES)?)?;
    for (number, set) in (0..).zip(sets) {
        ranges.set(number, *set, 0)?;
    }
    Ok(ranges)
}

/// Whether attaching failed because the program reads an argument that the tracepoint does not have.
fn is_missing_argument(error: &anyhow::Error) -> bool {
    let Some(ProgramError::SyscallError(error)) = error.downcast_ref::<ProgramError>() else {
        return false;
    };
    error.io_error.raw_os_error() == Some(libc::EINVAL)
}

/// Adds to a failure to load or attach what it means to the person who started us. The largest map is what there
/// may be no memory for.
pub(crate) fn explain(error: anyhow::Error, largest: &str) -> anyhow::Error {
    let errno = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    let creating_map =
        error.chain().any(|cause| matches!(cause.downcast_ref(), Some(MapError::CreateError { .. })));
    let advice = match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "the kernel refused although the capabilities are there: in a container it takes those of the \
             host (not of a user namespace) and a seccomp profile that allows bpf(2)"
                .to_owned()
        }
        Some(libc::ENOMEM | libc::E2BIG) if creating_map => {
            format!("the kernel has no memory for {largest}")
        }
        Some(libc::ENOENT) => "this kernel has no tracepoint skb:kfree_skb".to_owned(),
        _ => return error.context("cannot attach the probe to skb:kfree_skb"),
    };
    error.context(format!("cannot attach the probe to skb:kfree_skb: {advice}"))
}
