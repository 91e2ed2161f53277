//! The command line of `serve` as clap sees it.

use std::path::PathBuf;

use clap::Args;

use super::{CountArgs, FILTER_HELP, RunArgs, complete};

/// Options of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Listen on this address, or on a Unix socket: ADDR:PORT or unix:PATH; may be repeated [default: 127.0.0.1:10098].
    #[arg(short, long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// TLS, users and headers, in a file as Prometheus' own exporters have it.
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// The labels of drops [default: class,reason,function].
    #[arg(short, long, value_name = "KEY,…", long_help = BY_HELP, add = complete::keys())]
    pub by: Option<String>,
    /// Count only drops that match, in tcpdump's syntax with some additions.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP, add = complete::filters())]
    pub filter: Option<String>,
    /// The most series of drops; what has no room is counted in one with reason="other".
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub max_series: usize,
    /// How often counts are read: what a client gets is at most so old.
    #[arg(short, long, value_name = "DUR", default_value = "1s")]
    pub interval: String,
    /// How drops are counted and named.
    #[command(flatten)]
    pub count: CountArgs,
    /// Measure the probe itself (BPF statistics: host-wide while on): runs, seconds.
    #[arg(long)]
    pub cost: bool,
    /// What a run tells of itself.
    #[command(flatten)]
    pub run: RunArgs,
}

const BY_HELP: &str = "\
The labels of drops, any of these, separated by commas [default: class,reason,function]:
location, function (with its module), reason, class (lost, refused or harmless), iface, netns,
protocol (ethertype), ipproto, cpu, process (its name), container (or service, or cgroup). Others would make a series of each flow.";

pub const SERVE_HELP: &str = "\
It answers GET:
  /metrics  all counters, in the format of OpenMetrics or of Prometheus
  /report   the last report as JSON
  /healthz  whether counts are up to date
  /         a live page

A socket that systemd passes on (LISTEN_FDS) is used in place of --listen.";
