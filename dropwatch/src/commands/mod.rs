//! What each command does, one file for each.

pub mod watch;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

/// Runs the command that was asked for.
///
/// # Errors
/// As the command says.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    let args = match &cli.command {
        None => &cli.watch,
        Some(Command::Watch(args)) => args,
    };
    start_log(args.verbose);
    watch::run(args)
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
