//! The probe in the kernel: load, attach, read, detach.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    panic::resume_unwind,
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData, RingBuf};
use dropwatch_common::{
    bucket, cache, names,
    probe::{gather, keys},
    row::{KeyWords, PlainKeys, RowKey},
};

use super::{
    refusal::{explain, is_about_a_map, is_refusal},
    typed::{KernelFilter, filter_maps, interface_names, room, tell_names, typed_loader},
};
use crate::{
    kernel::btf::KernelBtf,
    model::{aggregate::merge, keys::Key, references::References, sample::Sample, snapshot::Snapshot},
    probe::{
        buckets::{Buckets, Shape},
        counters::{Counters, Drops, Generations, Reading, Room, Rows, cpus, drops_of},
        ledger::Losses,
        loader::{Arguments, Loaded, Loader, Refused, Shared},
        new_map,
        offsets::{socket_offsets, trace_offsets},
        open_sockets::{SocketLister, SocketWatch},
        sockets::Sockets,
        source::{AttachError, Decide, FilterMaps, Filtered, Source, TrampolineMap},
        types::{KernelTypes, drops_nest},
        undecided::Undecided,
    },
    sys::{self, ProgramStats},
};

/// Room for chains, of a kilobyte each.
const MOST_CHAINS: u32 = 16_384;

/// What the probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// What a row stands for.
    pub by: Vec<Key>,
    /// Room for distinct keys.
    pub max_rows: u32,
    /// Which drops are counted at all.
    pub filter: Option<KernelFilter>,
    /// Names of interfaces that rows tell apart, besides the own ones: each at the place of its bit.
    pub interfaces: Vec<String>,
}

impl ProbeConfig {
    /// Whether location and reason are enough, which needs no type information and less time.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.filter.is_none() && self.counts_kinds()
    }

    /// Whether a row stands for no more than a place and a reason.
    #[must_use]
    pub fn counts_kinds(&self) -> bool {
        self.by.iter().all(|key| matches!(key, Key::Location | Key::Reason | Key::Class))
    }

    /// Whether the kernel distinguishes more keys than were requested.
    fn counts_finer(&self) -> bool {
        self.by.contains(&Key::Stack)
            || self.by.contains(&Key::Socket)
            || self.filter.as_ref().is_some_and(|it| it.names_namespaces() || it.cases.count > 0)
            || self.is_plain() && !self.by.contains(&Key::Class)
    }

    /// Some chains are of drops whose rows had no room.
    fn room(&self) -> Room {
        Room { rows: self.max_rows, chains: self.max_rows.saturating_mul(2).min(MOST_CHAINS) }
    }

    fn keys(&self) -> u32 {
        let names = if self.interfaces.is_empty() { 0 } else { keys::IFACE_NAMES };
        let deciding = self.filter.iter().flat_map(|filter| &filter.deciding);
        self.by.iter().chain(deciding).fold(names, |bits, key| bits | key.bit())
    }

    /// How the buckets in front of the rows are arranged: none where drops nest, since two could take the same row.
    fn shape(&self, nested: bool) -> Result<Shape> {
        let (words, cpus) = (KeyWords::of(self.keys(), self.gathered()), cpus()?);
        let count = if nested { 0 } else { bucket::buckets(self.max_rows, cpus, words.count()) };
        Ok(Shape { words, cpus, count })
    }

    /// What is counted of plain packets, which are told from others unless user space decides.
    fn plain_keys(&self) -> PlainKeys {
        let has_cases = self.filter.as_ref().is_some_and(|filter| filter.cases.count > 0);
        if has_cases { PlainKeys::default() } else { PlainKeys::of(self.keys(), self.gathered()) }
    }

    fn gathered(&self) -> u32 {
        let filter = self.filter.as_ref().map_or(0, KernelFilter::gathered);
        let names = if self.interfaces.is_empty() { 0 } else { gather::IFACE_NAMES };
        self.by.iter().fold(filter | names, |bits, key| bits | key.gathered())
    }
}

/// A probe that counts drops from [`Probe::attach`] until its end.
///
/// Nothing is pinned: when the process dies, however it dies, the kernel takes the probe away.
pub struct Probe {
    config: ProbeConfig,
    counters: Counters,
    losses: Losses,
    /// If rows stand for sockets.
    sockets: Option<SocketSource>,
    /// Whether the tracepoint says which socket would have received a packet.
    has_sock: bool,
    /// Until the session takes them.
    filter_maps: Option<FilterMaps>,
    trampolines: Option<TrampolineMap>,
    /// The same, for another probe that decides alike and takes the same places for those of drops.
    shared: Shared,
    undecided: Undecided,
    program: Arc<OwnedFd>,
    /// What keeps the program attached.
    link: Option<OwnedFd>,
    has_reason: bool,
    #[cfg(feature = "bpf-log")]
    log: aya_log::EbpfLogger<&'static dyn log::Log>,
}

