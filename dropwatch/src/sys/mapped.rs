//! What the kernel keeps, mapped into memory.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::AtomicU64,
};

/// The values of an array (`BPF_F_MMAPABLE`), which programs write at any time.
#[derive(Debug)]
pub struct MappedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to this alone, and its words are atomic.
unsafe impl Send for MappedWords {}

impl MappedWords {
    /// The first words of an array.
    ///
    /// # Errors
    /// `EINVAL` for an array that is shorter; whatever else the kernel answers.
    pub fn of_map(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        Ok(Self { start: mapped(Some(map), count * 8, access, libc::MAP_SHARED)?.cast(), count })
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: as many words were mapped, and stay so while this lives; any bytes make one.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: what was mapped, and is used no more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * 8) };
    }
}

/// Zeros that take no memory until they are written.
#[derive(Debug)]
pub struct Room {
    start: NonNull<u32>,
    words: usize,
}

impl Room {
    /// Room for so many words.
    ///
    /// # Errors
    /// There is none in the address space.
    pub fn new(words: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let start = mapped(None, words * size_of::<u32>(), access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)?;
        Ok(Self { start: start.cast(), words })
    }

    /// The words.
    pub fn words(&mut self) -> &mut [u32] {
        // SAFETY: as many words were mapped, and stay so while this lives, which alone refers to them; any bytes make one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: what was mapped, and is used no more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<u32>()) };
    }
}

/// The bytes of a file that never changes and that the kernel keeps in memory anyway, for as long as the process lives.
///
/// # Errors
/// The kernel does not let such a file be mapped.
pub fn map_constant(file: &File) -> io::Result<&'static [u8]> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let start = mapped(Some(file.as_fd()), length, libc::PROT_READ, libc::MAP_PRIVATE)?;
    // SAFETY: as many bytes were mapped, which nothing unmaps or writes.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), length) })
}

/// A new mapping, of a file or of zeros, at an address of the kernel's choice.
fn mapped(file: Option<BorrowedFd<'_>>, length: usize, access: i32, flags: i32) -> io::Result<NonNull<u8>> {
    let file = file.map_or(-1, |file| file.as_raw_fd());
    // SAFETY: it replaces no other mapping.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, file, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::Unsupported.into())
}
