//! The command line of `top`, validated, and what is typed into its screen.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use super::{
    Query, SHORTEST_WITH_COUNTERS, Timing, by, debug_dir, interval, max_rows, peak_step, ready_file,
};
use crate::{
    cli::TopArgs,
    filter::{Filter, FilterError},
    kernel::lookup::Host,
    model::keys::Key,
    process::failure::Failure,
    render::Format,
};

/// What is counted, as it is typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The keys, separated by commas.
    pub by: String,
    /// The filter; empty for all drops.
    pub filter: String,
}

/// Why what was typed cannot be counted.
#[derive(Debug)]
pub enum Fault {
    /// A key that there is not.
    Keys(String),
    /// A faulty filter.
    Filter(FilterError),
}

/// What `top` is to do.
#[derive(Clone, Debug)]
pub struct TopConfig {
    /// Time between reports.
    pub interval: Duration,
    /// The step in which peaks are looked for.
    pub peak: Option<Duration>,
    /// Whether harmless rows are shown one by one.
    pub all: bool,
    /// What is counted, as typed.
    pub asked: Asked,
    /// What is counted.
    pub query: Query,
    /// A saved kallsyms or a `System.map` to resolve with, instead of the running kernel's own.
    pub kallsyms: Option<PathBuf>,
    /// Where debug information is looked for first.
    pub debug_dir: Option<PathBuf>,
    /// Created once attached.
    pub ready_file: Option<PathBuf>,
    /// Read the kernel's own counters of losses, unless there is a filter.
    pub counters: bool,
}

impl TopConfig {
    /// Checks the arguments, with the names of this host.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the argument, what is wrong with it, and what is right.
    pub fn new(args: &TopArgs, host: &Host) -> Result<Self, Failure> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "top needs a terminal for its input and output: without one, 'dropwatch' prints reports"
                    .to_owned(),
            ));
        }
        let interval = interval(&args.interval)?;
        let keys = by(args.by.as_deref(), Format::Table)?;
        let asked = Asked { by: words(&keys), filter: args.filter.clone().unwrap_or_default() };
        let query = asked.query(max_rows(args.count.max_rows)?, host).map_err(|fault| match fault {
            Fault::Keys(problem) => Failure::Usage(problem),
            Fault::Filter(error) => Failure::Usage(format!("invalid value for '--filter': {error}")),
        })?;
        Ok(Self {
            interval,
            peak: peak_step(args.peak.as_ref(), interval)?,
            all: args.all,
            asked,
            query,
            kallsyms: args.count.symbols.kallsyms.clone(),
            debug_dir: debug_dir(args.count.symbols.debug_dir.as_ref())?,
            ready_file: ready_file(&args.run)?,
            counters: !args.count.no_counters && interval >= SHORTEST_WITH_COUNTERS,
        })
    }

    /// When reports are due.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { interval: self.interval, duration: None, reports: None, peak: self.peak }
    }
}

impl Asked {
    /// What this counts, with the names of this host.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn query(&self, max_rows: u32, host: &Host) -> Result<Query, Fault> {
        let by = by(Some(self.by.as_str()).filter(|by| !by.trim().is_empty()), Format::Table)
            .map_err(|error| Fault::Keys(error.to_string()))?;
        let text = self.filter.trim();
        let filter =
            (!text.is_empty()).then(|| Filter::parse(text, host)).transpose().map_err(Fault::Filter)?;
        Ok(Query { by, max_rows, filter, interfaces: Vec::new() })
    }
}

/// Keys as they are typed.
fn words(by: &[Key]) -> String {
    by.iter().map(|key| key.word()).collect::<Vec<_>>().join(",")
}
