//! The maps of counters, read whole.

use std::{io, os::fd::AsFd as _, sync::Arc};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{self, Array, ArrayOfMaps, Map, MapData, PerCpuArray},
};
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_PERCPU_HASH};
use dropwatch_common::{
    DropKey,
    cache::Cache,
    chain::Chain,
    kind, names,
    row::{GENERATIONS, KeyWords, RowKey, known},
};
use hashbrown::HashMap;

use crate::{
    model::{references::References, snapshot::Counts},
    probe::{
        buckets::Buckets,
        loader::Shared,
        new_map::{self, definition},
        references::Chains,
    },
    sys::BatchReader,
};

/// What has been counted.
pub struct Reading {
    /// By key.
    pub counts: Counts,
    /// Whether they are the last of these counters: the next ones start from zero.
    pub last: bool,
    /// Whether the next ones refer to the same chains by other numbers.
    pub renumbers: bool,
}

/// What the probe counts in.
pub enum Counters {
    /// By location and reason.
    Drops(Box<Drops>),
    /// By any other keys.
    Rows(Box<Rows>),
}

impl Counters {
    /// The counts so far.
    pub fn read(&mut self) -> Result<Reading> {
        match self {
            Self::Drops(drops) => Ok(Reading { counts: drops.read()?, last: false, renumbers: false }),
            Self::Rows(rows) => rows.read(),
        }
    }

    /// What the keys of the last reading refer to.
    pub fn references(&self, keys: &mut dyn Iterator<Item = &RowKey>) -> References {
        match self {
            Self::Drops(_) => References::default(),
            Self::Rows(rows) => rows.references.references(keys),
        }
    }
}

/// Counters by location and reason: each CPU has some for the keys that came first, and all share the map.
pub struct Drops {
    cache: PerCpuArray<MapData, Cache>,
    map: CountMap<DropKey>,
    /// Whether the probe tells kinds of packets apart.
    has_kinds: bool,
}

impl Drops {
    /// A reader of the two maps.
    pub fn new(cache: Map, map: Map, has_kinds: bool) -> Result<Self> {
        Ok(Self { cache: PerCpuArray::try_from(cache)?, map: CountMap::new(map, 1)?, has_kinds })
    }

    fn read(&mut self) -> Result<Counts> {
        let mut counts: HashMap<DropKey, u64> = HashMap::new();
        self.map.read(|key, count| counts.extend(key.first().map(|key| (*key, count))))?;
        let caches = self.cache.get(&0, 0).context("cannot read the drop counts from the kernel")?;
        for slot in caches.iter().flat_map(|cache| &cache.0).filter(|slot| slot.key.location != 0) {
            *counts.entry(slot.key).or_default() += slot.count;
        }
        let known = if self.has_kinds { known::KIND } else { 0 };
        let row = |(DropKey { location, reason, kind }, count)| {
            let kind = u8::try_from(kind).unwrap_or(kind::UNKNOWN);
            (RowKey { location, reason, kind, known, ..RowKey::default() }, count)
        };
        Ok(counts.into_iter().map(row).collect())
    }
}

/// A map of counters for every CPU.
struct CountMap<K> {
    map: Map,
    batch: BatchReader<K>,
}

impl<K: Pod + Default> CountMap<K> {
    /// A reader of a per-CPU hash map whose keys are so many `K`.
    fn new(map: Map, parts: usize) -> Result<Self> {
        Ok(Self { map, batch: BatchReader::of_parts(parts, cpus()?) })
    }

    /// Calls `visit` with each key and its count, in a call or two.
    fn read(&mut self, mut visit: impl FnMut(&[K], u64)) -> Result<()> {
        let fd = data(&self.map)?.fd().as_fd();
        let read = self.batch.read(fd, |key, values| visit(key, values.iter().sum()));
        read.context("cannot read the drop counts from the kernel")
    }
}

/// How many CPUs there may be.
pub fn cpus() -> Result<usize> {
    aya::util::nr_cpus()
        .map_err(|(path, error)| anyhow::Error::new(error).context(format!("cannot read {path}")))
}

fn data(counters: &Map) -> io::Result<&MapData> {
    let Map::PerCpuHashMap(data) = counters else { return Err(io::ErrorKind::InvalidInput.into()) };
    Ok(data)
}

