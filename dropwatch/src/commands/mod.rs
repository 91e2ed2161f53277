//! What each command does, one file for each.

pub mod check;
pub mod watch;

use std::{path::Path, process::ExitCode};

use crate::{
    cli::{Cli, Command},
    console::{say, warn},
    failure::{Failure, Refusal},
    kallsyms::saved::{Running, Saved},
    symbols::KallsymsSource,
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
        Some(Command::Watch(args)) => run_watch(args),
        None => run_watch(&cli.watch),
    }
}

fn run_watch(args: &crate::cli::WatchArgs) -> ExitCode {
    start_log(args.verbose);
    match watch::run(args) {
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

/// The running kernel's symbols, or those of a file that has been found to fit it.
fn symbol_source(file: Option<&Path>) -> Result<KallsymsSource, Refusal> {
    let Some(file) = file else { return Ok(KallsymsSource::Running) };
    let saved = Saved::load(file, &Running::read()).map_err(|error| Refusal::new(error.to_string()))?;
    for warning in &saved.warnings {
        warn(&warning.to_string());
    }
    Ok(KallsymsSource::Saved(saved))
}
