//! dropwatch: see where the Linux kernel drops packets, and why.
//!
//! A drop is a number that travels one way:
//!
//! ```text
//! kernel: skb:kfree_skb - filter - key - per-CPU counters
//! user:   probe - snapshot - aggregate - resolve (symbols, reasons, names) - render
//! ```
//!
//! Everything between [`snapshot`] and [`render`] is pure: values in, values out, no I/O.

pub mod aggregate;
pub mod btf;
pub mod check;
pub mod cli;
pub mod collector;
pub mod commands;
pub mod config;
pub mod console;
pub mod count_map;
pub mod failure;
pub mod filter;
pub mod forward;
pub mod host;
pub mod kallsyms;
mod kernel_types;
pub mod keys;
mod loader;
pub mod names;
pub mod namespaces;
pub mod offsets;
pub mod preflight;
pub mod printer;
pub mod probe;
pub mod protocols;
pub mod reasons;
pub mod references;
pub mod render;
pub mod report;
pub mod schedule;
pub mod set_keeper;
pub mod signals;
pub mod snapshot;
pub mod source_lines;
pub mod spelling;
pub mod symbols;
pub mod sys;
pub mod trace;
