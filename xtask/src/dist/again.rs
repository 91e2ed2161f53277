//! The same release a second time, from elsewhere: whatever of this place is in its files is in their sums, too.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::Release;
use crate::{arch::Arch, command, workspace};

/// A clone has what is committed, and nothing else.
pub fn ensure_committed() -> Result<()> {
    let mut status = Command::new("git");
    let changes = command::output(status.args(["status", "--porcelain"]).current_dir(workspace::root()))?;
    ensure!(
        changes.is_empty(),
        "the second release is made of what is committed, and this is not:\n{changes}"
    );
    Ok(())
}

/// Makes the release in a clone, with an empty home, and compares the sums.
pub fn ensure_same(release: &Release, chosen: &[Arch]) -> Result<()> {
    let place = tempfile::Builder::new().prefix("dropwatch-again-").tempdir()?;
    let (source, home) = (place.path().join("source"), place.path().join("home"));
    let mut clone = Command::new("git");
    command::run(clone.args(["clone", "--quiet", "--no-hardlinks"]).arg(workspace::root()).arg(&source))?;
    settle_in(&source, &home)?;
    command::run(&mut dist(&source, &home, chosen)?)?;
    let sums = |out: &Path| {
        fs::read_to_string(out.join("SHA256SUMS")).with_context(|| format!("no sums in {}", out.display()))
    };
    let (first, second) = (sums(&release.out)?, sums(&source.join("target/dist"))?);
    if first == second {
        return Ok(());
    }
    let differing = first.lines().filter(|line| !second.lines().any(|other| other == *line));
    let differing: Vec<_> = differing.filter_map(|line| line.split("  ").nth(1)).collect();
    // For who looks for the difference.
    let kept = place.keep().join("source/target/dist");
    anyhow::bail!("made again in {}, these are others: {}", kept.display(), differing.join(", "));
}

/// What the clone has from here: the way to the crates, and the packager.
fn settle_in(source: &Path, home: &Path) -> Result<()> {
    fs::create_dir_all(home.join(".cargo")).context("cannot create a home")?;
    let config = workspace::cargo_home().join("config.toml");
    if config.exists() {
        fs::copy(&config, home.join(".cargo/config.toml")).context("cannot copy cargo's settings")?;
    }
    fs::create_dir_all(source.join("target")).context("cannot create a target directory")?;
    let tools = "dist-tools";
    symlink(workspace::target().join(tools), source.join("target").join(tools))
        .context("cannot take the packager along")
}

/// This program, at work in the clone.
fn dist(source: &Path, home: &Path, chosen: &[Arch]) -> Result<Command> {
    let mut dist = Command::new(env::current_exe().context("this program cannot be found")?);
    dist.arg("dist").current_dir(source);
    dist.args(chosen.iter().flat_map(|arch| ["--arch", arch.name()]));
    dist.env("CARGO_MANIFEST_DIR", source.join("xtask")).env_remove("CARGO_TARGET_DIR");
    // The compilers are the same: rustup looks for them in the home.
    let old_home = PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let rustup = env::var_os("RUSTUP_HOME").map_or_else(|| old_home.join(".rustup"), PathBuf::from);
    dist.env("HOME", home).env("CARGO_HOME", home.join(".cargo")).env("RUSTUP_HOME", rustup);
    dist.env_remove("XDG_CACHE_HOME");
    Ok(dist)
}
