//! The probe of `trace`: load, attach, and what it says beside its records.

use std::{
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramFd, tp_btf::BtfTracePointLink},
};
use dropwatch_common::{
    event::{RateState, TraceOffsets, Unshown},
    names,
    probe::RangeSet,
    rules::RuleTable,
};

use super::{batch::Batch, clock::Clock, rate};
use crate::{
    btf::Btf,
    config::TraceProbeConfig,
    groundwork::{KernelTypes, beside_loader},
    offsets::{KernelLayout, trace_offsets},
    probe::{KernelFilter, OBJECT, TRACEPOINT, explain, program, ranges, take},
    sys,
};

/// The ring buffer's size: some ten thousand small packets, which is what a busy machine drops while the reader is
/// not scheduled, and room for a few of the largest.
const RING_SIZE: u32 = 1 << 23;

/// A probe that hands over drops from [`TraceProbe::attach`] until [`TraceProbe::detach`] or its end.
pub struct TraceProbe {
    /// The records.
    pub ring: RingBuf<MapData>,
    /// Until somebody else takes care of them.
    ranges: Option<Array<MapData, RangeSet>>,
    unseen: Arc<Unseen>,
    sampling: Option<Sampling>,
    link: Option<BtfTracePointLink>,
    has_reason: bool,
}

/// How many drops the probe has seen and not handed over.
pub struct Unseen {
    counters: PerCpuArray<MapData, u64>,
    program: ProgramFd,
}

/// Tells the probe which share of the drops to take.
struct Sampling {
    state: Array<MapData, RateState>,
    limit: u32,
    since: Instant,
    /// Drops that were not handed over, when that was asked last.
    unseen: u64,
    /// Drops handed over since.
    seen: u64,
}

impl TraceProbe {
    /// Loads and attaches; every drop after this call is handed over or counted.
    ///
    /// # Errors
    /// A refusal by the kernel, with what can be done about it.
    pub fn attach(config: TraceProbeConfig, filter: Option<&KernelFilter>) -> Result<Self> {
        let layout = |btf: &Btf<'_>| Ok((KernelLayout::read(btf)?, trace_offsets(btf)?));
        let (loader, types) = beside_loader(|| KernelTypes::read("dropwatch trace takes", layout));
        Self::load(config, filter, loader, types?)
            .map_err(|error| explain(error, &format!("a ring buffer of {RING_SIZE} bytes")))
    }

