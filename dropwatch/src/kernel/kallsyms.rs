//! The kernel's symbol table: `/proc/kallsyms`, a saved copy of it, or a `System.map`.
//!
//! One line is one symbol, `ADDRESS TYPE NAME[\t[MODULE]]`, in no particular order, and without sizes.
//! [`Index`] keeps what a packet drop can happen in, the text symbols, as 16 bytes each plus one string for
//! all names. It is pure: text in, answers out. [`saved`] fits a file to the running kernel.
//!
//! # Where a function ends
//! The table says where functions start. A function is taken to end where the next symbol of any type starts,
//! as the kernel's own `%pS` has it, but only as far as that can be known:
//!
//! * The kernel proper ends at `_etext` and `_einittext`. These, and the ends of its smaller text sections,
//!   are limits, never answers.
//! * In a module, a function ends at the module's next text symbol. The last one has an unknown size: what
//!   follows is the module's data, or another module, or nothing.
//! * More than [`MAX_FUNCTION`] between two symbols is a hole between sections, and no function.
//! * BPF programs are loaded with gaps between them, so their sizes are unknown.
//!
//! A function of unknown size answers for [`UNSIZED_REACH`] bytes ([`BPF_REACH`] for a BPF program), or up to
//! the next symbol if that is nearer. Any other address has no symbol: a number is better than a wrong name.

pub mod saved;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead, Read as _};
use std::ops::Range;
use std::sync::Arc;

use memchr::memchr;

pub use crate::model::location::KERNEL;

/// The largest function that is believed, in bytes. The largest of an x86-64 6.18 kernel has 20 kB, with room
/// here for what sanitizers add; the holes between its text sections have a megabyte and more.
pub const MAX_FUNCTION: u64 = 256 << 10;

/// How far from its start a function of unknown size is still the answer, in bytes: text ends on a page
/// boundary.
pub const UNSIZED_REACH: u64 = 4 << 10;

/// [`UNSIZED_REACH`] for BPF programs, which are compiled into one function each and are larger.
pub const BPF_REACH: u64 = 64 << 10;

/// The most symbols that are read: twenty times what a distribution's kernel has.
const MAX_SYMBOLS: usize = 4 << 20;

/// The most that is read of a table, in bytes.
const MAX_TABLE: u64 = 256 << 20;

/// The longest line that is read, in bytes; the kernel's own limit for a name is 512.
const MAX_LINE: u64 = 4096;

/// A function of the kernel, borrowed from an [`Index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The name as the kernel has it (suffixes such as `.isra.0` or `.cold` included).
    pub name: &'a str,
    /// The address of the first byte.
    pub start: u64,
    /// Bytes up to the next symbol, or `None` if that cannot be known.
    pub size: Option<u64>,
    /// The module's name, [`KERNEL`] for the kernel proper, `bpf` for BPF programs.
    pub module: &'a Arc<str>,
}

/// An unbroken run of one module's functions. A module has one, or two while its init section exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRange {
    /// The module's name, without brackets.
    pub name: Arc<str>,
    /// From the first function's start to where the last one is no longer believed to be.
    pub addresses: Range<u64>,
}

impl ModuleRange {
    /// Whether this is a module that can be loaded and unloaded, not one of the kernel's names for code it
    /// generates (BPF programs, trampolines), which comes and goes one by one.
    #[must_use]
    pub fn is_loadable(&self) -> bool {
        &*self.name != BPF && !self.name.starts_with("__builtin__")
    }
}

/// What a table is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No line of it was a symbol.
    Empty,
    /// There are symbols, and every address is zero: `kptr_restrict` hides them from this reader.
    Hidden,
    /// There are addresses.
    Visible,
}

const BPF: &str = "bpf";
const KERNEL_ID: u16 = 0;

/// A symbol's start, or a place where a function ends at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    address: u64,
    /// Offset of the name in `Index::names`; the name ends before the next NUL.
    name: u32,
    /// Position in `Index::modules`.
    module: u16,
    /// Among symbols at one address, the lowest is the answer.
    rank: u8,
}

impl Entry {
    /// The rank of an entry that is a limit and no function: the last of those at its address.
    const LIMIT: u8 = u8::MAX;

