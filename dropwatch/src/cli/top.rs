//! The options of `top`.

use clap::Args;

use super::{BY_HELP, CountArgs, FILTER_HELP, RunArgs, complete};

/// What `dropwatch top --help` ends with.
pub const TOP_HELP: &str = "\
Keys: up and down or j and k select a row, Enter opens it, / filters, b chooses what a row stands
for, s sorts, a shows harmless rows, Space pauses the screen, y copies the command line that shows
the same, ? lists all keys, q ends. It needs a terminal of at least 40 columns and 10 lines.";

/// Options of `top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Time between two states of the screen: 500ms, 1s, 1m; a bare number is seconds.
    #[arg(short, long, value_name = "DUR", default_value = "1s")]
    pub interval: String,
    /// What a row stands for [default: location,reason].
    #[arg(short, long, value_name = "KEY,…", long_help = BY_HELP, add = complete::keys())]
    pub by: Option<String>,
    /// Count only drops that match, in tcpdump's syntax with some additions.
    #[arg(short, long, value_name = "EXPR", long_help = FILTER_HELP, add = complete::filters())]
    pub filter: Option<String>,
    /// Show each harmless row too, not one line for all of them.
    #[arg(short, long)]
    pub all: bool,
    /// Also look at the counts at this step: PEAK is then the largest rate within one step, not within one interval.
    #[arg(long, value_name = "DUR")]
    pub peak: Option<String>,
    /// How drops are counted and named.
    #[command(flatten)]
    pub count: CountArgs,
    /// What a run tells of itself.
    #[command(flatten)]
    pub run: RunArgs,
}
