//! Which call refused a packet: from the text of the kernel's functions to a tree of calls, and a verdict.
//!
//! All of it is values in, values out: `probe::dig` reads the text and reports the calls.

pub mod meaning;
pub mod output;
pub mod plan;
pub mod scan;
pub mod tree;
pub mod value;
pub mod verdict;

use clap::ValueEnum;

/// What a tree can look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DigFormat {
    /// A tree, and a sentence.
    Text,
    /// An object, on one line.
    Json,
}