/// Counters whose keys come and go: before they are full, a fresh generation takes their place.
pub struct Rows {
    /// The maps that the probe counts in, by generation.
    counters: ArrayOfMaps<MapData, MapData>,
    /// Those of the call chains that the rows refer to, if they are counted by them.
    chains: Option<ArrayOfMaps<MapData, MapData>>,
    /// The number of the generation that counts.
    current: Array<MapData, u32>,
    generation: Generation,
    references: Chains,
    room: Room,
    words: KeyWords,
    /// What is counted before that, if it is used.
    buckets: Option<Buckets>,
}

/// How much room a generation has.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// For rows.
    pub rows: u32,
    /// For the chains that they refer to.
    pub chains: u32,
}

impl Room {
    /// What takes the place of maps that are no longer used.
    const NONE: Self = Self { rows: 1, chains: 1 };

    /// Whether there is still as much room as has been taken: as many new keys as came in this generation fit
    /// before the next reading.
    fn is_half_empty(self, rows: usize, chains: usize) -> bool {
        rows < self.rows.div_ceil(2) as usize && chains < self.chains.div_ceil(2) as usize
    }
}

/// Counters, and what their keys refer to.
pub struct Generation {
    number: u32,
    counters: CountMap<u64>,
    /// How many rows there were at the last reading.
    rows: usize,
    chains: Option<maps::HashMap<MapData, u64, Chain>>,
}

/// What the maps of all generations are in, which programs refer to.
pub struct Generations {
    /// Of rows.
    counters: ArrayOfMaps<MapData, MapData>,
    /// Of call chains, if rows are counted by them.
    chains: Option<ArrayOfMaps<MapData, MapData>>,
}

impl Generations {
    /// Without any yet; and what a program that counts in them is to share.
    pub fn new(words: KeyWords, has_chains: bool) -> Result<(Self, Shared)> {
        let mut shared = Shared::new();
        let mut array = |name, like: &aya_obj::Map| {
            let made = new_map::create_array(name, GENERATIONS, like)?;
            shared.push((name, Arc::new(made.try_clone()?)));
            anyhow::Ok(ArrayOfMaps::try_from(Map::ArrayOfMaps(MapData::from_fd(made)?))?)
        };
        let counters = array(names::ROWS, &rows_of(words, 1))?;
        let chains = has_chains.then(|| array(names::CHAINS, &chains_of(1))).transpose()?;
        Ok((Self { counters, chains }, shared))
    }

    /// Makes room for the first one.
    ///
    /// When a map is put into an array of maps, the kernel waits for all running programs, which takes as long as loading one.
    pub fn begin(&mut self, room: Room, words: KeyWords) -> Result<Generation> {
        Generation::install(0, &mut self.counters, self.chains.as_mut(), (room, words))
    }
}

impl Rows {
    /// What the probe counts in: the number of the generation is zero.
    pub fn new(
        Generations { counters, chains }: Generations,
        generation: Generation,
        buckets: Option<Buckets>,
        current: Map,
        (room, words): (Room, KeyWords),
    ) -> Result<Self> {
        let (current, references) = (Array::try_from(current)?, Chains::default());
        Ok(Self { counters, chains, current, generation, references, room, words, buckets })
    }

    fn read(&mut self) -> Result<Reading> {
        self.references.begin();
        let mut counts = self.generation.read(self.words, self.buckets.as_ref())?;
        self.generation.number_chains(&mut counts, &mut self.references)?;
        if self.room.is_half_empty(counts.len(), self.references.of_generation()) {
            return Ok(Reading { counts, last: false, renumbers: false });
        }
        let mut old = self.renew()?;
        let mut counts = old.read(self.words, self.buckets.as_ref())?;
        if let Some(buckets) = &self.buckets {
            buckets.clear(old.number);
        }
        old.number_chains(&mut counts, &mut self.references)?;
        let renumbers = self.references.end_generation();
        Ok(Reading { counts, last: true, renumbers })
    }