/// What a probe that counts by sockets has.
struct SocketSource {
    sockets: Sockets,
    lister: SocketLister,
    /// Until the session takes it.
    bell: Option<RingBuf<MapData>>,
}

impl Probe {
    /// Loads and attaches; every drop after this call is counted.
    ///
    /// # Errors
    /// A refusal by the kernel, with what can be done about it.
    pub fn attach(config: &ProbeConfig, kernel: &KernelBtf) -> Result<Self, AttachError> {
        let attached = if config.is_plain() {
            Self::attach_plain(config, kernel)
        } else {
            Self::attach_typed(config, kernel)
        };
        attached.map_err(|error| {
            explain(error, &format!("{} rows: ask for fewer with --max-rows", config.max_rows))
        })
    }

    /// Location and reason are handed to the program. The kinds of packets that classes depend on are read through the
    /// kernel's types; where there are none, or nothing may be read, drops are counted without.
    fn attach_plain(config: &ProbeConfig, kernel: &KernelBtf) -> Result<Self> {
        if config.by.contains(&Key::Class) {
            match Self::attach_kinds(config, kernel) {
                Err(error) if is_refusal(&error) && !is_about_a_map(&error) => {
                    log::info!(
                        "which packets were for groups is not known, so where that decides the class is 'lost': {error:#}"
                    );
                }
                probe => return probe,
            }
        }
        Self::attach_untyped(config, drops_nest(kernel))
    }

    fn attach_kinds(config: &ProbeConfig, kernel: &KernelBtf) -> Result<Self> {
        let make_counts = || Ok(new_map::create(names::COUNTS, &drops_of(config.max_rows))?);
        let (types, counts) = beside(make_counts, || KernelTypes::of_packets(kernel))?;
        let (nested, has_reason) = (types.nested, types.layout.has_reason());
        log::debug!("drops can nest on this kernel: {nested}");
        let loaded = plain_loader(config, nested, has_reason)
            .constant(names::OFFSETS, types.layout.offsets)
            .constant(names::KIND_REASONS, types.kind_reasons)
            .share(names::COUNTS, Arc::new(counts))
            .load(names::COUNT_KIND, Arguments::Typed(types.layout.tracepoint.type_id))?;
        Self::with_drops(config, loaded, has_reason, true)
    }

    /// The kernel itself says whether the tracepoint has a `reason` argument: a program that could read a
    /// missing argument is refused at attach. That needs no BTF and trusts no version.
    fn attach_untyped(config: &ProbeConfig, nested: bool) -> Result<Self> {
        log::debug!("drops can nest on this kernel: {nested}");
        let attach = |has_reason| {
            let loaded = plain_loader(config, nested, has_reason).load(names::COUNT_DROP, Arguments::Raw)?;
            Self::with_drops(config, loaded, has_reason, false)
        };
        match attach(true) {
            Err(error) if is_missing_argument(&error) => {
                log::debug!("the tracepoint has no reason argument");
                attach(false)
            }
            probe => probe,
        }
    }

    fn with_drops(
        config: &ProbeConfig,
        mut loaded: Loaded,
        has_reason: bool,
        has_kinds: bool,
    ) -> Result<Self> {
        let drops = Drops::new(loaded.take(names::CACHE)?, loaded.take(names::COUNTS)?, has_kinds)?;
        Self::new(config, loaded, Counters::Drops(Box::new(drops)), More::default(), has_reason)
    }

