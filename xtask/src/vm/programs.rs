//! The programs that guests run: on this machine's processor those that are built here for other uses anyway.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    apt::{self, Apt, Mirror, cache},
    arch::Arch,
    command,
    cross::Compiler,
    ebpf::{self, Variant},
    run, workspace,
};

/// What a guest of another processor has in place of this machine's programs.
const PACKAGES: [&str; 11] = [
    "bpftool",
    "busybox-static",
    "dash",
    "ethtool",
    "iproute2",
    "iptables",
    "kmod",
    "libgcc-s1",
    "nftables",
    "tcpdump",
    "util-linux",
];

/// What goes into a guest.
pub struct Programs {
    /// As it is installed: emulated, an unoptimised one would take its time.
    pub dropwatch: PathBuf,
    /// The live tests' program.
    pub live: Option<PathBuf>,
    /// Where everything else is, if not on this machine.
    pub root: Option<PathBuf>,
}

/// Builds dropwatch with the BPF object of the sources as they are, and the live tests.
pub fn build(arch: Arch) -> Result<Programs> {
    println!("building the programs for the guests ({})", arch.name());
    let compiler = (arch != Arch::HERE).then(|| Compiler::pick(arch)).transpose()?;
    let cargo = |subcommand: &str| {
        let mut own = command::cargo();
        own.arg(subcommand);
        compiler.as_ref().map_or(own, |compiler| compiler.cargo(subcommand, &[]))
    };
    let dropwatch = dropwatch(cargo("build"))?;
    let live = workspace::has_live_tests().then(|| live_tests(&mut cargo("test"))).transpose()?;
    if compiler.is_none() {
        return Ok(Programs { dropwatch, live, root: None });
    }
    let live = live.map(|live| stripped(&live, arch)).transpose()?;
    Ok(Programs { dropwatch, live, root: Some(root_of(arch)?) })
}

/// The program, with the committed BPF object where there are no tools to build one: its record says that it is of these
/// sources.
fn dropwatch(mut build: Command) -> Result<PathBuf> {
    if ebpf::has_compiler() && ebpf::has_linker() {
        ebpf::build_fresh(Variant::Shipped)?;
        ebpf::embed(&mut build, Variant::Shipped);
    } else {
        ebpf::check_record()?;
    }
    build.args(["--release", "--locked", "--package", "dropwatch", "--bin", "dropwatch"]);
    run::built_program(build.current_dir(workspace::root()))
}

/// The same that the tests on this machine are, down to the features of what they share.
fn live_tests(test: &mut Command) -> Result<PathBuf> {
    test.args(["--workspace", "--locked", "--no-run", "--test", "live"]);
    ebpf::embed(test, Variant::Shipped).current_dir(workspace::root());
    let is_live = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("live-"))
    };
    run::built_programs(test)?.into_iter().find(is_live).context("cargo built no live tests")
}

/// Without debug information, most of which the guest would only hold in memory.
fn stripped(program: &Path, arch: Arch) -> Result<PathBuf> {
    let small = program.with_extension("stripped");
    let mut strip = Command::new(format!("{}-strip", arch.triplet()));
    command::run(strip.arg("-o").arg(&small).arg(program))?;
    Ok(small)
}

/// The packages of another processor, unpacked.
fn root_of(arch: Arch) -> Result<PathBuf> {
    let root = cache("vm/roots").join(arch.debian());
    if !root.exists() {
        println!("downloading the guest's programs for {}", arch.debian());
        let suites = apt::suites_here()?;
        let suites = suites.each_ref().map(String::as_str);
        let apt = Apt::new(&cache("cross/apt"), &Mirror::of_system()?, &suites, arch)?;
        let part = root.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        apt.unpack_with_dependencies(&PACKAGES, &part)?;
        fs::rename(&part, &root).with_context(|| format!("cannot create {}", root.display()))?;
    }
    Ok(root)
}
