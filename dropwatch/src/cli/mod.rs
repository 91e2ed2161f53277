//! The command line as clap sees it; what it means is decided in `config`.

mod complete;
pub mod config;
mod dig;
mod explain;
pub mod habits;
mod serve;
mod shared;
mod top;
mod trace;

use std::{ffi::OsString, path::PathBuf};

pub use dig::DigArgs;
pub use explain::ExplainArgs;
pub use serve::ServeArgs;
pub use shared::{CountArgs, DiagnosticArgs, RunArgs, SymbolArgs};
pub use top::TopArgs;
pub use trace::TraceArgs;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::render::Format;

const SYMPTOMS: &str = "\
What to run when:
  packets are lost, and nothing is known    dropwatch --explain
  one connection fails                      dropwatch trace host 10.0.0.7 and tcp port 443
  a service loses datagrams                 dropwatch --by process,reason -f udp
  a container or an interface loses them    dropwatch --by container,iface,reason
  a firewall drops them: by which rule?     dropwatch dig --nft reason NETFILTER_DROP
  the kernel gives no reason                dropwatch dig reason NOT_SPECIFIED
  a test must not lose any                  dropwatch check --max lost:0 -- CMD
  a reason is not clear                     dropwatch explain NO_SOCKET

Without a command, dropwatch watches. It needs CAP_BPF, CAP_PERFMON and CAP_SYSLOG, or root.
Each command has a manual page: man dropwatch-watch.";

/// See where the Linux kernel drops packets, and why.
#[derive(Debug, Parser)]
#[command(
    name = "dropwatch",
    version,
    args_conflicts_with_subcommands = true,
    after_help = SYMPTOMS
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `watch`, which is what no command means.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// Whether a command line with a fault in it is one of `check`, whose failures have a status of their own.
pub fn is_for_check(arguments: impl IntoIterator<Item = OsString>) -> bool {
    // A conflict of options with a command would hide the command.
    let lenient = Cli::command().args_conflicts_with_subcommands(false).ignore_errors(true);
    let matches = lenient.try_get_matches_from(arguments);
    matches.is_ok_and(|matches| matches.subcommand_name() == Some("check"))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count drops in the kernel and print a sorted report every interval.
    Watch(WatchArgs),
    /// Print each drop with its packet, live, a line each; -w writes the packets to a file.
    Trace(TraceArgs),
    /// Watch drops in a full-screen live view, and open what matters.
    #[command(after_help = top::TOP_HELP)]
    Top(TopArgs),
    /// Show the calls that led to a drop, what they returned, and which of them refused the packet.
    #[command(after_help = dig::DIG_HELP)]
    Dig(DigArgs),
    /// Run a command, then fail if the drops during its run break a rule: the CI gate.
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Serve the counts to Prometheus, and a live page to browsers, until it is ended.
    #[command(after_help = serve::SERVE_HELP)]
    Serve(ServeArgs),
    /// Explain a reason or a dropping function: its meaning, whether it is a loss, what to check.
    #[command(after_help = explain::EXPLAIN_HELP)]
    Explain(ExplainArgs),
}

const CHECK_HELP: &str = "\
RULE is [KEY=VALUE[,KEY=VALUE...]:]N with the keys location (SYMBOL, SYMBOL[MODULE],
SYMBOL+0xOFF, or as dropwatch prints it), function, reason (a name or a number), class (lost, refused
or harmless, also without the key), iface, netns (INUM, NAME, PATH or self), protocol, ipproto,
saddr, daddr, sport, dport, cpu, process (NAME or PID) and container (NAME, ID or cgroup path). A rule that no drop can match is refused:
  --max 0                                           no drop at all
  --max lost:0                                      no loss: what succeeds drops some, too
  --max reason=NETFILTER_DROP:0                     none by a firewall rule
  --expect reason=NO_SOCKET,location=tcp_v4_rcv:5   at least 5 of these

The exit status is the command's own if it failed (128+N for signal N); else 4 if a rule did not
hold; else 0. It is 125 if the check itself failed. The last line says which.";

const FILTER_HELP: &str = "\
Only drops that match, decided in the kernel, in the syntax of pcap-filter(7):
  host, net, port, portrange with src and dst; ip, ip6, arp, tcp, udp, icmp, icmp6, igmp,
  sctp; ip proto N, ip6 proto N, ether proto N, ether host MAC; broadcast, multicast,
  vlan [N]; less N, greater N, len; bytes like tcp[13] and ip[2:2], with
  + - * / % & | ^ << >>, compared by = != < > <= >=; and, or, not, parentheses
