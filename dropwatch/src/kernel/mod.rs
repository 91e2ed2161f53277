//! What the running kernel says about itself: types, symbols, reasons, namespaces, lines of source.

pub mod btf;
pub mod classes;
pub mod code;
pub mod filter_sets;
pub mod functions;
pub mod kallsyms;
pub mod links;
pub mod lookup;
pub mod names;
pub mod namespaces;
pub mod netns;
pub mod owners;
pub mod reasons;
pub mod source_lines;
pub mod symbols;
pub mod trampolines;
