//! `cargo xtask vm`: real distribution kernels in virtual machines, and the live tests in them.

mod cpio;
mod guest;
mod kernels;
mod modules;
mod plan;
mod programs;
mod report;
pub mod rival;
mod rootfs;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{tally::Tally, workspace};
pub use kernels::Booted;
use kernels::{SERIES, Series};
use plan::Plan;

/// For all tests of one kernel, while three guests and the tests of this machine run: several times what they need.
const PATIENCE: Duration = Duration::from_secs(4500);

#[derive(Args)]
pub struct Options {
    /// A kernel to boot, as --list names it; may be repeated
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// The kernels that `cargo xtask test --all` boots
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Show the kernels and leave
    #[arg(long)]
    list: bool,
    /// A prompt in the guest in place of a command (leave it with Ctrl-D; Ctrl-A X kills it)
    #[arg(long, conflicts_with_all = ["all", "command"])]
    shell: bool,
    /// QEMU's accelerator: emulation is slow and works everywhere, `kvm` is fast where it works
    #[arg(long, default_value = "tcg,thread=multi")]
    accel: String,
    /// How long the guest's command may take, in seconds
    #[arg(long, default_value_t = 2700, value_name = "SECONDS")]
    timeout: u64,
    /// What to run in the guest in place of the live tests
    #[arg(last = true)]
    command: Vec<String>,
}

pub fn main(options: &Options) -> Result<()> {
    if options.list {
        list();
        return Ok(());
    }
    let chosen = chosen(options)?;
    guest::check_host(&chosen)?;
    if options.shell {
        let [series] = chosen[..] else { bail!("a prompt is for one kernel: name it with --kernel") };
        return shell(series, options);
    }
    let plan = Plan::new(&chosen, &options.command, &options.accel, Duration::from_secs(options.timeout))?;
    let outcomes = plan.run(&chosen);
    println!("\n{}", report::tables(&outcomes));
    let failed: Vec<_> =
        outcomes.iter().filter(|outcome| outcome.failed()).map(|outcome| &*outcome.kernel).collect();
    ensure!(failed.is_empty(), "failed on {}", failed.join(", "));
    Ok(())
}

/// The live tests on other kernels, as a step of all checks.
pub fn all(tally: &mut Tally, least: Booted) -> Result<()> {
    let chosen = booted(least);
    guest::check_host(&chosen)?;
    let plan = Plan::new(&chosen, &[], "tcg,thread=multi", PATIENCE)?;
    let outcomes = plan.run(&chosen);
    println!("\n{}", report::tables(&outcomes));
    for outcome in &outcomes {
        *tally += outcome.tally;
        let silent = outcome.tally == Tally::default() && outcome.error.is_none();
        // A kernel that died failed, and so did one on which no test said anything. Booting alone tests nothing.
        tally.failed += usize::from(outcome.error.is_some() || silent && workspace::has_live_tests());
        tally.skipped += usize::from(silent && !workspace::has_live_tests());
    }
    Ok(())
}

/// The kernels that are booted at least then.
fn booted(least: Booted) -> Vec<&'static Series> {
    SERIES.iter().filter(|series| series.booted >= least).collect()
}

/// The kernels that the options name.
fn chosen(options: &Options) -> Result<Vec<&'static Series>> {
    if options.all {
        return Ok(booted(Booted::WithSources));
    }
    ensure!(!options.kernel.is_empty(), "which kernel? --all, or --kernel with one of {}", names());
    options.kernel.iter().map(|name| find(name)).collect()
}

fn find(name: &str) -> Result<&'static Series> {
    let series = SERIES.iter().find(|series| series.name == name);
    series.with_context(|| format!("no kernel {name}: there are {}", names()))
}

fn names() -> String {
    SERIES.each_ref().map(|series| series.name).join(", ")
}

fn list() {
    for Series { name, suites, why, booted, .. } in &SERIES {
        let when = match booted {
            Booted::ByName => " (only by name)",
            Booted::WithSources => " (by name, and with the checks of the sources)",
            Booted::Always => "",
        };
        println!("{name:<8} newest of {}: {why}{when}", suites.join(" and "));
    }
}

fn shell(series: &Series, options: &Options) -> Result<()> {
    let plan = Plan::new(&[series], &[], &options.accel, Duration::from_secs(options.timeout))?;
    plan.interact(series)
}
