//! What each command does, one file for each.

pub mod check;
pub mod trace;
pub mod watch;

use std::{path::Path, process::ExitCode};

use aya::maps::{Array, MapData};
use dropwatch_common::probe::RangeSet;

use crate::{
    btf::KernelBtf,
    cli::{Cli, Command},
    config::Query,
    console::{say, warn},
    failure::{Failure, Refusal},
    filter::Filter,
    kallsyms::saved::{Running, Saved},
    probe::{KernelFilter, Probe, ProbeConfig},
    set_keeper,
    symbols::{KallsymsSource, Symbols},
};

/// Runs the command that was asked for, to its exit status.
#[must_use]
pub fn run(cli: &Cli) -> ExitCode {
    match &cli.command {
        Some(Command::Check(args)) => {
            start_log(args.verbose);
            let ended = check::run(args);
            ended.map_or_else(|failure| failed(&failure, check::OURS), ExitCode::from)
        }
        Some(Command::Trace(args)) => {
            start_log(args.verbose);
            ended(trace::run(args))
        }
        Some(Command::Watch(args)) => run_watch(args),
        None => run_watch(&cli.watch),
    }
}

fn run_watch(args: &crate::cli::WatchArgs) -> ExitCode {
    start_log(args.verbose);
    ended(watch::run(args))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure, failure.status()),
    }
}

fn failed(failure: &Failure, status: u8) -> ExitCode {
    say(&format!("error: {failure}"));
    ExitCode::from(status)
}

/// Diagnostics go to standard error when asked for: ours, and at the second time those of the libraries.
fn start_log(verbose: u8) {
    let mut log = env_logger::Builder::new();
    match verbose {
        0 => log.filter_level(log::LevelFilter::Off),
        1 => log.filter_module("dropwatch", log::LevelFilter::Debug),
        _ => log.filter_level(log::LevelFilter::Trace),
    };
    log.init();
}

/// The running kernel's symbols, if any are needed, or those of a file that has been found to fit it.
fn symbol_source(file: Option<&Path>, are_needed: bool) -> Result<KallsymsSource, Refusal> {
    let Some(file) = file else {
        return Ok(if are_needed { KallsymsSource::Running } else { KallsymsSource::Nothing });
    };
    let saved = Saved::load(file, &Running::read()).map_err(|error| Refusal::new(error.to_string()))?;
    for warning in &saved.warnings {
        warn(&warning.to_string());
    }
    Ok(KallsymsSource::Saved(saved))
}

/// Attaches a probe that counts what was asked for, and starts reading symbols.
///
/// # Errors
/// What cannot be done here.
fn attach(
    query: &Query,
    source: KallsymsSource,
    kernel: &KernelBtf,
) -> Result<(Probe, ProbeConfig, Symbols), Refusal> {
    let Query { by, max_rows, filter } = query;
    let probe = |filter| {
        let config = ProbeConfig { by: by.clone(), max_rows: *max_rows, filter };
        Ok((Probe::attach(&config, kernel)?, config))
    };
    let ((probe, config), symbols) =
        attach_filtered(filter.as_ref(), source, probe, |(probe, _)| probe.take_ranges())?;
    Ok((probe, config, symbols))
}

/// Attaches a probe with a filter, and keeps what the filter's names mean up to date.
///
/// Symbols are read once drops are counted, unless a filter needs them first.
///
/// # Errors
/// What cannot be done here.
fn attach_filtered<P>(
    filter: Option<&Filter>,
    source: KallsymsSource,
    attach: impl FnOnce(Option<KernelFilter>) -> anyhow::Result<P>,
    take_ranges: impl FnOnce(&mut P) -> Option<Array<MapData, RangeSet>>,
) -> Result<(P, Symbols), Refusal> {
    let Some(filter) = filter.filter(|filter| !filter.sets().is_empty()) else {
        let filter = filter.map(|filter| KernelFilter::new(filter, Vec::new()));
        return Ok((attach(filter)?, Symbols::start(source)));
    };
    let symbols = Symbols::start(source);
    let table = symbols.table();
    let sets = set_keeper::resolve(filter, &table)?;
    let mut probe = attach(Some(KernelFilter::new(filter, sets)))?;
    if let (Some(maps), Some(follower)) = (take_ranges(&mut probe), symbols.follower(&table)) {
        set_keeper::start(filter, maps, follower)?;
    }
    Ok((probe, symbols))
}
