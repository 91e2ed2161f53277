//! dropwatch: see where the Linux kernel drops packets, and why.
//!
//! A drop is a number that travels one way:
//!
//! ```text
//! kernel: skb:kfree_skb - filter - key - per-CPU counters
//! user:   probe - snapshot - aggregate - resolve (symbols, reasons, names) - render
//! ```
//!
//! `model` and `render` are pure: values in, values out, no I/O. The library is for the program and its tests: it has no
//! other users, and what they need is [`main`] and `internals`.

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "dropwatch runs on 64-bit little-endian machines: the probe is built for these, and addresses are read as such"
);

mod check;
mod cli;
mod commands;
mod dig;
mod entry;
mod escape;
mod evidence;
mod explain;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
mod filter;
#[cfg(test)]
mod house;
mod kernel;
mod knowledge;
mod model;
mod probe;
mod process;
mod render;
mod serve;
mod session;
mod sys;
mod trace;

pub use entry::main;

/// What the integration tests, the fuzz targets and the benchmark use. Anything here may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        check::rule::{Bound, Rule},
        cli::{
            Cli, Command,
            config::{CheckConfig, TraceConfig, WatchConfig},
        },
        dig::{
            plan::{Code, Function, Plan, Read, Wanted},
            scan::{Machine, is_traceable, leads},
            tree::Tree,
            verdict::Finding,
        },
        evidence::counters::parse as counters,
        explain::{ExplainFormat, Page, Request, answer},
        filter::Filter,
        kernel::{
            btf::{self, Btf, KernelBtf},
            kallsyms::{
                Index,
                saved::{Running, Saved},
            },
            lookup::Host,
            reasons::Reasons,
            source_lines::can_be_laid_out,
            symbols::{KallsymsSource, Symbols},
        },
        knowledge::ENTRIES,
        model::{protocols::ip_protocol, services::Services},
        probe::dig::walk_of,
        session::namespaces::of_this_host,
        trace::{
            dissect::{Style, Summary},
            event::Event,
            frame::{Frame, Link},
        },
    };
    pub mod top {
        pub use crate::commands::top::terminal;
    }
    #[cfg(feature = "fakes")]
    pub use crate::{
        evidence::{read_answer, read_saved},
        fakes,
        serve::{answer as served, read_text as read_web_config},
    };
}
