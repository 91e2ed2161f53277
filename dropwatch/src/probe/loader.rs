//! The BPF object, brought into the kernel: its maps, and one of its programs at the tracepoint.
//!
//! aya-obj reads and links the object, and aya reads the maps. What lies between is done here: aya's own loader
//! parses the type information of the whole kernel, needed or not, which takes longer than all the rest of a start.

use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{Map, MapData},
};
use aya_obj::{
    EbpfSectionKind, Object,
    generated::{
        BPF_DW, BPF_IMM, BPF_LD, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_attach_type, bpf_insn,
        bpf_map_type::BPF_MAP_TYPE_RINGBUF,
    },
};
use dropwatch_common::names;
use nix::unistd::{SysconfVar, sysconf};

use crate::{
    probe::new_map::with_memory,
    sys::{self, Ends, NewProgram, ProgramKind},
};

/// The BPF object: the committed one, or the one `DROPWATCH_BPF_OBJECT` named when this was built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROPWATCH_BPF_OBJECT"));

/// The tracepoint.
pub(crate) const TRACEPOINT: &CStr = c"kfree_skb";

/// Lines of what the verifier says about a program that it refuses: the last ones say why.
const VERIFIER_LINES: usize = 12;
/// Room for all it says, at first and at most.
const VERIFIER_LOG: std::ops::Range<usize> = 1 << 16..1 << 24;

/// An object, and what it is loaded with.
#[derive(Debug)]
pub(crate) struct Loader {
    object: &'static [u8],
    constants: HashMap<&'static str, Vec<u8>>,
    sizes: HashMap<&'static str, u32>,
    /// Bytes of a value.
    values: HashMap<&'static str, u32>,
    shared: HashMap<&'static str, Arc<OwnedFd>>,
    /// What decides which drops pass.
    filter: Option<Vec<bpf_insn>>,
    /// The kernel's function that makes pointers of addresses, if it is used.
    cast: Option<u32>,
}

/// Maps that programs share, by name.
pub(crate) type Shared = Vec<(&'static str, Arc<OwnedFd>)>;

/// How a program gets the tracepoint's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// As numbers.
    Raw,
    /// With their types, which the kernel's type information has under this number.
    Typed(u32),
    /// As an iterator, whose function has this number.
    Iterator(u32),
    /// In the registers of a function that it is attached to.
    Function,
    /// In those of one of many functions.
    Functions(Ends),
    /// The same at both ends of functions. The kernel's function that says at which has this number.
    Session(u32),
}

/// A program with its maps in place.
#[derive(Debug)]
struct Linked {
    name: String,
    license: CString,
    instructions: Vec<bpf_insn>,
    arguments: Arguments,
}

/// A program in the kernel, not attached yet, and the maps of its object.
#[derive(Debug)]
pub(crate) struct Loaded {
    maps: HashMap<String, Map>,
    program: Arc<OwnedFd>,
    arguments: Arguments,
    others: HashMap<&'static str, OwnedFd>,
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("cannot create the map {name}")]
    Map { name: String, source: io::Error },
    #[error("cannot load the program {name}")]
    Program { name: String, source: io::Error },
    #[error("the kernel's verifier refuses the program {name}: {error}{lines}")]
    Verifier { name: String, error: io::Error, lines: String },
    #[error("cannot attach the program")]
    Attach(#[source] io::Error),
}

impl Loader {
    /// A loader of the programs at `skb:kfree_skb`.
    pub fn kfree_skb() -> Self {
        Self {
            object: OBJECT,
            constants: HashMap::new(),
            sizes: HashMap::new(),
            values: HashMap::new(),
            shared: HashMap::new(),
            filter: None,
            cast: None,
        }
    }

    /// Gives a global of the object its value for this run: the verifier knows it and removes what it rules out.
    pub fn constant<T: Pod>(mut self, name: &'static str, value: T) -> Self {
        self.constants.insert(name, sys::bytes_of(&value).to_vec());
        self
    }

    /// Has drops pass only if this function says so. Its only map is the one of the filter's sets.
    pub fn filter(mut self, function: Vec<bpf_insn>) -> Self {
        self.filter = Some(function);
        self
    }

    /// Has addresses made into pointers by the kernel's function of this number, if there is one.
    pub fn cast(mut self, number: Option<u32>) -> Self {
        self.cast = number;
        self.constant(names::CASTS, u8::from(number.is_some()))
    }

