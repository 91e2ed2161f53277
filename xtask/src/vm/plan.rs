//! Runs one command on several kernels: what to download, to pack, to boot, and in which order.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, id},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    apt::{Apt, Mirror},
    guest::{self, Machine},
    kernels::Series,
    modules,
    programs::{self, Programs},
    report::Outcome,
    rootfs::Rootfs,
};
use crate::command;

/// How many guests run at once.
const AT_ONCE: usize = 2;

/// Megabytes for the packages of one kernel, unpacked twice, and two guests' file systems.
const ROOM: u64 = 500;

/// What the command finds: the program under test, and that a test that cannot run is a failure.
const SETTING: &str = "\
export DROPWATCH_BIN=/bin/dropwatch DROPWATCH_REQUIRE_LIVE=1 DROPWATCH_REQUIRE_ALL_CASES=1 RUST_BACKTRACE=1
cd /root
";

/// A kernel, unpacked on this machine.
struct Kernel {
    release: String,
    /// With `vmlinuz`, and `staging` with the modules for the guest.
    dir: PathBuf,
}

/// What to do in every guest.
pub struct Plan<'a> {
    programs: Programs,
    /// Other programs of this machine, by their names in the guest.
    others: Vec<(&'static str, PathBuf)>,
    command: Vec<String>,
    accel: &'a str,
    timeout: Duration,
}

impl<'a> Plan<'a> {
    /// Builds what the guests run: `command`, or the live tests.
    pub fn new(command: &[String], accel: &'a str, timeout: Duration) -> Result<Self> {
        let programs = programs::build()?;
        let mut command = command.to_vec();
        if command.is_empty() {
            let default: &[&str] = match programs.live {
                // One at a time and with what they print: the cases' figures are in it.
                Some(_) => &["live", "--test-threads=1", "--nocapture"],
                None => &["dropwatch", "--version"],
            };
            command = default.iter().map(ToString::to_string).collect();
        }
        Ok(Self { programs, others: Vec::new(), command, accel, timeout })
    }

    /// Takes another program of this machine along, as /bin/NAME.
    pub fn with(mut self, name: &'static str, file: PathBuf) -> Self {
        self.others.push((name, file));
        self
    }

    /// Whether there are live tests to run at all.
    pub fn has_tests(&self) -> bool {
        self.programs.live.is_some()
    }

    /// Runs the command on all of `chosen`, a few at once, and tells how each did.
    pub fn run(&self, chosen: &[&Series]) -> Vec<Outcome> {
        // One after the other: they share a mirror and a disk.
        let kernels: Vec<_> = chosen.iter().map(|series| (*series, prepare(series))).collect();
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

    /// Runs one guest, if its kernel could be had.
    fn outcome(&self, series: &Series, kernel: &Result<Kernel>) -> Outcome {
        let mut outcome = Outcome { kernel: series.name.to_string(), ..Outcome::default() };
        let started = Instant::now();
        let status = match kernel {
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
            Ok(kernel) => {
                outcome.kernel.clone_from(&kernel.release);
                println!("{}: booting {}", series.name, kernel.release);
                self.boot(kernel, |line| {
                    println!("[{}] {line}", series.name);
                    outcome.hear(line);
                })
            }
        };
        outcome.took = started.elapsed();
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

    fn boot(&self, kernel: &Kernel, heard: impl FnMut(&str)) -> Result<i32> {
        let command = self.command.iter().map(|word| guest::quoted(word)).collect::<Vec<_>>().join(" ");
        self.machine(kernel, &format!("exec {command} </dev/null 2>&1"), |machine| machine.run(heard))
    }

    /// Boots one kernel to a prompt.
    pub fn interact(&self, series: &Series) -> Result<()> {
        let kernel = prepare(series)?;
        println!(
            "{}: booting {}; leave with Ctrl-D, or kill the guest with Ctrl-A X",
            series.name, kernel.release
        );
        self.machine(&kernel, "exec setsid cttyhack /bin/sh", |machine| machine.interact())
    }

    /// Packs a guest that runs `script`, and hands over the machine to run it.
    fn machine<T>(
        &self,
        kernel: &Kernel,
        script: &str,
        run: impl FnOnce(Machine<'_>) -> Result<T>,
    ) -> Result<T> {
        let token = token();
        let mut rootfs = Rootfs::new()?;
        rootfs.script("init", include_str!("init.sh").replace("@TOKEN@", &token));
        rootfs.script("command", format!("{SETTING}{script}\n"));
        rootfs.program("dropwatch", &self.programs.dropwatch);
        if let Some(live) = &self.programs.live {
            rootfs.program("live", live);
        }
        for (name, file) in &self.others {
            rootfs.program(name, file);
        }
        rootfs.tree(&kernel.dir.join("staging/lib"), Path::new("/lib"))?;
        let initramfs = guest::unnamed_file(&kernel.dir)?;
        rootfs.write(&initramfs)?;
        run(Machine {
            qemu: Path::new(guest::QEMU),
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

/// The cache, which is outside the repository: kernels outlive a clone.
fn cache() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    cache.unwrap_or_else(|| home().join(".cache")).join("dropwatch/vm")
}

/// The newest kernel of a series, unpacked; downloaded unless it is here already.
fn prepare(series: &Series) -> Result<Kernel> {
    newest(series).with_context(|| format!("no kernel {}", series.name))
}

fn newest(series: &Series) -> Result<Kernel> {
    let cache = cache();
    ensure_room(&cache)?;
    let apt = Apt::new(&cache.join("apt").join(series.name), &Mirror::of_system()?, series.suites)?;
    let available = apt.names("linux-")?;
    let Some(packages) = series.newest(&available) else {
        bail!("{} have no package of it any more", series.suites.join(" and "));
    };
    let dir = cache.join("kernels").join(&packages.release);
    if !dir.join("vmlinuz").exists() {
        println!("{}: downloading {}", series.name, packages.names.join(" "));
        unpack(&apt, &packages.names, &packages.release, &dir)?;
    }
    Ok(Kernel { release: packages.release, dir })
}

/// Fails while there is something to say: apt on a full disk waits in silence.
fn ensure_room(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let df = command::output(Command::new("df").args(["--output=avail", "--block-size=1M"]).arg(dir))?;
    let free: u64 = df.lines().last().unwrap_or_default().trim().parse().context("df tells no figure")?;
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
