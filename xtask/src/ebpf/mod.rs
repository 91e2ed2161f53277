//! `cargo xtask ebpf`: builds the BPF object that is committed and embedded, and proves where it came from.

mod build;
mod compiler;
mod digest;
mod record;
mod strip;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::workspace;
use build::{Wanted, build};
use record::Record;

pub use build::Variant;
pub use compiler::{has_compiler, has_linker};

#[derive(Args)]
pub struct Options {
    /// Write nothing: fail if the committed object was not built from the sources as they are
    #[arg(long, conflicts_with_all = ["log", "out"])]
    check: bool,
    /// Build the diagnostics object, which logs keys that are new in the map, and losses, to target/bpf/dropwatch-log.bpf.o
    #[arg(long)]
    log: bool,
    /// Write the object here, and no record
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn main(options: &Options) -> Result<()> {
    match &options.out {
        _ if options.check => check(),
        Some(out) => write_elsewhere(Variant::with_log(options.log), out),
        None if options.log => write_elsewhere(Variant::Log, &workspace::fresh_object(Variant::Log)),
        None => commit(),
    }
}

/// Builds the object as the sources are now, into the target directory only.
pub fn build_fresh(variant: Variant) -> Result<()> {
    let recorded = read_record().unwrap_or_default();
    let (compiler, linker) = compiler::pick(&recorded.compiler)?;
    build(Wanted { variant, locked: false }, &compiler, &linker)?;
    Ok(())
}

/// The committed object.
fn object_path() -> PathBuf {
    workspace::root().join("dropwatch/bpf/dropwatch.bpf.o")
}

/// The record beside it.
fn record_path() -> PathBuf {
    object_path().with_extension("toml")
}

fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

fn read_record() -> Result<Record> {
    let path = record_path();
    let text = fs::read_to_string(&path).with_context(|| {
        format!("no record {}; write it with `cargo xtask ebpf`", workspace::shown(&path))
    })?;
    Record::parse(&text).with_context(|| {
        format!("{} is damaged; write it anew with `cargo xtask ebpf`", workspace::shown(&path))
    })
}

fn write_elsewhere(variant: Variant, out: &Path) -> Result<()> {
    build_fresh(variant)?;
    let fresh = workspace::fresh_object(variant);
    if out != fresh {
        fs::copy(&fresh, out).with_context(|| format!("cannot write {}", out.display()))?;
    }
    println!("{}: {} bytes", workspace::shown(out), fs::metadata(out)?.len());
    Ok(())
}

/// Builds the object that goes into the repository, with its record.
fn commit() -> Result<()> {
    let old = read_record().unwrap_or_default();
    let (compiler, linker) = compiler::pick(&old.compiler)?;
    println!("compiler: {}\nlinker: {}", compiler.version, linker.version);
    let object = build(Wanted { variant: Variant::Shipped, locked: false }, &compiler, &linker)?;
    let record = Record {
        compiler: compiler.version,
        linker: linker.version,
        // After the build, which may have brought the lock file up to date.
        sources: digest::of_sources(&workspace::root())?,
        object: digest::of_bytes(&object),
        bytes: object.len(),
    };
    fs::create_dir_all(object_path().parent().unwrap_or(Path::new("/")))?;
    write(&object_path(), &object)?;
    write(&record_path(), record.to_string())?;
    let news = if record.object == old.object { "unchanged" } else { "changed: commit it with its record" };
    println!("{}: {} bytes, {news}", workspace::shown(&object_path()), record.bytes);
    Ok(())
}

/// Has cargo embed the object of the sources as they were at the last build of it. One that is the committed one is
/// not named, lest cargo build anew what it has.
pub fn embed(cargo: &mut Command, variant: Variant) -> &mut Command {
    let fresh = workspace::fresh_object(variant);
    match fs::read(&fresh) {
        Ok(object) if !fs::read(object_path()).is_ok_and(|committed| committed == object) => {
            cargo.env("DROPWATCH_BPF_OBJECT", fresh)
        }
        _ => cargo,
    }
}

/// Compares the committed object with its record, the record with the sources, and a fresh build with all.
pub fn check() -> Result<()> {
    let record = read_record()?;
    let path = object_path();
    let shown = workspace::shown(&path);
    let committed =
        fs::read(&path).with_context(|| format!("no {shown}; build it with `cargo xtask ebpf`"))?;
    ensure!(
        digest::of_bytes(&committed) == record.object,
        "{shown} is not the object its record is about: one was committed without the other, or a merge mixed \
         them; build both anew with `cargo xtask ebpf`"
    );
    ensure!(
        digest::of_sources(&workspace::root())? == record.sources,
        "the BPF program's sources changed after {shown} was built; build it anew with `cargo xtask ebpf` and \
         commit it with its record"
    );
    let (compiler, linker) = compiler::pick(&record.compiler).context(
        "the committed object fits its record and sources, but without a compiler it cannot be rebuilt",
    )?;
    let fresh = build(Wanted { variant: Variant::Shipped, locked: true }, &compiler, &linker)?;
    if compiler.version != record.compiler || linker.version != record.linker {
        println!("{shown}: fits its record and the sources; not compared byte by byte:");
        println!("  made by    {}; {}", record.compiler, record.linker);
        println!("  here there is {}; {}", compiler.version, linker.version);
        return Ok(());
    }
    compare(&shown, &committed, &fresh)
}

/// The same compiler and sources must make the same bytes.
fn compare(shown: &str, committed: &[u8], fresh: &[u8]) -> Result<()> {
    if committed == fresh {
        println!("{shown}: {} bytes, the same as a fresh build by the same compiler", fresh.len());
        return Ok(());
    }
    let same = committed.iter().zip(fresh).take_while(|(one, other)| one == other).count();
    bail!(
        "{shown} ({} bytes) was not built from these sources: a fresh build by the same compiler ({} bytes, in {}) \
         differs from byte {same} on. Build it anew with `cargo xtask ebpf`; if that changes nothing in git, the \
         build picked up something of this machine: compare both with `llvm-readelf -a`",
        committed.len(),
        fresh.len(),
        workspace::shown(&workspace::fresh_object(Variant::Shipped))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A difference is reported with its place, also when one object is only longer.
    #[test]
    fn the_first_different_byte_is_named() {
        assert!(compare("o", b"abc", b"abc").is_ok());
        assert!(compare("o", b"abc", b"abd").unwrap_err().to_string().contains("from byte 2 on"));
        assert!(compare("o", b"abc", b"abcd").unwrap_err().to_string().contains("from byte 3 on"));
    }
}
