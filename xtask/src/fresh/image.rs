//! The image of a container, from nothing but the files of a release.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{
    drops::{self, ARGUMENTS},
    system::Monitor,
    timed,
};
use crate::{arch::Arch, command, dist};

/// Builds the image for each processor that there is a program for; the one for this machine's must count in a container.
pub fn try_images() -> Result<()> {
    let store = Store(tempfile::Builder::new().prefix("dropwatch-image-").tempdir()?);
    download(&dist::default_out(), &store.files())?;
    let files = dist::files(&store.files())?;
    let is_there = |arch: &Arch| {
        let end = format!("-{}", arch.name());
        files.iter().any(|file| file.to_string_lossy().ends_with(&end))
    };
    for arch in Arch::ALL.into_iter().filter(is_there) {
        timed("an image", arch.name(), || store.build(arch))?;
    }
    timed("a container", Arch::HERE.name(), || drops::counted(|| store.monitor(), Monitor::ended))
}

/// The files as they are after a download, which keeps no mode.
fn download(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).context("a folder for the files")?;
    for file in dist::files(from)? {
        let copy = to.join(file.file_name().unwrap_or_default());
        fs::write(&copy, fs::read(&file)?).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(())
}

/// For how long it counts, which is much longer than all packets need.
const SECONDS: &str = "5";

/// Images and containers in a folder of their own.
struct Store(TempDir);

impl Store {
    fn files(&self) -> PathBuf {
        self.0.path().join("files")
    }

    fn buildah(&self, arguments: &[&str]) -> Command {
        let mut buildah = Command::new("buildah");
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(self.0.path().join("images"));
        buildah.arg("--runroot").arg(self.0.path().join("running")).args(arguments);
        buildah
    }

    /// Starts the program in a container with the capabilities that it requires.
    ///
    /// buildah kills what it runs when a signal comes, so it is to end by itself. Its filter of system calls may be too old to
    /// know of these capabilities.
    fn monitor(&self) -> Result<Monitor> {
        let required = ["CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG"];
        let mut from = self.buildah(&["from", "--security-opt", "seccomp=unconfined"]);
        from.args(required.iter().flat_map(|capability| ["--cap-add", capability]));
        let container = command::output(from.arg(Arch::HERE.name()))?;
        let mut run = self.buildah(&["run", "--isolation", "chroot", container.trim(), "/usr/bin/dropwatch"]);
        run.args(ARGUMENTS).args(["--duration", SECONDS]);
        let line = command::line(&run);
        Monitor::start(run, &line, self.0.path())
    }

    fn build(&self, arch: Arch) -> Result<()> {
        let mut build = self.buildah(&["build", "--quiet", "--isolation", "chroot", "--tag", arch.name()]);
        command::run(build.arg("--build-arg").arg(format!("ARCH={}", arch.name())).arg(self.files()))
    }
}
