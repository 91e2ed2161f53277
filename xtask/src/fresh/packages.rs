//! The files of a release in bare systems: each installed, run and removed, over C dropwatch's package and back.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    drops,
    system::{Monitor, System},
    timed,
};
use crate::{arch::Arch, command, dist};

/// A suite that has no package of C dropwatch.
const WITHOUT_C: &str = "bullseye";

const INSTALL: &str = "apt-get install --quiet=2 --yes --no-install-recommends";

/// What `cargo xtask dist` has made for this machine's processor.
pub struct Packages {
    deb: PathBuf,
    rpm: PathBuf,
    tarball: PathBuf,
}

impl Packages {
    /// Those of the last run of `cargo xtask dist`, as its sums have them.
    pub fn made() -> Result<Self> {
        let out = dist::default_out();
        ensure!(
            out.join("SHA256SUMS").exists(),
            "no release in {}: run `cargo xtask dist` first",
            out.display()
        );
        let mut check = Command::new("sha256sum");
        command::run(check.args(["--check", "--quiet", "--strict", "SHA256SUMS"]).current_dir(&out))?;
        let find = |end: String| {
            let found = dist::files(&out)?.into_iter().find(|file| file.to_string_lossy().ends_with(&end));
            found.with_context(|| format!("no …{end} in {}", out.display()))
        };
        Ok(Self {
            deb: find(format!("_{}.deb", Arch::HERE.debian()))?,
            rpm: find(format!(".{}.rpm", Arch::HERE.name()))?,
            tarball: find(format!("-{}.tar.gz", Arch::HERE.name()))?,
        })
    }

    /// Debian's package, which takes the place of C dropwatch's and gives it back.
    pub fn try_with_debian(&self, suite: &str) -> Result<()> {
        let system = timed(suite, "the bare system", || System::debian(suite))?;
        fs::copy(&self.deb, system.path("dropwatch.deb")).context("cannot copy the package")?;
        timed(suite, "a reader of manual pages", || {
            system.run(&format!("apt-get update --quiet=2 && {INSTALL} man-db"))
        })?;
        if suite != WITHOUT_C {
            timed(suite, "C dropwatch", || c_takes_its_place(&system))?;
        }
        timed(suite, "the package, with dpkg", || {
            system.run("dpkg --install /dropwatch.deb")?;
            owned_by(&system, "dropwatch-ebpf")?;
            works(&system, "usr")?;
            let page = system.output("man dropwatch")?;
            ensure!(
                page.contains("dropwatch - See where the Linux kernel drops packets"),
                "man says:\n{page}"
            );
            Ok(())
        })?;
        if suite != WITHOUT_C {
            timed(suite, "C dropwatch again", || c_takes_its_place(&system))?;
            timed(suite, "the package, with apt", || {
                system.run(&format!("{INSTALL} /dropwatch.deb"))?;
                owned_by(&system, "dropwatch-ebpf")?;
                works(&system, "usr")
            })?;
        }
        timed(suite, "removal", || {
            system.run("dpkg --purge dropwatch-ebpf")?;
            gone(&system)
        })
    }

    /// RPM's package and the archive, where there is no library to run with.
    pub fn try_without_libraries(&self) -> Result<()> {
        const NAME: &str = "busybox";
        let system = timed(NAME, "the bare system", System::busybox)?;
        timed(NAME, "the package of RPM", || {
            rpm(&system, &["--install", "--nosignature"], Some(&self.rpm))?;
            rpm(&system, &["--verify", "dropwatch-ebpf"], None)?;
            works(&system, "usr")?;
            rpm(&system, &["--erase", "dropwatch-ebpf"], None)?;
            gone(&system)
        })?;
        timed(NAME, "the archive", || {
            fs::copy(&self.tarball, system.path("dropwatch.tar.gz")).context("cannot copy the archive")?;
            system
                .run("mkdir -p /usr/local && tar -xzf dropwatch.tar.gz && cp -R dropwatch-*/* /usr/local")?;
            works(&system, "usr/local")
        })
    }
}

/// This machine's rpm, at work in a system that has none.
fn rpm(system: &System, arguments: &[&str], file: Option<&Path>) -> Result<()> {
    let mut rpm = Command::new("rpm");
    rpm.arg("--root").arg(system.root());
    // On Debian it installs nothing without this.
    rpm.arg("--force-debian");
    command::run(rpm.args(arguments).args(file))
}

/// Installs C dropwatch's package, whatever is there.
fn c_takes_its_place(system: &System) -> Result<()> {
    system.run(&format!("{INSTALL} dropwatch"))?;
    owned_by(system, "dropwatch")
}

/// Fails unless a package of that name, and no other one, has the program.
fn owned_by(system: &System, package: &str) -> Result<()> {
    let owner = system.output("dpkg-query --search /usr/bin/dropwatch")?;
    ensure!(owner.trim() == format!("{package}: /usr/bin/dropwatch"), "dpkg-query says: {owner}");
    let state =
        system.output(&format!("dpkg-query --show --showformat '${{db:Status-Status}}' {package}"))?;
    ensure!(state == "installed", "{package} is {state}");
    Ok(())
}

/// The program, its pages and completions below a directory; and it counts to the last drop.
fn works(system: &System, below: &str) -> Result<()> {
    let version = system.output(&format!("/{below}/bin/dropwatch --version"))?;
    ensure!(version.trim() == format!("dropwatch {}", env!("CARGO_PKG_VERSION")), "it says {version}");
    let page = "share/man/man1/dropwatch.1";
    let is_there = |file: String| system.path(&format!("{below}/{file}")).exists();
    ensure!(is_there(page.into()) || is_there(format!("{page}.gz")), "there is no manual page");
    ensure!(is_there("share/bash-completion/completions/dropwatch".into()), "there are no completions");
    let arguments = drops::ARGUMENTS.map(|word| format!("'{word}'")).join(" ");
    let line = format!("/{below}/bin/dropwatch {arguments}");
    drops::counted(|| system.monitor(&line), Monitor::stop)
}

/// Nothing that was installed is left.
fn gone(system: &System) -> Result<()> {
    for file in ["bin/dropwatch", "share/man/man1/dropwatch.1.gz", "share/doc/dropwatch-ebpf"] {
        let path = system.path("usr").join(file);
        ensure!(!path.exists(), "/usr/{file} is still there");
    }
    Ok(())
}
