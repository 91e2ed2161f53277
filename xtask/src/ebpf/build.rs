//! Compiles the BPF program, with nothing of this machine in the result.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    compiler::{Compiler, Linker, TARGET},
    strip,
};
use crate::{command, workspace};

/// Cargo's settings that may pass into the build: where to get crates from, and how to talk meanwhile.
const KEPT: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_TERM_",
    "CARGO_BUILD_JOBS",
];

/// Variables of other tools that change what a compiler or its wrapper does.
const REMOVED: [&str; 6] =
    ["LD_LIBRARY_PATH", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTC_WORKSPACE_WRAPPER"];

/// An object that the BPF program's sources can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// What is committed and embedded.
    Shipped,
    /// The same with its log records.
    Log,
    /// What the benchmark compares the shipped one with.
    Bench,
}

impl Variant {
    /// The one for people, with or without log records.
    pub fn with_log(log: bool) -> Self {
        if log { Self::Log } else { Self::Shipped }
    }

    pub fn file_name(self) -> &'static str {
        match self {
            Self::Shipped => "dropwatch.bpf.o",
            Self::Log => "dropwatch-log.bpf.o",
            Self::Bench => "bench.bpf.o",
        }
    }

    /// The binary target it is linked from.
    fn bin(self) -> &'static str {
        match self {
            Self::Shipped | Self::Log => "dropwatch",
            Self::Bench => "bench",
        }
    }
}

/// Where an object is built before it goes anywhere else.
pub fn fresh_object(variant: Variant) -> PathBuf {
    workspace::target().join("bpf").join(variant.file_name())
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub variant: Variant,
    /// Only with the crates that the lock file names.
    pub locked: bool,
}

/// Builds the object and returns it stripped; it is also in the target directory afterwards.
pub fn build(wanted: Wanted, rustc: &Compiler, linker: &Linker) -> Result<Vec<u8>> {
    let target = workspace::target().join("bpf");
    // First the crates, then the flags: those name the directories the crates are in.
    let mut fetch = cargo(rustc, "fetch", linker, wanted)?;
    command::run(fetch.arg("--quiet")).context("the crates of the BPF program cannot be had")?;
    let mut compile = cargo(rustc, "build", linker, wanted)?;
    let bin = wanted.variant.bin();
    compile.args(["--release", "--bin", bin, "--target", TARGET, "--target-dir"]).arg(&target);
    if wanted.variant == Variant::Log {
        compile.args(["--features", "log"]);
    }
    compile.env("CARGO_ENCODED_RUSTFLAGS", flags(&target, rustc));
    command::run(&mut compile).context("the BPF program does not build")?;

    let built = target.join(TARGET).join("release").join(bin);
    let with_dwarf = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = strip::strip(&with_dwarf)?;
    let fresh = fresh_object(wanted.variant);
    // A newer file with the same bytes would make cargo rebuild whatever embeds it.
    if fs::read(&fresh).is_ok_and(|old| old == object) {
        return Ok(object);
    }
    fs::write(&fresh, &object).with_context(|| format!("cannot write {}", fresh.display()))?;
    Ok(object)
}

/// A cargo command in the BPF program's directory, with a clean environment.
fn cargo(compiler: &Compiler, subcommand: &str, linker: &Linker, wanted: Wanted) -> Result<Command> {
    let mut command = compiler.cargo(subcommand);
    command.current_dir(workspace::root().join("dropwatch-ebpf"));
    if wanted.locked {
        command.arg("--locked");
    }
    clean_environment(&mut command, env::vars_os().map(|(name, _)| name));
    command.env("PATH", path_with(&linker.path)?);
    Ok(command)
}

/// The compiler's flags, joined in cargo's way: the paths in them may have blanks.
fn flags(target: &Path, compiler: &Compiler) -> String {
    let (root, home) = (workspace::root(), workspace::cargo_home());
    // The last one that matches wins, so the more general come first.
    let mut remapped = vec![(home.clone(), "/cargo")];
    // A registry's directory is named after its address: the same crates from a mirror are elsewhere.
    remapped.extend(directories(&home.join("registry/src")).map(|registry| (registry, "/cargo/registry")));
    remapped.push((compiler.library.clone(), "/rustc"));
    remapped.push((root, "/dropwatch"));
    remapped.push((target.to_path_buf(), "/dropwatch/target/bpf"));
    let mut flags = vec!["-Cdebuginfo=2".to_string(), "-Clink-arg=--btf".to_string()];
    // Without it the linker calls a function that clears and copies byte by byte, which a drop would pay for.
    flags.push("-Clink-arg=--disable-expand-memcpy-in-order".to_string());
    flags.extend(remapped.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    flags.join("\x1f")
}

/// What is in a directory, in an order that does not change the flags from build to build.
fn directories(parent: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
    found.sort();
    found.into_iter()
}

/// Takes out whatever the cargo around this one, or the user's settings, put into the environment.
fn clean_environment(cargo: &mut Command, names: impl Iterator<Item = OsString>) {
    for name in names {
        if !passes(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    // Empty rather than absent: this also overrides a wrapper from a configuration file.
    cargo.env("RUSTC_WRAPPER", "");
}

fn passes(variable: &str) -> bool {
    let kept = KEPT.iter().any(|kept| variable.starts_with(kept));
    kept || !(variable == "CARGO" || variable.starts_with("CARGO_") || REMOVED.contains(&variable))
}

/// PATH with the linker's directory in front: naming the linker in a flag would change the object.
fn path_with(linker: &Path) -> Result<OsString> {
    let old = env::var_os("PATH").unwrap_or_default();
    let first = linker.parent().map(PathBuf::from);
    env::join_paths(first.into_iter().chain(env::split_paths(&old)))
        .context("PATH has a directory with a colon")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flag of the outer build in the inner one would change the object without a trace in the record.
    #[test]
    fn the_outer_cargo_does_not_leak() {
        for leak in
            ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_RELEASE_LTO", "CARGO_PKG_NAME", "RUSTFLAGS"]
        {
            assert!(!passes(leak), "{leak}");
        }
        for kept in ["PATH", "HOME", "CARGO_HOME", "CARGO_HTTP_CAINFO", "RUSTUP_HOME", "HTTPS_PROXY"] {
            assert!(passes(kept), "{kept}");
        }
    }
}
