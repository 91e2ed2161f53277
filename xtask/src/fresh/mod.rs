//! `cargo xtask fresh`: what the README says, and the packages and the image of a release, in bare systems.

mod drops;
mod image;
mod packages;
mod system;

use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{command, install, workspace};
use packages::Packages;
use system::System;

/// What the README promises to work on.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// Where the packages are tried: older systems have no Rust to build with, but run the program.
const PACKAGED: [&str; 3] = ["bullseye", "bookworm", "trixie"];

#[derive(Args)]
pub struct Options {
    /// A suite of Debian, in place of all that are tried; may be repeated
    #[arg(long)]
    suite: Vec<String>,
    /// End after the README's first command, which builds and runs the monitor: the second one tests for most of an hour
    #[arg(long)]
    no_test: bool,
    /// Do only a part of it
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Install what is missing here
    #[arg(long)]
    install: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Try the packages and the image of what `cargo xtask dist` has made
    Packages,
    /// Do what the README says
    Readme,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    /// The suites to try.
    fn suites<'a>(&'a self, all: &[&'a str]) -> Vec<&'a str> {
        if self.suite.is_empty() { all.to_vec() } else { self.suite.iter().map(String::as_str).collect() }
    }
}

pub fn main(options: &Options) -> Result<()> {
    ensure!(command::is_root(), "bare systems are built and entered as root");
    let missing = install::missing(install::FRESH.iter());
    if !missing.is_empty() {
        ensure!(options.install, install::explain(&missing, "cargo xtask fresh --install"));
        install::install(&missing)?;
    }
    let said = Said::of(&fs::read_to_string(workspace::root().join("README.md"))?)?;
    if options.has(Part::Packages) {
        let packages = Packages::made()?;
        for suite in options.suites(&PACKAGED) {
            packages.try_with_debian(suite).with_context(|| format!("the package in a bare {suite}"))?;
        }
        packages.try_without_libraries().context("a system with busybox alone")?;
        image::try_images().context("the image of a container")?;
    }
    if options.has(Part::Readme) {
        for suite in options.suites(&SUITES) {
            follow(suite, &said, !options.no_test).with_context(|| format!("a bare {suite}"))?;
        }
    }
    Ok(())
}

/// The README in one bare system, from nothing to the last command.
fn follow(suite: &str, said: &Said, with_tests: bool) -> Result<()> {
    let system = timed(suite, "the bare system", || System::debian(suite))?;
    timed(suite, &said.packages, || system.run(&said.packages))?;
    timed(suite, "a clone of the source", || system.clone_source())?;
    timed(suite, &said.run, || system.monitor(&said.run)?.stop().map(drop))?;
    if with_tests {
        timed(suite, &said.test, || system.run(&said.test))?;
    }
    Ok(())
}

fn timed<T>(system: &str, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {system}: {what}");
    let started = Instant::now();
    let done = work().with_context(|| what.to_owned())?;
    println!("    {system}: {what}: ok ({} s)\n", started.elapsed().as_secs());
    Ok(done)
}

/// The commands of the README.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    packages: String,
    run: String,
    test: String,
}

impl Said {
    fn of(readme: &str) -> Result<Self> {
        let find = |start: &str| {
            let line = readme.lines().find(|line| line.starts_with(start));
            let line = line.with_context(|| format!("the README has no line with `{start}`"))?;
            Ok::<_, anyhow::Error>(line.split(" #").next().unwrap_or(line).trim_end().to_owned())
        };
        // Root has no need of sudo, and a bare system has none.
        let packages = find("sudo apt-get install ")?.replacen("sudo ", "apt-get update && ", 1);
        let packages = packages.replace("apt-get install", "apt-get install --yes");
        Ok(Self { packages, run: find("cargo run ")?, test: find("cargo xtask test ")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The README as it is has the three commands.
    #[test]
    fn the_readme_says_what_to_do() {
        let readme = fs::read_to_string(workspace::root().join("README.md")).unwrap();
        let said = Said::of(&readme).unwrap();
        assert_eq!(said.run, "cargo run --release --locked");
        assert_eq!(said.test, "cargo xtask test --install");
        assert!(
            said.packages.starts_with("apt-get update && apt-get install --yes --no-install-recommends git ")
        );
        assert!(Said::of("# dropwatch").is_err());
    }
}
