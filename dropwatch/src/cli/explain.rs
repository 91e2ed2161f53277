//! The options of `explain`.

use clap::Args;

use crate::explain::ExplainFormat;

pub(super) const EXPLAIN_HELP: &str = "\
Needs no root. Names may be written in any way that dropwatch prints them:
  dropwatch explain NO_SOCKET               a reason, and where its meaning differs
  dropwatch explain ip_error                drops in a function
  dropwatch explain IP_INHDR@ip_forward     a reason in a function
  dropwatch explain 'nft_do_chain+0x3e8/0x610 [kernel]'
  dropwatch explain --list checksum         all entries with this word
The exit status is 2 if a name is unknown; similar names are suggested.";

/// Options of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Reasons, functions, or REASON@FUNCTION; with --list, words to search for.
    #[arg(value_name = "NAME", required_unless_present = "list", add = super::complete::names())]
    pub names: Vec<String>,
    /// List the entries that contain all the words, a line each; without words, all entries.
    #[arg(short, long)]
    pub list: bool,
    /// Output format.
    #[arg(short, long, value_name = "FMT", default_value = "text")]
    pub output: ExplainFormat,
}
