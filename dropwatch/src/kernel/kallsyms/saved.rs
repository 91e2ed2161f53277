//! A symbol table from a file, fitted to the running kernel.
//!
//! A `System.map` has the addresses the kernel was linked at, a saved `/proc/kallsyms` those of the boot it
//! was saved in; the running kernel was moved elsewhere when it booted (KASLR). The difference, the slide, is
//! where `_stext` is now minus where the file has it. Without it every name would be wrong, so a file whose
//! slide cannot be known, or that is of another kernel, is refused.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::escape::Escaped;
use thiserror::Error;

use super::{Index, State};

/// How many functions are compared with the running kernel's.
const SAMPLES: usize = 64;

/// The most that is read of `/proc/kcore`'s headers or notes, in bytes.
const MAX_NOTES: u64 = 1 << 20;

/// Start of the kernel's text: there since Linux 2.6, also in VMCOREINFO, the second name since 5.10.
const ANCHORS: [&str; 2] = ["_stext", "_text"];

/// A table that is right for the running kernel.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The symbols, at the addresses they have now.
    pub index: Index,
    /// What was added to the file's addresses (wrapping).
    pub slide: u64,
    /// What the user should know about the table.
    pub warnings: Vec<SavedWarning>,
}

/// What a usable file lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SavedWarning {
    /// Modules were left out: their addresses are chosen at every load, independent of the slide.
    ModulesDropped {
        /// How many.
        modules: usize,
    },
    /// The running kernel's symbols are hidden: that the file is of this kernel could not be verified.
    Unverified,
    /// Lines were left out: they are no symbols, or there is no room for them.
    LinesSkipped {
        /// How many.
        lines: u64,
    },
}

impl fmt::Display for SavedWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ModulesDropped { modules } => write!(
                f,
                "the symbols of {modules} modules are not used: the file is of another boot, and modules are \
                 loaded elsewhere at every boot"
            ),
            Self::LinesSkipped { lines } => write!(
                f,
                "{lines} lines of the symbol file are not used: they are no symbols, so it may be damaged"
            ),
            Self::Unverified => f.write_str(
                "cannot verify that the symbol file is of the running kernel: /proc/kallsyms is hidden; \
                 names are wrong if it is not",
            ),
        }
    }
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum SavedError {
    /// It cannot be opened or read.
    #[error("cannot read the symbol file {}: {cause}", Escaped::path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        cause: io::Error,
    },
    /// It has no function.
    #[error(
        "{} is not a symbol table: no line is `ADDRESS TYPE NAME`; give a System.map or a copy of \
         /proc/kallsyms",
        Escaped::path(path)
    )]
    NotATable {
        /// The file.
        path: PathBuf,
    },
    /// All its addresses are zero.
    #[error(
        "{} has only zero addresses: it was saved while they were hidden; save it again as root, with \
         kernel.kptr_restrict at 0 or 1",
        Escaped::path(path)
    )]
    Hidden {
        /// The file.
        path: PathBuf,
    },
    /// It has neither `_stext` nor `_text`, or several of them.
    #[error(
        "{} does not say where the kernel starts (no _stext): it is incomplete; give all of the System.map",
        Escaped::path(path)
    )]
    NoAnchor {
        /// The file.
        path: PathBuf,
    },
    /// Neither `/proc/kallsyms` nor `/proc/kcore` shows where the running kernel is.
    #[error(
        "cannot place {} in memory: /proc/kallsyms hides addresses and /proc/kcore does not tell where the \
         kernel was loaded; run as root with kernel.kptr_restrict at 0 or 1, or boot with nokaslr",
        Escaped::path(path)
    )]
    UnknownSlide {
        /// The file.
        path: PathBuf,
    },
    /// Its functions are not where the running kernel has them.
    #[error(
        "{} is of another kernel: {reason}; give the System.map of the release that `uname -r` names",
        Escaped::path(path)
    )]
    OtherKernel {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}

/// What is known of where the running kernel is.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// `/proc/kallsyms`, if its addresses are visible.
    pub symbols: Option<Index>,
    /// The address of `_stext` in VMCOREINFO, from `/proc/kcore`.
    pub stext: Option<u64>,
}

