//! The programs under test, linked statically: a guest needs none of this machine's libraries for them.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    command,
    ebpf::{self, Variant},
    run, workspace,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What is built for the guests.
pub struct Programs {
    pub dropwatch: PathBuf,
    /// The live tests' program.
    pub live: Option<PathBuf>,
}

/// Builds dropwatch with the BPF object of the sources as they are, and the live tests.
pub fn build() -> Result<Programs> {
    println!("building the programs for the guests");
    ebpf::build_fresh(Variant::Shipped)?;
    if !workspace::has_live_tests() {
        let dropwatch = run::built_program(cargo("build").args(["--bin", "dropwatch"]))?;
        return Ok(Programs { dropwatch, live: None });
    }
    // One command: the program comes with its tests, and two would compile most dependencies twice.
    let built = run::built_programs(cargo("test").args(["--no-run", "--test", "live"]))?;
    let is_program = |path: &PathBuf| path.file_name().is_some_and(|name| name == "dropwatch");
    let (programs, tests): (Vec<_>, Vec<_>) = built.into_iter().partition(is_program);
    let dropwatch = programs.into_iter().next().context("cargo built no dropwatch with the live tests")?;
    Ok(Programs { dropwatch, live: Some(tests.into_iter().next().context("cargo built no live tests")?) })
}

fn cargo(subcommand: &str) -> std::process::Command {
    let mut cargo = command::cargo();
    cargo.args([subcommand, "--profile", "guest", "--locked", "--package", "dropwatch", "--target", TARGET]);
    cargo.env("DROPWATCH_BPF_OBJECT", workspace::fresh_object(Variant::Shipped));
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.current_dir(workspace::root());
    cargo
}
