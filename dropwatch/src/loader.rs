//! The BPF object, brought into the kernel: its maps, and one of its programs at the tracepoint.
//!
//! aya-obj reads and links the object, and aya reads the maps. What lies between is done here: aya's own loader
//! parses the type information of the whole kernel, needed or not, which takes longer than all the rest of a start.

use std::{
    collections::HashMap,
    ffi::CStr,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{Map, MapData},
};
use aya_obj::{EbpfSectionKind, Object, generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF};
use nix::{
    sys::resource::{RLIM_INFINITY, Resource, setrlimit},
    unistd::{SysconfVar, sysconf},
};

use crate::sys::{self, NewProgram};

/// The BPF object: the committed one, or the one `DROPWATCH_BPF_OBJECT` named when this was built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROPWATCH_BPF_OBJECT"));

/// The tracepoint.
pub(crate) const TRACEPOINT: &CStr = c"kfree_skb";

/// Lines of what the verifier says about a program that it refuses: the last ones say why.
const VERIFIER_LINES: usize = 12;
/// Room for all it says, at first and at most.
const VERIFIER_LOG: std::ops::Range<usize> = 1 << 16..1 << 24;

/// What the object is loaded with.
#[derive(Debug, Default)]
pub(crate) struct Loader {
    constants: HashMap<&'static str, Vec<u8>>,
    sizes: HashMap<&'static str, u32>,
}

/// How a program gets the tracepoint's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// As numbers.
    Raw,
    /// With their types, which the kernel's type information has under this number.
    Typed(u32),
}

/// A program in the kernel, not attached yet, and the maps of its object.
#[derive(Debug)]
pub(crate) struct Loaded {
    maps: HashMap<String, Map>,
    program: Arc<OwnedFd>,
    arguments: Arguments,
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("cannot make the map {name}")]
    Map { name: String, source: io::Error },
    #[error("cannot load the program {name}")]
    Program { name: String, source: io::Error },
    #[error("the kernel's verifier refuses the program {name}: {error}{lines}")]
    Verifier { name: String, error: io::Error, lines: String },
    #[error("cannot attach the program")]
    Attach(#[source] io::Error),
}

impl Loader {
    /// Gives a global of the object its value for this run: the verifier knows it and removes what it rules out.
    pub fn constant<T: Pod>(mut self, name: &'static str, value: T) -> Self {
        self.constants.insert(name, sys::bytes_of(&value).to_vec());
        self
    }

    /// Gives a map its number of entries, in bytes for a ring buffer.
    pub fn max_entries(mut self, map: &'static str, entries: u32) -> Self {
        self.sizes.insert(map, entries);
        self
    }

    /// Makes the maps and loads the program, whose instructions refer to them.
    ///
    /// # Errors
    /// A [`Refused`], or an object that is not what was built for this program.
    pub fn load(&self, program: &str, arguments: Arguments) -> Result<Loaded> {
        let mut object = Object::parse(OBJECT).context("cannot read the BPF object")?;
        let constants = self.constants.iter().map(|(&name, value)| (name, (&value[..], true)));
        object.patch_map_data(constants.collect()).context("cannot fill in the BPF object")?;
        for (&name, &entries) in &self.sizes {
            let map = object.maps.get_mut(name).with_context(|| missing(name))?;
            map.set_max_entries(entries);
        }
        let maps = make_maps(&mut object)?;
        link(&mut object, &maps).context("cannot link the BPF object")?;
        let program = Arc::new(load_program(&object, program, arguments)?);
        let maps = maps
            .into_iter()
            .map(|Made { name, fd, .. }| Ok((name, Map::from_map_data(MapData::from_fd(fd)?)?)));
        Ok(Loaded { maps: maps.collect::<Result<_>>()?, program, arguments })
    }
}

impl Loaded {
    /// One of the maps, once.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn take(&mut self, name: &str) -> Result<Map> {
        self.maps.remove(name).with_context(|| missing(name))
    }

    /// The program.
    pub fn program(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.program)
    }

    /// Has the program run at each drop, for as long as the descriptor lives.
    ///
    /// # Errors
    /// `EINVAL` if the program reads an argument that the tracepoint does not have.
    pub fn attach(&self) -> Result<OwnedFd, Refused> {
        let name = match self.arguments {
            Arguments::Raw => Some(TRACEPOINT),
            // The program says it itself.
            Arguments::Typed(_) => None,
        };
        sys::attach_tracepoint(self.program.as_fd(), name).map_err(Refused::Attach)
    }
}

fn missing(name: &str) -> String {
    format!("the BPF object has no {name}")
}

/// A map, and what the object says about it.
struct Made {
    name: String,
    fd: OwnedFd,
    definition: aya_obj::Map,
}

