//! Every drop with its packet: from the kernel's records to lines, objects and files.
//!
//! From [`event`] to [`output`] all of it is values in, values out: [`printer`] writes.

pub mod dissect;
pub mod dropped_packet;
pub mod event;
pub mod frame;
pub mod json;
pub mod line;
pub mod output;
pub mod pcapng;
pub mod printer;

use std::path::PathBuf;

use clap::ValueEnum;

/// What a drop can look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    /// A line for each drop.
    Text,
    /// An object for each drop, one line each.
    Json,
}

/// Where a capture goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}
