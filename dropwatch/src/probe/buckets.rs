//! The buckets of rows that each CPU counts in before the map, read where they are mapped.

use std::{
    io,
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use aya::maps::Map;
use dropwatch_common::{
    bucket::{self, COUNTS, KEYS, WAYS},
    row::{KeyWords, RowKey, word},
};

use crate::sys::MappedWords;

/// How the buckets are arranged.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What their keys consist of.
    pub words: KeyWords,
    /// How many CPUs there may be.
    pub cpus: usize,
    /// How many there are for each of them and a generation.
    pub count: u32,
}

impl Shape {
    /// How many there are in all.
    pub fn entries(self) -> Result<u32> {
        Ok(bucket::first(u32::try_from(self.cpus)?, 0, self.count))
    }

    /// How many words a bucket has.
    pub fn size(self) -> usize {
        bucket::words(self.words.count())
    }
}

/// The buckets of all CPUs and generations.
pub struct Buckets {
    memory: MappedWords,
    shape: Shape,
}

impl Buckets {
    /// Maps them into memory.
    pub fn new(map: &Map, shape: Shape) -> Result<Self> {
        let map_words = || {
            let Map::Array(map) = map else { return Err(io::ErrorKind::InvalidInput.into()) };
            let words =
                usize::try_from(shape.entries().map_err(io::Error::other)?).map_err(io::Error::other)?;
            MappedWords::of_map(map.fd().as_fd(), words * shape.size())
        };
        let memory = map_words().context("cannot map the counters of rows into memory")?;
        Ok(Self { memory, shape })
    }

    /// Calls `visit` with each key of each CPU in a generation, and how many drops it has there.
    pub fn read(&self, generation: u32, mut visit: impl FnMut(RowKey, u64)) {
        for bucket in self.shape.of_generation(self.memory.words(), generation) {
            for (key, count) in (0..WAYS).filter_map(|way| self.shape.row(bucket, way)) {
                visit(key, count);
            }
        }
    }

    /// Makes room for a generation that is to come, when no run of the probe counts in the one before any more.
    pub fn clear(&self, generation: u32) {
        for bucket in self.shape.of_generation(self.memory.words(), generation) {
            // The first row is taken first.
            if bucket[0].load(Ordering::Relaxed) != 0 {
                for word in bucket {
                    word.store(0, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Shape {
    fn of_generation(self, words: &[AtomicU64], generation: u32) -> impl Iterator<Item = &[AtomicU64]> {
        let buckets = (0_u32..).take(self.cpus).flat_map(move |cpu| {
            let first = bucket::first(cpu, generation, self.count);
            first..first + self.count
        });
        buckets.filter_map(move |number| words.chunks_exact(self.size()).nth(usize::try_from(number).ok()?))
    }

    /// A row that is taken.
    ///
    /// On machines that reorder stores the tag may be seen before the key, which it does not fit then: the row is seen by the
    /// next reading.
    fn row(self, bucket: &[AtomicU64], way: usize) -> Option<(RowKey, u64)> {
        let tag = bucket[way].load(Ordering::Acquire);
        if tag == 0 {
            return None;
        }
        let mut key = [0; word::COUNT];
        let length = self.words.count();
        let (key, stored) = (&mut key[..length], &bucket[KEYS + way * length..]);
        key.iter_mut().zip(stored).for_each(|(word, stored)| *word = stored.load(Ordering::Relaxed));
        let count = bucket[COUNTS + way].load(Ordering::Relaxed);
        (bucket::tag(self.hash(key)) == tag).then(|| (self.words.key(key), count))
    }

    fn hash(self, key: &[u64]) -> u64 {
        let add = |hash: u64, (number, &value)| hash.wrapping_add(bucket::mixed(number, value));
        self.words.numbers().zip(key).fold(0, add)
    }
}

#[cfg(test)]
mod tests {
    use dropwatch_common::{probe::keys, row::GENERATIONS};

    use super::*;

    fn shape() -> Shape {
        Shape { words: KeyWords::of(keys::LOCATION | keys::DPORT, 0), cpus: 2, count: 4 }
    }

    /// As the probe takes a row.
    fn take(shape: Shape, words: &[AtomicU64], (cpu, generation, way): (u32, u32, usize), key: &[u64]) {
        let number =
            bucket::first(cpu, generation, shape.count) + bucket::place(shape.hash(key), shape.count);
        let bucket = &words[number as usize * shape.size()..];
        let key_at = KEYS + way * key.len();
        bucket[key_at..].iter().zip(key).for_each(|(word, value)| word.store(*value, Ordering::Relaxed));
        bucket[COUNTS + way].store(u64::from(cpu) + 1, Ordering::Relaxed);
        bucket[way].store(bucket::tag(shape.hash(key)), Ordering::Release);
    }

    #[test]
    fn rows_are_read_by_generation() {
        let shape = shape();
        let words = shape.size() * shape.entries().expect("few") as usize;
        let words: Vec<_> = (0..words).map(|_| AtomicU64::new(0)).collect();
        assert_eq!(shape.entries().expect("few") as usize, 2 * GENERATIONS * 4);
        take(shape, &words, (0, 0, 0), &[7, 1, 9 << 16]);
        take(shape, &words, (1, 0, 3), &[7, 1, 9 << 16]);
        take(shape, &words, (1, 1, 0), &[8, 2, 10 << 16]);
        let read = |generation| {
            let buckets = shape.of_generation(&words, generation);
            buckets.flat_map(|bucket| (0..WAYS).filter_map(|way| shape.row(bucket, way))).collect::<Vec<_>>()
        };
        let key = RowKey { location: 7, reason: 1, dport: 9, ..RowKey::default() };
        assert_eq!(read(0), [(key, 1), (key, 2)]);
        assert_eq!(read(1), [(RowKey { location: 8, reason: 2, dport: 10, ..RowKey::default() }, 2)]);
    }

    #[test]
    fn a_row_whose_key_is_not_there_yet_is_read_later() {
        let shape = shape();
        let bucket: Vec<_> = (0..shape.size()).map(|_| AtomicU64::new(0)).collect();
        let key = [7, 1, 9 << 16];
        bucket[1].store(bucket::tag(shape.hash(&key)), Ordering::Relaxed);
        bucket[KEYS + 3].store(7, Ordering::Relaxed);
        assert_eq!(shape.row(&bucket, 1), None);
        bucket[KEYS + 4].store(1, Ordering::Relaxed);
        bucket[KEYS + 5].store(9 << 16, Ordering::Relaxed);
        assert!(shape.row(&bucket, 1).is_some());
    }
}
