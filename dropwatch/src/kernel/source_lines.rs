//! Files and lines of the kernel's source, where its debug information is installed.
//!
//! The address of a drop is where the call of a freeing function returns to. Its line is that of the call, as the
//! author of the dropping function wrote it: the innermost of the functions inlined there that is neither in a header
//! nor a wrapper of the freeing functions.

#[cfg(all(test, feature = "debug-package"))]
mod comparison;
mod files;
mod module;
mod service;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

use blazesym::{
    inspect::{self, Inspector},
    symbolize::{
        CodeInfo, Input, Sym, Symbolizer,
        source::{Elf, Source},
    },
};

pub use self::{files::DebugFiles, service::LineService};

use self::{files::build_id_of, module::Module};
use crate::{
    escape::Escaped,
    model::{
        foreign::Foreign,
        location::{Location, SourceLine, Symbol},
    },
};

/// The most that the files of modules hold in memory together, in bytes.
const MAX_MODULES: usize = 256 << 20;

/// The debug information of the running kernel and its modules. Stays in the thread that opened it.
pub struct SourceLines {
    symbolizer: Symbolizer,
    kernel: Source<'static>,
    /// Running address minus the file's.
    slide: u64,
    /// What stands in front of the path of every source file.
    root: PathBuf,
    files: DebugFiles,
    /// By name, each with its build id; none where no file fits.
    modules: HashMap<Foreign, (Vec<u8>, Option<Module>)>,
}

impl fmt::Debug for SourceLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceLines")
            .field("kernel", &self.kernel)
            .field("slide", &self.slide)
            .finish_non_exhaustive()
    }
}

/// Whether bytes are a module's file whose lines could be looked up: for the fuzzer, which has no files.
#[doc(hidden)]
#[must_use]
pub fn can_be_laid_out(file: &[u8]) -> bool {
    module::lay_out(file).is_ok()
}

impl SourceLines {
    /// Opens the first file that is of the running kernel, whose `_stext` is at `stext`.
    #[must_use]
    pub fn open(files: DebugFiles, stext: u64) -> Option<Self> {
        let build_id = files.kernel_build_id()?;
        let path = files.of_kernel(&build_id).into_iter().find(|path| is_of(path, &build_id))?;
        let mut symbols = inspect::source::Elf::new(&path);
        symbols.debug_syms = false;
        let inspector = Inspector::new();
        let found = inspector.lookup(&symbols.into(), &["_stext", "start_kernel"]).ok()?;
        let address = |of: usize| Some(found.get(of)?.first()?.addr);
        let Some(start) = address(0) else {
            log::info!("{} is not used: it has no _stext", Escaped::path(&path));
            return None;
        };
        let symbolizer = symbolizer();
        let kernel = Source::Elf(Elf::new(path));
        let root = address(1).and_then(|address| root(&symbolizer, &kernel, address));
        Some(Self {
            symbolizer,
            kernel,
            slide: stext.wrapping_sub(start),
            root: root.unwrap_or_default(),
            files,
            modules: HashMap::new(),
        })
    }

    /// The line of source of a location. A location with an offset is the address after a call, so the line is that
    /// of the byte before it.
    #[must_use]
    pub fn line(&mut self, location: &Location) -> Option<SourceLine> {
        let symbol = location.symbol.as_ref()?;
        let is_after_call = u64::from(symbol.offset > 0);
        if symbol.is_in_kernel() {
            let address = location.address.wrapping_sub(is_after_call).wrapping_sub(self.slide);
            return line(&self.symbolizer, &self.kernel, address, &self.root);
        }
        let module = module(&mut self.modules, &self.files, &symbol.module)?;
        let address = module.address(symbol)? - is_after_call;
        line(&module.symbolizer, &module.source, address, &self.root)
    }
}

/// Finds lines, and the functions inlined there.
fn symbolizer() -> Symbolizer {
    Symbolizer::builder().enable_inlined_fns(true).build()
}

/// The file of a module as it is loaded now, opened if need be.
fn module<'a>(
    modules: &'a mut HashMap<Foreign, (Vec<u8>, Option<Module>)>,
    files: &DebugFiles,
    name: &Foreign,
) -> Option<&'a Module> {
    let build_id = files.module_build_id(name)?;
    if modules.get(name).is_none_or(|(of, _)| *of != build_id) {
        let held: usize = modules.values().filter_map(|(_, module)| Some(module.as_ref()?.size)).sum();
        if held > MAX_MODULES {
            modules.clear();
        }
        let paths = files.of_module(name, &build_id);
        let opened = paths.iter().filter(|path| is_of(path, &build_id)).find_map(|path| Module::open(path));
        modules.insert(name.clone(), (build_id, opened));
    }
    modules.get(name)?.1.as_ref()
}

/// Whether a file is the one with this build id.
fn is_of(path: &Path, build_id: &[u8]) -> bool {
    if !path.is_file() {
        return false;
    }
    let is_of = build_id_of(path).as_deref() == Some(build_id);
    if !is_of {
        log::info!("{} is not used: its build id differs from the running one", Escaped::path(path));
    }
    is_of
}

/// Where the kernel's source was when it was built: all but `init/main.c` of the file that `start_kernel` is in.
fn root(symbolizer: &Symbolizer, kernel: &Source<'_>, start_kernel: u64) -> Option<PathBuf> {
    let found = symbolizer.symbolize_single(kernel, Input::VirtOffset(start_kernel)).ok()?;
    let file = found.as_sym()?.code_info.as_deref()?.to_path().into_owned();
    file.ends_with("init/main.c").then(|| file.ancestors().nth(2).map(Path::to_owned)).flatten()
}

fn line(symbolizer: &Symbolizer, source: &Source<'_>, address: u64, root: &Path) -> Option<SourceLine> {
    let found = symbolizer.symbolize_single(source, Input::VirtOffset(address)).ok()?;
    let frames = frames(found.as_sym()?);
    let (_, code) = frames
        .iter()
        .find(|(name, code)| !is_header(code) && !is_wrapper(name))
        .or_else(|| frames.iter().find(|(name, _)| !is_wrapper(name)))
        .or(frames.first())?;
    let path = code.to_path();
    let file = path.strip_prefix(root).unwrap_or(&path).as_os_str().into();
    Some(SourceLine { file, line: code.line.filter(|&line| line > 0)? })
}

/// The functions an address is in, innermost first: those inlined there, then the one they are inlined into.
fn frames<'a>(symbol: &'a Sym<'_>) -> Vec<(&'a str, &'a CodeInfo<'a>)> {
    let inlined = symbol.inlined.iter().rev().filter_map(|it| Some((&*it.name, it.code_info.as_ref()?)));
    inlined.chain(symbol.code_info.as_deref().map(|code| (&*symbol.name, code))).collect()
}

fn is_header(code: &CodeInfo<'_>) -> bool {
    Path::new(&*code.file).extension().is_some_and(|extension| extension == "h")
}

/// Whether a function frees packets for its callers: then the caller's line is the answer.
fn is_wrapper(name: &str) -> bool {
    name.contains("kfree_skb") || matches!(name, "sk_skb_reason_drop" | "tcp_drop" | "tcp_drop_reason")
}

/// A place in a function, as bytes from its start.
fn offset_in(symbol: &Symbol, size: u64) -> Option<u64> {
    (symbol.offset <= size).then_some(symbol.offset)
}