    fn is_limit(self) -> bool {
        self.rank == Self::LIMIT
    }
}

/// The symbol table, by address.
#[derive(Debug, Clone)]
pub struct Index {
    /// By address, then by preference. Of limits, only the first after a function is kept.
    entries: Vec<Entry>,
    /// All names, each followed by NUL.
    names: String,
    /// All modules; the first is the kernel.
    modules: Vec<Arc<str>>,
    state: State,
    skipped_lines: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            names: String::new(),
            modules: vec![KERNEL.into()],
            state: State::Empty,
            skipped_lines: 0,
        }
    }
}

fn too_large() -> io::Error {
    let bounds = format!("it is longer than any kernel's: {} MB or {MAX_SYMBOLS} symbols", MAX_TABLE >> 20);
    io::Error::new(io::ErrorKind::FileTooLarge, bounds)
}

impl Index {
    /// Reads a table, a line at a time. Lines that are no symbols are skipped and counted
    /// ([`skipped_lines`](Self::skipped_lines)).
    ///
    /// # Errors
    /// Those of `reader`, and [`io::ErrorKind::FileTooLarge`] for more than any kernel's table has: a pipe may never
    /// end.
    pub fn read(reader: impl BufRead) -> io::Result<Self> {
        Self::read_bounded(reader, MAX_SYMBOLS, MAX_TABLE)
    }

