//! The programs that guests run: on this machine's processor those that are built here for other uses anyway.

use std::{fs, path::PathBuf, process::Command, time::Instant};

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
    if arch != Arch::HERE {
        return foreign(arch);
    }
    let dropwatch = dropwatch()?;
    let live = workspace::has_live_tests().then(live_tests).transpose()?;
    Ok(Programs { dropwatch, live, root: None })
}

/// The program as it is released, from the build of it that there is anyway.
fn dropwatch() -> Result<PathBuf> {
    let mut build = command::cargo();
    build.args(["build", "--release", "--locked", "--package", "dropwatch", "--bin", "dropwatch"]);
    run::built_program(with_object(&mut build)?.current_dir(workspace::root()))
}

/// The same that the tests on this machine are, down to the features of what they share.
fn live_tests() -> Result<PathBuf> {
    let mut test = command::cargo();
    test.args(["test", "--workspace", "--locked", "--no-run", "--test", "live"]);
    ebpf::embed(&mut test, Variant::Shipped).current_dir(workspace::root());
    let built = run::built_programs(&mut test)?;
    find(&built, is_live).context("cargo built no live tests")
}

/// For another processor all is compiled for the guests alone: both programs at once, so that they share every crate, with
/// the profile that is soonest done with compiling and running.
fn foreign(arch: Arch) -> Result<Programs> {
    let started = Instant::now();
    let compiler = Compiler::pick(arch)?;
    // What tests a package needs its programs, too.
    let what: &[_] =
        if workspace::has_live_tests() { &["test", "--no-run", "--test", "live"] } else { &["build"] };
    let mut cargo = compiler.cargo(what[0], &[]);
    cargo.args(&what[1..]).args(["--profile", "guest", "--locked", "--package", "dropwatch"]);
    let built = run::built_programs(with_object(&mut cargo)?.current_dir(workspace::root()))?;
    println!("built them for {} in {} s", arch.name(), started.elapsed().as_secs());
    let dropwatch = find(&built, |name| name == "dropwatch").context("cargo built no dropwatch")?;
    Ok(Programs { dropwatch, live: find(&built, is_live), root: Some(root_of(arch)?) })
}

fn is_live(name: &str) -> bool {
    name.starts_with("live-")
}

fn find(built: &[PathBuf], is_it: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    built.iter().find(|path| name(path).is_some_and(|name| is_it(&name))).cloned()
}

/// With the BPF object of the sources, or the committed one where there are no tools to build one: its record says that it
/// is of these sources.
fn with_object(build: &mut Command) -> Result<&mut Command> {
    if ebpf::has_compiler() && ebpf::has_linker() {
        ebpf::build_fresh(Variant::Shipped)?;
        return Ok(ebpf::embed(build, Variant::Shipped));
    }
    ebpf::check_record()?;
    Ok(build)
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