impl Running {
    /// Reads `/proc/kallsyms`, and `/proc/kcore` if that hides its addresses. Either may be unreadable.
    #[must_use]
    pub fn read() -> Self {
        let symbols = File::open("/proc/kallsyms")
            .and_then(|file| Index::read(BufReader::with_capacity(64 << 10, file)))
            .ok()
            .filter(|index| index.state() == State::Visible);
        let stext = if symbols.is_some() { None } else { stext_from_kcore(Path::new("/proc/kcore")) };
        Self { symbols, stext }
    }

    fn address(&self, name: &str) -> Option<u64> {
        match &self.symbols {
            Some(symbols) => symbols.unique(name),
            None => self.stext.filter(|_| name == "_stext"),
        }
    }
}

impl Saved {
    /// Reads `path`, a `System.map` or a saved `/proc/kallsyms`, and moves it to where `running` is.
    pub fn load(path: &Path, running: &Running) -> Result<Self, SavedError> {
        let index = File::open(path)
            .and_then(|file| Index::read(BufReader::with_capacity(64 << 10, file)))
            .map_err(|cause| SavedError::Read { path: path.into(), cause })?;
        Self::fit(index, path, running)
    }

    /// [`load`](Self::load) without the reading; `path` is for messages.
    pub fn fit(index: Index, path: &Path, running: &Running) -> Result<Self, SavedError> {
        let path = || path.to_path_buf();
        if index.state() == State::Hidden {
            return Err(SavedError::Hidden { path: path() });
        }
        if index.is_empty() {
            return Err(SavedError::NotATable { path: path() });
        }
        let file: Vec<_> = ANCHORS.iter().filter_map(|name| Some((*name, index.unique(name)?))).collect();
        if file.is_empty() {
            return Err(SavedError::NoAnchor { path: path() });
        }
        let slide = file
            .iter()
            .find_map(|&(name, address)| Some(running.address(name)?.wrapping_sub(address)))
            .ok_or_else(|| SavedError::UnknownSlide { path: path() })?;

        let mut warnings = Vec::new();
        if index.skipped_lines() > 0 {
            warnings.push(SavedWarning::LinesSkipped { lines: index.skipped_lines() });
        }
        match &running.symbols {
            Some(symbols) => verify(&index, symbols, slide)
                .map_err(|reason| SavedError::OtherKernel { path: path(), reason })?,
            None => warnings.push(SavedWarning::Unverified),
        }
        if slide == 0 {
            return Ok(Self { index, slide, warnings });
        }
        let (index, modules) = index.without_modules();
        if modules > 0 {
            warnings.push(SavedWarning::ModulesDropped { modules });
        }
        Ok(Self { index: index.shifted(slide), slide, warnings })
    }
}

/// Compares functions spread over the kernel; the error says what differs. Names that occur more than once
/// say nothing. A few may be missing (the kernel's own table leaves some out), none may be elsewhere.
fn verify(file: &Index, running: &Index, slide: u64) -> Result<(), String> {
    let (mut asked, mut found) = (0, 0);
    for symbol in file.samples(SAMPLES) {
        if file.unique(symbol.name).is_none() {
            continue;
        }
        asked += 1;
        let mut there = running.find(symbol.name);
        let (Some(first), None) = (there.next(), there.next()) else { continue };
        found += 1;
        let difference = first.start.wrapping_sub(symbol.start);
        if difference != slide {
            return Err(format!(
                "{} is {difference:#x} away from where the file has it, the kernel's start {slide:#x}",
                symbol.name
            ));
        }
    }
    if found * 2 < asked || asked == 0 {
        return Err(format!("of {asked} functions compared, the running kernel has {found}"));
    }
    Ok(())
}

/// `_stext` of the running kernel from the VMCOREINFO note of `/proc/kcore`, an ELF core file.
fn stext_from_kcore(path: &Path) -> Option<u64> {
    let file = File::open(path).ok()?;
    let read = |offset: u64, len: u64| -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).ok().filter(|_| len <= MAX_NOTES)?];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    };
    let header = read(0, 64)?;
    if !header.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let (table, size, count) =
        (number::<8>(&header, 32)?, number::<2>(&header, 54)?, number::<2>(&header, 56)?);
    let table = read(table, size * count)?;
    let note = table.chunks_exact(usize::try_from(size).ok().filter(|&size| size >= 56)?);
    note.filter(|program| number::<4>(program, 0) == Some(4))
        .filter_map(|program| read(number::<8>(program, 8)?, number::<8>(program, 32)?))
        .find_map(|notes| stext_from_vmcoreinfo(note_named(&notes, b"VMCOREINFO", None)?))
}

