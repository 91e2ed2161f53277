//! Files and lines of the kernel's source, where a `vmlinux` with debug information is installed.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use blazesym::helper::read_elf_build_id;
use blazesym::inspect::{self, Inspector};
use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolizer};

use crate::kallsyms::saved::note_named;
use crate::symbols::Location;

/// The type of a note that holds a build id.
const NT_GNU_BUILD_ID: u64 = 3;

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The file, as the compiler was given it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display().to_string().escape_debug(), self.line)
    }
}

/// The debug information of the running kernel. Stays in the thread that opened it.
pub struct SourceLines {
    symbolizer: Symbolizer,
    source: Source<'static>,
    /// Running address minus the file's.
    slide: u64,
}

impl fmt::Debug for SourceLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { symbolizer: _, source, slide } = self;
        f.debug_struct("SourceLines").field("source", source).field("slide", slide).finish_non_exhaustive()
    }
}

impl SourceLines {
    /// Looks for the `vmlinux` of kernel `release` (as `uname -r` has it) where distributions put it. `stext`
    /// is the address of `_stext` in the running kernel. `None` if there is no such file, or none of this
    /// very kernel.
    #[must_use]
    pub fn open(release: &str, stext: u64) -> Option<Self> {
        let notes = std::fs::read("/sys/kernel/notes").ok();
        let build_id = notes.as_deref().and_then(|notes| note_named(notes, b"GNU", Some(NT_GNU_BUILD_ID)));
        candidates(release).iter().find_map(|path| Self::open_file(path, stext, build_id))
    }

    /// Opens one `vmlinux`, if it has `build_id` (not compared if it is not known) and a `_stext`.
    fn open_file(path: &Path, stext: u64, build_id: Option<&[u8]>) -> Option<Self> {
        if !path.is_file() {
            return None;
        }
        if let Some(build_id) = build_id {
            let found = read_elf_build_id(&path).ok().flatten();
            if found.as_deref() != Some(build_id) {
                log::info!("{} is not used: its build id is not the running kernel's", path.display());
                return None;
            }
        }
        let mut symbols = inspect::source::Elf::new(path);
        symbols.debug_syms = false;
        let inspector = Inspector::new();
        let found = inspector.lookup(&symbols.into(), &["_stext"]).ok()?;
        let slide = stext.wrapping_sub(found.first()?.first()?.addr);
        // Of functions inlined into one another, the line wanted is the innermost: what the address itself is
        // of.
        let symbolizer = Symbolizer::builder().enable_inlined_fns(false).build();
        Some(Self { symbolizer, source: Source::Elf(Elf::new(path)), slide })
    }

    /// The line of source of a location in the kernel proper. A location with an offset is the address after
    /// a call, so the line is that of the byte before it.
    #[must_use]
    pub fn line(&mut self, location: &Location) -> Option<SourceLine> {
        let symbol = location.symbol.as_ref().filter(|symbol| symbol.is_in_kernel())?;
        let address = location.address - u64::from(symbol.offset > 0);
        let input = Input::VirtOffset(address.wrapping_sub(self.slide));
        let symbolized = self.symbolizer.symbolize_single(&self.source, input).ok()?;
        let code = symbolized.as_sym()?.code_info.as_deref()?;
        Some(SourceLine { file: code.to_path().into_owned(), line: code.line? })
    }
}

/// Where a `vmlinux` may be.
fn candidates(release: &str) -> [PathBuf; 6] {
    [
        format!("/usr/lib/debug/boot/vmlinux-{release}"),
        format!("/usr/lib/debug/lib/modules/{release}/vmlinux"),
        format!("/usr/lib/debug/lib/modules/{release}/vmlinux.debug"),
        format!("/usr/lib/debug/boot/vmlinux-{release}.debug"),
        format!("/boot/vmlinux-{release}"),
        format!("/lib/modules/{release}/build/vmlinux"),
    ]
    .map(PathBuf::from)
}

/// Finds lines in a thread of its own: reading debug information takes seconds, which no report waits for.
#[derive(Debug)]
pub struct LineService {
    questions: Sender<Location>,
    answers: Arc<Mutex<HashMap<u64, SourceLine>>>,
    asked: HashSet<u64>,
}

impl LineService {
    /// Starts the thread if debug information of the running kernel is installed, which has `_stext` at `stext`.
    #[must_use]
    pub fn start(stext: u64) -> Option<Self> {
        let release = nix::sys::utsname::uname().ok()?.release().to_str()?.to_owned();
        if !candidates(&release).iter().any(|path| path.exists()) {
            return None;
        }
        let (questions, asked) = mpsc::channel::<Location>();
        let answers = Arc::new(Mutex::new(HashMap::new()));
        let found = Arc::clone(&answers);
        let work = move || {
            let Some(mut lines) = SourceLines::open(&release, stext) else { return };
            for location in asked {
                if let Some(line) = lines.line(&location) {
                    lock(&found).insert(location.address, line);
                }
            }
        };
        thread::Builder::new().name("source lines".into()).spawn(work).ok()?;
        Some(Self { questions, answers, asked: HashSet::new() })
    }