    fn read_bounded(reader: impl BufRead, max_symbols: usize, max_bytes: u64) -> io::Result<Self> {
        let mut builder = Builder::default();
        let mut reader = reader.take(max_bytes);
        let mut line = Vec::with_capacity(256);
        loop {
            line.clear();
            if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                // At the bound, what was read last need not be all.
                return if reader.limit() > 0 { Ok(builder.finish()) } else { Err(too_large()) };
            }
            if builder.index.entries.len() > max_symbols {
                return Err(too_large());
            }
            let is_whole = line.pop_if(|&mut last| last == b'\n').is_some() || (line.len() as u64) < MAX_LINE;
            if !is_whole {
                reader.skip_until(b'\n')?;
            }
            let is_symbol = is_whole && Line::parse(&line).is_some_and(|line| builder.add(&line));
            builder.index.skipped_lines += u64::from(!is_symbol);
        }
    }

    /// What the table is good for.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// How many lines were not symbols.
    #[must_use]
    pub fn skipped_lines(&self) -> u64 {
        self.skipped_lines
    }

    /// The number of functions, aliases included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.is_limit()).count()
    }

    /// Whether there is no function at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The function `address` is in. Of several names at one address it is the one a person would look for:
    /// no padding (`__pfx_`, `__cfi_`), no marker of a section's start or end, strong before weak, global
    /// before local, few leading underscores before many, then the first in byte order.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Option<Symbol<'_>> {
        let after = self.entries.partition_point(|entry| entry.address <= address);
        let start = self.entries[..after].last()?.address;
        let first = self.entries[..after].partition_point(|entry| entry.address < start);
        let entry = self.entries[first];
        if entry.is_limit() {
            return None;
        }
        let extent = self.extent(entry, self.entries.get(after));
        (address - start < extent.reach()).then(|| self.symbol(entry, extent))
    }

    /// Every function called `name`, in order of address: static functions of one name are common. A scan.
    pub fn find<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Symbol<'a>> {
        (0..self.entries.len()).filter_map(move |position| {
            let entry = self.entries[position];
            let at = entry.name as usize;
            let found = !entry.is_limit()
                && self.names.as_bytes()[at..].starts_with(name.as_bytes())
                && self.names.as_bytes().get(at + name.len()) == Some(&0);
            found.then(|| self.symbol(entry, self.extent_at(position)))
        })
    }

    /// Every function whose name and module `is` takes, in order of address. A scan.
    pub fn find_where<'a>(
        &'a self,
        is: impl Fn(&str, &str) -> bool + 'a,
    ) -> impl Iterator<Item = Symbol<'a>> {
        (0..self.entries.len()).filter_map(move |position| {
            let entry = self.entries[position];
            let found = !entry.is_limit() && {
                let name = &self.names[entry.name as usize..];
                let name = &name[..memchr(0, name.as_bytes()).unwrap_or(name.len())];
                is(name, &self.modules[usize::from(entry.module)])
            };
            found.then(|| self.symbol(entry, self.extent_at(position)))
        })
    }

    /// The address of a name of the kernel proper that occurs once, such as `_stext`.
    #[must_use]
    pub fn unique(&self, name: &str) -> Option<u64> {
        let mut found = self.find(name).filter(|symbol| &**symbol.module == KERNEL);
        let address = found.next()?.start;
        found.next().is_none().then_some(address)
    }

    /// Where modules (not the kernel proper) have their functions, in order of address.
    #[must_use]
    pub fn modules(&self) -> Vec<ModuleRange> {
        let mut ranges: Vec<ModuleRange> = Vec::new();
        let mut open = KERNEL_ID;
        let is_near = |range: &ModuleRange, entry: Entry| {
            entry.address.saturating_sub(range.addresses.end) <= MAX_FUNCTION
        };
        for (position, &entry) in self.entries.iter().enumerate() {
            if entry.is_limit() || entry.module == KERNEL_ID {
                open = KERNEL_ID;
                continue;
            }
            let end = entry.address.saturating_add(self.extent_at(position).reach());
            match ranges.last_mut() {
                Some(range) if open == entry.module && is_near(range, entry) => {
                    range.addresses.end = end;
                }
                _ => ranges.push(ModuleRange {
                    name: Arc::clone(&self.modules[usize::from(entry.module)]),
                    addresses: entry.address..end,
                }),
            }
            open = entry.module;
        }
        ranges
    }

    /// Whether any function starts in `addresses`.
    #[must_use]
    pub fn starts_in(&self, addresses: &Range<u64>) -> bool {
        let after = self.entries.partition_point(|entry| entry.address < addresses.start);
        self.entries[after..]
            .iter()
            .take_while(|entry| entry.address < addresses.end)
            .any(|entry| !entry.is_limit())
    }

    /// The functions that start in `addresses`, as a table of their own that has no answer beyond them.
    #[must_use]
    pub fn part(&self, addresses: &Range<u64>) -> Self {
        let mut builder = Builder::default();
        for &entry in self.entries.iter().filter(|entry| addresses.contains(&entry.address)) {
            let module = builder.module(&self.modules[usize::from(entry.module)]);
            let name = builder.name(if entry.is_limit() { "" } else { self.name(entry) });
            if let (Some(module), Some(name)) = (module, name) {
                builder.index.entries.push(Entry { name, module, ..entry });
            }
        }
        let end = Entry { address: addresses.end, name: 0, module: KERNEL_ID, rank: Entry::LIMIT };
        builder.index.entries.push(end);
        builder.index.state = self.state;
        builder.finish_entries()
    }

    /// The same table, with every address moved by `slide` (wrapping, so that it can also move down).
    #[must_use]
    pub fn shifted(mut self, slide: u64) -> Self {
        for entry in &mut self.entries {
            entry.address = entry.address.wrapping_add(slide);
        }
        self.sort();
        self
    }

    /// The kernel proper alone, and the number of modules left out.
    #[must_use]
    pub fn without_modules(mut self) -> (Self, usize) {
        let modules = self.modules.len() - 1;
        self.entries.retain(|entry| entry.module == KERNEL_ID);
        self.modules.truncate(1);
        (self, modules)
    }

    /// Up to `count` functions of the kernel proper, evenly spread over it.
    pub(crate) fn samples(&self, count: usize) -> impl Iterator<Item = Symbol<'_>> {
        let step = (self.entries.len() / count.max(1)).max(1);
        (0..self.entries.len()).step_by(step).filter_map(|position| {
            let entry = self.entries[position];
            let is_wanted = !entry.is_limit() && entry.module == KERNEL_ID;
            is_wanted.then(|| self.symbol(entry, self.extent_at(position)))
        })
    }

    fn name(&self, entry: Entry) -> &str {
        let rest = &self.names[entry.name as usize..];
        &rest[..memchr(0, rest.as_bytes()).unwrap_or(rest.len())]
    }

    fn is_repeated(&self, a: Entry, b: Entry) -> bool {
        (a.address, a.module) == (b.address, b.module) && self.name(a) == self.name(b)
    }

    fn symbol(&self, entry: Entry, extent: Extent) -> Symbol<'_> {
        Symbol {
            name: self.name(entry),
            start: entry.address,
            size: extent.size(),
            module: &self.modules[usize::from(entry.module)],
        }
    }

    fn extent_at(&self, position: usize) -> Extent {
        let entry = self.entries[position];
        self.extent(entry, self.entries[position..].iter().find(|other| other.address != entry.address))
    }

    /// How far the function at `entry` goes, `next` being the next entry at a higher address.
    fn extent(&self, entry: Entry, next: Option<&Entry>) -> Extent {
        let is_bpf = &*self.modules[usize::from(entry.module)] == BPF;
        let unsized_reach = if is_bpf { BPF_REACH } else { UNSIZED_REACH };
        let Some(next) = next else { return Extent::Unknown { reach: unsized_reach } };

        let gap = next.address - entry.address;
        let is_same_section =
            next.module == entry.module && !is_bpf && (entry.module == KERNEL_ID || !next.is_limit());
        if is_same_section && gap <= MAX_FUNCTION {
            Extent::Known(gap)
        } else {
            Extent::Unknown { reach: gap.min(unsized_reach) }
        }
    }

    /// Orders entries so that the first one at an address is the answer, however the lines were ordered.
    fn sort(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        let key = |entry: &Entry| (entry.address, entry.rank);
        entries.sort_unstable_by(|a, b| {
            key(a).cmp(&key(b)).then_with(|| {
                let text = |&entry: &Entry| (self.name(entry), &*self.modules[usize::from(entry.module)]);
                text(a).cmp(&text(b))
            })
        });
        self.entries = entries;
    }
}

