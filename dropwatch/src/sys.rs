//! System calls that no crate offers: the one room with `unsafe` in it.
#![expect(unsafe_code, reason = "mostly raw bpf(2) calls; each one says why it is sound")]

use std::{
    ffi::{CStr, c_char},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya::Pod;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_info, bpf_prog_type};
use tokio::io::{Interest, unix::AsyncFd};

/// How many keys one batch asks for at first.
const BATCH: usize = 1024;

/// Calls `bpf(2)`; the result is not negative.
fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole, initialised union; the kernel reads no further than the size given, and
    // the pointers inside are the callers' responsibility.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(command as u32),
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Calls `bpf(2)` for something new: its descriptor, which no other program inherits.
fn bpf_new(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(command, attr)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An attribute with every byte zero, as bpf(2) wants the fields a command does not use.
fn zeroed_attr() -> bpf_attr {
    // SAFETY: `bpf_attr` is a union of plain integers and structures of integers.
    unsafe { std::mem::zeroed() }
}

/// Whether the system call is there at all.
///
/// # Errors
/// `ENOSYS` on a kernel without BPF; `EPERM` where a seccomp filter forbids it.
pub fn probe_bpf() -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = u32::MAX;
    match bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Err(error),
        // Anything else is the kernel's answer to a descriptor that does not exist.
        _ => Ok(()),
    }
}

/// A value as the kernel gets it.
pub fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: a `Pod` has no padding, so that all its bytes are initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The name of something new, cut to the length the kernel keeps.
fn name_of(name: &str) -> [c_char; 16] {
    let mut kept = [0; 16];
    for (kept, byte) in kept[..15].iter_mut().zip(name.bytes()) {
        *kept = byte.cast_signed();
    }
    kept
}

/// Makes a map; one of maps takes an example of what is inside.
///
/// # Errors
/// Whatever the kernel answers, `EPERM` also for too much memory before Linux 5.11.
pub fn create_map(
    name: &str,
    definition: &aya_obj::Map,
    inner: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_1.map_type = definition.map_type();
    attr.__bindgen_anon_1.key_size = definition.key_size();
    attr.__bindgen_anon_1.value_size = definition.value_size();
    attr.__bindgen_anon_1.max_entries = definition.max_entries();
    attr.__bindgen_anon_1.map_flags = definition.map_flags();
    attr.__bindgen_anon_1.map_name = name_of(name);
    attr.__bindgen_anon_1.inner_map_fd = inner.map_or(0, |inner| inner.as_raw_fd().cast_unsigned());
    bpf_new(bpf_cmd::BPF_MAP_CREATE, &mut attr)
}

