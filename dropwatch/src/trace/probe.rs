//! The probe of `trace`: load, attach, and what it says beside its records.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use dropwatch_common::{
    event::{RateState, TraceOffsets, Unshown},
    names,
    probe::RangeSet,
};

use super::{batch::Batch, clock::Clock, rate};
use crate::{
    btf::KernelBtf,
    config::TraceProbeConfig,
    kernel_types::KernelTypes,
    loader::Arguments,
    offsets::trace_offsets,
    probe::{KernelFilter, explain, ranges, typed_loader},
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
    /// What keeps the program attached.
    link: Option<OwnedFd>,
    has_reason: bool,
}

/// How many drops the probe has seen and not handed over.
pub struct Unseen {
    counters: PerCpuArray<MapData, u64>,
    program: Arc<OwnedFd>,
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
    pub fn attach(
        config: TraceProbeConfig,
        filter: Option<&KernelFilter>,
        kernel: &KernelBtf,
    ) -> Result<Self> {
        let types = KernelTypes::read(kernel, "dropwatch trace takes", trace_offsets)?;
        Self::load(config, filter, &types)
            .map_err(|error| explain(error, &format!("a ring buffer of {RING_SIZE} bytes")))
    }

    fn load(
        config: TraceProbeConfig,
        filter: Option<&KernelFilter>,
        types: &KernelTypes<TraceOffsets>,
    ) -> Result<Self> {
        let mut loaded = typed_loader(types, filter, filter.map_or(0, KernelFilter::gathered))?
            .constant(names::TRACE_OFFSETS, types.more)
            .constant(names::SNAPLEN, config.snaplen)
            .constant(names::RATE, config.rate.unwrap_or(0))
            .constant(names::STACK, u8::from(config.stack))
            .constant(names::RING_SIZE, u64::from(RING_SIZE))
            .max_entries(names::RING, RING_SIZE)
            .load(names::TRACE_DROP, Arguments::Typed(types.layout.tracepoint.type_id))?;
        let ranges = ranges(&mut loaded, filter)?;
        let ring = RingBuf::try_from(loaded.take(names::RING)?)?;
        let counters = PerCpuArray::try_from(loaded.take(names::UNSHOWN)?)?;
        let state = Array::try_from(loaded.take(names::RATE_STATE)?)?;
        let sampling = config.rate.map(|limit| Sampling::new(state, limit)).transpose()?;
        let link = Some(loaded.attach()?);
        let unseen = Arc::new(Unseen { counters, program: loaded.program() });
        let has_reason = types.layout.has_reason();
        Ok(Self { ring, ranges: Some(ranges), unseen, sampling, link, has_reason })
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
