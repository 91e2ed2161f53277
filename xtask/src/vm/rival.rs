//! `cargo xtask rival`: C dropwatch and ours in one guest, over the same drops.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;

use super::{find, guest, plan::Plan};

/// Where Debian's package puts it: what PATH finds first may be ours.
const RIVAL: &str = "/usr/bin/dropwatch";

#[derive(Args)]
pub struct Options {
    /// The kernel they run on, as `cargo xtask vm --list` names it
    #[arg(long, value_name = "NAME", default_value = "6.12")]
    kernel: String,
}

/// Prints how many drops each of the two counted, as a table for docs/benchmarks.md.
pub fn main(options: &Options) -> Result<()> {
    let series = find(&options.kernel)?;
    guest::check_host(&[series])?;
    let rival = PathBuf::from(RIVAL);
    ensure!(rival.exists(), "no C dropwatch here: `apt-get install dropwatch`");
    // The guest's own name for it: there, `dropwatch` is ours.
    let command = ["env", "DROPWATCH_RIVAL=/bin/c-dropwatch", "live"].map(String::from);
    let plan = Plan::new(&[series], &command, "tcg,thread=multi", Duration::from_secs(900))?
        .with("c-dropwatch", rival);
    let outcomes = plan.run(&[series]);
    for outcome in &outcomes {
        println!("\nLinux {}:\n\n{}", outcome.kernel, outcome.table.join("\n"));
        ensure!(!outcome.failed(), "the comparison failed");
    }
    Ok(())
}
