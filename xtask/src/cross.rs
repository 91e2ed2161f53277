//! Which compiler builds for which processor.
//!
//! The cargo that runs this program, if its compiler has the target's library; else Debian's own compiler with the library
//! of its other architecture's package, which is unpacked into the cache and not installed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt::{self, Apt, Mirror, cache},
    arch::Arch,
    command,
    install::{self, Need},
    workspace,
};

/// A compiler for one processor.
#[derive(Clone, Debug)]
pub struct Compiler {
    pub arch: Arch,
    kind: Kind,
    /// What `rustc --version` says.
    pub version: String,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The cargo that runs this program.
    Own,
    /// `/usr/bin/cargo`, with what it compiles for in this directory.
    System(PathBuf),
}

/// The distribution's compiler.
const SYSTEM: &str = "/usr/bin/rustc";

/// What building for another processor needs.
pub static ARM: [Need; 2] = [
    Need::program(
        "aarch64-linux-gnu-gcc",
        "programs for arm64",
        &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
    ),
    Need::path("/usr/bin/cargo", "programs for arm64", &["rustc-web", "cargo-web"]),
];

impl Compiler {
    /// The compiler for a processor.
    pub fn pick(arch: Arch) -> Result<Self> {
        if has_library(Command::new("rustc"), arch) {
            let version = command::output(Command::new("rustc").arg("--version"))?;
            return Ok(Self { arch, kind: Kind::Own, version: version.trim().into() });
        }
        let missing = install::missing(ARM.iter());
        if !missing.is_empty() {
            bail!("{}", install::explain(&missing, "cargo xtask dist --install"));
        }
        let sysroot = sysroot(arch).with_context(|| {
            format!("no compiler for {0} (with rustup: `rustup target add {0}`)", arch.target())
        })?;
        let version = command::output(Command::new(SYSTEM).arg("--version"))?;
        Ok(Self { arch, kind: Kind::System(sysroot), version: version.trim().into() })
    }

    /// A cargo command that builds for the processor, with these flags for its compiler beside its own.
    pub fn cargo(&self, subcommand: &str, flags: &[String]) -> Command {
        let mut flags = flags.to_vec();
        let mut cargo = match &self.kind {
            Kind::Own => command::cargo(),
            Kind::System(sysroot) => {
                flags.push(format!("--sysroot={}", sysroot.display()));
                let mut cargo = command::cargo_at("/usr/bin/cargo");
                cargo.env("RUSTC", SYSTEM).env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
                // Two compilers that share a directory would each rebuild what the other one has built.
                cargo.env("CARGO_TARGET_DIR", workspace::target().join("cross"));
                cargo
            }
        };
        if self.arch != Arch::HERE {
            let variable =
                format!("CARGO_TARGET_{}_LINKER", self.arch.target().to_uppercase().replace('-', "_"));
            cargo.env(variable, format!("{}-gcc", self.arch.triplet()));
        }
        cargo.args([subcommand, "--target", self.arch.target()]).env_remove("RUSTFLAGS");
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo
    }
}

/// Whether a compiler has the library of a processor's target.
fn has_library(mut rustc: Command, arch: Arch) -> bool {
    let directory = command::output(rustc.args(["--print", "target-libdir", "--target", arch.target()]));
    directory.is_ok_and(|directory| Path::new(directory.trim()).exists())
}

/// A directory as the distribution's compiler expects it, with the libraries of this machine and of another one.
fn sysroot(arch: Arch) -> Result<PathBuf> {
    let (package, version) = library_package()?;
    let directory = cache("cross").join(format!("{package}-{version}-{}", arch.debian()));
    let libraries = directory.join("lib/rustlib");
    let library = libraries.join(arch.target());
    if !library.exists() {
        println!("downloading {package} for {}", arch.debian());
        let suites = apt::suites_here()?;
        let suites = suites.each_ref().map(String::as_str);
        let apt = Apt::new(&cache("cross/apt"), &Mirror::of_system()?, &suites, arch)?;
        let part = directory.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        apt.unpack(&[format!("{package}={version}")], &part)?;
        fs::create_dir_all(&libraries).with_context(|| format!("cannot create {}", libraries.display()))?;
        let here = Path::new("/usr/lib/rustlib").join(Arch::HERE.target());
        let link = libraries.join(Arch::HERE.target());
        let _ = fs::remove_file(&link);
        symlink(here, &link).with_context(|| format!("cannot create {}", link.display()))?;
        let unpacked = part.join("usr/lib/rustlib").join(arch.target());
        fs::rename(&unpacked, &library).with_context(|| format!("no {} in {package}", unpacked.display()))?;
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    Ok(directory)
}

/// The package of the distribution's compiler with its library, and its version: another one does not fit.
fn library_package() -> Result<(String, String)> {
    let owner = command::output(Command::new("dpkg-query").args(["--search", SYSTEM]))
        .context("the distribution's compiler is not a package of Debian")?;
    let compiler = owner.split([':', ' ']).next().unwrap_or_default().to_string();
    let version =
        command::output(Command::new("dpkg-query").args(["--show", "-f", "${Version}", &compiler]))?;
    Ok((format!("libstd-{}-dev", compiler.replace("rustc", "rust")), version))
}