    fn load(
        config: TraceProbeConfig,
        filter: Option<&KernelFilter>,
        loader: EbpfLoader<'static>,
        types: KernelTypes<(KernelLayout, TraceOffsets)>,
    ) -> Result<Self> {
        let KernelTypes { layout: (KernelLayout { offsets, arguments }, trace), nested, btf } = types;
        let has_reason = arguments > 2;
        let rules = filter.map_or_else(RuleTable::default, |filter| filter.table);
        let sets = filter.map_or(&[][..], |filter| &filter.sets);
        // Of a life of its own, as long as what it borrows here.
        let mut loader = loader;
        let mut ebpf = loader
            .override_global(names::HAS_REASON, &u8::from(has_reason), true)
            .override_global(names::HAS_SOCK, &u8::from(arguments > 3), true)
            .override_global(names::NESTED, &u8::from(nested), true)
            .override_global(names::GATHER, &filter.map_or(0, KernelFilter::gathered), true)
            .override_global(names::OFFSETS, &offsets, true)
            .override_global(names::FILTERED, &u8::from(filter.is_some()), true)
            .override_global(names::RULES, &rules, true)
            .override_global(names::TRACE_OFFSETS, &trace, true)
            .override_global(names::SNAPLEN, &config.snaplen, true)
            .override_global(names::RATE, &config.rate.unwrap_or(0), true)
            .override_global(names::STACK, &u8::from(config.stack), true)
            .override_global(names::RING_SIZE, &u64::from(RING_SIZE), true)
            .map_max_entries(names::RANGES, u32::try_from(sets.len())?.max(1))
            .map_max_entries(names::COUNTS, 1)
            .map_max_entries(names::RING, RING_SIZE)
            .load(OBJECT)?;
        let ranges = ranges(&mut ebpf, sets)?;
        let ring = RingBuf::try_from(take(&mut ebpf, names::RING)?)?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, names::UNSHOWN)?)?;
        let state = Array::try_from(take(&mut ebpf, names::RATE_STATE)?)?;
        let program: &mut BtfTracePoint = program(&mut ebpf, names::TRACE_DROP)?.try_into()?;
        program.load(TRACEPOINT, &btf)?;
        // Not before: the program refers to its maps by descriptors, which end with the maps.
        let sampling = config.rate.map(|limit| Sampling::new(state, limit)).transpose()?;
        let link = program.attach().and_then(|id| program.take_link(id))?;
        let unseen = Arc::new(Unseen { counters, program: program.fd()?.try_clone()? });
        Ok(Self { ring, ranges: Some(ranges), unseen, sampling, link: Some(link), has_reason })
    }

    /// Whether this kernel gives reasons for drops.
    #[must_use]
    pub fn has_reason(&self) -> bool {
        self.has_reason
    }

    /// The filter's sets, for somebody to keep up to date.
    pub fn take_ranges(&mut self) -> Option<Array<MapData, RangeSet>> {
        self.ranges.take()
    }

    /// How many drops are not handed over.
    #[must_use]
    pub fn unseen(&self) -> Arc<Unseen> {
        Arc::clone(&self.unseen)
    }

    /// The records there are, up to a batch of them.
    pub fn batch(&mut self) -> Batch {
        let mut batch = Batch::new(Clock::now());
        while !batch.is_full()
            && let Some(record) = self.ring.next()
        {
            batch.push(&record);
            if let Some(sampling) = &mut self.sampling {
                sampling.seen += 1;
            }
        }
        batch
    }

    /// Adapts the share of drops that is taken to how many there were since the last call.
    pub fn adapt(&mut self) -> Result<()> {
        let Some(sampling) = &mut self.sampling else { return Ok(()) };
        sampling.adapt(self.unseen.read()?)
    }

    /// Ends the stream; what has been handed over can still be read.
    pub fn detach(&mut self) {
        self.link = None;
    }
}

impl Unseen {
    /// Since the probe was attached; those included that the kernel's recursion guard kept from the probe.
    pub fn read(&self) -> Result<u64> {
        let mut sum = 0;
        for why in [Unshown::RingFull, Unshown::Sampled] {
            let values = self.counters.get(&(why as u32), 0).context("cannot read the probe's counters")?;
            sum += values.iter().sum::<u64>();
        }
        let stats = sys::program_stats(self.program.as_fd()).context("cannot read the probe's statistics")?;
        Ok(sum + stats.recursion_missed.unwrap_or(0))
    }
}

impl Sampling {
    fn new(state: Array<MapData, RateState>, limit: u32) -> Result<Self> {
        let mut sampling = Self { state, limit, since: Instant::now(), unseen: 0, seen: 0 };
        sampling.tell(u32::MAX)?;
        Ok(sampling)
    }

    fn adapt(&mut self, unseen: u64) -> Result<()> {
        let elapsed = self.since.elapsed().max(Duration::from_millis(1));
        let drops = unseen.saturating_sub(self.unseen) + self.seen;
        (self.since, self.unseen, self.seen) = (Instant::now(), unseen, 0);
        self.tell(rate::share(self.limit, drops, elapsed))
    }

    /// What the probe has taken meanwhile is overwritten as it was: it holds to the limit until the second is over.
    fn tell(&mut self, share: u32) -> Result<()> {
        let state = self.state.get(&0, 0).context("cannot read the probe's rate")?;
        let state = RateState { share, ..state };
        self.state.set(0, state, 0).context("cannot set the probe's rate")
    }
}
