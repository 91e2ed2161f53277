//! Every drop with its packet: from the kernel's records to lines, objects and files.
//!
//! From [`event`] to [`output`] all of it is values in, values out: [`probe`] reads the kernel, [`printer`] writes.

pub mod batch;
pub mod clock;
pub mod drop;
pub mod event;
pub mod frame;
pub mod json;
pub mod line;
pub mod output;
pub mod pcapng;
pub mod printer;
pub mod probe;
pub mod rate;
pub mod words;