    /// The line, if it has been found by now. If not, a later call may know it.
    pub fn line(&mut self, location: &Location) -> Option<SourceLine> {
        if self.asked.insert(location.address) {
            // A thread that is gone has nothing to say.
            let _ = self.questions.send(location.clone());
        }
        lock(&self.answers).get(&location.address).cloned()
    }
}

/// No code panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::kallsyms::Index;
    use crate::symbols::{KallsymsSource, Symbols, Table};

    const SOURCE: &str = "\
int sink;
void _stext(void) { sink = 1; }
void other(void)
{
    sink = 2;
    _stext();
    sink = 3;
}
";

    const SLIDE: u64 = 0x1e00_0000;

    /// A kernel of two functions with debug information, and its symbols where the running one has them.
    fn compile(directory: &Path) -> Option<(PathBuf, Arc<Table>)> {
        let (source, vmlinux) = (directory.join("kernel.c"), directory.join("vmlinux"));
        std::fs::write(&source, SOURCE).unwrap();
        let options = "-g -O0 -static -no-pie -fno-pic -mcmodel=kernel -nostdlib \
                       -Wl,--build-id=0x0123456789abcdef -Wl,-Ttext=0xffffffff81000000 -Wl,-e,_stext";
        let mut gcc = Command::new("gcc");
        gcc.args(options.split_ascii_whitespace()).arg("-o").args([&vmlinux, &source]);
        if !gcc.status().is_ok_and(|status| status.success()) {
            return None;
        }
        let inspector = Inspector::new();
        let elf = inspect::source::Elf::new(&vmlinux).into();
        let found = inspector.lookup(&elf, &["_stext", "other"]).unwrap();
        let line = |name: &str, address: u64| format!("{:x} T {name}\n", address + SLIDE);
        let text = line("_stext", found[0][0].addr)
            + &line("other", found[1][0].addr)
            + &line("_etext", found[1][0].addr + found[1][0].size.unwrap() as u64);
        let index = Index::read(text.as_bytes()).unwrap();
        let saved = crate::kallsyms::saved::Saved { index, slide: 0, warnings: Vec::new() };
        let table = Symbols::start(KallsymsSource::Saved(saved)).table();
        Some((vmlinux, table))
    }

    #[test]
    fn an_address_has_the_line_of_its_call() {
        let directory = tempfile::tempdir().unwrap();
        let Some((vmlinux, table)) = compile(directory.path()) else {
            return eprintln!("skipped: no compiler");
        };
        let stext = table.index().unique("_stext").unwrap();
        assert_eq!(stext, 0xffff_ffff_9f00_0000);
        let mut lines = SourceLines::open_file(&vmlinux, stext, None).unwrap();
        let other = table.index().unique("other").unwrap();
        let mut line = |location: &Location| lines.line(location);

        let first = line(&table.locate(other)).unwrap();
        assert_eq!(first, SourceLine { file: directory.path().join("kernel.c"), line: 4 });
        assert_eq!(first.to_string(), format!("{}:4", directory.path().join("kernel.c").display()));
        assert_eq!(line(&table.locate(0x1234)), None);

        // A location without an offset is taken as it is: that finds the first byte of line 7, after the
        // call.
        let mut number_at = |address| {
            let mut location = table.locate(address);
            location.symbol.as_mut()?.offset = 0;
            Some(line(&location)?.line)
        };
        let after_call = (other..other + 0x1000).find(|&address| number_at(address) == Some(7)).unwrap();
        assert_eq!(line(&table.locate(after_call)).unwrap().line, 6);
    }

    #[test]
    fn another_kernels_file_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let Some((vmlinux, _)) = compile(directory.path()) else { return eprintln!("skipped: no compiler") };
        let build_id = 0x0123_4567_89ab_cdef_u64.to_be_bytes();
        assert!(SourceLines::open_file(&vmlinux, 0xffff_ffff_9f00_0000, Some(&build_id)).is_some());
        assert!(SourceLines::open_file(&vmlinux, 0xffff_ffff_9f00_0000, Some(&[7; 20])).is_none());
        assert!(SourceLines::open_file(Path::new("/nonexistent"), 0, None).is_none());
        assert!(SourceLines::open_file(&directory.path().join("kernel.c"), 0, None).is_none());
    }
}
