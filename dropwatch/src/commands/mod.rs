//! What each command does, one file for each.

pub mod check;
pub mod dig;
pub mod explain;
pub mod serve;
pub mod top;
pub mod trace;
pub mod watch;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use crate::{
    cli::{Cli, Command},
    process::{
        console::{Diagnostics, say_lines},
        failure::Failure,
    },
};

/// Runs the chosen command and returns its exit status.
#[must_use]
pub fn run(cli: &Cli) -> ExitCode {
    match &cli.command {
        Some(Command::Check(args)) => {
            start_log(args.diagnostics.verbose);
            let ended = check::run(args);
            ended.map_or_else(|failure| failed(&failure, check::OURS), ExitCode::from)
        }
        Some(Command::Explain(args)) => ended(explain::run(args)),
        Some(Command::Dig(args)) => {
            start_log(args.run.diagnostics.verbose);
            ended(dig::run(args))
        }
        Some(Command::Serve(args)) => {
            start_log(args.run.diagnostics.verbose);
            ended(serve::run(args))
        }
        Some(Command::Top(args)) => {
            // On the terminal, diagnostics would be in the midst of the screen.
            if !io::stderr().is_terminal() {
                start_log(args.run.diagnostics.verbose);
            }
            ended(top::run(args))
        }
        Some(Command::Trace(args)) => {
            start_log(args.run.diagnostics.verbose);
            ended(trace::run(args))
        }
        Some(Command::Watch(args)) => run_watch(args),
        None => run_watch(&cli.watch),
    }
}

fn run_watch(args: &crate::cli::WatchArgs) -> ExitCode {
    start_log(args.run.diagnostics.verbose);
    ended(watch::run(args))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure, failure.status()),
    }
}

fn failed(failure: &Failure, status: u8) -> ExitCode {
    say_lines(&format!("error: {failure}"));
    ExitCode::from(status)
}

/// Diagnostics go to standard error: with `-v` our own, with `-vv` those of the libraries too.
fn start_log(verbose: u8) {
    let mut log = env_logger::Builder::new();
    match verbose {
        0 => log.filter_level(log::LevelFilter::Off),
        1 => log.filter_module("dropwatch", log::LevelFilter::Debug),
        _ => log.filter_level(log::LevelFilter::Trace),
    };
    log.target(env_logger::Target::Pipe(Box::new(Diagnostics)));
    log.init();
}
