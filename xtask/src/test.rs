//! `cargo xtask test`: everything that must hold before a change is merged, with one command.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdout},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;

use crate::{
    command, cross,
    ebpf::{self, Variant},
    install::{self, Need},
    tally::Tally,
    vm::{self, Booted},
    workspace,
};

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "a switch each")]
pub struct Options {
    /// Install what is missing: distribution packages, cargo's tools, rustup's components
    #[arg(long)]
    install: bool,
    /// Also check what only those need who change or release dropwatch: formatting, lints, documentation, licences, and
    /// the BPF object, for which a linker is compiled. Always so with CI set
    #[arg(long)]
    all: bool,
    /// Leave out the tests that drop packets on this machine, which need root
    #[arg(long)]
    no_live: bool,
    /// Leave out the tests in other kernels, which boot in virtual machines: most of the running time
    #[arg(long)]
    no_vm: bool,
}

/// Which of the checks run.
#[derive(Clone, Copy)]
struct Scope {
    /// Those of the sources, too.
    sources: bool,
    live: bool,
    guests: bool,
}

impl Scope {
    /// What the options choose; where that is not for them to choose, why it cannot be done.
    fn of(options: &Options) -> Result<Self> {
        let unattended = is_unattended();
        let live = !options.no_live && command::is_root() && workspace::has_live_tests();
        ensure!(
            live || !unattended,
            "the tests that drop packets are not optional with CI set: run as root, without --no-live, and with \
             tests/live.rs in place"
        );
        ensure!(!(options.no_vm && unattended), "the tests in other kernels are not optional with CI set");
        Ok(Self { sources: options.all || unattended, live, guests: !options.no_vm })
    }

    fn needs(self) -> impl Iterator<Item = &'static Need> {
        let chosen = [
            (self.sources, &install::SOURCES[..]),
            (true, &install::TESTS),
            (self.live, &install::LIVE),
            (self.guests, &install::GUESTS),
            (self.guests && self.sources, &install::ARM_GUESTS),
            (self.guests && self.sources, &cross::ARM),
        ];
        chosen.into_iter().filter(|(is_chosen, _)| *is_chosen).flat_map(|(_, needs)| needs)
    }
}

/// Whether this is a CI, which leaves nothing out.
fn is_unattended() -> bool {
    env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false")
}

pub fn main(options: &Options) -> Result<()> {
    let scope = Scope::of(options)?;
    let missing = install::missing(scope.needs());
    if !missing.is_empty() {
        ensure!(options.install, install::explain(&missing, "cargo xtask test --install"));
        install::install(&missing)?;
    }
    let mut checks = Checks { started: Instant::now(), tally: Tally::default(), failed: Vec::new() };
    run_all(&mut checks, scope);
    checks.finish(scope)
}

fn run_all(checks: &mut Checks, scope: Scope) {
    if scope.sources {
        sources(checks);
    } else {
        checks.step("the committed BPF object and its record", |_| ebpf::check_record());
    }
    checks.command("release build", &mut cargo(&["build", "--release", "--locked"]));
    if scope.sources {
        checks.step("the BPF object as of now", |_| ebpf::build_fresh(Variant::Shipped));
    }
    checks.command("test programs", test(scope).arg("--no-run"));
    if !scope.guests {
        checks.step("tests", |tally| tests(tally, scope));
        return;
    }
    // Tests here wait most of the time, and guests compute.
    thread::scope(|threads| {
        let guests = threads.spawn(move || guests(scope));
        checks.step("tests", |tally| tests(tally, scope));
        checks.step("tests in other kernels, the rest", |tally| {
            let (result, sum) = guests.join().map_err(|_| anyhow!("its thread panicked"))?;
            *tally += sum;
            result
        });
    });
}

/// The tests in other kernels, whose programs get the processors that the tests here leave idle.
fn guests(scope: Scope) -> (Result<()>, Tally) {
    const LAST: i32 = 19;
    let mut tally = Tally::default();
    // It is this thread's, and its children's.
    let result = rustix::process::nice(LAST).context("cannot get out of the way of other tests");
    let least = if scope.sources { Booted::WithSources } else { Booted::Always };
    let result = result.and_then(|_| vm::all(&mut tally, least));
    (result, tally)
}

