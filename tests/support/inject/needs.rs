//! What a case needs of the machine: found out by trying, after loading what can be loaded.

use std::{path::Path, process::Command};

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
    /// A file that exists.
    File(&'static str),
}

impl Need {
    const fn command(name: &'static str, modules: &'static [&'static str], line: &'static str) -> Self {
        Self { name, modules, works: Works::Command(line) }
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
