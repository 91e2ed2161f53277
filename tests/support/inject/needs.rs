//! What a case needs of the machine: found out by trying, after loading what can be loaded.

use std::{
    collections::HashSet,
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use dropwatch::btf::{self, Btf};

use super::sys::{self, Hook, Kind};
use crate::support::net::Net;

/// Something a machine may lack.
#[derive(Clone, Copy)]
pub struct Need {
    pub name: &'static str,
    /// Modules that it is in, where it is not built in.
    modules: &'static [&'static str],
    works: Works,
}

/// How to find out.
#[derive(Clone, Copy)]
enum Works {
    /// A command that succeeds in a new namespace.
    Command(&'static str),
    /// What this finds wrong.
    Check(fn() -> Result<(), String>),
    /// A file that exists.
    File(&'static str),
}

impl Need {
    const fn command(name: &'static str, modules: &'static [&'static str], line: &'static str) -> Self {
        Self { name, modules, works: Works::Command(line) }
    }

    const fn check(
        name: &'static str,
        modules: &'static [&'static str],
        check: fn() -> Result<(), String>,
    ) -> Self {
        Self { name, modules, works: Works::Check(check) }
    }

    const fn file(name: &'static str, modules: &'static [&'static str], path: &'static str) -> Self {
        Self { name, modules, works: Works::File(path) }
    }

    /// Why the machine does not have it, if so.
    pub fn lacking(&self) -> Option<String> {
        for module in self.modules {
            // Built in, absent, or without the program: what counts is whether it works.
            let _ = Command::new("modprobe").args(["-q", module]).output();
        }
        let works = match self.works {
            Works::Command(line) => {
                let words: Vec<_> = line.split(' ').collect();
                Net::new()
                    .try_command(words[0], &words[1..])
                    .map(drop)
                    .map_err(|why| format!("{line}: {why}"))
            }
            Works::Check(check) => check(),
            Works::File(path) if Path::new(path).exists() => Ok(()),
            Works::File(path) => Err(format!("there is no {path}")),
        };
        works.err().map(|why| format!("{} ({why})", self.name))
    }
}

/// IPv6, not merely compiled in.
pub const IPV6: Need = Need::file("IPv6", &["ipv6"], "/proc/sys/net/ipv6/conf/all/disable_ipv6");
pub const NFT: Need = Need::command("nf_tables", &["nf_tables"], "nft add table inet t");
pub const IPTABLES: Need = Need::command(
    "iptables-legacy",
    &["ip_tables", "iptable_filter", "xt_udp", "xt_tcpudp"],
    "iptables-legacy -w -A INPUT -p udp --dport 9 -j DROP",
);
pub const CONNTRACK: Need = Need::file(
    "connection tracking",
    &["nf_conntrack", "nft_ct"],
    "/proc/sys/net/netfilter/nf_conntrack_max",
);
pub const TC_BPF: Need = Need::command("clsact", &["sch_ingress", "cls_bpf"], "tc qdisc add dev lo clsact");
pub const TBF: Need =
    Need::command("sch_tbf", &["sch_tbf"], "tc qdisc add dev lo root tbf rate 8kbit burst 1600 limit 3000");

pub const VXLAN: Need = Need::command("vxlan", &["vxlan"], "ip link add vx type vxlan id 7 dstport 4789");
pub const BRIDGE: Need = Need::command("bridges", &["bridge"], "ip link add name br0 type bridge");
pub const XFRM: Need = Need::command(
    "IPsec policies",
    &["xfrm_user"],
    "ip xfrm policy add dir in src 10.98.0.0/16 dst 10.99.0.2/32 action block",
);
pub const TUN: Need = Need::file("tap devices", &["tun"], "/dev/net/tun");
pub const GRE: Need = Need::check("GRE", &["gre"], || {
    let kallsyms = fs::read_to_string("/proc/kallsyms").map_err(|why| why.to_string())?;
    kallsyms.contains(" gre_rcv").then_some(()).ok_or("the kernel has no gre_rcv".into())
});
pub const XDP: Need = Need::check("XDP", &[], || {
    Net::new()
        .run(|| sys::attach(Kind::Xdp, Hook::Xdp, LOOPBACK, 1 << 1, 2))
        .map(drop)
        .map_err(|why| why.to_string())
});
pub const CGROUP: Need = Need::check("programs of control groups", &[], || {
    let root = unified_hierarchy().ok_or("no cgroup2 is mounted")?;
    let root = File::open(root).map_err(|why| why.to_string())?;
    let target = root.as_raw_fd().cast_unsigned();
    // One that lets everything pass.
    sys::attach(Kind::CgroupSkb, Hook::CgroupEgress, target, 0, 1).map(drop).map_err(|why| why.to_string())
});
/// The index of the loopback device in every namespace.
const LOOPBACK: u32 = 1;

/// Where the control groups of version 2 are.
pub fn unified_hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    mounts.find_map(|mut words| {
        let path = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| path.into())
    })
}

/// Whether the kernel's types name the reason.
pub fn kernel_has_reason(name: &str) -> bool {
    /// Read once: it is megabytes, which take an emulated machine a while.
    static REASONS: LazyLock<HashSet<Vec<u8>>> = LazyLock::new(|| {
        let types = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
        let names = types.split(|&byte| byte == 0);
        names.filter_map(|name| name.strip_prefix(b"SKB_DROP_REASON_")).map(<[u8]>::to_vec).collect()
    });
    REASONS.contains(name.as_bytes())
}

/// Whether the kernel is older than this one: for what neither its types nor its symbols tell.
pub fn kernel_is_before(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().expect("a number"), numbers.next().expect("a second one")) < (major, minor)
}

/// Whether `skb:kfree_skb` says which socket a packet was for (Linux 6.11).
pub fn tracepoint_tells_socket() -> bool {
    static TELLS: LazyLock<bool> = LazyLock::new(|| {
        let bytes = btf::read_vmlinux().expect("the kernel's type information");
        let types = Btf::parse(&bytes).expect("the kernel's type information");
        types.tracepoint("kfree_skb").is_some_and(|found| found.arguments > 3)
    });
    *TELLS
}
