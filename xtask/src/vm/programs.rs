//! The programs that guests run: those that are built here for other uses anyway.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    command,
    ebpf::{self, Variant},
    run, workspace,
};

/// What goes into a guest.
pub struct Programs {
    /// As it is installed: emulated, an unoptimised one would take its time.
    pub dropwatch: PathBuf,
    /// The live tests' program.
    pub live: Option<PathBuf>,
}

/// Builds dropwatch with the BPF object of the sources as they are, and the live tests.
pub fn build() -> Result<Programs> {
    println!("building the programs for the guests");
    let dropwatch = run::fresh_program(Variant::Shipped)?;
    Ok(Programs { dropwatch, live: workspace::has_live_tests().then(live_tests).transpose()? })
}

/// The same that the tests on this machine are, down to the features of what they share.
fn live_tests() -> Result<PathBuf> {
    let mut test = command::cargo();
    test.args(["test", "--workspace", "--locked", "--no-run", "--test", "live"]);
    ebpf::embed(&mut test, Variant::Shipped).current_dir(workspace::root());
    let is_live = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("live-"))
    };
    run::built_programs(&mut test)?.into_iter().find(is_live).context("cargo built no live tests")
}
