//! The tasks of the project's developers: `cargo xtask --help`.

mod apt;
mod arch;
mod bench;
mod command;
mod cross;
mod dist;
mod ebpf;
mod fresh;
mod fuzz;
mod install;
mod picture;
mod reasons;
mod run;
mod screenshot;
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
    /// Make the files of a release: a static program, archives, packages, sums
    Dist(dist::Options),
    /// Build the BPF object, or check that the committed one was built from these sources
    Ebpf(ebpf::Options),
    /// Take the picture of the live page for the documentation: as root, with chromium
    Screenshot,
    /// Write docs/reasons.md from what dropwatch knows of reasons and functions, or check it
    Reasons(reasons::Options),
    /// Try the packages of a release, and what the README says, in bare systems
    Fresh(fresh::Options),
    /// Draw docs/top.svg, the picture of the full-screen view, with the program's own screen
    Picture,
    /// Look for inputs that make a parser fail, with libFuzzer
    Fuzz(fuzz::Options),
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
        Task::Dist(options) => dist::main(&options),
        Task::Ebpf(options) => ebpf::main(&options),
        Task::Screenshot => screenshot::main(),
        Task::Reasons(options) => reasons::main(&options),
        Task::Fresh(options) => fresh::main(&options),
        Task::Picture => picture::main(),
        Task::Fuzz(options) => fuzz::main(&options),
        Task::Rival(options) => vm::rival::main(&options),
        Task::Run(options) => run::main(&options),
        Task::Test(options) => test::main(&options),
        Task::Vm(options) => vm::main(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.chain().any(|cause| cause.downcast_ref::<ebpf::NoToolchain>().is_some()) {
                eprintln!("{}", install::bpf_toolchain());
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The tasks that pages and scripts name have those names and options.
    #[test]
    fn documented_tasks_exist() {
        let files = ["README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml"];
        for file in files {
            let text = fs::read_to_string(workspace::root().join(file)).unwrap();
            let tasks = text
                .split("cargo xtask ")
                .skip(1)
                .filter_map(|rest| rest.split(['`', '\n', '#', '<']).next());
            for task in tasks {
                let words = ["cargo xtask"].into_iter().chain(task.split_whitespace());
                let read = Cli::try_parse_from(words);
                assert!(read.is_ok(), "{file}: cargo xtask {task}");
            }
        }
    }

    /// The version of Rust that Cargo.toml promises suffices for all dependencies. (Clippy compares the project's own code
    /// with it.)
    #[test]
    fn the_oldest_rust_is_old_enough_for_all() {
        // Packages of other platforms need not be here.
        const PLATFORM: &str = "x86_64-unknown-linux-gnu";
        let mut metadata = command::cargo();
        metadata.args([
            "metadata",
            "--locked",
            "--offline",
            "--filter-platform",
            PLATFORM,
            "--format-version",
            "1",
        ]);
        let metadata = command::output(metadata.current_dir(workspace::root())).unwrap();
        let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let version = |package: &serde_json::Value| {
            let mut numbers: Vec<u32> =
                package["rust_version"].as_str()?.split('.').map(|number| number.parse().unwrap()).collect();
            // 1.88 is 1.88.0.
            numbers.resize(3, 0);
            Some(numbers)
        };
        let ours = packages.iter().find(|package| package["name"] == "dropwatch").and_then(version).unwrap();
        for package in packages {
            assert!(
                version(package).is_none_or(|theirs| theirs <= ours),
                "{} needs {}",
                package["name"],
                package["rust_version"]
            );
        }
    }
}
