//! What flows from the probe to the renderers: values in, values out, no I/O.

pub mod aggregate;
pub mod belonging;
pub mod class;
pub mod container;
pub mod counter;
pub mod evidence;
pub mod foreign;
pub mod identity;
pub mod interface;
pub mod interval;
pub mod keys;
pub mod location;
pub mod namespace;
pub mod peaks;
pub mod plural;
pub mod protocols;
pub mod reason;
pub mod references;
pub mod report;
pub mod sample;
pub mod services;
pub mod snapshot;
pub mod socket;
pub mod suggestions;
pub mod symbol_spec;
pub mod words;
