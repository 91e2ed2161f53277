//! The program as it is released: static, and with nothing of this machine in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::Release;
use crate::{arch::Arch, command, cross::Compiler, run, workspace};

/// A program and what made it.
pub struct Built {
    pub program: PathBuf,
    /// What `rustc --version` says.
    pub compiler: String,
}

/// Builds the program for a processor.
pub fn program(release: &Release, arch: Arch) -> Result<Built> {
    let compiler = Compiler::pick(arch)?;
    let target = release.work.join("build");
    // First the crates, then the flags: those name the directories the crates are in.
    let mut fetch = command::cargo();
    command::run(fetch.args(["fetch", "--quiet", "--locked"]).current_dir(workspace::root()))
        .context("the crates cannot be had")?;
    let mut build = compiler.cargo("build", &flags(&target));
    build.args(["--release", "--locked", "--package", "dropwatch", "--bin", "dropwatch", "--target-dir"]);
    build.arg(&target).current_dir(workspace::root()).stdin(Stdio::null());
    // Another object, and settings of a profile, would be in the program without a trace.
    build.env_remove("DROPWATCH_BPF_OBJECT");
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PROFILE_"))
    {
        build.env_remove(name);
    }
    let program = run::built_program(&mut build)?;
    ensure_static(&program)?;
    Ok(Built { program, compiler: compiler.version })
}

/// A static program that is loaded anywhere, without the directories of this machine.
fn flags(target: &Path) -> Vec<String> {
    let (root, home) = (workspace::root(), workspace::cargo_home());
    // The last one that matches wins, so the more general come first.
    let mut remapped = vec![(home.clone(), "/cargo")];
    // A registry's directory is named after its address: the same crates from a mirror are elsewhere.
    let registries = fs::read_dir(home.join("registry/src")).into_iter().flatten().filter_map(Result::ok);
    let mut registries: Vec<_> = registries.map(|entry| entry.path()).collect();
    registries.sort();
    remapped.extend(registries.into_iter().map(|registry| (registry, "/cargo/registry")));
    remapped.push((root, "/dropwatch"));
    remapped.push((target.to_path_buf(), "/dropwatch/target"));
    let remap = |(from, to): (PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    let first = ["-Ctarget-feature=+crt-static".to_string(), "-Clink-arg=-Wl,--build-id=sha1".to_string()];
    first.into_iter().chain(remapped.into_iter().map(remap)).collect()
}

/// A program that asks for a loader would not start where there is none.
fn ensure_static(program: &Path) -> Result<()> {
    let headers =
        command::output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(program))?;
    ensure!(!headers.contains("INTERP"), "{} is not static: is libc.a installed?", program.display());
    Ok(())
}
