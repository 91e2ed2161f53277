//! dropwatch: see where the Linux kernel drops packets, and why.
//!
//! A drop is a number that travels one way:
//!
//! ```text
//! kernel: skb:kfree_skb - key - per-CPU counters
//! user:   probe - snapshot - aggregate - resolve (symbols, reasons) - render
//! ```

pub mod btf;
pub mod kallsyms;
pub mod reasons;
pub mod symbols;