/// How far a function goes.
#[derive(Debug, Clone, Copy)]
enum Extent {
    /// It has this many bytes.
    Known(u64),
    /// It has an unknown number of bytes, and is believed for `reach` of them.
    Unknown { reach: u64 },
}

impl Extent {
    fn size(self) -> Option<u64> {
        match self {
            Self::Known(size) => Some(size),
            Self::Unknown { .. } => None,
        }
    }

    fn reach(self) -> u64 {
        match self {
            Self::Known(size) => size,
            Self::Unknown { reach } => reach,
        }
    }
}

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    address: u64,
    kind: u8,
    name: &'a [u8],
    module: Option<&'a [u8]>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.trim_ascii_end();
        let (digits, rest) = split_at_blank(line)?;
        let &[kind, b' ' | b'\t', ref rest @ ..] = rest else { return None };
        let (name, module) = match split_at_blank(rest) {
            None => (rest, None),
            Some((name, module)) => {
                let inside = module.trim_ascii_start().strip_prefix(b"[")?.strip_suffix(b"]")?;
                (name, Some(inside))
            }
        };
        let is_empty = name.is_empty() || module.is_some_and(<[u8]>::is_empty);
        (kind.is_ascii_graphic() && !is_empty).then_some(Self { address: hex(digits)?, kind, name, module })
    }

    /// Assembler labels and mapping symbols (`$x`, `$d`) lie inside functions and neither name nor end them.
    fn is_label(&self) -> bool {
        [b".L".as_slice(), b"L0", b"$"].iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// Absolute symbols are numbers (sizes, per-CPU offsets), not places.
    fn is_place(&self) -> bool {
        self.address != 0 && !matches!(self.kind, b'A' | b'a' | b'U' | b'N' | b'?')
    }

    fn is_function(&self) -> bool {
        let is_end_of_text = matches!(self.name, b"_etext" | b"_einittext" | b"_end" | b"__init_end")
            || (self.name.starts_with(b"__") && self.name.ends_with(b"text_end"));
        matches!(self.kind, b't' | b'T' | b'w' | b'W') && !is_end_of_text
    }

    /// See [`Index::lookup`] for what is preferred.
    fn rank(&self) -> u8 {
        if !self.is_function() {
            return Entry::LIMIT;
        }
        let name = self.name;
        let is_padding = name.starts_with(b"__pfx_") || name.starts_with(b"__cfi_");
        let is_marker = matches!(name, b"_text" | b"_stext" | b"_sinittext")
            || [b"__start_".as_slice(), b"__stop_", b"__end_"].iter().any(|prefix| name.starts_with(prefix))
            || [b"_start".as_slice(), b"_end"].iter().any(|suffix| name.ends_with(suffix));
        let is_weak = matches!(self.kind, b'w' | b'W');
        let is_local = self.kind == b't';
        let underscores = name.iter().take(7).take_while(|&&byte| byte == b'_').count();
        u8::from(is_padding) << 6
            | u8::from(is_marker) << 5
            | u8::from(is_weak) << 4
            | u8::from(is_local) << 3
            | u8::try_from(underscores).unwrap_or(7)
    }
}

