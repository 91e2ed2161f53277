//! A module's file as if it were linked.
//!
//! A module is a relocatable object: each of its sections starts at address zero, and its debug information says where
//! things are only by relocations. Both are settled in a copy in memory: every section gets addresses of its own, and
//! the relocations of the debug information are applied.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
};

use blazesym::symbolize::{
    Symbolizer,
    source::{Elf, Source},
};
use flate2::read::ZlibDecoder;
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::{
    LittleEndian, SymbolIndex,
    elf::{self, FileHeader64, SectionHeader64},
    read::{
        self,
        elf::{FileHeader as _, Rela as _, SectionHeader as _, SectionTable, Sym as _, SymbolTable},
    },
};
use thiserror::Error;

use super::{offset_in, symbolizer};
use crate::{escape::Escaped, model::location::Symbol};

const ENDIAN: LittleEndian = LittleEndian;
/// Where the first section is laid: no address of a section is zero.
const BASE: u64 = 0x1_0000;
/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 512 << 20;
/// Code may be padded up to here, in bytes: the kernel's symbol table has no sizes, but where the next function starts.
const MAX_PADDING: u64 = 64;

type Header = FileHeader64<LittleEndian>;

/// A module's file, laid out.
pub(super) struct Module {
    /// Keeps what has been read of it while the module is loaded.
    pub symbolizer: Symbolizer,
    /// What lines are looked up in.
    pub source: Source<'static>,
    /// How much memory the copy has, in bytes.
    pub size: usize,
    functions: Functions,
    /// The copy, which `source` names.
    _copy: File,
}

/// Start and size of the functions of each name.
pub(super) type Functions = HashMap<Vec<u8>, Vec<(u64, u64)>>;

#[derive(Debug, Error)]
pub(super) enum ModuleError {
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
    #[error("it is not a readable ELF file: {0}")]
    Elf(#[from] read::Error),
    #[error("it is not relocatable, as modules are")]
    NotRelocatable,
    #[error("it is too large: {0} bytes")]
    TooLarge(u64),
    #[error("its debug information has a relocation of the unknown type {0}")]
    Relocation(u32),
    #[error("its debug information has an unknown compression ({0})")]
    Compression(u32),
}

impl Module {
    pub fn open(path: &Path) -> Option<Self> {
        Self::try_open(path)
            .inspect_err(|error| log::info!("{} is not used: {error}", Escaped::path(path)))
            .ok()
    }

    fn try_open(path: &Path) -> Result<Self, ModuleError> {
        let size = fs::metadata(path)?.len();
        if size > MAX_FILE {
            return Err(ModuleError::TooLarge(size));
        }
        let (bytes, functions) = lay_out(&fs::read(path)?)?;
        let copy = memfd_create(c"module", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from)?;
        let mut copy = File::from(copy);
        copy.write_all(&bytes)?;
        let source = Elf::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
        Ok(Self {
            symbolizer: symbolizer(),
            source: source.into(),
            size: bytes.len(),
            functions,
            _copy: copy,
        })
    }