    /// The program reads structures of the kernel, where its type information says they are.
    fn attach_typed(config: &ProbeConfig, kernel: &KernelBtf) -> Result<Self> {
        let words = KeyWords::of(config.keys(), config.gathered());
        let (mut generations, shared) = Generations::new(words, config.keys() & keys::STACK != 0)?;
        let begin = || generations.begin(config.room(), words);
        let (typed, generation) = beside(begin, || Typed::load(config, kernel, shared))?;
        let Typed { mut loaded, buckets, lister, has_reason, has_sock } = typed;
        let current = loaded.take(names::GENERATION)?;
        let rows = Rows::new(generations, generation, buckets, current, (config.room(), words))?;
        let filter = config.filter.as_ref();
        let shared = [names::RANGES, names::NAMESPACES, names::POSSIBLE].into_iter();
        let shared = shared.filter(|name| filter.is_some() && loaded.has(name));
        let shared = shared.map(|name| Ok((name, loaded.share(name)?))).collect::<Result<_>>()?;
        tell_names(&mut loaded, &interface_names(filter, &config.interfaces))?;
        let more = More {
            shared,
            filter_maps: Some(filter_maps(&mut loaded, filter)?),
            sockets: lister.map(|lister| SocketSource::new(&mut loaded, lister)).transpose()?,
            has_sock,
        };
        Self::new(config, loaded, Counters::Rows(Box::new(rows)), more, has_reason)
    }

    /// Attaches what is loaded, and ready to count.
    fn new(
        config: &ProbeConfig,
        mut loaded: Loaded,
        counters: Counters,
        more: More,
        has_reason: bool,
    ) -> Result<Self> {
        let More { filter_maps, mut shared, sockets, has_sock } = more;
        shared.push((names::TRAMPOLINES, loaded.share(names::TRAMPOLINES)?));
        Ok(Self {
            config: config.clone(),
            counters,
            losses: Losses::new(loaded.take(names::LEDGER)?)?,
            sockets,
            has_sock,
            filter_maps,
            trampolines: Some(Array::try_from(loaded.take(names::TRAMPOLINES)?)?),
            shared,
            undecided: Undecided::default(),
            link: Some(loaded.attach()?),
            program: loaded.program(),
            has_reason,
            #[cfg(feature = "bpf-log")]
            log: aya_log::EbpfLogger::init_from_id(sys::program_id(loaded.program().as_fd())?)
                .context("this object is not built for logging")?,
        })
    }

    /// What it was attached with.
    #[must_use]
    pub fn config(&self) -> &ProbeConfig {
        &self.config
    }

    /// The maps by which its filter decides and places are found, for another probe to do so alike.
    pub(crate) fn maps_to_share(&self) -> &[(&'static str, Arc<OwnedFd>)] {
        &self.shared
    }

    /// Whether this kernel gives reasons for drops.
    #[must_use]
    pub fn has_reason(&self) -> bool {
        self.has_reason
    }
}

impl Source for Probe {
    fn snapshot(&mut self) -> Result<Snapshot> {
        // The counts first: a loss that is read later than the drops beside it is never missed.
        let Reading { mut counts, last, renumbers } = self.counters.read()?;
        #[cfg(feature = "bpf-log")]
        self.log.flush();
        let mut ledger = self.losses.read(self.stats()?.recursion_missed)?;
        if let Some(SocketSource { sockets, .. }) = &mut self.sockets {
            sockets.number(&mut counts, last)?;
        }
        let sockets = self.sockets.as_ref().map(|source| &source.sockets);
        let find = |number| sockets.and_then(|sockets| sockets.get(number)).cloned();
        ledger.undecided = self.undecided.decide(&mut counts, last, self.has_sock, &find);
        if self.config.counts_finer() {
            counts = merge(&counts, &self.config.by);
        }
        Ok(Snapshot { counts, last, renumbers, ledger })
    }

    fn references(&mut self, keys: &mut dyn Iterator<Item = &RowKey>) -> References {
        let keys: Vec<&RowKey> = keys.collect();
        let mut references = self.counters.references(&mut keys.iter().copied());
        if let Some(SocketSource { sockets, .. }) = &self.sockets {
            let known = keys.iter().filter_map(|key| Some((key.socket, sockets.get(key.socket)?.clone())));
            references.sockets = known.collect();
        }
        references.receivers = self.has_sock;
        references
    }

    fn counts(&mut self, sample: &Sample) -> bool {
        self.undecided.matches(sample, self.has_sock)
    }

    fn room(&self) -> u32 {
        self.config.max_rows
    }

    fn stats(&self) -> Result<ProgramStats> {
        sys::program_stats(self.program.as_fd()).context("cannot read the probe's statistics")
    }

    fn stop(&mut self) {
        self.link = None;
    }
}

impl Filtered for Probe {
    fn take_trampolines(&mut self) -> Option<TrampolineMap> {
        self.trampolines.take()
    }

    fn take_filter_maps(&mut self) -> Option<FilterMaps> {
        self.filter_maps.take()
    }

    fn decide_by(&mut self, decide: Decide) {
        self.undecided.decide = Some(decide);
    }

