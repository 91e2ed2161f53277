//! The packages as the distributions' own checkers see them, and the programs as they start.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{Release, files};
use crate::{arch::Arch, command, workspace};

/// The program starts, if need be in an emulation of its processor.
pub fn program(release: &Release, arch: Arch) -> Result<()> {
    let program = release.out.join(release.name(arch));
    let mut run = if arch == Arch::HERE {
        Command::new(program)
    } else {
        let mut emulator = Command::new(arch.emulator());
        emulator.arg(program);
        emulator
    };
    let said = command::output(run.arg("--version"))?;
    ensure!(
        said.trim() == format!("dropwatch {}", release.version),
        "the program for {} says {said}",
        arch.name()
    );
    Ok(())
}

/// Fails with the first complaint.
pub fn packages(out: &Path) -> Result<()> {
    let of_kind = |kind: &str| -> Result<Vec<_>> {
        Ok(files(out)?.into_iter().filter(|file| file.extension().is_some_and(|of| of == kind)).collect())
    };
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--tag-display-limit", "0"]);
    lintian.args(of_kind("deb")?);
    // Root's own packages are no others'; lintian does not know that.
    if command::is_root() {
        lintian.arg("--allow-root");
    }
    command::run(&mut lintian).context("lintian finds fault with the package of Debian")?;
    let mut rpmlint = Command::new("rpmlint");
    rpmlint.arg("--strict").arg("--config").arg(workspace::root().join("packaging/rpmlint.toml"));
    command::run(rpmlint.args(of_kind("rpm")?)).context("rpmlint finds fault with the package of RPM")
}