    /// Has the probe count in a fresh generation; the one before, which is final.
    ///
    /// Each run of the probe reads the number once and keeps to that generation. Its maps stay where they are until every
    /// run that has read the old number is over: one that was held up would count in what had taken their place. Then no
    /// drop is in neither or in both, and none has its row in one and its chain in the other.
    fn renew(&mut self) -> Result<Generation> {
        let (old, next) = (self.generation.number, 1 - self.generation.number);
        let fresh =
            Generation::install(next, &mut self.counters, self.chains.as_mut(), (self.room, self.words))?;
        self.current.set(0, next, 0)?;
        // When a map is put into an array of maps, even where it is already, the kernel waits for all running programs.
        self.counters.set(next, data(&fresh.counters.map)?, 0)?;
        // Leaves nothing in the kernel once the old maps have been read.
        Generation::install(old, &mut self.counters, self.chains.as_mut(), (Room::NONE, self.words))?;
        Ok(std::mem::replace(&mut self.generation, fresh))
    }
}

impl Generation {
    /// Puts fresh maps in the place of a generation.
    fn install(
        number: u32,
        rows: &mut ArrayOfMaps<MapData, MapData>,
        chains: Option<&mut ArrayOfMaps<MapData, MapData>>,
        (room, words): (Room, KeyWords),
    ) -> Result<Self> {
        let chains = match chains {
            Some(outer) => {
                let chains = MapData::from_fd(new_map::create("chains", &chains_of(room.chains))?)?;
                outer.set(number, &chains, 0)?;
                Some(maps::HashMap::try_from(Map::HashMap(chains))?)
            }
            None => None,
        };
        let counters = MapData::from_fd(new_map::create("rows", &rows_of(words, room.rows))?)?;
        rows.set(number, &counters, 0)?;
        let counters = CountMap::new(Map::PerCpuHashMap(counters), words.count())?;
        Ok(Self { number, counters, rows: 0, chains })
    }

    /// The counts so far. A key may be in the buckets of several CPUs, and in the map.
    fn read(&mut self, words: KeyWords, buckets: Option<&Buckets>) -> Result<Counts> {
        let mut in_buckets: HashMap<RowKey, u64> = HashMap::new();
        if let Some(buckets) = buckets {
            buckets.read(self.number, |key, count| *in_buckets.entry(key).or_default() += count);
        }
        let mut counts = Counts::with_capacity(self.rows);
        self.counters.read(|key, count| {
            let key = words.key(key);
            let beside = if in_buckets.is_empty() { None } else { in_buckets.remove(&key) };
            counts.push((key, count + beside.unwrap_or(0)));
        })?;
        counts.extend(in_buckets);
        self.rows = counts.len();
        Ok(counts)
    }

    /// Gives chains that are the same without our own frames the same number.
    fn number_chains(&self, counts: &mut Counts, references: &mut Chains) -> Result<()> {
        let Some(chains) = &self.chains else { return Ok(()) };
        for (key, _) in counts {
            if key.known & known::STACK != 0 {
                let read =
                    |number: u64| chains.get(&number, 0).context("cannot read a call chain from the kernel");
                key.stack = references.number(key.stack, key.location, read)?;
            }
        }
        Ok(())
    }
}

/// A map of counters by location, reason and kind.
pub fn drops_of(entries: u32) -> aya_obj::Map {
    definition(BPF_MAP_TYPE_PERCPU_HASH, size_of::<DropKey>(), size_of::<u64>(), entries)
}

/// A map of counters by these words of a key.
fn rows_of(words: KeyWords, entries: u32) -> aya_obj::Map {
    definition(BPF_MAP_TYPE_PERCPU_HASH, words.count() * size_of::<u64>(), size_of::<u64>(), entries)
}

/// A map of call chains by number.
fn chains_of(entries: u32) -> aya_obj::Map {
    definition(BPF_MAP_TYPE_HASH, size_of::<u64>(), size_of::<Chain>(), entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_ends_when_half_of_either_is_taken() {
        let room = Room { rows: 1000, chains: 64 };
        assert!(room.is_half_empty(499, 31));
        assert!(!room.is_half_empty(500, 0));
        assert!(!room.is_half_empty(0, 32));
        assert!(!Room { rows: 1, chains: 1 }.is_half_empty(1, 0));
    }
}
