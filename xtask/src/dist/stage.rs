//! What is installed, in a directory as it is installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Release, build::Built, copy, files};
use crate::{arch::Arch, command, workspace};

/// Manual pages and completions, made by an example: xtask itself must not need the program.
pub fn pages(release: &Release) -> Result<()> {
    let pages = release.work.join("pages");
    if pages.exists() {
        fs::remove_dir_all(&pages).with_context(|| format!("cannot remove {}", pages.display()))?;
    }
    let mut make = command::cargo();
    make.args(["run", "--quiet", "--locked", "--package", "xtask", "--example", "manual", "--"]);
    make.arg(&pages).arg(release.time.to_string()).current_dir(workspace::root());
    command::run(&mut make)
}

/// The tree of one processor's files, below `usr`.
pub fn tree(release: &Release, arch: Arch, built: &Built) -> Result<PathBuf> {
    let tree = release.work.join("tree").join(arch.name());
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    let (root, pages) = (workspace::root(), release.work.join("pages"));
    copy(&built.program, &release.out.join(release.name(arch)))?;
    copy(&built.program, &tree.join("usr/bin/dropwatch"))?;
    for page in files(&pages.join("man"))? {
        let name = page.file_name().context("a page has a name")?;
        copy(&page, &tree.join("usr/share/man/man1").join(name))?;
    }
    let share = tree.join("usr/share");
    copy(&pages.join("completions/bash"), &share.join("bash-completion/completions/dropwatch"))?;
    copy(&pages.join("completions/fish"), &share.join("fish/vendor_completions.d/dropwatch.fish"))?;
    copy(&pages.join("completions/zsh"), &share.join("zsh/vendor-completions/_dropwatch"))?;
    for unit in ["dropwatch.service", "dropwatch-exporter.service"] {
        copy(&root.join("packaging").join(unit), &tree.join("usr/lib/systemd/system").join(unit))?;
    }
    let doc = share.join("doc/dropwatch-ebpf");
    copy(&root.join("packaging/copyright"), &doc.join("copyright"))?;
    copy(&root.join("README.md"), &doc.join("README.md"))?;
    copy(&root.join("CHANGELOG.md"), &doc.join("changelog"))?;
    copy(&root.join("packaging/lintian-overrides"), &share.join("lintian/overrides/dropwatch-ebpf"))?;
    compress(&files(&share.join("man/man1"))?)?;
    compress(&[doc.join("changelog"), doc.join("README.md")])?;
    settle(&tree, release)?;
    Ok(tree)
}

/// Without a name and a time in it.
fn compress(files: &[PathBuf]) -> Result<()> {
    command::run(Command::new("gzip").args(["--no-name", "--best"]).args(files))
}

/// Gives all files the release's time, and the modes that they are installed with, whatever the umask is here.
fn settle(path: &Path, release: &Release) -> Result<()> {
    let is_executable = path.is_dir() || path.ends_with("bin/dropwatch");
    let mode = fs::Permissions::from_mode(if is_executable { 0o755 } else { 0o644 });
    fs::set_permissions(path, mode).with_context(|| format!("cannot change {}", path.display()))?;
    if path.is_dir() {
        files(path)?.iter().try_for_each(|file| settle(file, release))?;
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(release.time);
    fs::File::open(path)?.set_modified(time).with_context(|| format!("cannot change {}", path.display()))
}

/// The archive for those who install by hand: what is below `usr` fits below `/usr/local`.
pub fn tarball(release: &Release, arch: Arch, tree: &Path) -> Result<()> {
    let name = release.name(arch);
    let place = release.work.join("tarball").join(&name);
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    let root = workspace::root();
    for file in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&root.join(file), &place.join(file))?;
    }
    for directory in ["bin", "share/man", "share/bash-completion", "share/fish", "share/zsh", "lib/systemd"] {
        copy_tree(&tree.join("usr").join(directory), &place.join(directory))?;
    }
    settle(&place, release)?;
    let places = release.work.join("tarball");
    let archive = places.join(format!("{name}.tar"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{}", release.time)).arg("--file").arg(&archive);
    command::run(tar.arg("--directory").arg(&places).arg(&name))?;
    command::run(Command::new("gzip").args(["--force", "--no-name", "--best"]).arg(&archive))?;
    let packed = format!("{name}.tar.gz");
    copy(&places.join(&packed), &release.out.join(&packed))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let to = to.join(file.file_name().context("a file has a name")?);
        if file.is_dir() { copy_tree(&file, &to)? } else { copy(&file, &to)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use dropwatch::internals::Cli;

    use super::*;

    /// What clap knows of a command is not a page yet.
    #[test]
    fn every_command_has_written_pages() {
        let program = Cli::command();
        let commands = program.get_subcommands().map(clap::Command::get_name).chain(["dropwatch"]);
        for name in commands.filter(|name| *name != "help") {
            let path = workspace::root().join(format!("packaging/man/{name}.txt"));
            let text = fs::read_to_string(&path).unwrap_or_default();
            for heading in ["# DESCRIPTION", "# EXAMPLES", "# EXIT STATUS", "# FILES", "# SEE ALSO"] {
                assert!(text.contains(heading), "{} has no {heading}", path.display());
            }
        }
    }
}
