//! Runs one command on several kernels: what to download, to pack, to boot, and in which order.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, id},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{
    guest::{self, Machine},
    kernels::{Packages, Series},
    modules,
    programs::{self, Programs},
    report::Outcome,
    rootfs::Rootfs,
};
use crate::{
    apt::{Apt, Mirror, cache},
    arch::Arch,
    command, workspace,
};

/// How many guests run at once: each waits for a third of its time.
const AT_ONCE: usize = 3;

/// How many kernels of a series are tried: an archive may list what it does not have any more.
const CANDIDATES: usize = 4;

/// Megabytes for the packages of one kernel, unpacked twice, and two guests' file systems.
const ROOM: u64 = 1200;

/// What the command finds: the program under test, and that a test that cannot run is a failure.
const SETTING: &str = "\
export DROPWATCH_BIN=/bin/dropwatch DROPWATCH_REQUIRE_LIVE=1 DROPWATCH_REQUIRE_ALL_CASES=1 RUST_BACKTRACE=1
cd /root
";

/// Runs the tests that are its arguments, one after the other.
const AGAIN: &str = "status=0; for name do live --test-threads=1 --nocapture --exact \"$name\" || status=1; done; exit $status";

/// A kernel, unpacked on this machine.
struct Kernel {
    release: String,
    /// With `vmlinuz`, and `staging` with the modules for the guest.
    dir: PathBuf,
}

/// What to do in every guest.
pub struct Plan<'a> {
    /// By processor. Those of another one are built when its first guest is about to boot: meanwhile, others run.
    programs: Vec<(Arch, OnceLock<Result<Programs>>)>,
    /// Other programs of this machine, by their names in the guest.
    others: Vec<(&'static str, PathBuf)>,
    /// If it is not the live tests.
    command: Vec<String>,
    accel: &'a str,
    timeout: Duration,
}

impl<'a> Plan<'a> {
    /// Builds what the guests run: `command`, or the live tests.
    pub fn new(chosen: &[&Series], command: &[String], accel: &'a str, timeout: Duration) -> Result<Self> {
        let archs = Arch::ALL.into_iter().filter(|arch| chosen.iter().any(|series| series.arch == *arch));
        let programs = archs.map(|arch| (arch, OnceLock::new())).collect();
        let plan = Self { programs, others: Vec::new(), command: command.to_vec(), accel, timeout };
        if chosen.iter().any(|series| series.arch == Arch::HERE) {
            plan.programs(Arch::HERE)?;
        }
        Ok(plan)
    }