and with these terms:
  gre, ospf, reason NAME|CODE, class lost|refused|harmless, iface NAME,
  netns INUM|NAME|PATH|self, process NAME|PID, container NAME, cgroup PATH (not in trace),
  location SYMBOL|SYMBOL[MODULE]|SYMBOL+0xOFF|0xADDRESS
Ports and protocols may be names from /etc/services and /etc/protocols, but hosts may not.
Examples:
  'dst host 192.168.2.120 and tcp dst port 8100 and not reason NO_SOCKET'
  'tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn and location nft_do_chain'";

const BY_HELP: &str = "\
What a row stands for, any of these, separated by commas [default: location,reason]:
location, function, reason, class (lost, refused or harmless), iface, netns, protocol (ethertype), ipproto, saddr,
daddr, sport, dport, cpu, stack, socket, process (that has the socket open), container (or service, or cgroup)";

/// Options of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Fail if there are more drops than this; may be repeated.
    #[arg(long, value_name = "RULE", add = complete::rules())]
    pub max: Vec<String>,
    /// Fail if there are fewer drops than this; may be repeated.
    #[arg(long, value_name = "RULE", add = complete::rules())]
    pub expect: Vec<String>,
    /// Only drops that match, in tcpdump's syntax with some additions.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP, add = complete::filters())]
    pub filter: Option<String>,
    /// How long to wait for late drops after the command has ended.
    #[arg(long, value_name = "DUR", default_value = "200ms")]
    pub settle: String,
    /// Write the result to this file: JUnit XML (.xml) or JSON (.json).
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Room for distinct keys in the kernel; if some do not fit, `--max` rules fail as unknown.
    #[arg(long, value_name = "N", default_value_t = 16384)]
    pub max_rows: u32,
    /// Where names of functions and lines of source come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
    /// How much is said on standard error.
    #[command(flatten)]
    pub diagnostics: DiagnosticArgs,
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
    #[arg(short, long, value_name = "KEY,…", long_help = BY_HELP, add = complete::keys())]
    pub by: Option<String>,
    /// Count only drops that match, in tcpdump's syntax with some additions.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP, add = complete::filters())]
    pub filter: Option<String>,
    /// Output format [default: table on a terminal, else text].
    #[arg(short, long, value_name = "FMT")]
    pub output: Option<Format>,
    /// Which rows a report shows, and how.
    #[command(flatten)]
    pub show: ShowArgs,
    /// How drops are counted and named.
    #[command(flatten)]
    pub count: CountArgs,
    /// Measure the probe itself (BPF statistics: host-wide while on): runs, ns per run.
    #[arg(long)]
    pub cost: bool,
    /// What a run tells of itself.
    #[command(flatten)]
    pub run: RunArgs,
    /// For scripts: how C dropwatch resolves addresses. With it, `stop` on standard input ends the run.
    #[arg(short = 'l', long = "lmethod", value_name = "METHOD", hide = true)]
    pub lookup_method: Option<LookupMethod>,
}

/// What comes first in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// What is lost, then what was refused, then what is harmless.
    Class,
    /// The largest count.
    Count,
}

/// Which rows a report shows, and how.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Show the N largest rows, in tables what is lost first; the others are summed in one line.
    #[arg(short, long, value_name = "N")]
    pub top: Option<usize>,
    /// Show rows of at least N drops; the others are summed in one line.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min: u64,
    /// Show each harmless row of a table too, not one line for all of them.
    #[arg(short, long)]
    pub all: bool,
    /// What comes first [default: class in tables, else count].
    #[arg(long, value_name = "ORDER")]
    pub sort: Option<Sort>,
    /// Also look at the counts at this step, and show the largest rate of each row within one: its bursts.
    #[arg(long, value_name = "DUR")]
    pub peak: Option<String>,
    /// Say below a table what the largest lost rows mean, what shows their cause, and what to run next; in JSON, what shows the cause.
    #[arg(long)]
    pub explain: bool,
    /// With --explain: the exact rule of nftables, by the kernel's own trace. A temporary table marks a few packets of a flow whose packets rules drop; it ends with dropwatch, however that ends.
    #[arg(long, requires = "explain")]
    pub nft: bool,
}

/// How C dropwatch resolves addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LookupMethod {
    /// From /proc/kallsyms, as dropwatch always does.
    Kas,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_command_line_of_check_is_known() {
        let is_for_check =
            |line: &str| is_for_check(["dropwatch"].into_iter().chain(line.split(' ')).map(OsString::from));
        for line in [
            "check",
            "check --no-such-option -- true",
            "check --max",
            "-v check --max 0 -- true",
            "-i 1 check -- true",
        ] {
            assert!(is_for_check(line), "{line}");
        }
        for line in ["trace check", "-i check", "--no-such-option", "watch -f check", "trace -f check --bad"]
        {
            assert!(!is_for_check(line), "{line}");
        }
    }
}
