//! `cargo xtask bench`: what watching costs, in one run and one table.

mod contender;
mod cost;
mod fdinfo;
mod growth;
mod held;
mod machine;
mod memory;
mod monitor;
mod objects;
mod other;
mod peak;
mod process;
mod ready;
mod ring;
mod rounds;
mod search;
mod sender;
mod serve;
mod start;
mod statistics;
mod symbols;
mod table;
mod top;
mod trace;
mod tracefs;
mod tracer;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{command, ebpf::Variant, run};
use machine::Machine;
use table::Figure;

/// How to read the table.
const NOTES: &str = "\
+ something: what a drop costs more with it attached: the least slice of about 2,000 drops of all rounds, minus that
    with nothing attached; the spread is from the least slice to the first quartile
by round: the least slice of a round minus that with nothing attached in the same round, at the median of the
    rounds; the spread is between the quartiles
to array: times what the bare increment of a per-CPU array costs more
";

#[derive(Args)]
pub struct Options {
    /// Measure this alone
    #[arg(long)]
    only: Option<Part>,
    /// Rounds of each contender in `cost` and `keys`, half as many in `trace`, unless they take too long
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(4..))]
    rounds: u32,
    /// Measure this program rather than one that is built from the sources as they are now
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Write the same figures here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The time that a drop takes longer, with dropwatch and with other tools
    Cost,
    /// The time that a drop takes longer with each key, with all, and with a filter
    Keys,
    /// The time that a drop takes longer when each is of another row, of ever more
    Many,
    /// The time from the start of the program until it counts
    Start,
    /// The processor time of reports, by their number of rows
    Growth,
    /// The processor time of reports that name processes and namespaces, of which there are many
    Objects,
    /// What it does between reports
    Idle,
    /// The processor time of the full-screen view with many rows
    Top,
    /// The rate at which all processors can drop
    Peak,
    /// The rate of drops that can be shown with their packets, and what that costs
    Trace,
    /// The memory of the program and of its maps
    Memory,
    /// The time until the first address has a name
    Symbols,
    /// The time that a scrape of the exporter takes, and a thousand at once
    Serve,
}

impl Part {
    /// A table, or several.
    fn measure(self, dropwatch: &Path, rounds: u32) -> Result<Vec<Vec<Figure>>> {
        let figures = match self {
            Self::Cost => cost::measure(dropwatch, rounds),
            Self::Keys => cost::measure_keys(dropwatch, rounds),
            Self::Many => cost::measure_many(dropwatch, rounds),
            Self::Start => start::measure(dropwatch),
            Self::Growth => growth::measure(dropwatch),
            Self::Objects => objects::measure(dropwatch),
            Self::Idle => growth::measure_idle(dropwatch),
            Self::Top => top::measure(dropwatch),
            Self::Peak => peak::measure(dropwatch),
            Self::Trace => return trace::measure(dropwatch, rounds),
            Self::Memory => memory::measure(dropwatch),
            Self::Symbols => symbols::measure(),
            Self::Serve => serve::measure(dropwatch),
        };
        Ok(vec![figures?])
    }
}

pub fn main(options: &Options) -> Result<()> {
    ensure!(
        command::is_root(),
        "the benchmark loads BPF programs and makes a network namespace: run it as root"
    );
    let dropwatch = match &options.program {
        Some(program) => program.clone(),
        None => run::fresh_program(Variant::Shipped)?,
    };
    let machine = Machine::read(&dropwatch)?;
    let parts: &[Part] = options.only.as_ref().map_or(Part::value_variants(), std::slice::from_ref);
    let (mut tables, mut json) = (String::new(), Vec::new());
    for part in parts {
        let measured = part.measure(&dropwatch, options.rounds);
        for figures in measured.with_context(|| format!("measuring {part:?}"))? {
            let _ = write!(tables, "\n{}", table::markdown(&figures));
            json.extend(table::json(&figures));
        }
    }
    print!("{machine}{tables}\n{NOTES}");
    if let Some(file) = &options.json {
        let json = serde_json::json!({ "machine": machine.json(), "figures": json });
        fs::write(file, format!("{json:#}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
