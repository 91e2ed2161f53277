//! The options of `trace`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::FILTER_HELP;

/// Options of `trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Write the packets to this file, as pcapng; `-` is standard output, which then has no lines.
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Show only drops that match, in tcpdump's words and a few of our own.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP)]
    pub filter: Option<String>,
    /// Stop after N drops.
    #[arg(short = 'n', visible_short_alias = 'c', long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop after this long.
    #[arg(short, long, value_name = "DUR")]
    pub duration: Option<String>,
    /// Capture at most N bytes of each packet.
    #[arg(long, value_name = "N", default_value_t = 262_144)]
    pub snaplen: u32,
    /// Show at most N drops a second, chosen by chance; the others are counted as not shown.
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Show the call chain of each drop.
    #[arg(long)]
    pub stack: bool,
    /// How drops look [default: text].
    #[arg(short, long, value_name = "FMT")]
    pub output: Option<TraceFormat>,
    /// Resolve with this file, a saved kallsyms or a System.map [default: /proc/kallsyms].
    #[arg(long, value_name = "FILE")]
    pub kallsyms: Option<PathBuf>,
    /// Create this file once the probe is attached, for scripts.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Say on standard error what is being done; twice, say more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What a drop can look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    /// A line for each drop.
    Text,
    /// An object for each drop, one line each.
    Json,
}
