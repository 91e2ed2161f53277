//! `cargo xtask screenshot`: writes `docs/page.png`, the live page with real drops in a browser.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{command, workspace};

/// The repository keeps each version of it.
const LARGEST: u64 = 100_000;

pub fn main() -> Result<()> {
    let file = workspace::root().join("docs/page.png");
    // The live tests stage the drops, and have the browser.
    let mut cargo = command::cargo();
    cargo.args(["test", "--locked", "--package", "dropwatch", "--test", "live"]);
    command::run(cargo.env("DROPWATCH_PICTURE", &file).current_dir(workspace::root()))?;
    let size = fs::metadata(&file).with_context(|| workspace::shown(&file))?.len();
    ensure!(size <= LARGEST, "{} has {size} bytes, and may have {LARGEST}", workspace::shown(&file));
    Ok(())
}
