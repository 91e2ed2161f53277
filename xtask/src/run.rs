//! `cargo xtask run`: dropwatch with the BPF program as it is in the sources, nothing committed.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    command,
    ebpf::{self, Variant},
    workspace,
};

#[derive(Args)]
pub struct Options {
    /// With the diagnostics build of the BPF program, which logs keys that are new in the map, and losses
    #[arg(long)]
    log: bool,
    /// What dropwatch gets
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub fn main(options: &Options) -> Result<()> {
    let program = fresh_program(Variant::with_log(options.log))?;
    // Only the program itself needs root; cargo's files stay the user's.
    command::run(command::as_root(program).args(&options.args))
}

/// Builds dropwatch with a BPF object of the sources as they are now, and returns its path.
pub fn fresh_program(variant: Variant) -> Result<PathBuf> {
    ebpf::build_fresh(variant)?;
    let mut build = command::cargo();
    build.args(["build", "--release", "--package", "dropwatch", "--bin", "dropwatch"]);
    if variant == Variant::Log {
        build.args(["--features", "bpf-log"]);
    }
    built_program(ebpf::embed(&mut build, variant).current_dir(workspace::root()))
}

/// Runs a cargo command that builds one program, and returns the program's path.
pub fn built_program(build: &mut Command) -> Result<PathBuf> {
    let program = built_programs(build)?.pop();
    program.with_context(|| format!("`{}` built no program", command::line(build)))
}

/// Runs a cargo command that builds programs, and returns their paths.
pub fn built_programs(build: &mut Command) -> Result<Vec<PathBuf>> {
    build.arg("--message-format=json-render-diagnostics").stderr(std::process::Stdio::inherit());
    Ok(command::output(build)?.lines().filter_map(executable).collect())
}

/// The program that a line of cargo's JSON messages announces, if it does.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message["executable"].as_str().map(|path| Path::new(path).to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo says `null` for what is not a program, and other lines are no messages at all.
    #[test]
    fn only_programs_are_announced() {
        let program = r#"{"reason":"compiler-artifact","executable":"/t/release/dropwatch"}"#;
        assert_eq!(executable(program), Some(PathBuf::from("/t/release/dropwatch")));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
        assert_eq!(executable("   Compiling dropwatch"), None);
    }
}
