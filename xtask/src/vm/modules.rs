//! Which of a kernel's modules go into the guest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::command;

/// What drops packets, or carries them to where they are dropped.
const WANTED: [&str; 2] = ["kernel/net/", "kernel/drivers/net/"];

/// Drivers of hardware that the guest does not have.
const UNWANTED: [&str; 13] = [
    "arcnet/",
    "dsa/",
    "ethernet/",
    "fddi/",
    "hyperv/",
    "mhi_net",
    "phy/",
    "usb/",
    "vmxnet3/",
    "wireless/",
    "wwan/",
    "xen-netback/",
    "xen-netfront",
];

/// Copies the needed modules of the kernel in `kernel`, and those they depend on, to `staging`, as `modprobe` expects
/// them.
pub fn stage(kernel: &Path, release: &str, staging: &Path) -> Result<()> {
    let from = kernel.join("lib/modules").join(release);
    let to = staging.join("lib/modules").join(release);
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    let list = from.join("modules.dep");
    let dependencies =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    for module in select(&dependencies) {
        copy(&from, &to, module)?;
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(from.join(list), to.join(list))
            .with_context(|| format!("no {list} in {}", from.display()))?;
    }
    depmod(staging, release)
}

/// Writes the list of dependencies, and the others that `modprobe` reads.
pub fn depmod(root: &Path, release: &str) -> Result<()> {
    // Some versions of kmod look below /usr.
    let usr = root.join("usr");
    if !usr.join("lib").exists() {
        fs::create_dir_all(&usr)?;
        std::os::unix::fs::symlink("../lib", usr.join("lib"))?;
    }
    let program = command::find("depmod").context("no depmod here: install kmod")?;
    command::output(Command::new(program).arg("--basedir").arg(root).arg(release))?;
    Ok(())
}

/// The modules to take, by their paths, given the contents of `modules.dep`.
fn select(dependencies: &str) -> BTreeSet<&str> {
    let of: BTreeMap<&str, &str> = dependencies.lines().filter_map(|line| line.split_once(':')).collect();
    let wanted = of.iter().filter(|(module, _)| is_wanted(module));
    // Each line has all that a module needs, also what its dependencies need in turn.
    wanted.flat_map(|(module, needs)| std::iter::once(*module).chain(needs.split_whitespace())).collect()
}

fn is_wanted(module: &str) -> bool {
    let driver = module.strip_prefix(WANTED[1]);
    let has_hardware =
        driver.is_some_and(|driver| UNWANTED.iter().any(|unwanted| driver.starts_with(unwanted)));
    WANTED.iter().any(|wanted| module.starts_with(wanted)) && !has_hardware
}

/// Copies one module, decompressed: what modprobe in the guest can decompress depends on too much.
fn copy(from: &Path, to: &Path, module: &str) -> Result<()> {
    let source = from.join(module);
    let (name, tool) = match module.rsplit_once('.') {
        Some((name, "xz")) => (name, Some("xz")),
        Some((name, "zst")) => (name, Some("zstd")),
        Some((_, "ko")) => (module, None),
        _ => bail!("{module} has an unknown compression"),
    };
    let target = to.join(name);
    fs::create_dir_all(target.parent().context("a module is in a directory")?)?;
    let Some(tool) = tool else {
        fs::copy(&source, &target).with_context(|| format!("cannot copy {}", source.display()))?;
        return Ok(());
    };
    let file = fs::File::create(&target).with_context(|| format!("cannot create {}", target.display()))?;
    command::run(Command::new(tool).args(["--decompress", "--stdout"]).arg(&source).stdout(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/drivers/net/veth.ko:
kernel/drivers/net/ethernet/intel/e1000/e1000.ko:
kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/net/ipv4/udp_tunnel.ko.xz:
kernel/lib/libcrc32c.ko.xz: kernel/crypto/crc32c.ko.xz
kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/libcrc32c.ko.xz
";

    /// Needed modules come with their dependencies, and with nothing else.
    #[test]
    fn modules_come_with_their_dependencies() {
        let selected: Vec<_> = select(DEPENDENCIES).into_iter().collect();
        assert_eq!(
            selected,
            [
                "kernel/drivers/net/veth.ko",
                "kernel/drivers/net/vxlan/vxlan.ko.xz",
                "kernel/lib/libcrc32c.ko.xz",
                "kernel/net/ipv4/udp_tunnel.ko.xz",
            ]
        );
    }
}
