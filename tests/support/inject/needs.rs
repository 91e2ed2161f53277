//! What a case needs of the machine: found out by trying, after loading what can be loaded.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
};

use dropwatch::internals::Btf;

use super::sys::{self, Hook, Kind};
use crate::support::{is_guest, kernel, net::Net};

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
pub const PROMETHEUS: Need = Need::command("Prometheus", &[], "promtool --version");
pub const OPENSSL: Need = Need::command("openssl", &[], "openssl version");
pub const SOCKET_ACTIVATION: Need =
    Need::command("systemd-socket-activate", &[], "systemd-socket-activate --version");
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

pub const TMUX: Need = Need::command("tmux", &[], "tmux -V");
pub const VXLAN: Need = Need::command("vxlan", &["vxlan"], "ip link add vx type vxlan id 7 dstport 4789");
pub const BRIDGE: Need = Need::command("bridges", &["bridge"], "ip link add name br0 type bridge");
pub const XFRM: Need = Need::command(
    "IPsec policies",
    &["xfrm_user"],
    "ip xfrm policy add dir in src 10.98.0.0/16 dst 10.99.0.2/32 action block",
);
pub const TUN: Need = Need::file("tap devices", &["tun"], "/dev/net/tun");
/// Modules that nothing else holds: two of them come and go in the tests.
pub const MODULES: Need = Need::check("modules that can be loaded", &["gre", "ip_gre"], || {
    let loaded = fs::read_to_string("/proc/modules").map_err(|why| why.to_string())?;
    let is_loaded = loaded.lines().any(|line| line.split(' ').next() == Some("ip_gre"));
    is_loaded.then_some(()).ok_or("modprobe does not load ip_gre".into())
});
/// What takes the second processor away, and brings it back.
pub const SECOND_PROCESSOR: &str = "/sys/devices/system/cpu/cpu1/online";
/// A processor that can be spared: a guest's.
pub const HOTPLUG: Need = Need::check("a processor to take away", &[], || {
    let is_there = is_guest() && Path::new(SECOND_PROCESSOR).exists();
    is_there.then_some(()).ok_or("only guests have one to spare".into())
});
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
    // One that accepts everything.
    sys::attach(Kind::CgroupSkb, Hook::CgroupEgress, target, 0, 1).map(drop).map_err(|why| why.to_string())
});
pub const KRETPROBES: Need = Need::check("kretprobes", &[], || {
    sys::probe_return(freeing_function()).map(drop).map_err(|why| why.to_string())
});

pub const FEXIT: Need = Need::check("programs that run when a function returns", &[], || {
    trace_return().map(drop).map_err(|why| why.to_string())
});

/// A program that runs when [`freeing_function`] returns.
pub fn trace_return() -> io::Result<OwnedFd> {
    let types = fs::read("/sys/kernel/btf/vmlinux")?;
    let types = Btf::parse(types).map_err(io::Error::other)?;
    let function = freeing_function().to_str().expect("a name");
    let function = types.function(function).ok_or(io::ErrorKind::NotFound)?;
    sys::trace_return(function)
}

/// Whether the kernel's unwinder knows the caller of a function with a kretprobe: since Linux 5.16, in which the
/// trampoline has a new name.
pub fn unwinds_kretprobes() -> bool {
    !kernel::has_function("kretprobe_trampoline")
}

/// Reports of many functions' calls and returns.
pub const FUNCTION_PROBES: Need = Need::check("CONFIG_FPROBE", &[], || {
    let is_there = ["register_fprobe_ips", "register_kprobe"].into_iter().all(kernel::has_function);
    is_there.then_some(()).ok_or("the kernel has no register_fprobe_ips".into())
});

/// The same of one function at a time, with cookies.
pub const FUNCTION_EVENTS: Need = Need::check("CONFIG_KPROBE_EVENTS", &[], || {
    let lacking = ["register_kprobe", "create_local_trace_kprobe", "bpf_get_attach_cookie_trace"]
        .into_iter()
        .find(|name| !kernel::has_function(name));
    lacking.map_or(Ok(()), |name| Err(format!("the kernel has no {name}")))
});

/// The function by which a socket's receiver frees a packet.
pub fn freeing_function() -> &'static CStr {
    let is_there = |name: &&CStr| kernel::has_function(name.to_str().expect("a name"));
    [c"sk_skb_reason_drop", c"kfree_skb_reason"].into_iter().find(is_there).unwrap_or(c"kfree_skb")
}

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
