//! The probe of `trace`: load, attach, and what it says beside its records.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{self, Array, MapData, PerCpuArray, RingBuf};
use dropwatch_common::{
    event::{LeftOut, RateState},
    names,
    socket::{SocketKey, SocketSeen},
};

use super::{
    batch::Batch,
    rate,
    refusal::explain,
    typed::{KernelFilter, filter_maps, interface_names, room, tell_names, typed_loader},
};
use crate::{
    kernel::btf::KernelBtf,
    model::{keys::Key, snapshot::Ledger},
    probe::{
        clock::Clock,
        ledger::Losses,
        loader::{Arguments, Loaded},
        offsets::{socket_offsets, trace_offsets},
        open_sockets::{SocketLister, SocketWatch},
        source::{AttachError, Decide, FilterMaps, Filtered, TrampolineMap},
        types::KernelTypes,
    },
    sys,
};

/// The ring buffer's size: some ten thousand small packets, which is what a busy machine drops while the reader is
/// not scheduled, and room for a few of the largest.
const RING_SIZE: u32 = 1 << 23;

/// Room for sockets that were seen before: some 2 MB.
const SOCKETS: u32 = 16_384;

/// What the probe of `trace` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceProbeConfig {
    /// The most bytes of each frame.
    pub snaplen: u32,
    /// The most drops a second, if they are limited.
    pub rate: Option<u32>,
    /// Whether call chains are requested.
    pub stack: bool,
    /// Whether sockets are.
    pub socket: bool,
}

/// A probe that hands over drops from [`TraceProbe::attach`] until [`TraceProbe::detach`] or its end.
pub struct TraceProbe {
    /// The records.
    pub ring: RingBuf<MapData>,
    /// Until they are handed over.
    filter_maps: Option<FilterMaps>,
    trampolines: Option<TrampolineMap>,
    decide: Option<Decide>,
    left_out: Arc<LeftOutCounters>,
    losses: Losses,
    /// What they were at the last call.
    lost: Ledger,
    sampling: Option<Sampling>,
    sockets: Option<TracedSockets>,
    /// What keeps the program attached.
    link: Option<OwnedFd>,
    has_reason: bool,
    /// Whether the tracepoint says which socket would have received a packet.
    has_sock: bool,
}

/// The sockets that packets belong to, if they are requested.
struct TracedSockets {
    /// Those that were seen: what is new is looked at more closely, and announced.
    seen: maps::HashMap<MapData, SocketKey, SocketSeen>,
    /// Until the session takes it.
    watch: Option<SocketWatch>,
}

/// How many drops the probe has seen and not handed over.
pub struct LeftOutCounters {
    counters: PerCpuArray<MapData, u64>,
    program: Arc<OwnedFd>,
}

/// Sets the share of the drops that the probe takes.
struct Sampling {
    state: Array<MapData, RateState>,
    limit: u32,
    since: Instant,
    /// Drops that were not handed over, at the last call.
    left_out: u64,
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
    ) -> Result<Self, AttachError> {
        Self::load(config, filter, kernel)
            .map_err(|error| explain(error, &format!("a ring buffer of {RING_SIZE} bytes")))
    }

    fn load(config: TraceProbeConfig, filter: Option<&KernelFilter>, kernel: &KernelBtf) -> Result<Self> {
        let types = KernelTypes::read(kernel, "dropwatch trace", trace_offsets)?;
        let names = interface_names(filter, &[]);
        let mut object = typed_loader(&types, filter, filter.map_or(0, KernelFilter::gathered))?
            .constant(names::TRACE_OFFSETS, types.more)
            .constant(names::SNAPLEN, config.snaplen)
            .constant(names::RATE, config.rate.unwrap_or(0))
            .constant(names::STACK, u8::from(config.stack))
            .constant(names::RING_SIZE, u64::from(RING_SIZE))
            .max_entries(names::RING, RING_SIZE)
            .max_entries(names::INTERFACES, room(&names));
        let (mut program, mut lister) = (names::TRACE_DROP, None);
        if config.socket || filter.is_some_and(|filter| filter.deciding.contains(&Key::Socket)) {
            let btf = kernel.get()?;
            let offsets = socket_offsets(btf)?;
            object = object.constant(names::SOCKET_OFFSETS, offsets).max_entries(names::SOCKETS, SOCKETS);
            (program, lister) = (names::TRACE_SOCKET_DROP, Some(SocketLister::load(btf, offsets)?));
        }
        let mut loaded = object.load(program, Arguments::Typed(types.layout.tracepoint.type_id))?;
        let sockets = lister.map(|lister| TracedSockets::new(&mut loaded, lister)).transpose()?;
        let filter_maps = Some(filter_maps(&mut loaded, filter)?);
        let trampolines = Some(Array::try_from(loaded.take(names::TRAMPOLINES)?)?);
        tell_names(&mut loaded, &names)?;
        let ring = RingBuf::try_from(loaded.take(names::RING)?)?;
        let counters = PerCpuArray::try_from(loaded.take(names::LEFT_OUT)?)?;
        let state = Array::try_from(loaded.take(names::RATE_STATE)?)?;
        let sampling = config.rate.map(|limit| Sampling::new(state, limit)).transpose()?;
        let losses = Losses::new(loaded.take(names::LEDGER)?)?;
        let link = Some(loaded.attach()?);
        let left_out = Arc::new(LeftOutCounters { counters, program: loaded.program() });
        let has_reason = types.layout.has_reason();
        let lost = Ledger::default();
        Ok(Self {
            ring,
            filter_maps,
            trampolines,
            decide: None,
            left_out,
            losses,
            lost,
            sampling,
            sockets,
            link,
            has_reason,
            has_sock: types.layout.has_sock(),
        })
    }

    /// Whether this kernel gives reasons for drops.
    #[must_use]
    pub fn has_reason(&self) -> bool {
        self.has_reason
    }

    /// Whether packets without a socket certainly belong to none.
    #[must_use]
    pub fn has_receivers(&self) -> bool {
        self.has_sock
    }

    /// How drops are decided about that passed because the kernel did not know all that decides.
    pub fn take_decide(&mut self) -> Option<Decide> {
        self.decide.take()
    }

    /// What the filter could not decide by since the last call.
    ///
    /// # Errors
    /// The kernel does not let its maps be read.
    pub fn newly_lost(&mut self) -> Result<Ledger> {
        let lost = self.losses.read(None)?;
        if let Some(sockets) = &mut self.sockets
            && lost.socket_failed > self.lost.socket_failed
        {
            sockets.make_room()?;
        }
        Ok(lost.since(std::mem::replace(&mut self.lost, lost)))
    }

    /// How many drops are not handed over.
    #[must_use]
    pub fn left_out(&self) -> Arc<LeftOutCounters> {
        Arc::clone(&self.left_out)
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
        sampling.adapt(self.left_out.read()?)
    }

    /// Ends the stream; what has been handed over can still be read.
    pub fn detach(&mut self) {
        self.link = None;
    }
}

