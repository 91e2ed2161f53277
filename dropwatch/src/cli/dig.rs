//! The options of `dig`.

use std::path::PathBuf;

use clap::Args;

use super::{FILTER_HELP, RunArgs, complete};
use crate::dig::DigFormat;

/// How many calls below a root are followed.
pub const DEPTH: usize = 5;

/// What comes after the options.
pub const DIG_HELP: &str = "\
A first drop that matches says where to look: at what the functions of its call chain call. Their calls are followed
for the next packet that is dropped in the same place, and for no other. Where pointers lead to what refused it, more
functions are followed for another one. Then comes what such a drop means, and what of this host shows its cause.
Nothing is changed or left behind on this host, except that --nft adds a table of rules for as long as it runs.
It requires a kernel with CONFIG_FPROBE (5.18 and later, not in all distributions).
With CONFIG_KPROBE_EVENTS alone (5.15 and later) it follows fewer functions, none behind pointers.
Example: dropwatch dig ospf and iface eth0";

/// Options of `dig`.
#[derive(Args, Clone, Debug)]
pub struct DigArgs {
    /// Dig into drops that match, as with -f.
    #[arg(value_name = "EXPR", add = complete::filters())]
    pub expression: Vec<String>,
    /// Dig into drops that match, in tcpdump's syntax with some additions; with EXPR, both must match.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP, add = complete::filters())]
    pub filter: Option<String>,
    /// Stop after drops in N different places.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub count: u64,
    /// Stop after this long.
    #[arg(short, long, value_name = "DUR")]
    pub duration: Option<String>,
    /// Begin at this function [default: the function that drops the packet, and the two that called it].
    #[arg(long, value_name = "FUNCTION")]
    pub root: Option<String>,
    /// How many calls below these to follow, up to 500 functions.
    #[arg(long, value_name = "N", default_value_t = DEPTH)]
    pub depth: usize,
    /// Have the kernel trace some of the packets through the rules of netfilter: names the rule that drops them.
    #[arg(long)]
    pub nft: bool,
    /// Output format [default: text].
    #[arg(short, long, value_name = "FMT")]
    pub output: Option<DigFormat>,
    /// Search this directory first for debug information, which gives files and lines of the source.
    #[arg(long, value_name = "DIR")]
    pub debug_dir: Option<PathBuf>,
    /// What a run tells of itself.
    #[command(flatten)]
    pub run: RunArgs,
}