/// Gives the only element of an array that was made by its definition the value in there.
///
/// # Errors
/// Whatever the kernel answers; `InvalidInput` for a value that is not of the size in there.
pub fn fill_map(map: BorrowedFd<'_>, definition: &aya_obj::Map) -> io::Result<()> {
    let (key, value) = (0_u32, definition.data());
    if value.len() != definition.value_size() as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = std::ptr::from_ref(&key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Ends all writing to a map from here, which makes its values constants to the verifier (Linux 5.2).
///
/// # Errors
/// Whatever the kernel answers.
pub fn freeze_map(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

/// A program for a tracepoint.
#[derive(Clone, Copy, Debug)]
pub struct NewProgram<'a> {
    /// What tools call it.
    pub name: &'a str,
    /// Its licence: most helpers are for those of the GPL.
    pub license: &'a CStr,
    /// What it does.
    pub instructions: &'a [bpf_insn],
    /// The number of the tracepoint's type in the kernel's type information, for a program that has the arguments
    /// with their types.
    pub typed: Option<u32>,
}

/// Loads a program; with room for it, the verifier says what it thinks.
///
/// # Errors
/// Whatever the kernel answers, `ENOSPC` for too little room.
pub fn load_program(program: &NewProgram<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let too_large = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32;
    attr.__bindgen_anon_3.insns = program.instructions.as_ptr() as u64;
    attr.__bindgen_anon_3.insn_cnt = program.instructions.len().try_into().map_err(too_large)?;
    attr.__bindgen_anon_3.license = program.license.as_ptr() as u64;
    attr.__bindgen_anon_3.prog_name = name_of(program.name);
    if let Some(id) = program.typed {
        attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
        attr.__bindgen_anon_3.expected_attach_type = bpf_attach_type::BPF_TRACE_RAW_TP as u32;
        attr.__bindgen_anon_3.attach_btf_id = id;
    }
    if !log.is_empty() {
        attr.__bindgen_anon_3.log_level = 1;
        attr.__bindgen_anon_3.log_buf = log.as_mut_ptr() as u64;
        attr.__bindgen_anon_3.log_size = log.len().try_into().map_err(too_large)?;
    }
    bpf_new(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Has a program run at a tracepoint for as long as the descriptor lives; one with types says itself at which.
///
/// # Errors
/// `ENOENT` if there is no such tracepoint, `EINVAL` if it does not have all arguments that the program reads.
pub fn attach_tracepoint(program: BorrowedFd<'_>, name: Option<&CStr>) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.raw_tracepoint.name = name.map_or(0, |name| name.as_ptr() as u64);
    attr.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
    bpf_new(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// Reads whole per-CPU hash maps of `u64` values with `BPF_MAP_LOOKUP_BATCH` (Linux 5.6).
#[derive(Debug)]
pub struct BatchReader<K> {
    cpus: usize,
    keys: Vec<K>,
    values: Vec<u64>,
}

impl<K: Pod + Default> BatchReader<K> {
    /// A reader for maps that have one value for each of `cpus` possible CPUs.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        Self::with_batch(cpus, BATCH)
    }

    /// The same, asking for `keys` keys at first.
    fn with_batch(cpus: usize, keys: usize) -> Self {
        let mut reader = Self { cpus, keys: Vec::new(), values: Vec::new() };
        reader.resize(keys);
        reader
    }

    fn resize(&mut self, keys: usize) {
        self.keys.resize_with(keys, K::default);
        self.values.resize(keys * self.cpus, 0);
    }

    /// Calls `visit` once for each key with its values, one a CPU.
    ///
    /// Keys inserted while the map is read may be missed; those that were there before are not, and as
    /// long as nobody deletes no key is visited twice.
    ///
    /// # Errors
    /// Whatever the kernel answers, `EINVAL` where it cannot read this kind of map in batches.
    pub fn read(&mut self, map: BorrowedFd<'_>, mut visit: impl FnMut(&K, &[u64])) -> io::Result<()> {
        // The kernel's cursor into a hash map is a bucket number of four bytes.
        let (mut cursor, mut next) = (0_u32, 0_u32);
        let mut started = false;
        loop {
            let (found, end) = match self.batch(map, started.then_some(&cursor), &mut next)? {
                Batch::Some(found) => (found, false),
                Batch::Last(found) => (found, true),
                Batch::TooSmall => {
                    self.resize(self.keys.len() * 2);
                    continue;
                }
            };
            for (key, values) in self.keys.iter().zip(self.values.chunks_exact(self.cpus)).take(found) {
                visit(key, values);
            }
            if end {
                return Ok(());
            }
            (cursor, started) = (next, true);
        }
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
            attr.batch.count = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
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

/// What the kernel counts about a loaded program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Runs, while somebody had BPF statistics enabled.
    pub runs: u64,
    /// Time spent in those runs, in nanoseconds.
    pub run_time_ns: u64,
    /// Runs the kernel's recursion guard skipped; `None` where the kernel does not count them (before 5.12).
    pub recursion_missed: Option<u64>,
}

/// Asks the kernel for a program's statistics.
///
/// # Errors
/// Whatever the kernel answers, such as `EPERM`.
pub fn program_stats(program: BorrowedFd<'_>) -> io::Result<ProgramStats> {
    let (info, known) = program_info(program)?;
    let counted = known >= std::mem::offset_of!(bpf_prog_info, recursion_misses) + size_of::<u64>();
    Ok(ProgramStats {
        runs: info.run_cnt,
        run_time_ns: info.run_time_ns,
        recursion_missed: counted.then_some(info.recursion_misses),
    })
}

/// The number by which the kernel lists a program.
///
/// # Errors
/// Whatever the kernel answers.
#[cfg(feature = "bpf-log")]
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(program_info(program)?.0.id)
}

/// What the kernel says about a program, and how many bytes of it are its own.
fn program_info(program: BorrowedFd<'_>) -> io::Result<(bpf_prog_info, usize)> {
    // SAFETY: a structure of plain integers.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = program.as_raw_fd().cast_unsigned();
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    attr.info.info_len = u32::try_from(size_of::<bpf_prog_info>()).unwrap_or(u32::MAX);
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: the kernel has left the number of bytes it knows in the same member.
    let known = unsafe { attr.info.info_len } as usize;
    Ok((info, known))
}

/// Has the event loop tell when there is something to read.
///
/// # Errors
/// A descriptor that cannot be waited for.
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is the same one for as long as it is owned, which is until after it is deregistered.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(Into::into)
}

/// Gives back to the system what the allocator keeps of memory that has been freed.
///
/// Loading parses megabytes of type information that nobody needs again; glibc would keep three quarters of what the
/// process then has.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks, and touches no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        os::fd::{AsFd as _, FromRawFd as _},
    };

    use aya_obj::generated::bpf_map_type;

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
                    assert!(std::env::var_os("DROPWATCH_REQUIRE_LIVE").is_none(), "this test needs root");
                    eprintln!("SKIPPED: making a map needs root");
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
            BatchReader::<u32>::with_batch(cpus, batch)
                .read(map.as_fd(), |key, values| {
                    assert!(
                        read.insert(*key, values.to_vec()).is_none(),
                        "{key} twice in batches of {batch}"
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