/// `SYMBOL(_stext)=` in VMCOREINFO, which is lines of text.
fn stext_from_vmcoreinfo(text: &[u8]) -> Option<u64> {
    text.split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"SYMBOL(_stext)="))
        .and_then(super::hex)
        .filter(|&address| address != 0)
}

/// The contents of the first note called `name` (of type `kind`, if given) in an ELF note section.
pub(crate) fn note_named<'a>(mut notes: &'a [u8], name: &[u8], kind: Option<u64>) -> Option<&'a [u8]> {
    let aligned = |size: u64| usize::try_from(size.next_multiple_of(4)).ok();
    loop {
        let (name_size, size) = (number::<4>(notes, 0)?, number::<4>(notes, 4)?);
        let is_kind = kind.is_none_or(|kind| number::<4>(notes, 8) == Some(kind));
        let rest = notes.get(12..)?;
        let (this, rest) = rest.split_at_checked(aligned(name_size)?)?;
        let contents = rest.get(..usize::try_from(size).ok()?)?;
        if is_kind && this.trim_ascii_end().strip_prefix(name).is_some_and(|end| end.iter().all(|&b| b == 0))
        {
            return Some(contents);
        }
        notes = rest.get(aligned(size)?..)?;
    }
}

/// The number of `N` bytes at `offset`, in the machine's byte order, as the kernel wrote it.
fn number<const N: usize>(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk::<N>()?;
    let mut all = [0; 8];
    if cfg!(target_endian = "big") {
        all[8 - N..].copy_from_slice(bytes);
    } else {
        all[..N].copy_from_slice(bytes);
    }
    Some(u64::from_ne_bytes(all))
}

#[cfg(test)]
mod tests {
    use dropwatch_testing::skip;

    use super::*;

    /// Lines of 200 functions of `size` bytes.
    fn functions(start: u64, size: u64) -> String {
        let functions = (0..200).map(|n| format!("{:x} t function_{n}\n", start + n * size));
        functions.chain([format!("{start:x} T _stext\n")]).collect::<Vec<_>>().concat()
    }

    /// A kernel of 200 functions of 32 bytes.
    fn kernel(start: u64, extra: &str) -> Index {
        let text = functions(start, 32) + &format!("{start:x} T _text\n{:x} T _etext\n", start + 200 * 32);
        Index::read((text + extra).as_bytes()).unwrap()
    }

    fn fit(file: Index, running: &Running) -> Result<Saved, SavedError> {
        Saved::fit(file, Path::new("System.map"), running)
    }

    const LINKED: u64 = 0xffff_ffff_8100_0000;
    const SLID: u64 = 0xffff_ffff_9f00_0000;

    #[test]
    fn a_system_map_is_moved_to_where_the_kernel_is() {
        let running = Running { symbols: Some(kernel(SLID, "")), stext: None };
        let saved = fit(kernel(LINKED, ""), &running).unwrap();
        assert_eq!(saved.slide, SLID - LINKED);
        assert_eq!(saved.warnings, []);
        assert_eq!(saved.index.lookup(SLID + 33).unwrap().name, "function_1");
        assert_eq!(saved.index.lookup(LINKED + 33), None);
    }

    #[test]
    fn a_kernel_that_moved_down_is_followed() {
        let running = Running { symbols: None, stext: Some(LINKED) };
        let saved = fit(kernel(SLID, ""), &running).unwrap();
        assert_eq!(saved.index.lookup(LINKED + 33).unwrap().name, "function_1");
        assert_eq!(saved.warnings, [SavedWarning::Unverified]);
    }

    #[test]
    fn modules_are_kept_only_where_nothing_moved() {
        let module = "ffffffffc0200000 t gre_rcv\t[gre]\n";
        let running = |start| Running { symbols: Some(kernel(start, "")), stext: None };
        let same_boot = fit(kernel(SLID, module), &running(SLID)).unwrap();
        assert_eq!(same_boot.index.lookup(0xffff_ffff_c020_0001).unwrap().name, "gre_rcv");
        assert_eq!(same_boot.warnings, []);

        let other_boot = fit(kernel(LINKED, module), &running(SLID)).unwrap();
        assert_eq!(other_boot.index.find("gre_rcv").count(), 0);
        assert_eq!(other_boot.warnings, [SavedWarning::ModulesDropped { modules: 1 }]);
    }

