//! The maps of counters, read whole.

use std::{io, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{ArrayOfMaps, Map, MapData, MapError, PerCpuArray, PerCpuHashMap},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH;
use dropwatch_common::{DropKey, cache::Cache, row::RowKey};
use hashbrown::HashMap;

use crate::sys::BatchReader;

/// The numbers of drops by key, each summed over the CPUs; keys are distinct, in no order.
pub type Counts = Vec<(RowKey, u64)>;

/// What the probe counts in.
pub enum Counters {
    /// By location and reason.
    Drops(Drops),
    /// By any other keys.
    Rows(Rows),
}

impl Counters {
    /// The counts so far, and whether they are the last of these counters: the next ones start from zero.
    pub fn read(&mut self) -> Result<(Counts, bool)> {
        match self {
            Self::Drops(drops) => Ok((drops.read()?, false)),
            Self::Rows(rows) => rows.read(),
        }
    }
}

/// Counters by location and reason: each CPU has some for the keys that came first, and all share the map.
pub struct Drops {
    cache: PerCpuArray<MapData, Cache>,
    map: CountMap<DropKey>,
}

impl Drops {
    /// A reader of the two maps.
    pub fn new(cache: Map, map: Map) -> Result<Self> {
        Ok(Self { cache: PerCpuArray::try_from(cache)?, map: CountMap::new(map)? })
    }

    fn read(&mut self) -> Result<Counts> {
        let mut counts: HashMap<DropKey, u64> = self.map.read()?.into_iter().collect();
        let caches = self.cache.get(&0, 0).context("cannot read the drop counts from the kernel")?;
        for slot in caches.iter().flat_map(|cache| &cache.0).filter(|slot| slot.key.location != 0) {
            *counts.entry(slot.key).or_default() += slot.count;
        }
        let row = |(DropKey { location, reason, .. }, count)| {
            (RowKey { location, reason, ..RowKey::default() }, count)
        };
        Ok(counts.into_iter().map(row).collect())
    }
}

/// A map of counters for every CPU.
pub struct CountMap<K> {
    map: Map,
    batch: BatchReader<K>,
    /// Until the kernel says that it cannot.
    batched: bool,
}

impl<K: Pod + Default> CountMap<K> {
    /// A reader of a per-CPU hash map.
    pub fn new(map: Map) -> Result<Self> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(path, error)| anyhow::Error::new(error).context(format!("cannot read {path}")))?;
        Ok(Self { map, batch: BatchReader::new(cpus), batched: true })
    }

    /// The counts, in a call or two; key by key on kernels that have no batches for this map.
    pub fn read(&mut self) -> Result<Vec<(K, u64)>> {
        if self.batched {
            match self.read_batched() {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    log::debug!("no batched look-ups on this kernel: reading key by key");
                    self.batched = false;
                }
                counts => return counts.context("cannot read the drop counts from the kernel"),
            }
        }
        self.read_by_key().context("cannot read the drop counts from the kernel")
    }

    fn read_batched(&mut self) -> io::Result<Vec<(K, u64)>> {
        let Map::PerCpuHashMap(data) = &self.map else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut counts = Vec::new();
        self.batch.read(data.fd().as_fd(), |key, values| counts.push((*key, values.iter().sum())))?;
        Ok(counts)
    }

    fn read_by_key(&self) -> Result<Vec<(K, u64)>, MapError> {
        PerCpuHashMap::try_from(&self.map)?
            .iter()
            .map(|entry| entry.map(|(key, values)| (key, values.iter().sum())))
            .collect()
    }
}

/// Counters whose keys come and go: before they are full, fresh ones take their place.
pub struct Rows {
    /// Of one element: the map that the probe counts in.
    current: ArrayOfMaps<MapData, MapData>,
    counters: CountMap<RowKey>,
    room: u32,
}

impl Rows {
    /// Makes room for so many rows, and has the probe count there.
    pub fn new(outer: Map, max_rows: u32) -> Result<Self> {
        let mut current = ArrayOfMaps::try_from(outer)?;
        let counters = install(&mut current, max_rows)?;
        Ok(Self { current, counters, room: max_rows })
    }

    /// The counts so far; the last ones if half of the rows are taken.
    ///
    /// When the kernel has put another map into the array it waits for every program that may still use the old
    /// one, so what is read after that is final: no drop is counted in neither or in both.
    fn read(&mut self) -> Result<(Counts, bool)> {
        let counts = self.counters.read()?;
        if counts.len() < self.room.div_ceil(2) as usize {
            return Ok((counts, false));
        }
        let fresh = install(&mut self.current, self.room)?;
        let mut old = std::mem::replace(&mut self.counters, fresh);
        Ok((old.read()?, true))
    }
}

fn install(current: &mut ArrayOfMaps<MapData, MapData>, max_rows: u32) -> Result<CountMap<RowKey>> {
    let key_size = u32::try_from(size_of::<RowKey>())?;
    let counter_size = u32::try_from(size_of::<u64>())?;
    let rows =
        aya_obj::Map::new_from_params(BPF_MAP_TYPE_PERCPU_HASH as u32, key_size, counter_size, max_rows, 0);
    let rows = MapData::create(rows, "rows", None)?;
    current.set(0, &rows, 0)?;
    CountMap::new(Map::PerCpuHashMap(rows))
}
