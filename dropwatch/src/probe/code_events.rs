//! Code that comes and goes without a module: trampolines of BPF programs, which `perf_event_open(2)` announces.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::util::online_cpus;
use aya_obj::generated::perf_event_type::{PERF_RECORD_KSYMBOL, PERF_RECORD_LOST};

use crate::{kernel::symbols::CodeWatch, sys::SymbolEvents};

/// What the names of trampolines begin with.
const TRAMPOLINE: &[u8] = b"bpf_trampoline_";
/// In a record of a symbol, where its name begins.
const NAME: usize = 24;

/// The announcements of all CPUs.
#[derive(Debug)]
pub struct CodeEvents(Vec<SymbolEvents>);

impl CodeEvents {
    /// Announcements from now on.
    ///
    /// # Errors
    /// `EACCES` without `CAP_PERFMON`; `EINVAL` on kernels without such announcements.
    pub fn open() -> io::Result<Self> {
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        cpus.into_iter().map(SymbolEvents::open).collect::<io::Result<_>>().map(Self)
    }
}

impl CodeWatch for CodeEvents {
    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(SymbolEvents::as_fd).collect()
    }

    fn take(&mut self) -> bool {
        // All of them: what is not taken wakes the reader again.
        self.0.iter_mut().fold(false, |found, events| has_trampoline(&events.take()) | found)
    }
}

/// Whether one of the records is of a trampoline that came or went, or says that others are missing.
fn has_trampoline(mut records: &[u8]) -> bool {
    // The type, flags, and the length of the whole record.
    while let Some([t0, t1, t2, t3, _, _, l0, l1]) = records.first_chunk() {
        let kind = u32::from_ne_bytes([*t0, *t1, *t2, *t3]);
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let Some((record, rest)) = records.split_at_checked(length).filter(|(record, _)| !record.is_empty())
        else {
            return true;
        };
        let is_trampoline = record.get(NAME..).is_some_and(|name| name.starts_with(TRAMPOLINE));
        if kind == PERF_RECORD_LOST as u32 || kind == PERF_RECORD_KSYMBOL as u32 && is_trampoline {
            return true;
        }
        records = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, name: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend((u16::try_from(NAME + name.len()).expect("short")).to_ne_bytes());
        bytes.resize(NAME, 0);
        bytes.extend(name);
        bytes
    }

    #[test]
    fn trampolines_are_found_among_other_records() {
        let program = record(17, b"bpf_prog_0123456789abcdef_f\0\0\0\0\0");
        let trampoline = record(17, b"bpf_trampoline_6442541422\0\0\0\0\0\0\0");
        let mapping = record(1, b"bpf_trampoline_6442541422\0\0\0\0\0\0\0");
        let lost = record(2, b"");
        assert!(!has_trampoline(&[]));
        assert!(!has_trampoline(&[program.clone(), mapping, program.clone()].concat()));
        assert!(has_trampoline(&[program.clone(), trampoline].concat()));
        assert!(has_trampoline(&[program, lost].concat()));
    }

    #[test]
    fn what_cannot_be_read_is_a_reason_to_look() {
        assert!(has_trampoline(&record(17, b"x")[..20]));
        assert!(has_trampoline(&[0; 8]));
    }
}