    /// Where a function's place is in the copy; none if the file has several functions that it could be.
    pub fn address(&self, symbol: &Symbol) -> Option<u64> {
        let same = self.functions.get(symbol.name.bytes())?;
        let mut fitting = same.iter().filter(|(_, size)| match symbol.size {
            Some(padded) if same.len() > 1 => (*size..size.saturating_add(MAX_PADDING)).contains(&padded),
            _ => true,
        });
        let (&(start, size), None) = (fitting.next()?, fitting.next()) else { return None };
        // The return address of a call that never returns is the byte after the function.
        start.checked_add(offset_in(symbol, size)?)
    }
}

/// The copy, and the functions in it.
pub(super) fn lay_out(file: &[u8]) -> Result<(Vec<u8>, Functions), ModuleError> {
    let header = Header::parse(file)?;
    if header.e_type(ENDIAN) != elf::ET_REL {
        return Err(ModuleError::NotRelocatable);
    }
    let sections = header.sections(ENDIAN, file)?;
    let symbols = sections.symbols(ENDIAN, file, elf::SHT_SYMTAB)?;
    let bases = bases(&sections);
    let mut copy = Copy { bytes: file.to_vec(), sections: header.e_shoff.get(ENDIAN) };
    // Linked, not relocatable.
    copy.put(16, &elf::ET_EXEC.to_le_bytes());
    for (index, base) in bases.iter().enumerate().filter(|(_, base)| **base > 0) {
        copy.put_header(index, SH_ADDR, *base);
    }
    let functions = move_symbols(&mut copy, &sections, &symbols, &bases);
    for section in sections.iter().filter(|section| section.sh_type(ENDIAN) == elf::SHT_RELA) {
        relocate(&mut copy, file, &sections, section, &symbols, &bases)?;
    }
    Ok((copy.bytes, functions))
}

/// An address for each section that is loaded; zero for the others.
fn bases(sections: &SectionTable<'_, Header>) -> Vec<u64> {
    let mut next = BASE;
    let base = |section: &SectionHeader64<LittleEndian>| {
        if section.sh_flags(ENDIAN) & u64::from(elf::SHF_ALLOC) == 0 {
            return 0;
        }
        let alignment = section.sh_addralign(ENDIAN).clamp(1, 1 << 16);
        let base = next.checked_next_multiple_of(alignment).unwrap_or(0);
        // Two sections never touch: the byte after one is not the first of another.
        next = base.saturating_add(section.sh_size(ENDIAN)).saturating_add(1);
        base
    };
    sections.iter().map(base).collect()
}

/// Gives the symbols the addresses of their sections; the functions among them.
fn move_symbols(
    copy: &mut Copy,
    sections: &SectionTable<'_, Header>,
    symbols: &SymbolTable<'_, Header>,
    bases: &[u64],
) -> Functions {
    let mut functions = Functions::new();
    let table = sections.iter().nth(symbols.section().0).map_or(0, |table| table.sh_offset(ENDIAN));
    for (index, symbol) in symbols.enumerate() {
        let Some(address) = address(index, symbols, bases) else { continue };
        copy.put(table.saturating_add(index.0 as u64 * 24 + 8), &address.to_le_bytes());
        if symbol.st_type() == elf::STT_FUNC
            && let Ok(name) = symbols.symbol_name(ENDIAN, symbol)
        {
            functions.entry(name.to_vec()).or_default().push((address, symbol.st_size(ENDIAN)));
        }
    }
    functions
}

/// Where a symbol is, if it is in a section.
fn address(index: SymbolIndex, symbols: &SymbolTable<'_, Header>, bases: &[u64]) -> Option<u64> {
    let symbol = symbols.symbol(index).ok()?;
    let section = symbols.symbol_section(ENDIAN, symbol, index).ok()??;
    Some(bases.get(section.0)?.wrapping_add(symbol.st_value(ENDIAN)))
}

/// Applies the relocations of one section, if it is one of debug information.
fn relocate(
    copy: &mut Copy,
    file: &[u8],
    sections: &SectionTable<'_, Header>,
    relocations: &SectionHeader64<LittleEndian>,
    symbols: &SymbolTable<'_, Header>,
    bases: &[u64],
) -> Result<(), ModuleError> {
    let target = relocations.info_link(ENDIAN);
    let section = sections.section(target)?;
    let Some((relas, _)) = relocations.rela(ENDIAN, file)? else { return Ok(()) };
    if !sections.section_name(ENDIAN, section)?.starts_with(b".debug_") {
        return Ok(());
    }
    let start = copy.uncompressed(file, target.0, section)?;
    for rela in relas {
        let symbol = rela.symbol(ENDIAN, false);
        let at = symbol.and_then(|symbol| address(symbol, symbols, bases)).unwrap_or(0);
        let value = at.wrapping_add_signed(rela.r_addend(ENDIAN)).to_le_bytes();
        let offset = start.saturating_add(rela.r_offset(ENDIAN));
        match rela.r_type(ENDIAN, false) {
            elf::R_X86_64_64 | elf::R_AARCH64_ABS64 => copy.put(offset, &value),
            elf::R_X86_64_32 | elf::R_X86_64_32S | elf::R_AARCH64_ABS32 => copy.put(offset, &value[..4]),
            elf::R_X86_64_NONE => {}
            other => return Err(ModuleError::Relocation(other)),
        }
    }
    Ok(())
}

const SH_FLAGS: u64 = 8;
const SH_ADDR: u64 = 16;
const SH_OFFSET: u64 = 24;
const SH_SIZE: u64 = 32;

/// The copy while it is made.
struct Copy {
    bytes: Vec<u8>,
    /// Where its section headers are.
    sections: u64,
}

impl Copy {
    /// Overwrites what is there; what is beyond the end stays unwritten, as it is in no section.
    fn put(&mut self, offset: u64, value: &[u8]) {
        let place = usize::try_from(offset).ok().and_then(|start| {
            let end = start.checked_add(value.len())?;
            self.bytes.get_mut(start..end)
        });
        if let Some(place) = place {
            place.copy_from_slice(value);
        }
    }

    fn put_header(&mut self, section: usize, field: u64, value: u64) {
        let size = size_of::<SectionHeader64<LittleEndian>>() as u64;
        self.put(self.sections.saturating_add(section as u64 * size + field), &value.to_le_bytes());
    }

    /// Where a section's contents start, which are put at the end of the copy if they were compressed.
    fn uncompressed(
        &mut self,
        file: &[u8],
        index: usize,
        section: &SectionHeader64<LittleEndian>,
    ) -> Result<u64, ModuleError> {
        let Some((header, offset, size)) = section.compression(ENDIAN, file)? else {
            return Ok(section.sh_offset(ENDIAN));
        };
        let kind = read::elf::CompressionHeader::ch_type(header, ENDIAN);
        if kind != elf::ELFCOMPRESS_ZLIB {
            return Err(ModuleError::Compression(kind));
        }
        let start = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(start, 0);
        let range = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(size)).ok());
        let compressed = range.and_then(|(from, to)| file.get(from..to)).unwrap_or_default();
        ZlibDecoder::new(compressed).take(MAX_FILE).read_to_end(&mut self.bytes)?;
        let length = (self.bytes.len() - start) as u64;
        let flags = section.sh_flags(ENDIAN) & !u64::from(elf::SHF_COMPRESSED);
        self.put_header(index, SH_FLAGS, flags);
        self.put_header(index, SH_OFFSET, start as u64);
        self.put_header(index, SH_SIZE, length);
        Ok(start as u64)
    }
}
