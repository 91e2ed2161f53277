//! The command from its arguments to its exit status.

use std::{env, process::ExitCode, thread};

use crate::{
    cli::{self, Cli, habits},
    commands::{self, check},
    escape,
    process::{console, failure::Failure, limits},
};
use clap::{CommandFactory as _, Parser as _};
use clap_complete::CompleteEnv;

/// Prints help or a usage error, which quotes arguments.
fn print(error: &clap::Error) {
    let text = error.render().to_string();
    let arguments: Vec<_> = env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(hint) = habits::hint(error, &arguments) {
        console::say_lines(&format!("error: {hint}"));
    } else if escape::message(&text) == text {
        let _ = error.print();
    } else {
        console::say_lines(text.trim_end());
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(refusal) = limits::stack() {
        console::say(&format!("error: {refusal}"));
        // A thread has a stack of its own, whatever the limit.
        let is_for_check = thread::spawn(|| cli::is_for_check(env::args_os())).join().unwrap_or_default();
        return ExitCode::from(if is_for_check { check::OURS } else { Failure::Refused(refusal).status() });
    }
    run()
}

/// A function of its own, so that its stack is only used once there is known to be enough.
#[inline(never)]
fn run() -> ExitCode {
    // A shell that completes a command line says so in the environment, and gets an answer in place of a run.
    CompleteEnv::with_factory(Cli::command).complete();
    match Cli::try_parse() {
        Ok(cli) => commands::run(&cli),
        Err(error) => {
            // Help goes to standard output, a usage error to standard error; if that fails, there is nowhere to report it.
            print(&error);
            match (error.use_stderr(), cli::is_for_check(env::args_os())) {
                (false, _) => ExitCode::SUCCESS,
                (true, true) => ExitCode::from(check::OURS),
                (true, false) => ExitCode::from(2),
            }
        }
    }
}