    fn take_socket_watch(&mut self) -> Option<SocketWatch> {
        let SocketSource { lister, bell, .. } = self.sockets.as_mut()?;
        Some(SocketWatch { lister: lister.clone(), bell: bell.take()? })
    }
}

/// A program with types that is loaded, and what belongs to it.
struct Typed {
    loaded: Loaded,
    buckets: Option<Buckets>,
    lister: Option<SocketLister>,
    has_reason: bool,
    has_sock: bool,
}

impl Typed {
    fn load(config: &ProbeConfig, kernel: &KernelBtf, shared: Shared) -> Result<Self> {
        let types = KernelTypes::read(kernel, "a key or a filter beyond location and reason", trace_offsets)?;
        log::debug!("drops can nest on this kernel: {}", types.nested);
        let (keys, filter) = (config.keys(), config.filter.as_ref());
        let names = interface_names(filter, &config.interfaces);
        let shape = config.shape(types.nested)?;
        let mut object = typed_loader(&types, filter, config.gathered())?
            .max_entries(names::INTERFACES, room(&names))
            .constant(names::TRACE_OFFSETS, types.more)
            .constant(names::KEYS, keys)
            .constant(names::KEY_WORDS, shape.words.0)
            .constant(names::KEY_LENGTH, u32::try_from(shape.words.count())?)
            .constant(names::PLAIN, config.plain_keys())
            .constant(names::BUCKET_COUNT, shape.count)
            .value_words(names::BUCKETS, shape.size())
            .max_entries(names::BUCKETS, shape.entries()?.max(1));
        object = shared.into_iter().fold(object, |object, (map, fd)| object.share(map, fd));
        let arguments = Arguments::Typed(types.layout.tracepoint.type_id);
        let (mut loaded, lister) = if keys & keys::SOCKET == 0 {
            (object.load(names::COUNT_ROW, arguments)?, None)
        } else {
            let btf = kernel.get()?;
            let offsets = socket_offsets(btf)?;
            object =
                object.constant(names::SOCKET_OFFSETS, offsets).max_entries(names::SOCKETS, config.max_rows);
            let load = || object.load(names::COUNT_SOCKET_ROW, arguments);
            let (loaded, lister) = beside(|| SocketLister::load(btf, offsets), load)?;
            (loaded, Some(lister))
        };
        let buckets = loaded.take(names::BUCKETS)?;
        let buckets = (shape.count > 0).then(|| Buckets::new(&buckets, shape)).transpose()?;
        let (has_reason, has_sock) = (types.layout.has_reason(), types.layout.has_sock());
        Ok(Self { loaded, buckets, lister, has_reason, has_sock })
    }
}

/// Loads a program while something else is made that belongs to it: the kernel takes its time for both.
fn beside<M: Send, P>(
    other: impl FnOnce() -> Result<M> + Send,
    load: impl FnOnce() -> Result<P>,
) -> Result<(P, M)> {
    thread::scope(|scope| {
        let made = thread::Builder::new().name("beside".to_owned()).spawn_scoped(scope, other)?;
        let loaded = load();
        let made = made.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((loaded?, made?))
    })
}

/// What every program is loaded with that counts by location and reason.
fn plain_loader(config: &ProbeConfig, nested: bool, has_reason: bool) -> Loader {
    // The cache is room beside the rows of `--max-rows`, and must not exceed a smaller number.
    let cached = !nested && config.max_rows as usize > cache::SLOTS;
    Loader::kfree_skb()
        .constant(names::HAS_REASON, u8::from(has_reason))
        .constant(names::NESTED, u8::from(nested))
        .constant(names::CACHED, u8::from(cached))
        .max_entries(names::COUNTS, config.max_rows)
}

/// What only a program with types has.
#[derive(Default)]
struct More {
    filter_maps: Option<FilterMaps>,
    shared: Shared,
    sockets: Option<SocketSource>,
    has_sock: bool,
}

impl SocketSource {
    fn new(loaded: &mut Loaded, lister: SocketLister) -> Result<Self> {
        Ok(Self {
            sockets: Sockets::new(loaded.take(names::SOCKETS)?),
            lister,
            bell: Some(RingBuf::try_from(loaded.take(names::SOCKET_BELL)?)?),
        })
    }
}

/// Whether attaching failed because the program reads an argument that the tracepoint does not have.
fn is_missing_argument(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref();
    matches!(refused, Some(Refused::Attach(error)) if error.raw_os_error() == Some(libc::EINVAL))
}