    /// Gives a map its number of entries, in bytes for a ring buffer.
    pub fn max_entries(mut self, map: &'static str, entries: u32) -> Self {
        self.sizes.insert(map, entries);
        self
    }

    /// Gives the values of a map a size, in words.
    pub fn value_words(mut self, map: &'static str, words: usize) -> Self {
        self.values.insert(map, bytes(words));
        self
    }

    /// Has the program use a map that another one has already.
    pub fn share(mut self, map: &'static str, fd: Arc<OwnedFd>) -> Self {
        self.shared.insert(map, fd);
        self
    }

    /// Loads a program of the object with the maps that it refers to; the others are not made.
    ///
    /// # Errors
    /// A [`Refused`], or an object that is not what was built for this program.
    pub fn load(&self, program: &str, arguments: Arguments) -> Result<Loaded> {
        self.load_with(program, arguments, &[])
    }

    /// The same with other programs, which share its maps.
    ///
    /// # Errors
    /// As above.
    pub fn load_with(
        &self,
        program: &str,
        arguments: Arguments,
        others: &[(&'static str, Arguments)],
    ) -> Result<Loaded> {
        let mut object = Object::parse(self.object).context("cannot read the BPF object")?;
        let constants = self.constants.iter().map(|(&name, value)| (name, (&value[..], true)));
        object.patch_map_data(constants.collect()).context("cannot fill in the BPF object")?;
        for (&name, &entries) in &self.sizes {
            let map = object.maps.get_mut(name).with_context(|| missing(name))?;
            map.set_max_entries(entries);
        }
        for (&name, &bytes) in &self.values {
            object.maps.get_mut(name).with_context(|| missing(name))?.set_value_size(bytes);
        }
        // Only what is loaded is linked, which takes time for each.
        object.programs.retain(|name, _| name == program || others.iter().any(|(other, _)| name == other));
        let definitions: Vec<_> = object.maps.drain().collect();
        if let Some(function) = &self.filter {
            replace(&mut object, names::DECIDE, of_filter(function, &definitions)?)?;
        }
        for (_, arguments) in others {
            if let Arguments::Session(is_return) = *arguments {
                replace(&mut object, names::IS_RETURN, kernel_call(is_return).to_vec())?;
            }
        }
        link(&mut object, &definitions).context("cannot link the BPF object")?;
        let mut maps = HashMap::new();
        let mut linked = |name: &str, arguments: Arguments| {
            let (license, mut instructions) = code(&object, name)?;
            set_casts(&mut instructions, self.cast);
            self.make_maps(&definitions, &mut instructions, &mut maps)?;
            anyhow::Ok(Linked { name: name.to_owned(), license, instructions, arguments })
        };
        let program = linked(program, arguments)?;
        let others = others.iter().map(|&(name, arguments)| Ok((name, linked(name, arguments)?)));
        let others = others.collect::<Result<Vec<_>>>()?;
        let maps = maps.into_iter().map(|(name, fd)| Ok((name, Map::from_map_data(MapData::from_fd(fd)?)?)));
        let maps = maps.collect::<Result<_>>()?;
        let loaded = Arc::new(program.load()?);
        let others = others.iter().map(|(name, linked)| Ok((*name, linked.load()?)));
        let others = others.collect::<Result<_>>()?;
        Ok(Loaded { maps, program: loaded, arguments, others })
    }

    /// Makes the maps that instructions refer to by number, and puts their descriptors there.
    ///
    /// Those that there are already are used.
    fn make_maps(
        &self,
        definitions: &[(String, aya_obj::Map)],
        instructions: &mut [bpf_insn],
        maps: &mut HashMap<String, OwnedFd>,
    ) -> Result<()> {
        for instruction in instructions.iter_mut().filter(|instruction| refers_to_map(**instruction)) {
            let number = usize::try_from(instruction.imm).ok();
            let (name, definition) = number
                .and_then(|number| definitions.get(number))
                .context("the BPF object refers to an unknown map")?;
            let fd = match maps.entry(name.clone()) {
                Entry::Occupied(made) => made.into_mut(),
                Entry::Vacant(place) => {
                    let made = match self.shared.get(&**name) {
                        Some(shared) => shared.try_clone(),
                        None => make_map(name, definition),
                    };
                    place.insert(made.map_err(|source| Refused::Map { name: name.clone(), source })?)
                }
            };
            instruction.imm = fd.as_raw_fd();
        }
        Ok(())
    }
}

impl Arguments {
    fn kind(self) -> ProgramKind {
        match self {
            Self::Raw => ProgramKind::RawTracepoint,
            Self::Typed(id) => ProgramKind::Typed(bpf_attach_type::BPF_TRACE_RAW_TP, id),
            Self::Iterator(id) => ProgramKind::Typed(bpf_attach_type::BPF_TRACE_ITER, id),
            Self::Function => ProgramKind::Function,
            Self::Functions(ends) => ProgramKind::Functions(ends),
            Self::Session(_) => ProgramKind::Functions(Ends::Both),
        }
    }
}

impl Linked {
    fn load(&self) -> Result<OwnedFd, Refused> {
        let Self { name, license, instructions, arguments } = self;
        load_program(&NewProgram { name, license, instructions, kind: arguments.kind() })
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

    /// Whether the program refers to a map.
    pub fn has(&self, name: &str) -> bool {
        self.maps.contains_key(name)
    }

    /// One of the maps, for another program to use as well.
    ///
    /// # Errors
    /// There is none of that name, or no file is to be had.
    pub fn share(&self, name: &str) -> Result<Arc<OwnedFd>> {
        let map = self.maps.get(name).with_context(|| missing(name))?;
        Ok(Arc::new(map_data(map)?.fd().as_fd().try_clone_to_owned()?))
    }

    /// One of the other programs, once.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn take_program(&mut self, name: &str) -> Result<OwnedFd> {
        self.others.remove(name).with_context(|| missing(name))
    }

    /// The program.
    pub fn program(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.program)
    }

    /// Has the program run at each drop, or an iterator whenever it is read, while the descriptor is open.
    ///
    /// # Errors
    /// `EINVAL` if the program reads an argument that the tracepoint does not have.
    pub fn attach(&self) -> Result<OwnedFd, Refused> {
        let program = self.program.as_fd();
        let attached = match self.arguments {
            Arguments::Raw => sys::attach_tracepoint(program, Some(TRACEPOINT)),
            // It is run on request, or attached to functions.
            Arguments::Function | Arguments::Functions(_) | Arguments::Session(_) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            // The program says it itself.
            Arguments::Typed(_) => sys::attach_tracepoint(program, None),
            Arguments::Iterator(_) => sys::link_iterator(program),
        };
        attached.map_err(Refused::Attach)
    }
}

/// What aya keeps of a map.
fn map_data(map: &Map) -> Result<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) => Ok(data),
        _ => anyhow::bail!("this kind of map is not shared"),
    }
}

