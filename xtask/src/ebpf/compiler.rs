//! Which compiler and linker build the BPF object here.
//!
//! Either a rustup nightly with the library's sources, which compiles `core` on the way, or Debian's own rustc,
//! whose packages have a compiled `core` for the target.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail, ensure};

use crate::command;

/// The target of the kernel's little-endian virtual machine.
pub const TARGET: &str = "bpfel-unknown-none";

/// There is no compiler or linker for BPF here, or they do not fit together: something to install.
#[derive(Debug)]
pub struct NoToolchain(String);

impl fmt::Display for NoToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoToolchain {}

/// A compiler that can build for [`TARGET`].
#[derive(Clone, Debug)]
pub struct Compiler {
    kind: Kind,
    /// As the record has it.
    pub version: String,
    /// The major version of its LLVM.
    llvm: u32,
    /// Where the library's sources are, or would be: a path to keep out of the object.
    pub library: PathBuf,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The name of a toolchain of rustup.
    Rustup(String),
    /// `/usr/bin/rustc` and `/usr/bin/cargo`.
    System,
}

impl Compiler {
    /// A cargo command of this compiler, up to the subcommand's options.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo;
        match &self.kind {
            Kind::Rustup(toolchain) => {
                cargo = Command::new("rustup");
                cargo.args(["run", toolchain, "cargo", subcommand, "-Z", "build-std=core"]);
            }
            Kind::System => {
                cargo = Command::new("/usr/bin/cargo");
                // aya-ebpf needs inline assembly for BPF, which no stable compiler has; nothing else is unstable.
                cargo.arg(subcommand).env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            }
        }
        cargo
    }
}

/// bpf-linker, which turns LLVM's bitcode into the object.
#[derive(Clone, Debug)]
pub struct Linker {
    pub path: PathBuf,
    /// As the record has it.
    pub version: String,
    /// The major version of its LLVM, if it could be found.
    llvm: Option<u32>,
}

/// The compiler and the linker to use: the pair that made the committed object if it is here.
pub fn pick(recorded: &str) -> Result<(Compiler, Linker)> {
    let linker = linker()?;
    let mut compilers = rustup_compilers();
    compilers.extend(system_compiler());
    ensure!(!compilers.is_empty(), NoToolchain("no compiler for BPF here".into()));
    // The linker reads what the compiler's LLVM wrote, so it must not be older.
    let (mut usable, too_new): (Vec<_>, Vec<_>) =
        compilers.into_iter().partition(|compiler| linker.llvm.is_none_or(|llvm| llvm >= compiler.llvm));
    usable.sort_by_key(|compiler| compiler.version != recorded);
    match usable.into_iter().next() {
        Some(compiler) => Ok((compiler, linker)),
        None => bail!(NoToolchain(format!(
            "{} ({}) cannot read what {} writes: its LLVM is older",
            linker.path.display(),
            linker.version,
            too_new[0].version,
        ))),
    }
}

/// Whether some compiler here can build for BPF.
pub fn has_compiler() -> bool {
    system_compiler().is_some() || !rustup_compilers().is_empty()
}

/// Whether bpf-linker is here and finds its libraries.
pub fn has_linker() -> bool {
    linker().is_ok()
}

/// The nightlies that rustup has together with the library's sources, newest name first.
fn rustup_compilers() -> Vec<Compiler> {
    let Ok(list) = command::output(Command::new("rustup").args(["toolchain", "list"])) else {
        return Vec::new();
    };
    nightlies(&list).into_iter().filter_map(rustup_compiler).collect()
}

/// The nightly toolchains in rustup's list: the undated one first, then the newest date.
fn nightlies(list: &str) -> Vec<&str> {
    let first_words = list.lines().filter_map(|line| line.split_whitespace().next());
    let mut names: Vec<_> = first_words.filter(|name| name.starts_with("nightly")).collect();
    names.sort_unstable_by(|one, other| other.cmp(one));
    names
}