fn make_maps(object: &mut Object) -> Result<Vec<Made>, Refused> {
    object
        .maps
        .drain()
        .map(|(name, definition)| match make_map(&name, &definition) {
            Ok(fd) => Ok(Made { name, fd, definition }),
            Err(source) => Err(Refused::Map { name, source }),
        })
        .collect()
}

fn make_map(name: &str, definition: &aya_obj::Map) -> io::Result<OwnedFd> {
    let mut definition = definition.clone();
    if definition.map_type() == BPF_MAP_TYPE_RINGBUF as u32 {
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| size.try_into().ok()).unwrap_or(0);
        definition.set_max_entries(definition.max_entries().max(page));
    }
    // What is inside is one like it: the kernel asks for an example.
    let inner = definition.inner().map(|inner| make_map(name, &inner)).transpose()?;
    let map = with_memory(|| sys::create_map(name, &definition, inner.as_ref().map(OwnedFd::as_fd)))?;
    if !definition.data().is_empty() {
        sys::fill_map(map.as_fd(), &definition)?;
    }
    if definition.section_kind() == EbpfSectionKind::Rodata {
        sys::freeze_map(map.as_fd())?;
    }
    Ok(map)
}

/// Puts the maps' descriptors and the functions that are called into the programs' instructions.
fn link(object: &mut Object, maps: &[Made]) -> Result<()> {
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = maps.iter().map(|map| (&*map.name, map.fd.as_raw_fd(), &map.definition));
    object.relocate_maps(maps, &sections)?;
    object.relocate_calls(&sections)?;
    Ok(())
}

fn load_program(object: &Object, name: &str, arguments: Arguments) -> Result<OwnedFd> {
    let program = object.programs.get(name).with_context(|| missing(name))?;
    let function = object.functions.get(&program.function_key()).with_context(|| missing(name))?;
    let new = NewProgram {
        name,
        license: &program.license,
        instructions: &function.instructions,
        typed: match arguments {
            Arguments::Raw => None,
            Arguments::Typed(id) => Some(id),
        },
    };
    let loaded = with_memory(|| sys::load_program(&new, &mut []));
    Ok(loaded.map_err(|error| match (name.to_owned(), verdict(&new)) {
        (name, lines) if lines.is_empty() => Refused::Program { name, source: error },
        (name, lines) => Refused::Verifier { name, error, lines },
    })?)
}

/// Why the kernel's verifier refuses a program, in its last words; nothing if something else refuses it.
fn verdict(program: &NewProgram<'_>) -> String {
    let mut log = vec![0; VERIFIER_LOG.start];
    while let Err(error) = sys::load_program(program, &mut log)
        && error.raw_os_error() == Some(libc::ENOSPC)
        && log.len() < VERIFIER_LOG.end
    {
        log = vec![0; log.len() * 4];
    }
    let text = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines.len().saturating_sub(VERIFIER_LINES);
    lines[last..].iter().flat_map(|line| ["\n    ", line]).collect()
}

/// Asks the kernel for something that takes memory, and again without the limit that kernels before 5.11 have for
/// it: they take what is beyond it for a lack of privilege.
fn with_memory<T>(ask: impl Fn() -> io::Result<T>) -> io::Result<T> {
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

#[cfg(test)]
mod tests {
    use dropwatch_common::{names, probe::gather};

    use super::*;

    #[test]
    fn what_the_object_does_not_have_is_named() {
        let global = Loader::default().constant("NO_SUCH_GLOBAL", 1_u8);
        let map = Loader::default().max_entries("NO_SUCH_MAP", 1);
        for (loader, name) in [(global, "NO_SUCH_GLOBAL"), (map, "NO_SUCH_MAP")] {
            let error = loader.load(names::COUNT_DROP, Arguments::Raw).expect_err(name);
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }

    #[test]
    fn a_global_of_another_size_is_refused() {
        let loader = Loader::default().constant(names::HAS_REASON, 1_u32);
        loader.load(names::COUNT_DROP, Arguments::Raw).expect_err("four bytes for one");
    }

    #[test]
    fn the_verifier_is_quoted() {
        // Without their types the arguments are numbers, through which nothing can be read.
        let loader = Loader::default().constant(names::GATHER, gather::LENGTH);
        let error = loader.load(names::COUNT_ROW, Arguments::Raw).expect_err("no pointers");
        match error.downcast_ref() {
            Some(Refused::Verifier { lines, .. }) => {
                assert!(lines.contains("invalid mem access"), "{lines}");
                assert!(lines.lines().count() <= VERIFIER_LINES + 1, "{lines}");
            }
            Some(Refused::Map { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                assert!(std::env::var_os("DROPWATCH_REQUIRE_LIVE").is_none(), "this test needs root");
                eprintln!("SKIPPED: making a map needs root");
            }
            _ => panic!("{error:#}"),
        }
    }
}