impl TracedSockets {
    fn new(loaded: &mut Loaded, lister: SocketLister) -> Result<Self> {
        let seen = maps::HashMap::try_from(loaded.take(names::SOCKETS)?)?;
        let bell = RingBuf::try_from(loaded.take(names::SOCKET_BELL)?)?;
        Ok(Self { seen, watch: Some(SocketWatch { lister, bell }) })
    }

    /// Forgets those that were seen: records have their sockets in them.
    fn make_room(&mut self) -> Result<()> {
        let seen: Vec<_> = self.seen.keys().collect::<Result<_, _>>().context("cannot read the sockets")?;
        for key in &seen {
            // It is there only once.
            let _ = self.seen.remove(key);
        }
        Ok(())
    }
}

impl Filtered for TraceProbe {
    fn take_socket_watch(&mut self) -> Option<SocketWatch> {
        self.sockets.as_mut()?.watch.take()
    }

    fn take_trampolines(&mut self) -> Option<TrampolineMap> {
        self.trampolines.take()
    }

    fn take_filter_maps(&mut self) -> Option<FilterMaps> {
        self.filter_maps.take()
    }

    fn decide_by(&mut self, decide: Decide) {
        self.decide = Some(decide);
    }
}

impl LeftOutCounters {
    /// Since the probe was attached; those included that the kernel's recursion guard kept from the probe.
    pub fn read(&self) -> Result<u64> {
        let mut sum = 0;
        for why in [LeftOut::Lost, LeftOut::SampledOut] {
            let values = self.counters.get(&(why as u32), 0).context("cannot read the probe's counters")?;
            sum += values.iter().sum::<u64>();
        }
        let stats = sys::program_stats(self.program.as_fd()).context("cannot read the probe's statistics")?;
        Ok(sum + stats.recursion_missed.unwrap_or(0))
    }
}

impl Sampling {
    fn new(state: Array<MapData, RateState>, limit: u32) -> Result<Self> {
        let mut sampling = Self { state, limit, since: Instant::now(), left_out: 0, seen: 0 };
        sampling.tell(u32::MAX)?;
        Ok(sampling)
    }

    fn adapt(&mut self, left_out: u64) -> Result<()> {
        let elapsed = self.since.elapsed().max(Duration::from_millis(1));
        let drops = left_out.saturating_sub(self.left_out) + self.seen;
        (self.since, self.left_out, self.seen) = (Instant::now(), left_out, 0);
        self.tell(rate::share(self.limit, drops, elapsed))
    }

    /// What the probe has taken meanwhile is overwritten as it was: it holds to the limit until the second is over.
    fn tell(&mut self, share: u32) -> Result<()> {
        let state = self.state.get(&0, 0).context("cannot read the probe's rate")?;
        let state = RateState { share, ..state };
        self.state.set(0, state, 0).context("cannot set the probe's rate")
    }
}
