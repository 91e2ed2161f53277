//! The `dropwatch` command: parse, run, exit status.

use std::process::ExitCode;

use clap::Parser as _;
use dropwatch::{
    cli::Cli,
    commands::{self, check},
};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => commands::run(&cli),
        Err(error) => {
            // Help goes to standard output, a usage error to standard error; neither can be told of elsewhere.
            let _ = error.print();
            let is_check = std::env::args_os().nth(1).is_some_and(|word| word == "check");
            match (error.use_stderr(), is_check) {
                (false, _) => ExitCode::SUCCESS,
                (true, true) => ExitCode::from(check::OURS),
                (true, false) => ExitCode::from(2),
            }
        }
    }
}
