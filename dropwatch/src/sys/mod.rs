//! System calls that no crate offers, as safe functions: the only room with `unsafe` in it.
#![expect(
    unsafe_code,
    reason = "raw system calls and what the kernel shares with us; each one says why it is sound"
)]

mod batch;
mod bpf;
mod files;
mod mapped;
mod memory;
mod perf;
mod sockets;

pub use batch::BatchReader;
#[cfg(feature = "bpf-log")]
pub use bpf::program_id;
pub use bpf::{
    AttachedTo, Ends, NewProgram, ProgramKind, ProgramStats, attach_function, attach_functions,
    attach_tracepoint, attached_programs, bytes_of, create_map, fill_map, freeze_map, link_iterator,
    load_program, missed_calls, open_iterator, probe_bpf, program_name, program_stats, run_program,
    values_of,
};
pub use files::{is_net_namespace, open_cgroup, readable};
pub use mapped::{MappedWords, map_constant};
pub use memory::trim_memory;
pub use perf::SymbolEvents;
#[cfg(test)]
pub use sockets::socket_netns_cookie;
pub use sockets::{Ethtool, netlink_is_strict, xfrm_socket};
