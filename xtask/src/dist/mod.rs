//! `cargo xtask dist`: what a release consists of, the same bytes wherever it is made.

mod again;
mod build;
mod check;
mod package;
mod sbom;
mod stage;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{arch::Arch, command, cross, ebpf::digest, install, workspace};

#[derive(Args)]
pub struct Options {
    /// For these processors only; may be repeated
    #[arg(long, value_name = "ARCH")]
    arch: Vec<Arch>,
    /// Install what is missing: distribution packages, and the packager into the target directory
    #[arg(long)]
    install: bool,
    /// Where the files go [default: target/dist]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also start the programs, and run lintian and rpmlint, which must find nothing
    #[arg(long)]
    check: bool,
    /// Also make it all a second time, from a clone elsewhere and with another home: the files must be the same
    #[arg(long)]
    twice: bool,
}

/// What all files of a release have in common.
pub struct Release {
    pub version: &'static str,
    /// Seconds since 1970: the time of every file.
    pub time: u64,
    /// Where the files go.
    pub out: PathBuf,
    /// Where they are made.
    pub work: PathBuf,
}

pub fn main(options: &Options) -> Result<()> {
    let chosen = if options.arch.is_empty() { &Arch::ALL[..] } else { &options.arch };
    if options.twice {
        again::ensure_committed()?;
    }
    prepare(options, chosen)?;
    let release = Release::new(options.out.as_deref())?;
    let started = Instant::now();
    let step = |what: String| println!("==> {what} (at {} s)", started.elapsed().as_secs());
    step("manual pages and completions".into());
    stage::pages(&release)?;
    for &arch in chosen {
        step(format!("the program for {}", arch.name()));
        let built = build::program(&release, arch)?;
        step(format!("its packages for {}", arch.name()));
        let tree = stage::tree(&release, arch, &built)?;
        stage::tarball(&release, arch, &tree)?;
        package::build(&release, arch, &tree)?;
        sbom::write(&release, arch, &built)?;
    }
    copy(&workspace::root().join("packaging/Containerfile"), &release.out.join("Containerfile"))?;
    sums(&release.out)?;
    if options.check {
        step("a start of each program, lintian and rpmlint".into());
        chosen.iter().try_for_each(|&arch| check::program(&release, arch))?;
        check::packages(&release.out)?;
    }
    if options.twice {
        step("the same again, elsewhere".into());
        again::ensure_same(&release, chosen)?;
    }
    step(format!("done: {}", workspace::shown(&release.out)));
    Ok(())
}

/// What is needed and missing is named, or installed.
fn prepare(options: &Options, chosen: &[Arch]) -> Result<()> {
    let arm: &[_] = if chosen.iter().any(|arch| *arch != Arch::HERE) { &cross::ARM } else { &[] };
    let linters: &[_] = if options.check { &install::LINTERS } else { &[] };
    let missing = install::missing(install::PACKAGING.iter().chain(arm).chain(linters));
    if !missing.is_empty() {
        ensure!(options.install, install::explain(&missing, "cargo xtask dist --install"));
        install::install(&missing)?;
    }
    package::packager(options.install).map(drop)
}

impl Release {
    fn new(out: Option<&Path>) -> Result<Self> {
        let out = out.map_or_else(default_out, |out| workspace::root().join(out));
        let release = Self {
            version: env!("CARGO_PKG_VERSION"),
            time: source_date()?,
            out,
            work: workspace::target().join("dist-work"),
        };
        // What an earlier run left would be in the sums.
        if release.out.exists() {
            fs::remove_dir_all(&release.out)
                .with_context(|| format!("cannot remove {}", release.out.display()))?;
        }
        fs::create_dir_all(&release.out)
            .with_context(|| format!("cannot create {}", release.out.display()))?;
        Ok(release)
    }

    /// The time as touch(1), tar(1) and the packager read it.
    pub fn rfc3339(&self) -> String {
        humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.time))
            .to_string()
    }

    /// The name of what belongs to one processor.
    pub fn name(&self, arch: Arch) -> String {
        format!("dropwatch-{}-{}", self.version, arch.name())
    }
}

/// Where the files go unless another place is named.
pub fn default_out() -> PathBuf {
    workspace::target().join("dist")
}

/// The time of the sources: what `SOURCE_DATE_EPOCH` says, or that of the last commit.
fn source_date() -> Result<u64> {
    let said = std::env::var("SOURCE_DATE_EPOCH").or_else(|_| {
        command::output(
            Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(workspace::root()),
        )
    });
    let said = said.context("these sources have no date: set SOURCE_DATE_EPOCH to seconds since 1970")?;
    said.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {said}"))
}

pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().context("a file is in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The names of a directory's files, in order.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// `SHA256SUMS`, as sha256sum(1) writes and checks it.
fn sums(out: &Path) -> Result<()> {
    let mut text = String::new();
    for file in files(out)? {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _ = writeln!(text, "{}  {name}", digest::of_bytes(&bytes));
    }
    fs::write(out.join("SHA256SUMS"), text).context("cannot write SHA256SUMS")
}
