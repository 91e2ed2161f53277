//! The image of a container, from nothing but the files of a release.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::timed;
use crate::{arch::Arch, command, dist};

/// Builds the image for each processor that there is a program for; the one for this machine's must start.
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
    timed("a container", Arch::HERE.name(), || {
        let container = command::output(store.buildah(&["from"]).arg(Arch::HERE.name()))?;
        let mut run = store.buildah(&["run", "--isolation", "chroot", container.trim()]);
        let said = command::output(run.args(["/usr/bin/dropwatch", "--version"]))?;
        ensure!(said.trim() == format!("dropwatch {}", env!("CARGO_PKG_VERSION")), "it says {said}");
        Ok(())
    })
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

    fn build(&self, arch: Arch) -> Result<()> {
        let mut build = self.buildah(&["build", "--quiet", "--isolation", "chroot", "--tag", arch.name()]);
        command::run(build.arg("--build-arg").arg(format!("ARCH={}", arch.name())).arg(self.files()))
    }
}
