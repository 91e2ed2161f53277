//! `cargo xtask ebpf`: builds the BPF object that is committed and embedded, and proves where it came from.

mod build;
mod compiler;
pub mod digest;
mod record;
mod strip;
mod surface;

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

pub use build::{Variant, fresh_object};
pub use compiler::{NoToolchain, has_compiler, has_linker};

#[derive(Args)]
pub struct Options {
    /// Write nothing: fail if the committed object was not built from the sources as they are. Compares it byte by byte
    /// with a fresh build by the compiler and linker that made it; where these are not here, compares digests of the
    /// sources and the object, and what the object offers to the loader
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
        None if options.log => write_elsewhere(Variant::Log, &fresh_object(Variant::Log)),
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
    let fresh = fresh_object(variant);
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
/// not named, so that cargo does not rebuild what it has.
pub fn embed(cargo: &mut Command, variant: Variant) -> &mut Command {
    let fresh = fresh_object(variant);
    match fs::read(&fresh) {
        Ok(object) if !fs::read(object_path()).is_ok_and(|committed| committed == object) => {
            cargo.env("DROPWATCH_BPF_OBJECT", fresh)
        }
        _ => cargo,
    }
}

/// Compares the committed object with its record, and the record with the sources: that needs no compiler.
pub fn check_record() -> Result<()> {
    committed().map(drop)
}

/// The committed object and its record, which fit each other and the sources.
fn committed() -> Result<(Record, Vec<u8>)> {
    let record = read_record()?;
    let path = object_path();
    let shown = workspace::shown(&path);
    let committed =
        fs::read(&path).with_context(|| format!("no {shown}; build it with `cargo xtask ebpf`"))?;
    fits(&shown, &record, &digest::of_bytes(&committed), &digest::of_sources(&workspace::root())?)?;
    Ok((record, committed))
}

/// Compares the committed object with its record, the record with the sources, and a fresh build with all.
pub fn check() -> Result<()> {
    let (record, committed) = committed()?;
    let shown = workspace::shown(&object_path());
    let (compiler, linker) = compiler::pick(&record.compiler).context(
        "the committed object fits its record and sources, but without a compiler it cannot be rebuilt",
    )?;
    let fresh = build(Wanted { variant: Variant::Shipped, locked: true }, &compiler, &linker)?;
    if compiler.version == record.compiler && linker.version == record.linker {
        return compare(&shown, &committed, &fresh);
    }
    let offered = surface::compare(&shown, &committed, &fresh)?;
    println!("{shown}: NOT compared byte by byte, because other tools made it:");
    println!("  made by  {}; {}", record.compiler, record.linker);
    println!("  here are {}; {}", compiler.version, linker.version);
    println!("  its digest and that of the sources are those of its record;");
    println!(
        "  its {offered} programs, maps and constants are those of a fresh build, which the tests embed"
    );
    Ok(())
}

/// Fails unless the record is about this object and these sources.
fn fits(shown: &str, record: &Record, object: &str, sources: &str) -> Result<()> {
    ensure!(
        object == record.object,
        "{shown} is not the object its record is about: one was committed without the other, or a merge mixed \
         them; build both anew with `cargo xtask ebpf`"
    );
    ensure!(
        sources == record.sources,
        "the BPF program's sources changed after {shown} was built; build it anew with `cargo xtask ebpf` and \
         commit it with its record"
    );
    Ok(())
}

/// The same compiler and sources must make the same bytes.
fn compare(shown: &str, committed: &[u8], fresh: &[u8]) -> Result<()> {
    if committed == fresh {
        println!("{shown}: compared byte by byte: the same {} bytes as a fresh build", fresh.len());
        return Ok(());
    }
    let same = committed.iter().zip(fresh).take_while(|(one, other)| one == other).count();
    bail!(
        "{shown} ({} bytes) was not built from these sources: a fresh build by the same compiler ({} bytes, in {}) \
         differs from byte {same} on. Build it anew with `cargo xtask ebpf`; if that changes nothing in git, the \
         build picked up something of this machine: compare both with `llvm-readelf -a`",
        committed.len(),
        fresh.len(),
        workspace::shown(&fresh_object(Variant::Shipped))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever compiler is here, an object of other sources, or one that its record is not about, is refused.
    #[test]
    fn a_record_is_about_one_object_and_its_sources() {
        let record = Record { object: "ab".into(), sources: "cd".into(), ..Record::default() };
        fits("o", &record, "ab", "cd").unwrap();
        assert!(
            fits("o", &record, "xx", "cd").unwrap_err().to_string().contains("not the object its record")
        );
        assert!(fits("o", &record, "ab", "xx").unwrap_err().to_string().contains("sources changed after"));
    }

    /// A difference is reported with its place, also when one object is only longer.
    #[test]
    fn the_first_different_byte_is_named() {
        assert!(compare("o", b"abc", b"abc").is_ok());
        assert!(compare("o", b"abc", b"abd").unwrap_err().to_string().contains("from byte 2 on"));
        assert!(compare("o", b"abc", b"abcd").unwrap_err().to_string().contains("from byte 3 on"));
    }
}
