//! Options that several commands have.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// How drops are counted and named, where counts are read again and again.
#[derive(Args, Clone, Debug)]
pub struct CountArgs {
    /// Room for distinct keys in the kernel; what does not fit is counted as lost.
    #[arg(long, value_name = "N", default_value_t = 16384)]
    pub max_rows: u32,
    /// Where names of functions and lines of source come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
    /// Leave out the kernel's own counters of losses that the tracepoint does not see.
    #[arg(long)]
    pub no_counters: bool,
}

/// Where names of functions and lines of source come from.
#[derive(Args, Clone, Debug)]
pub struct SymbolArgs {
    /// Resolve symbols with this file, a saved kallsyms or a System.map [default: /proc/kallsyms].
    #[arg(long, value_name = "FILE")]
    pub kallsyms: Option<PathBuf>,
    /// Search this directory first for debug information, which gives files and lines of the source.
    #[arg(long, value_name = "DIR")]
    pub debug_dir: Option<PathBuf>,
}

/// What a run tells of itself.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Create this file once the probe is attached, for scripts.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// How much is said.
    #[command(flatten)]
    pub diagnostics: DiagnosticArgs,
}

/// How much is said on standard error.
#[derive(Args, Clone, Copy, Debug)]
pub struct DiagnosticArgs {
    /// Print diagnostics on standard error; twice, print more.
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}