    /// What guests of a processor run, built when it is first wanted.
    fn programs(&self, arch: Arch) -> Result<&Programs> {
        let programs = self.programs.iter().find(|(of, _)| *of == arch);
        let (_, programs) = programs.context("no guest of this processor was planned")?;
        programs.get_or_init(|| programs::build(arch)).as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    /// Takes another program of this machine along, as /bin/NAME.
    pub fn with(mut self, name: &'static str, file: PathBuf) -> Self {
        self.others.push((name, file));
        self
    }

    /// Runs the command on all of `chosen`, a few at once, and returns the result of each.
    pub fn run(&self, chosen: &[&Series]) -> Vec<Outcome> {
        // One after the other: they share a mirror and a disk.
        let mut kernels: Vec<_> = chosen.iter().map(|series| (*series, prepare(series))).collect();
        // Those with most to do first, or one of them would run alone at the end: their programs are built, or few tests
        // are left out.
        kernels.sort_by_key(|(series, _)| (series.arch == Arch::HERE, series.left_out.len()));
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(kernels.len()) {
                scope.spawn(|| {
                    while let Some((series, kernel)) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = self.outcome(series, kernel);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((series.name, outcome));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(name, _)| chosen.iter().position(|series| series.name == *name));
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// Runs one guest, if its kernel could be had, and another one for the tests that failed.
    ///
    /// An emulated processor may stand still for as long as this machine is busy with something else, which looks like
    /// a fault in some test once in a few runs. What passes at the second try is named in the summary.
    fn outcome(&self, series: &Series, kernel: &Result<Kernel>) -> Outcome {
        let started = Instant::now();
        let mut outcome = self.one_guest(series, kernel, &self.command_for(series));
        if self.command.is_empty()
            && let Some(names) = outcome.doubtful()
        {
            println!("{}: once more, in a fresh guest: {}", series.name, names.join(" "));
            let again = ["sh", "-c", AGAIN, "again"].into_iter().map(str::to_string);
            let again: Vec<_> = again.chain(names.iter().cloned()).collect();
            let second = self.one_guest(series, kernel, &again);
            outcome.learn(second);
        }
        outcome.took = started.elapsed();
        outcome
    }

    fn one_guest(&self, series: &Series, kernel: &Result<Kernel>, command: &[String]) -> Outcome {
        let mut outcome = Outcome::of(series.name);
        let status = match kernel {
            Err(error) => Err(anyhow!("{error:#}")),
            Ok(kernel) => {
                outcome.kernel.clone_from(&kernel.release);
                println!("{}: booting {}", series.name, kernel.release);
                self.boot(series.arch, kernel, command, |line| {
                    println!("[{}] {line}", series.name);
                    outcome.hear(line);
                })
            }
        };
        outcome.error = match status {
            // Tests that failed have been counted, which says more than their status.
            Ok(status) if status == 0 || outcome.tally.failed > 0 => None,
            Ok(status) => Some(format!("the command's status is {status}")),
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(error) = &outcome.error {
            eprintln!("{}: error: {error}", series.name);
        }
        outcome
    }

    fn boot(&self, arch: Arch, kernel: &Kernel, command: &[String], heard: impl FnMut(&str)) -> Result<i32> {
        let command = command.iter().map(|word| guest::quoted(word)).collect::<Vec<_>>().join(" ");
        let script = format!("exec {command} </dev/null 2>&1");
        self.machine(arch, kernel, &script, |machine| machine.run(heard))
    }

    /// What runs on a kernel: the command, or the live tests, if there are any.
    fn command_for(&self, series: &Series) -> Vec<String> {
        let mut words: Vec<_> = self.command.iter().map(String::as_str).collect();
        if words.is_empty() && workspace::has_live_tests() {
            // One at a time and with what they print: the cases' figures are in it.
            words = vec!["live", "--test-threads=1", "--nocapture"];
            words.extend(series.only);
            words.extend(series.left_out.iter().copied().flatten().flat_map(|name| ["--skip", name]));
        } else if words.is_empty() {
            words = vec!["dropwatch", "--version"];
        }
        words.into_iter().map(ToString::to_string).collect()
    }

    /// Boots one kernel to a prompt.
    pub fn interact(&self, series: &Series) -> Result<()> {
        let kernel = prepare(series)?;
        println!(
            "{}: booting {}; leave with Ctrl-D, or kill the guest with Ctrl-A X",
            series.name, kernel.release
        );
        self.machine(series.arch, &kernel, "exec setsid cttyhack /bin/sh", |machine| machine.interact())
    }

    /// Packs a guest that runs `script`, and hands over the machine to run it.
    fn machine<T>(
        &self,
        arch: Arch,
        kernel: &Kernel,
        script: &str,
        run: impl FnOnce(Machine<'_>) -> Result<T>,
    ) -> Result<T> {
        let token = token();
        let programs = self.programs(arch)?;
        let mut rootfs = match &programs.root {
            None => Rootfs::of_host()?,
            Some(root) => Rootfs::of_root(root)?,
        };
        rootfs.script("init", include_str!("init.sh").replace("@TOKEN@", &token));
        rootfs.script("command", format!("{SETTING}{script}\n"));
        rootfs.program("dropwatch", &programs.dropwatch);
        if let Some(live) = &programs.live {
            rootfs.program("live", live);
        }
        for (name, file) in &self.others {
            rootfs.program(name, file);
        }
        rootfs.tree(&kernel.dir.join("staging/lib"), Path::new("/lib"))?;
        let initramfs = guest::unnamed_file(&kernel.dir)?;
        rootfs.write(&initramfs)?;
        run(Machine {
            arch,
            qemu: arch.qemu(),
            kernel: &kernel.dir.join("vmlinuz"),
            initramfs: &initramfs,
            accel: self.accel,
            token: &token,
            timeout: self.timeout,
        })
    }
}

/// A word that nothing in the guest prints by chance.
fn token() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", id(), now.as_nanos())
}

/// The newest kernel of a series that can be had, unpacked; downloaded unless it is here already.
fn prepare(series: &Series) -> Result<Kernel> {
    newest(series).with_context(|| format!("no kernel {}", series.name))
}

fn newest(series: &Series) -> Result<Kernel> {
    let cache = cache("vm");
    ensure_room(&cache)?;
    let apt =
        Apt::new(&cache.join("apt").join(series.name), &Mirror::of_system()?, series.suites, series.arch)?;
    let candidates = series.candidates(&apt.names("linux-")?);
    let mut failure = anyhow!("{} have no package of it any more", series.suites.join(" and "));
    for Packages { release, names } in candidates.into_iter().take(CANDIDATES) {
        let dir = cache.join("kernels").join(&release);
        if dir.join("vmlinuz").exists() {
            return Ok(Kernel { release, dir });
        }
        println!("{}: downloading {}", series.name, names.join(" "));
        match unpack(&apt, &names, &release, &dir) {
            Ok(()) => return Ok(Kernel { release, dir }),
            Err(error) => eprintln!("{}: {release} cannot be had: {error:#}", series.name),
        }
        failure = anyhow!("none of its packages can be had, the last one tried being {release}");
    }
    Err(failure)
}

/// Fails while there is something to say: apt on a full disk waits in silence.
fn ensure_room(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let df = command::output(Command::new("df").args(["--output=avail", "--block-size=1M"]).arg(dir))?;
    let free: u64 = df.lines().last().unwrap_or_default().trim().parse().context("df prints no number")?;
    ensure!(
        free >= ROOM,
        "{free} MB are free in {}, and kernels need {ROOM}: XDG_CACHE_HOME can move them",
        dir.display()
    );
    Ok(())
}

/// Makes `dir` from packages. It appears when it is complete, so that a run cut short leaves no half of a kernel.
fn unpack(apt: &Apt, packages: &[String], release: &str, dir: &Path) -> Result<()> {
    let part = dir.with_extension("part");
    let whole = part.join("whole");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    apt.unpack(packages, &part)?;
    // Older packages have both below the root, newer ones below /usr.
    if !part.join("lib").exists() {
        fs::rename(part.join("usr/lib"), part.join("lib")).context("the packages have no modules")?;
    }
    let modules = part.join("lib/modules").join(release);
    modules::depmod(&part, release)?;
    modules::stage(&part, release, &whole.join("staging"))?;
    let images = [part.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.iter().find(|image| image.exists()).context("the packages have no kernel")?;
    fs::rename(image, whole.join("vmlinuz"))?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::rename(&whole, dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))
}