fn missing(name: &str) -> String {
    format!("the BPF object has no {name}")
}

/// Puts the functions that are called into the programs' instructions, and each map's number in `definitions` in
/// place of its descriptor.
fn link(object: &mut Object, definitions: &[(String, aya_obj::Map)]) -> Result<()> {
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = (0..).zip(definitions).map(|(number, (name, map))| (&**name, number, map));
    object.relocate_maps(maps, &sections)?;
    object.relocate_calls(&sections)?;
    Ok(())
}

/// Puts instructions in the place of a function of the object.
fn replace(object: &mut Object, name: &str, instructions: Vec<bpf_insn>) -> Result<()> {
    let place = object.functions.values_mut().find(|function| function.name == name);
    place.with_context(|| missing(name))?.instructions = instructions;
    Ok(())
}

/// The filter's function, with the number of its map.
fn of_filter(function: &[bpf_insn], definitions: &[(String, aya_obj::Map)]) -> Result<Vec<bpf_insn>> {
    let sets = definitions.iter().position(|(name, _)| name == names::RANGES);
    let sets = i32::try_from(sets.with_context(|| missing(names::RANGES))?)?;
    let mut function = function.to_vec();
    for instruction in function.iter_mut().filter(|instruction| refers_to_map(**instruction)) {
        instruction.imm = sets;
    }
    Ok(function)
}

/// A function that hands its arguments on to one of the kernel's own, which answers with a byte. aya-obj resolves no such
/// calls.
fn kernel_call(number: u32) -> [bpf_insn; 3] {
    const AND: u8 = 0x57;
    const EXIT: u8 = 0x95;
    [call(number), on_result(AND, 0xff), on_result(EXIT, 0)]
}

