//! Arrays of the kernel, mapped into memory.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
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
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let mapped = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), count * 8, access, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(mapped.cast()).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { start, count })
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
