//! The tasks of the project's developers: `cargo xtask --help`.

mod bench;
mod command;
mod ebpf;
mod install;
mod run;
mod tally;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The tasks of dropwatch's developers")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what a drop costs, how long a start takes and how much memory it needs
    Bench(bench::Options),
    /// Build the BPF object, or check that the committed one was built from these sources
    Ebpf(ebpf::Options),
    /// Count the same drops with C dropwatch and with ours, in a virtual machine, and print a table
    Rival(vm::rival::Options),
    /// Run dropwatch with a BPF object built from the sources as they are now
    Run(run::Options),
    /// Check everything: formatting, lints, dependencies, the BPF object, all tests
    Test(test::Options),
    /// Boot other kernels and run the live tests, or something else, in them
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Bench(options) => bench::main(&options),
        Task::Ebpf(options) => ebpf::main(&options),
        Task::Rival(options) => vm::rival::main(&options),
        Task::Run(options) => run::main(&options),
        Task::Test(options) => test::main(&options),
        Task::Vm(options) => vm::main(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
