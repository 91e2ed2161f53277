//! The `dropwatch` command: parse, run, exit status.

use std::process::ExitCode;

use clap::Parser as _;
use dropwatch::{cli::Cli, commands, console};

fn main() -> ExitCode {
    match commands::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            console::say(&format!("error: {failure}"));
            failure.exit_code()
        }
    }
}