/// Collects entries in the order of the lines.
#[derive(Default)]
struct Builder {
    index: Index,
    /// Where the last name starts.
    last_name: usize,
    /// Positions in `index.modules`.
    modules: HashMap<Arc<str>, u16>,
    has_address: bool,
    has_symbol: bool,
}

impl Builder {
    /// Adds a symbol; `false` if there is no room for it.
    fn add(&mut self, line: &Line<'_>) -> bool {
        self.has_symbol = true;
        self.has_address |= line.address != 0;
        if line.is_label() || !line.is_place() {
            return true;
        }
        let module = line.module.map_or(Some(KERNEL_ID), |name| self.module(&text(name)));
        let rank = line.rank();
        let name = if rank == Entry::LIMIT { self.name("") } else { self.name(&text(line.name)) };
        let (Some(module), Some(name)) = (module, name) else { return false };
        self.index.entries.push(Entry { address: line.address, name, module, rank });
        true
    }

    fn module(&mut self, name: &str) -> Option<u16> {
        if name == KERNEL {
            return Some(KERNEL_ID);
        }
        if let Some(&id) = self.modules.get(name) {
            return Some(id);
        }
        let id = u16::try_from(self.index.modules.len()).ok()?;
        let name: Arc<str> = name.into();
        self.index.modules.push(Arc::clone(&name));
        self.modules.insert(name, id);
        Some(id)
    }

    /// Stores a name. One that ends the name before it shares its bytes: most functions follow their own
    /// `__pfx_` symbol, which makes half of the names free.
    fn name(&mut self, name: &str) -> Option<u32> {
        let names = &mut self.index.names;
        let last = names[self.last_name..].strip_suffix('\0');
        if last.is_some_and(|last| last.ends_with(name)) {
            return u32::try_from(names.len() - 1 - name.len()).ok();
        }
        let start = u32::try_from(names.len()).ok()?;
        self.last_name = names.len();
        names.push_str(name);
        names.push('\0');
        Some(start)
    }

    fn finish(mut self) -> Index {
        self.index.state = match (self.has_symbol, self.has_address) {
            (false, _) => State::Empty,
            (true, false) => State::Hidden,
            (true, true) => State::Visible,
        };
        self.finish_entries()
    }

    /// Sorts, and drops repeated lines and the limits that end no function.
    fn finish_entries(mut self) -> Index {
        self.index.sort();
        let mut entries = std::mem::take(&mut self.index.entries);
        let mut last: Option<Entry> = None;
        entries.retain(|&entry| {
            let is_kept = match last {
                _ if entry.is_limit() => {
                    last.is_some_and(|last| !last.is_limit() && last.address < entry.address)
                }
                Some(last) => !self.index.is_repeated(last, entry),
                None => true,
            };
            last = if is_kept { Some(entry) } else { last };
            is_kept
        });
        entries.shrink_to_fit();
        self.index.entries = entries;
        self.index.names.shrink_to_fit();
        self.index
    }
}

/// What is before and after the first blank; `None` if there is none, or nothing before or after it.
fn split_at_blank(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = bytes.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
    Some((&bytes[..blank], &bytes[blank + 1..]))
}

/// A number of 1 to 16 hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

/// A name as text. No kernel has one that is not; a NUL would end it in [`Index::names`].
fn text(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text }
}
