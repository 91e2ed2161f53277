//! The command line as clap sees it; what it means is decided in `config`.

mod trace;

use std::{ffi::OsString, path::PathBuf};

pub use trace::{TraceArgs, TraceFormat};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// See where the Linux kernel drops packets, and why.
#[derive(Debug, Parser)]
#[command(
    name = "dropwatch",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a command, dropwatch watches. It takes CAP_BPF, CAP_PERFMON and CAP_SYSLOG, \
                  or root."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `watch`, which is what no command means.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count drops in the kernel and print a sorted report every interval.
    Watch(WatchArgs),
    /// Show each drop with its packet, live, a line each; -w also writes the packets to a file.
    Trace(TraceArgs),
    /// Run a command, then fail if the drops seen meanwhile break a rule: the CI gate.
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
}

const CHECK_HELP: &str = "\
RULE is [KEY=VALUE[,KEY=VALUE...]:]N with the keys location (SYMBOL, SYMBOL[MODULE], SYMBOL+0xOFF), reason, iface, netns
(INUM, NAME, PATH or self), protocol, ipproto, saddr, daddr, sport, dport and cpu:
  --max 0                                           no drop at all
  --max reason=NETFILTER_DROP:0                     none by a firewall rule
  --expect reason=NO_SOCKET,location=tcp_v4_rcv:5   at least 5 of these

The exit status is the command's own if it failed (128+N for signal N); else 4 if a rule did not hold; else 0.
It is 125 if the check itself failed. The last line says which.";

const FILTER_HELP: &str = "\
Only drops that match, decided in the kernel, in the words of pcap-filter(7):
  host, net, port, portrange with src and dst; ip, ip6, arp, tcp, udp, icmp, icmp6, igmp, sctp; ip proto N, ip6 proto N,
  ether proto N; less N, greater N; and, or, not and parentheses. And in these:
  gre, ospf, reason NAME, iface NAME, netns INUM|NAME|PATH|self, location SYMBOL|SYMBOL[MODULE]|SYMBOL+0xOFF
Addresses, networks and ports are numbers. Example:
  'dst host 192.168.2.120 and tcp dst port 8100 and not reason NO_SOCKET'";

const BY_HELP: &str = "\
What a row stands for, any of these, separated by commas [default: location,reason]:
location, reason, iface, netns, protocol (ethertype), ipproto, saddr, daddr, sport, dport, cpu, stack";

/// Options of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// No more drops than the rule says; may be repeated.
    #[arg(long, value_name = "RULE")]
    pub max: Vec<String>,
    /// No fewer drops than the rule says; may be repeated.
    #[arg(long, value_name = "RULE")]
    pub expect: Vec<String>,
    /// Look only at drops that match, in tcpdump's words and a few of our own.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP)]
    pub filter: Option<String>,
    /// How long to wait for late drops when the command has ended.
    #[arg(long, value_name = "DUR", default_value = "200ms")]
    pub settle: String,
    /// Write what was found to this file: JUnit XML (.xml) or JSON (.json).
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Room for distinct keys in the kernel; what does not fit makes a maximum unknown.
    #[arg(long, value_name = "N", default_value_t = 16384)]
    pub max_rows: u32,
    /// Resolve with this file, a saved kallsyms or a System.map [default: /proc/kallsyms].
    #[arg(long, value_name = "FILE")]
    pub kallsyms: Option<PathBuf>,
    /// Say on standard error what is being done; twice, say more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Options of `watch`.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// Time between reports: 500ms, 1s, 1m; a bare number is seconds.
    #[arg(short, long, value_name = "DUR", default_value = "5s")]
    pub interval: String,
    /// Stop after N reports.
    #[arg(short = 'n', long, value_name = "N")]
    pub reports: Option<u64>,
    /// Stop after this long.
    #[arg(short, long, value_name = "DUR")]
    pub duration: Option<String>,
    /// What a row stands for [default: location,reason].
    #[arg(short, long, value_name = "KEY,…", long_help = BY_HELP)]
    pub by: Option<String>,
    /// Count only drops that match, in tcpdump's words and a few of our own.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP)]
    pub filter: Option<String>,
    /// How reports look [default: table on a terminal, else text].
    #[arg(short, long, value_name = "FMT")]
    pub output: Option<Format>,
    /// Show the N largest rows; the others are summed in one line.
    #[arg(short, long, value_name = "N")]
    pub top: Option<usize>,
    /// Show rows of at least N drops; the others are summed in one line.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min: u64,
    /// Room for distinct keys in the kernel; what does not fit is counted as lost.
    #[arg(long, value_name = "N", default_value_t = 16384)]
    pub max_rows: u32,
    /// Resolve with this file, a saved kallsyms or a System.map [default: /proc/kallsyms].
    #[arg(long, value_name = "FILE")]
    pub kallsyms: Option<PathBuf>,
    /// Create this file once the probe is attached, for scripts.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Measure the probe itself (BPF statistics: host-wide while on): runs, ns per run.
    #[arg(long)]
    pub cost: bool,
    /// Say on standard error what is being done; twice, say more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Accepted and ignored: how C dropwatch was told to resolve addresses.
    #[arg(short = 'l', long = "lmethod", value_name = "METHOD", hide = true)]
    pub lookup_method: Option<LookupMethod>,
}

/// What a report can look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    /// One line per row, for logs.
    Text,
    /// One object per report, one line each.
    Json,
    /// What C dropwatch prints, by location alone.
    Classic,
    /// A line for each call chain, for flame graphs.
    Folded,
}

/// How C dropwatch resolves addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LookupMethod {
    /// From /proc/kallsyms, as we always do.
    Kas,
}