fn rustup_compiler(toolchain: &str) -> Option<Compiler> {
    let rustc = || {
        let mut rustc = Command::new("rustup");
        rustc.args(["run", toolchain, "rustc"]);
        rustc
    };
    let sysroot = command::output(rustc().args(["--print", "sysroot"])).ok()?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    library.join("library/core/src/lib.rs").exists().then_some(())?;
    let (version, llvm) = version(&command::output(rustc().arg("-vV")).ok()?)?;
    Some(Compiler { kind: Kind::Rustup(toolchain.into()), version, llvm, library })
}

/// The distribution's compiler, if it has a compiled `core` for the target.
fn system_compiler() -> Option<Compiler> {
    let rustc = || {
        let mut rustc = Command::new("/usr/bin/rustc");
        rustc.env_remove("LD_LIBRARY_PATH");
        rustc
    };
    Path::new("/usr/bin/cargo").exists().then_some(())?;
    let libraries = command::output(rustc().args(["--print", "target-libdir", "--target", TARGET])).ok()?;
    let mut files = fs::read_dir(libraries.trim()).ok()?.filter_map(Result::ok);
    files.any(|file| file.file_name().to_string_lossy().starts_with("libcore-")).then_some(())?;
    let (version, llvm) = version(&command::output(rustc().arg("-vV")).ok()?)?;
    Some(Compiler { kind: Kind::System, version, llvm, library: "/usr/lib/rustlib/src/rust".into() })
}

/// The first line of `rustc -vV` with LLVM's version, and LLVM's major version.
fn version(verbose: &str) -> Option<(String, u32)> {
    let rustc = verbose.lines().next()?;
    let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    Some((format!("{rustc}, LLVM {llvm}"), major(llvm)?))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// The bpf-linker of this machine.
fn linker() -> Result<Linker> {
    let Some(path) = command::find("bpf-linker") else {
        bail!(NoToolchain("no bpf-linker here".into()));
    };
    let version = command::output(Command::new(&path).arg("--version"))
        .map_err(|error| NoToolchain(format!("bpf-linker does not start: {error:#}")))?;
    let llvm = linker_llvm(&path);
    let llvm_shown = llvm.as_deref().unwrap_or("unknown");
    Ok(Linker {
        version: format!("{}, LLVM {llvm_shown}", version.trim()),
        llvm: llvm.as_deref().and_then(major),
        path,
    })
}

/// The version of bpf-linker's LLVM; it does not print it, so the library that it loads is searched.
fn linker_llvm(linker: &Path) -> Option<String> {
    let libraries = command::output(Command::new("ldd").arg(linker)).unwrap_or_default();
    let shared = libraries
        .lines()
        .filter(|line| line.contains("libLLVM"))
        .find_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let file = shared.map_or_else(|| linker.to_path_buf(), PathBuf::from);
    let mut grep = Command::new("grep");
    grep.args(["-a", "-o", "-m1", "-E", "LLVM version [0-9]+[.][0-9]+[.][0-9]+"])
        .arg(file)
        .env("LC_ALL", "C");
    let found = command::output(&mut grep).ok()?;
    Some(found.lines().next()?.rsplit(' ').next()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The version has to distinguish two compilers of one release: the commit and LLVM are in it.
    #[test]
    fn a_compiler_is_known_by_its_commit_and_llvm() {
        let verbose =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let expected = "rustc 1.96.0 (ac68faa20 2026-05-25), LLVM 22.1.8".to_string();
        assert_eq!(version(verbose), Some((expected, 22)));
        assert_eq!(version("rustc 1.96.0\n"), None);
    }

    /// Only nightlies can compile the library; rustup marks the default one.
    #[test]
    fn nightlies_are_picked_from_the_list() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-2026-05-20-x86_64-unknown-linux-gnu\n\
                    nightly-x86_64-unknown-linux-gnu\n1.95.0-x86_64-unknown-linux-gnu\n";
        let expected = ["nightly-x86_64-unknown-linux-gnu", "nightly-2026-05-20-x86_64-unknown-linux-gnu"];
        assert_eq!(nightlies(list), expected);
    }
}
