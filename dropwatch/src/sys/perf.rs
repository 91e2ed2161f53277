//! `perf_event_open(2)`: rings of records that the kernel writes, and events of functions.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya_obj::generated::{
    perf_event_attr, perf_event_mmap_page, perf_sw_ids::PERF_COUNT_SW_DUMMY, perf_type_id::PERF_TYPE_SOFTWARE,
};
use nix::unistd::{SysconfVar, sysconf};

/// Announcements of the symbols of one CPU: a page that says how far they reach, and one of records.
#[derive(Debug)]
pub struct SymbolEvents {
    event: OwnedFd,
    header: NonNull<perf_event_mmap_page>,
    page: usize,
}

// SAFETY: the mapping belongs to the ring alone, and no thread is special to it.
unsafe impl Send for SymbolEvents {}

impl SymbolEvents {
    /// Those of a CPU, from now on.
    ///
    /// # Errors
    /// `EACCES` without `CAP_PERFMON`; `EINVAL` on kernels without such announcements.
    pub fn open(cpu: u32) -> io::Result<Self> {
        let event = open_event(cpu)?;
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|page| usize::try_from(page).ok());
        let page = page.ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let mapped = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), 2 * page, access, libc::MAP_SHARED, event.as_raw_fd(), 0)
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let header = NonNull::new(mapped.cast()).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { event, header, page })
    }

    /// Takes all records, as `perf_event_open(2)` lays them out.
    pub fn take(&mut self) -> Vec<u8> {
        // SAFETY: both are words of the mapping, which the kernel writes or reads at any time.
        let (head, tail) = unsafe {
            let header = self.header.as_ptr();
            (
                AtomicU64::from_ptr(&raw mut (*header).data_head),
                AtomicU64::from_ptr(&raw mut (*header).data_tail),
            )
        };
        let (end, start) = (head.load(Ordering::Acquire), tail.load(Ordering::Relaxed));
        let records = (start..end).map(|position| self.byte(position)).collect();
        tail.store(end, Ordering::Release);
        records
    }

    /// A byte that has been written and is not freed yet.
    fn byte(&self, position: u64) -> u8 {
        let offset = self.page + usize::try_from(position).unwrap_or(0) % self.page;
        // SAFETY: inside the second page.
        unsafe { self.header.as_ptr().cast::<u8>().add(offset).read_volatile() }
    }
}

impl AsFd for SymbolEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for SymbolEvents {
    fn drop(&mut self) {
        // SAFETY: what was mapped, and is used no more.
        unsafe { libc::munmap(self.header.as_ptr().cast(), 2 * self.page) };
    }
}

/// An event that counts nothing and announces symbols of the kernel.
fn open_event(cpu: u32) -> io::Result<OwnedFd> {
    let mut event = zeroed_event();
    event.type_ = PERF_TYPE_SOFTWARE as u32;
    event.config = PERF_COUNT_SW_DUMMY as u64;
    event.set_ksymbol(1);
    // Each record wakes the reader.
    event.set_watermark(1);
    event.__bindgen_anon_2.wakeup_watermark = 1;
    open(event, cpu)
}

/// The event of a function's calls or returns; `kind` is the number of such events.
pub(super) fn function_event(kind: u32, address: u64, at_end: bool) -> io::Result<OwnedFd> {
    let mut event = zeroed_event();
    event.type_ = kind;
    event.config = u64::from(at_end);
    event.__bindgen_anon_4.kprobe_addr = address;
    // Programs run on all CPUs, wherever their event is.
    open(event, 0)
}

fn zeroed_event() -> perf_event_attr {
    // SAFETY: a structure of integers.
    unsafe { std::mem::zeroed() }
}

/// Opens an event of all processes.
fn open(mut event: perf_event_attr, cpu: u32) -> io::Result<OwnedFd> {
    const EVERY_PROCESS: libc::pid_t = -1;
    const NO_GROUP: c_int = -1;
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    event.size = u32::try_from(size_of::<perf_event_attr>()).map_err(io::Error::other)?;
    // SAFETY: the structure has the size that it says.
    let descriptor = unsafe {
        let event = &raw const event;
        libc::syscall(libc::SYS_perf_event_open, event, EVERY_PROCESS, cpu, NO_GROUP, CLOSE_ON_EXEC)
    };
    let descriptor = c_int::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
