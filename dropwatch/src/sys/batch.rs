//! Whole maps, read in batches.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;
use aya_obj::generated::bpf_cmd;

use super::bpf::{bpf, zeroed_attr};

/// How many keys the first batch reads.
const BATCH: usize = 1024;

/// Reads whole per-CPU hash maps of `u64` values with `BPF_MAP_LOOKUP_BATCH` (Linux 5.6).
#[derive(Debug)]
pub struct BatchReader<K> {
    cpus: usize,
    /// How many `K` a key is.
    parts: usize,
    keys: Vec<K>,
    values: Vec<u64>,
}

impl<K: Pod + Default> BatchReader<K> {
    /// A reader for maps that have one value for each of `cpus` possible CPUs; of other hash maps, for so many words in
    /// a value.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        Self::of_parts(1, cpus)
    }

    /// The same for keys that are so many `K`.
    #[must_use]
    pub fn of_parts(parts: usize, cpus: usize) -> Self {
        Self::with_batch(parts, cpus, BATCH)
    }

    /// The same, asking for `keys` keys at first.
    fn with_batch(parts: usize, cpus: usize, keys: usize) -> Self {
        let mut reader = Self { cpus, parts, keys: Vec::new(), values: Vec::new() };
        reader.resize(keys);
        reader
    }

    /// Has room for so many keys.
    fn resize(&mut self, keys: usize) {
        self.keys.resize_with(keys * self.parts, K::default);
        self.values.resize(keys * self.cpus, 0);
    }

    /// Calls `visit` once for each key with its values, one a CPU.
    ///
    /// Keys inserted while the map is read may be missed; those that were there before are not, and as
    /// long as nothing is deleted, no key is visited twice.
    ///
    /// # Errors
    /// Whatever the kernel answers, `EINVAL` where it cannot read this kind of map in batches.
    pub fn read(&mut self, map: BorrowedFd<'_>, mut visit: impl FnMut(&[K], &[u64])) -> io::Result<()> {
        // The kernel's cursor into a hash map is a bucket number of four bytes.
        let (mut cursor, mut next) = (0_u32, 0_u32);
        let mut started = false;
        loop {
            let (found, end) = match self.batch(map, started.then_some(&cursor), &mut next)? {
                Batch::Some(found) => (found, false),
                Batch::Last(found) => (found, true),
                Batch::TooSmall => {
                    self.resize(self.room() * 2);
                    continue;
                }
            };
            let keys = self.keys.chunks_exact(self.parts);
            for (key, values) in keys.zip(self.values.chunks_exact(self.cpus)).take(found) {
                visit(key, values);
            }
            if end {
                return Ok(());
            }
            (cursor, started) = (next, true);
        }
    }

    /// For how many keys there is room.
    fn room(&self) -> usize {
        self.keys.len() / self.parts
    }

    /// One call: fills the buffers from `cursor` (the start, if none) and leaves the next cursor in `next`.
    fn batch(&mut self, map: BorrowedFd<'_>, cursor: Option<&u32>, next: &mut u32) -> io::Result<Batch> {
        let mut attr = zeroed_attr();
        // SAFETY: the batch member is the one this command uses. Its buffers outlive the call, and hold
        // `count` keys and `count` values of eight bytes for each possible CPU, which is what is written.
        let (result, found) = unsafe {
            attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
            attr.batch.in_batch = cursor.map_or(0, |cursor| std::ptr::from_ref(cursor) as u64);
            attr.batch.out_batch = std::ptr::from_mut(next) as u64;
            attr.batch.keys = self.keys.as_mut_ptr() as u64;
            attr.batch.values = self.values.as_mut_ptr() as u64;
            attr.batch.count = u32::try_from(self.room()).unwrap_or(u32::MAX);
            let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
            (result, attr.batch.count as usize)
        };
        match result {
            Ok(_) => Ok(Batch::Some(found)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(Batch::Last(found)),
                Some(libc::ENOSPC) => Ok(Batch::TooSmall),
                _ => Err(error),
            },
        }
    }
}

/// What one batch call brought.
enum Batch {
    /// So many keys, and there are more.
    Some(usize),
    /// So many keys, the last ones.
    Last(usize),
    /// One bucket holds more keys than there is room for.
    TooSmall,
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        os::fd::{AsFd as _, FromRawFd as _, OwnedFd},
    };

    use aya_obj::generated::bpf_map_type;
    use dropwatch_testing::skip;

    use super::*;

    /// A per-CPU hash map of four-byte keys; none without the privilege to make one.
    fn map(max_entries: u32) -> Option<OwnedFd> {
        let mut attr = zeroed_attr();
        // SAFETY: the members that creating a map uses; the descriptor is new and ours.
        unsafe {
            let create = &mut attr.__bindgen_anon_1;
            create.map_type = bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH as u32;
            (create.key_size, create.value_size, create.max_entries) = (4, 8, max_entries);
            match bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr) {
                Ok(fd) => Some(OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor"))),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
                    skip("making a map needs root");
                    None
                }
            }
        }
    }

    fn insert(map: &OwnedFd, key: u32, values: &[u64]) {
        let mut attr = zeroed_attr();
        // SAFETY: the members that an update uses; both buffers outlive the call and have the map's sizes.
        unsafe {
            let update = &mut attr.__bindgen_anon_2;
            update.map_fd = map.as_raw_fd().cast_unsigned();
            update.key = std::ptr::from_ref(&key) as u64;
            update.__bindgen_anon_1.value = values.as_ptr() as u64;
            bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).expect("there is room");
        }
    }

    #[test]
    fn every_key_is_read_once_whatever_the_size_of_a_batch() {
        const KEYS: u32 = 3000;
        let cpus = aya::util::nr_cpus().expect("the number of CPUs");
        let Some(map) = map(KEYS) else { return };
        let expected: BTreeMap<u32, Vec<u64>> = (0..KEYS)
            .map(|key| (key, (0..cpus as u64).map(|cpu| u64::from(key) << 32 | cpu).collect()))
            .collect();
        for (key, values) in &expected {
            insert(&map, *key, values);
        }
        for batch in [1, 2, 7, 1024, 5000] {
            let mut read = BTreeMap::new();
            BatchReader::<u32>::with_batch(1, cpus, batch)
                .read(map.as_fd(), |key, values| {
                    assert!(
                        read.insert(key[0], values.to_vec()).is_none(),
                        "{key:?} twice in batches of {batch}"
                    );
                })
                .expect("the map is read");
            assert_eq!(read, expected, "in batches of {batch}");
        }
    }

    #[test]
    fn an_empty_map_has_no_keys() {
        let cpus = aya::util::nr_cpus().expect("the number of CPUs");
        let Some(map) = map(16) else { return };
        BatchReader::<u32>::new(cpus).read(map.as_fd(), |_, _| panic!("a key")).expect("the map is read");
    }
}
