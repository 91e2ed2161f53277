//! `cargo xtask fuzz`: libFuzzer looks for inputs that reach further than those of the repository.
//!
//! No nightly: what instruments the code for libFuzzer are stable options of the compiler.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{command, run, workspace};

#[derive(Args)]
pub struct Options {
    /// The targets: directories in fuzz/corpus [default: all of them]
    targets: Vec<String>,
    /// For how long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    time: u32,
    /// Try this input alone
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Makes the compiler count the edges that are taken, and record what numbers are compared with.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// How much of libFuzzer's last words is shown of a run that failed, in lines.
const LAST_WORDS: usize = 30;

pub fn main(options: &Options) -> Result<()> {
    let all = all()?;
    let targets = if options.targets.is_empty() { &all } else { &options.targets };
    if let Some(unknown) = targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    let program = build()?;
    if let Some(input) = &options.input {
        let [target] = &targets[..] else { bail!("name the target: `cargo xtask fuzz TARGET --input FILE`") };
        return command::run(fuzzer(&program, target).arg(input));
    }
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let failed: usize = targets.chunks(at_once).map(|some| attempt_all(&program, some, options.time)).sum();
    ensure!(failed == 0, "{failed} of {} targets failed", targets.len());
    Ok(())
}

/// The names of all targets.
fn all() -> Result<Vec<String>> {
    let corpus = workspace::root().join("fuzz/corpus");
    let entries = fs::read_dir(&corpus).with_context(|| format!("cannot read {}", corpus.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Builds the program with all targets.
fn build() -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--release", "--manifest-path", "fuzz/libfuzzer/Cargo.toml", "--target"]);
    // With a target, the flags are not for what runs during the build.
    cargo.arg(host()?).arg("--target-dir").arg(workspace::target().join("fuzz"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f")).current_dir(workspace::root());
    run::built_program(&mut cargo)
}

/// The machine that the compiler compiles for.
fn host() -> Result<String> {
    let said = command::output(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn fuzzer(program: &Path, target: &str) -> Command {
    let mut fuzzer = Command::new(program);
    fuzzer.env("DROPWATCH_FUZZ_TARGET", target).stdin(Stdio::null());
    fuzzer
}

/// Runs some targets at once; how many failed.
fn attempt_all(program: &Path, targets: &[String], seconds: u32) -> usize {
    thread::scope(|scope| {
        let start = |target: &String| {
            let target = target.clone();
            scope.spawn(move || attempt(program, &target, seconds))
        };
        let runs: Vec<_> = targets.iter().map(start).collect();
        runs.into_iter().map(|run| run.join().unwrap_or(false)).filter(|passed| !passed).count()
    })
}

/// Runs a target, and says how it went.
fn attempt(program: &Path, target: &str, seconds: u32) -> bool {
    match look(program, target, seconds) {
        Ok(reached) => println!("{target}: {reached}"),
        Err(error) => {
            eprintln!("{target}: FAILED: {error:#}");
            return false;
        }
    }
    true
}

/// What it finds stays in the target directory, for the next run.
fn look(program: &Path, target: &str, seconds: u32) -> Result<String> {
    let found = workspace::target().join("fuzz/corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    let artifacts = workspace::target().join("fuzz").join(format!("{target}-"));
    let mut fuzzer = fuzzer(program, target);
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}", artifacts.display()));
    fuzzer.args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    fuzzer.arg(&found).arg(workspace::root().join("fuzz/corpus").join(target));
    let output = fuzzer.output().with_context(|| command::line(&fuzzer))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<_> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
        bail!("{}\n{}\ntry one input with --input FILE", output.status, last.join("\n"));
    }
    summary(&said).context("it says nothing of what it reached")
}

/// How many runs there were, and what they reached.
fn summary(said: &str) -> Option<String> {
    let edges = |line: &str| line.split_once(" cov: ")?.1.split(' ').next()?.parse::<u64>().ok();
    let (first, last) = (said.lines().find_map(edges)?, said.lines().rev().find_map(edges)?);
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    Some(format!("{} runs, {last} edges ({first} by the inputs it began with)", runs.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures are those of libFuzzer's first and last line about coverage.
    #[test]
    fn the_summary_tells_what_was_reached() {
        let said = "INFO: seed corpus: files: 3\n#4\tINITED cov: 629 ft: 700 corp: 3/1Kb exec/s: 0\n\
                    #900\tNEW    cov: 640 ft: 720 corp: 4/1Kb\n#1000\tDONE   cov: 641 ft: 720 corp: 4/1Kb\n\
                    stat::number_of_executed_units: 1000\n";
        assert_eq!(summary(said).unwrap(), "1000 runs, 641 edges (629 by the inputs it began with)");
        assert_eq!(summary("INFO: nothing\n"), None);
    }

    /// Each directory of inputs is a target.
    #[test]
    fn the_targets_are_found() {
        assert!(all().unwrap().contains(&"btf".to_owned()));
    }
}