/// A call of one of the kernel's own functions.
fn call(number: u32) -> bpf_insn {
    /// Where the kernel's own are meant.
    const OF_KERNEL: u8 = 2;
    let registers = bpf_insn::new_bitfield_1(0, OF_KERNEL);
    bpf_insn { _bitfield_1: registers, ..on_result(CALL, number.cast_signed()) }
}

/// What calls a function: a helper, if nothing else is said.
const CALL: u8 = 0x85;

/// An instruction on the register of results.
fn on_result(code: u8, imm: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(0, 0), off: 0, imm }
}

/// Puts calls of the kernel's function that makes pointers of addresses in their places. Where the kernel has none, a zero is
/// put there, which is never used.
fn set_casts(instructions: &mut [bpf_insn], number: Option<u32>) {
    const MOVE: u8 = 0xb7;
    let is_cast = |insn: &&mut bpf_insn| insn.code == CALL && insn.src_reg() == 0 && insn.imm == names::CAST;
    for instruction in instructions.iter_mut().filter(is_cast) {
        *instruction = number.map_or(on_result(MOVE, 0), call);
    }
}

/// The licence and the instructions of a program.
fn code(object: &Object, name: &str) -> Result<(CString, Vec<bpf_insn>)> {
    let program = object.programs.get(name).with_context(|| missing(name))?;
    let function = object.functions.get(&program.function_key()).with_context(|| missing(name))?;
    Ok((program.license.clone(), function.instructions.clone()))
}

/// Whether an instruction loads a map's descriptor, or the address of a map's value.
fn refers_to_map(instruction: bpf_insn) -> bool {
    const LOAD_64_BITS: u32 = BPF_LD | BPF_IMM | BPF_DW;
    u32::from(instruction.code) == LOAD_64_BITS
        && matches!(u32::from(instruction.src_reg()), BPF_PSEUDO_MAP_FD | BPF_PSEUDO_MAP_VALUE)
}

fn make_map(name: &str, definition: &aya_obj::Map) -> io::Result<OwnedFd> {
    let mut definition = definition.clone();
    if definition.map_type() == BPF_MAP_TYPE_RINGBUF as u32 {
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| size.try_into().ok()).unwrap_or(0);
        definition.set_max_entries(definition.max_entries().max(page));
    }
    // The inner map is like it: the kernel requires an example.
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

fn bytes(words: usize) -> u32 {
    u32::try_from(words * size_of::<u64>()).unwrap_or(u32::MAX)
}

