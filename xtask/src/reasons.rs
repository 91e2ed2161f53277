//! `cargo xtask reasons`: writes `docs/reasons.md` from what the program knows, or checks that it is up to date.

use std::fs;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{command, workspace};

#[derive(Args)]
pub struct Options {
    /// Only check that the document is up to date
    #[arg(long)]
    check: bool,
}

pub fn main(options: &Options) -> Result<()> {
    // The program prints it: a task that linked with the program could not build what the program embeds.
    let mut cargo = command::cargo();
    cargo.args(["run", "--quiet", "--locked", "--package", "dropwatch", "--"]);
    cargo.args(["explain", "--list", "--output", "markdown"]).current_dir(workspace::root());
    let now = command::output(&mut cargo)?;
    let path = workspace::root().join("docs/reasons.md");
    if options.check {
        let there = fs::read_to_string(&path).with_context(|| workspace::shown(&path))?;
        ensure!(there == now, "{} is out of date: run `cargo xtask reasons`", workspace::shown(&path));
        return Ok(());
    }
    fs::write(&path, now).with_context(|| workspace::shown(&path))
}
