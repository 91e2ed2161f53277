//! Every drop with its packet: from the kernel's records to lines, objects and files.
//!
//! Values in, values out, as between snapshot and report: only the command reads the kernel and writes.

pub mod clock;
pub mod drop;
pub mod event;
pub mod frame;
pub mod json;
pub mod line;
pub mod pcapng;
pub mod words;