    #[test]
    fn a_file_of_another_kernel_is_refused() {
        let running = Running { symbols: Some(kernel(SLID, "")), stext: None };
        let text = functions(LINKED, 48);
        let moved = Index::read(text.as_bytes()).unwrap();
        assert!(matches!(fit(moved, &running), Err(SavedError::OtherKernel { .. })));

        let renamed = Index::read(text.replace("function", "other").as_bytes()).unwrap();
        assert!(matches!(fit(renamed, &running), Err(SavedError::OtherKernel { .. })));
    }

    #[test]
    fn lines_that_are_not_read_are_a_warning() {
        let running = Running { symbols: Some(kernel(SLID, "")), stext: None };
        let saved = fit(kernel(LINKED, "damaged\nffffffff81000020\n"), &running).unwrap();
        assert_eq!(saved.warnings, [SavedWarning::LinesSkipped { lines: 2 }]);
    }

    #[test]
    fn a_file_that_cannot_be_placed_is_refused() {
        let running = Running { symbols: Some(kernel(SLID, "")), stext: None };
        let index = |text: &str| Index::read(text.as_bytes()).unwrap();
        let hidden = fit(index("0000000000000000 T _stext\n"), &running);
        assert!(matches!(hidden, Err(SavedError::Hidden { .. })));
        assert!(matches!(fit(index("hello\n"), &running), Err(SavedError::NotATable { .. })));
        assert!(matches!(fit(index("ff T foo\n"), &running), Err(SavedError::NoAnchor { .. })));
        let unknown = fit(kernel(LINKED, ""), &Running::default());
        assert!(matches!(unknown, Err(SavedError::UnknownSlide { .. })));
        let missing = Saved::load(Path::new("/nonexistent"), &running).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read the symbol file /nonexistent: No such file"));
    }

    /// The running kernel's own table, moved down as if it were a `System.map`.
    #[test]
    fn the_running_kernels_map_is_moved_back() {
        let running = Running::read();
        let Some(symbols) = &running.symbols else { return skip("/proc/kallsyms is hidden") };
        let slide = 0x1e00_0000_u64;
        let map = symbols.clone().without_modules().0.shifted(slide.wrapping_neg());
        let saved = fit(map, &running).unwrap();
        assert_eq!((saved.slide, saved.warnings), (slide, vec![]));
        for symbol in symbols.samples(500) {
            let found = saved.index.lookup(symbol.start).unwrap();
            assert_eq!(Some(found.name), symbols.lookup(symbol.start).map(|symbol| symbol.name));
        }
    }

    fn note(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len(), contents.len()] {
            note.extend(u32::try_from(number).unwrap().to_ne_bytes());
        }
        note.extend(kind.to_ne_bytes());
        for part in [name, contents] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    /// A core file as `/proc/kcore` begins: header, a load segment, a note segment.
    fn core_file() -> Vec<u8> {
        let mut notes = note(b"CORE\0", 1, &[7; 13]);
        notes.extend(note(b"VMCOREINFO\0", 0, b"OSRELEASE=6.1\nSYMBOL(_stext)=ffffffff9f000000\nX=1\n"));
        let mut core = b"\x7fELF\x02".to_vec();
        core.resize(64 + 2 * 56, 0);
        core[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        core[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        core[56..58].copy_from_slice(&2_u16.to_ne_bytes());
        core[64..68].copy_from_slice(&1_u32.to_ne_bytes());
        core[120..124].copy_from_slice(&4_u32.to_ne_bytes());
        core[128..136].copy_from_slice(&(64 + 2 * 56_u64).to_ne_bytes());
        core[152..160].copy_from_slice(&(notes.len() as u64).to_ne_bytes());
        core.extend(notes);
        core
    }

    #[test]
    fn vmcoreinfo_tells_where_the_kernel_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kcore");
        let core = core_file();
        std::fs::write(&path, &core).unwrap();
        assert_eq!(stext_from_kcore(&path), Some(SLID));
        for length in 0..core.len() - 1 {
            std::fs::write(&path, &core[..length]).unwrap();
            assert_eq!(stext_from_kcore(&path), None, "{length} bytes");
        }
    }
}
