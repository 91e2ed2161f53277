//! Maps that are made before the object that refers to them is read, or while its programs are loaded.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::{Map, generated::bpf_map_type};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::{probe::loader::Refused, sys};

/// What a map is like: the bytes of its keys and values, and its room.
pub(crate) fn definition(kind: bpf_map_type, key: usize, value: usize, entries: u32) -> Map {
    Map::new_from_params(kind as u32, size(key), size(value), entries, 0)
}

fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Makes a map.
///
/// # Errors
/// The kernel's refusal, with the map's name.
pub(crate) fn create(name: &str, definition: &Map) -> Result<OwnedFd, Refused> {
    made(name, definition, None)
}

fn made(name: &str, definition: &Map, inner: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Refused> {
    let made = with_memory(|| sys::create_map(name, definition, inner));
    made.map_err(|source| Refused::Map { name: name.to_owned(), source })
}

/// Makes an array of maps that are like this one: the kernel requires an example.
///
/// # Errors
/// As above.
pub(crate) fn create_array(name: &str, entries: usize, like: &Map) -> Result<OwnedFd, Refused> {
    let example = create(name, like)?;
    let array = definition(
        bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS,
        size_of::<u32>(),
        size_of::<u32>(),
        size(entries),
    );
    made(name, &array, Some(example.as_fd()))
}

/// Makes a system call that needs memory, and retries it without the limit that kernels before 5.11 have for
/// it: they take what is beyond it for a lack of privilege.
pub(crate) fn with_memory<T>(ask: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match ask() {
        Err(error)
            if error.raw_os_error() == Some(libc::EPERM)
                && setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok() =>
        {
            ask()
        }
        asked => asked,
    }
}