fn load_program(program: &NewProgram<'_>) -> Result<OwnedFd, Refused> {
    with_memory(|| sys::load_program(program, &mut [])).map_err(|error| {
        match (program.name.to_owned(), verdict(program)) {
            (name, lines) if lines.is_empty() => Refused::Program { name, source: error },
            (name, lines) => Refused::Verifier { name, error, lines },
        }
    })
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

#[cfg(test)]
mod tests {
    use aya_obj::generated::{BPF_ALU64, BPF_EXIT, BPF_JMP, BPF_LDX, BPF_MOV};
    use dropwatch_common::{names, probe::gather};
    use dropwatch_testing::skip;

    use super::*;

    #[test]
    fn what_the_object_does_not_have_is_named() {
        let global = Loader::kfree_skb().constant("NO_SUCH_GLOBAL", 1_u8);
        let map = Loader::kfree_skb().max_entries("NO_SUCH_MAP", 1);
        for (loader, name) in [(global, "NO_SUCH_GLOBAL"), (map, "NO_SUCH_MAP")] {
            let error = loader.load(names::COUNT_DROP, Arguments::Raw).expect_err(name);
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }

    /// A program that only counts leaves out what names, chains and filters need.
    #[test]
    fn maps_that_a_program_does_not_use_are_not_made() {
        let names_of = |program| {
            let mut object = Object::parse(OBJECT).expect("the object");
            let definitions: Vec<_> = object.maps.drain().collect();
            link(&mut object, &definitions).expect("a linked object");
            let (_, instructions) = code(&object, program).expect("the program");
            let used = instructions.iter().filter(|instruction| refers_to_map(**instruction));
            let used = used.filter_map(|instruction| definitions.get(usize::try_from(instruction.imm).ok()?));
            used.map(|(name, _)| name.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        let counting = names_of(names::COUNT_DROP);
        assert!(counting.contains(names::COUNTS) && counting.contains(names::LEDGER), "{counting:?}");
        for unused in [names::ROWS, names::CHAINS, names::RING, names::RANGES] {
            assert!(!counting.contains(unused), "{unused} in {counting:?}");
        }
        let rows = names_of(names::COUNT_ROW);
        for unused in [names::SOCKETS, names::SOCKET_BELL, "SOCKET_ROOM"] {
            assert!(!rows.contains(unused), "{unused} in {rows:?}");
        }
        assert!(names_of(names::COUNT_SOCKET_ROW).contains(names::SOCKETS));
        assert!(names_of(names::TRACE_DROP).contains(names::RING));
    }

    /// A call with a number of our own must not get to any kernel.
    #[test]
    fn addresses_become_pointers_where_the_kernel_does_that() {
        let mut object = Object::parse(OBJECT).expect("the object");
        let definitions: Vec<_> = object.maps.drain().collect();
        link(&mut object, &definitions).expect("a linked object");
        let (_, original) = code(&object, names::COUNT_ROW).expect("the program");
        let calls = |code: &[bpf_insn], from, number| {
            let is_call =
                |insn: &&bpf_insn| insn.code == CALL && (insn.src_reg(), insn.imm) == (from, number);
            code.iter().filter(is_call).count()
        };
        let casts = calls(&original, 0, names::CAST);
        assert!(casts > 0, "nothing is read that way");
        for (number, expected) in [(None, 0), (Some(4711), casts)] {
            let mut code = original.clone();
            set_casts(&mut code, number);
            assert_eq!((calls(&code, 0, names::CAST), calls(&code, 2, 4711)), (0, expected));
        }
    }

    /// The function that is put in place of `decide` has the rest, of which the kernel rounds each part up.
    #[test]
    fn programs_leave_the_filter_its_part_of_the_stack() {
        const STACK: i16 = 512;
        const FILTER: i16 = 32;
        const FRAME: u8 = 10;
        let mut object = Object::parse(OBJECT).expect("the object");
        let definitions: Vec<_> = object.maps.drain().collect();
        link(&mut object, &definitions).expect("a linked object");
        for name in object.programs.keys() {
            let (_, instructions) = code(&object, name).expect("the program");
            let of_frame = |insn: &&bpf_insn| {
                insn.dst_reg() == FRAME || insn.src_reg() == FRAME && u32::from(insn.code) & 7 == BPF_LDX
            };
            let deepest = instructions.iter().filter(of_frame).map(|insn| insn.off).min().unwrap_or(0);
            assert!(-deepest <= STACK - FILTER, "{name} uses {} bytes", -deepest);
        }
    }

    /// What it returns says whether a return is reported. The attribute of programs at functions would have it return 0.
    #[test]
    fn what_runs_at_both_ends_of_functions_has_an_answer() {
        let object = Object::parse(OBJECT).expect("the object");
        let answers_nothing = |name| {
            let (_, instructions) = code(&object, name).expect("the program");
            let sets_to_0 = |insn: &bpf_insn| {
                u32::from(insn.code) == BPF_ALU64 | BPF_MOV && insn.dst_reg() == 0 && insn.imm == 0
            };
            let exits = |insn: &bpf_insn| u32::from(insn.code) == BPF_JMP | BPF_EXIT;
            instructions.windows(2).any(|pair| exits(&pair[1]) && sets_to_0(&pair[0]))
        };
        assert!(answers_nothing(names::DIG_CALL) && !answers_nothing(names::DIG_SESSION));
    }

    #[test]
    fn a_global_of_another_size_is_refused() {
        let loader = Loader::kfree_skb().constant(names::HAS_REASON, 1_u32);
        loader.load(names::COUNT_DROP, Arguments::Raw).expect_err("four bytes for one");
    }

    #[test]
    fn the_verifier_is_quoted() {
        // Without their types the arguments are numbers, through which nothing can be read.
        let loader = Loader::kfree_skb().constant(names::GATHER, gather::LENGTH);
        let error = loader.load(names::COUNT_ROW, Arguments::Raw).expect_err("no pointers");
        match error.downcast_ref() {
            Some(Refused::Verifier { lines, .. }) => {
                assert!(lines.contains("invalid mem access"), "{lines}");
                assert!(lines.lines().count() <= VERIFIER_LINES + 1, "{lines}");
            }
            Some(Refused::Map { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                skip("making a map needs root");
            }
            _ => panic!("{error:#}"),
        }
    }
}