/// What concerns those who change the sources.
fn sources(checks: &mut Checks) {
    let ebpf_manifest = ["--manifest-path", "dropwatch-ebpf/Cargo.toml"];
    checks.command("formatting", cargo(&["fmt", "--all", "--check"]));
    checks.command("formatting of the BPF program", cargo(&["fmt", "--check"]).args(ebpf_manifest));
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    checks.command("lints", &mut cargo(&clippy));
    let doc = ["doc", "--workspace", "--no-deps", "--locked"];
    checks.command("documentation", cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"));
    let deny = ["--config", "deny.toml", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    checks.command("dependencies", cargo(&["deny"]).args(deny));
    checks.command("dependencies of the BPF program", cargo(&["deny"]).args(ebpf_manifest).args(deny));
    advisories(checks);
    checks.step("the committed BPF object", |_| ebpf::check());
}

/// Known vulnerabilities, if the list of them can be had: a network that does not reach it is no failure.
fn advisories(checks: &mut Checks) {
    let mut fetch = Command::new("timeout");
    fetch.arg("120").arg(cargo(&[]).get_program()).args(["deny", "--config", "deny.toml", "fetch", "db"]);
    if command::output(fetch.current_dir(workspace::root())).is_err() {
        println!("==> advisories: NOT CHECKED, the database of advisories cannot be fetched from here\n");
        return;
    }
    let deny =
        ["deny", "--offline", "--config", "deny.toml", "check", "--hide-inclusion-graph", "advisories"];
    checks.command("advisories", cargo(&deny));
}

fn cargo(args: &[&str]) -> Command {
    let mut cargo = command::cargo();
    cargo.args(args).current_dir(workspace::root()).stdin(Stdio::null());
    cargo
}

/// What tests the workspace, with the BPF object of the sources as they are in it where that was built.
fn test(scope: Scope) -> Command {
    let mut test = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    if scope.sources {
        ebpf::embed(&mut test, Variant::Shipped);
    }
    test
}

fn tests(tally: &mut Tally, scope: Scope) -> Result<()> {
    let mut test = test(scope);
    // The choice is passed to the tests: one that decides for itself might skip itself.
    if scope.live {
        test.env("DROPWATCH_REQUIRE_LIVE", "1").env_remove("DROPWATCH_NO_LIVE");
    } else {
        test.env("DROPWATCH_NO_LIVE", "1").env_remove("DROPWATCH_REQUIRE_LIVE");
    }
    counted(&mut test, tally, &mut stdout())
}

/// Runs a command that runs test programs: passes on what it prints, and counts their results.
fn counted(test: &mut Command, tally: &mut Tally, terminal: &mut impl Write) -> Result<()> {
    let mut child = test.stdout(Stdio::piped()).spawn().with_context(|| command::line(test))?;
    for line in BufReader::new(child.stdout.take().context("no standard output")?).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = [&line[..], b"\n"].concat();
        // A terminal that went away is no reason to leave the tests half done.
        let _ = terminal.write_all(&line);
        if let Some(result) = Tally::of_line(&String::from_utf8_lossy(&line)) {
            *tally += result;
        }
    }
    let status = child.wait().with_context(|| command::line(test))?;
    if !status.success() && tally.failed == 0 {
        bail!(
            "`{}` failed: {status}, and no test said why: one died, or did not compile",
            command::line(test)
        );
    }
    ensure!(!status.success() || tally.passed > 0, "no test ran");
    Ok(())
}

/// The steps so far.
struct Checks {
    started: Instant,
    tally: Tally,
    /// The names of the steps that failed.
    failed: Vec<String>,
}

impl Checks {
    /// A step that is one command.
    fn command(&mut self, name: &str, mut command: impl std::borrow::BorrowMut<Command>) {
        self.step(name, |_| command::run(command.borrow_mut()));
    }

    /// Runs a step. One that counts tests is as many as it counted, any other is one.
    fn step(&mut self, name: &str, step: impl FnOnce(&mut Tally) -> Result<()>) {
        let started = Instant::now();
        println!("==> {name} (at {} s)", self.started.elapsed().as_secs());
        let mut tally = Tally::default();
        let result = step(&mut tally);
        match &result {
            Ok(()) if tally == Tally::default() => tally.passed = 1,
            Ok(()) => {}
            Err(error) => {
                tally.failed += 1;
                println!("error: {error:#}");
            }
        }
        let word = if tally.failed == 0 { "ok" } else { "FAILED" };
        println!("    {name}: {word} ({tally}; {:.1} s)\n", started.elapsed().as_secs_f32());
        if tally.failed > 0 {
            self.failed.push(name.to_string());
        }
        self.tally += tally;
    }

    /// The last words; the very last line is the sum.
    fn finish(mut self, scope: Scope) -> Result<()> {
        if !scope.sources {
            self.tally.skipped += 1;
            println!("Left out, for those who change or release dropwatch: checks of the sources (--all).\n");
        }
        if !scope.live {
            self.tally.skipped += 1;
            println!(
                "WARNING: the tests that drop packets were SKIPPED: they need root, tests/live.rs, no --no-live."
            );
            println!("WARNING: nothing here shows that dropwatch counts a single drop.\n");
        }
        if !scope.guests {
            self.tally.skipped += 1;
            println!("WARNING: the tests in other kernels were SKIPPED, by --no-vm.\n");
        }
        if !self.failed.is_empty() {
            println!("failed: {}", self.failed.join(", "));
        }
        println!("{}", self.tally);
        // Not an error with a message: the last line must be the sum.
        if self.tally.failed > 0 { std::process::exit(1) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a script prints is passed on as it is, and counted.
    fn count(script: &str) -> (Result<()>, Tally) {
        let (mut tally, mut terminal) = (Tally::default(), Vec::new());
        let done = counted(Command::new("sh").args(["-c", script]), &mut tally, &mut terminal);
        assert_eq!(terminal.split(|byte| *byte == b'\n').count(), script.matches("echo").count() + 1);
        (done, tally)
    }

    /// Two programs' results add up; a failed test is a failure even though the count is an answer.
    #[test]
    fn results_of_all_programs_are_added() {
        let (done, tally) = count(
            "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; \
             echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101",
        );
        done.unwrap();
        assert_eq!(tally, Tally { passed: 3, failed: 1, skipped: 0 });
    }

    /// A test program that is killed prints no result: its failure must not vanish.
    #[test]
    fn a_program_that_dies_is_a_failure() {
        let (died, _) = count("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 101");
        assert!(died.unwrap_err().to_string().contains("no test said why"));
        assert!(count("true").0.is_err());
    }

    /// A step fails by its error or by its count, and any other step counts as one.
    #[test]
    fn steps_are_counted() {
        let mut checks = Checks { started: Instant::now(), tally: Tally::default(), failed: Vec::new() };
        checks.step("fine", |_| Ok(()));
        checks.step("broken", |_| bail!("as expected"));
        checks.step("half", |tally| {
            *tally += Tally { passed: 5, failed: 1, skipped: 0 };
            Ok(())
        });
        assert_eq!(checks.tally, Tally { passed: 6, failed: 2, skipped: 0 });
        assert_eq!(checks.failed, ["broken", "half"]);
    }
}
