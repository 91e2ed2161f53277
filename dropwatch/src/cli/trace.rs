//! The options of `trace`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::{FILTER_HELP, RunArgs, SymbolArgs, complete};
use crate::trace::TraceFormat;

/// Options of `trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Show only drops that match, as with -f.
    #[arg(value_name = "EXPR", add = complete::filters())]
    pub expression: Vec<String>,
    /// Write the packets to this file, as pcapng; `-` is standard output, which then has no lines.
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Show only drops on this interface; `any` is all of them.
    #[arg(short, long, value_name = "IFACE", add = complete::interfaces())]
    pub interface: Option<String>,
    /// Show only drops that match, in tcpdump's syntax with some additions; with EXPR, both must match.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP, add = complete::filters())]
    pub filter: Option<String>,
    /// Stop after N drops.
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop after this long.
    #[arg(short, long, value_name = "DUR")]
    pub duration: Option<String>,
    /// Capture at most N bytes of each packet.
    #[arg(short, long, visible_alias = "snapshot-length", value_name = "N", default_value_t = 262_144)]
    pub snaplen: u32,
    /// Show at most N drops a second, chosen at random; the others are counted as not shown.
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// How packets are printed.
    #[command(flatten)]
    pub packets: PacketArgs,
    /// Show the call chain of each drop.
    #[arg(long)]
    pub stack: bool,
    /// Show the socket that each packet belongs to, the process that has it open, and its container.
    #[arg(long)]
    pub socket: bool,
    /// Output format [default: text].
    #[arg(short, long, value_name = "FMT")]
    pub output: Option<TraceFormat>,
    /// Where names of functions and lines of source come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
    /// What a run tells of itself.
    #[command(flatten)]
    pub run: RunArgs,
}

/// How packets are printed, with tcpdump's letters.
#[derive(Args, Clone, Debug)]
pub struct PacketArgs {
    /// Print the link-level header too.
    #[arg(short = 'e')]
    pub link_header: bool,
    /// Print less about the protocols.
    #[arg(short)]
    pub quick: bool,
    /// Accepted, as are -nn and -S: addresses, ports and sequence numbers are always numeric and absolute.
    #[arg(short, action = ArgAction::Count)]
    pub numeric: u8,
    /// Options of tcpdump that are always on here.
    #[arg(short = 'S', short_aliases = ['l', 'U', 'p'], action = ArgAction::Count, hide = true)]
    pub always: u8,
}
