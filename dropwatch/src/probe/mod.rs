//! The programs in the kernel and their maps: load, attach, read, detach.

mod buckets;
pub mod clock;
pub mod code_events;
pub mod counters;
pub mod dig;
pub mod kfree_skb;
pub mod ledger;
pub mod lister;
mod loader;
pub mod namespace_cookie;
mod new_map;
pub mod offsets;
pub mod open_sockets;
pub mod references;
pub mod sockets;
pub mod source;
mod types;
mod undecided;
