//! One drop of many, with all that may show its cause.

use crate::{
    chain::FRAMES,
    row::RowKey,
    socket::{SocketKey, SocketSeen},
};

/// How many bytes of a frame are captured: all headers that rules and routes look at.
pub const CAPTURED: usize = 192;

/// How many programs of a cgroup are looked at.
pub const PROGRAMS: usize = 4;

/// A drop as the probe hands it over.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Sample {
    /// All that a row may say of it, but for the numbers of its call chain and its socket.
    pub key: RowKey,
    /// Its socket; all zeros if it belongs to none.
    pub socket: SocketView,
    /// The socket's own filter: [`ProgramSeen::UNNAMED`] as its number if it is a classic one.
    pub filter: ProgramSeen,
    /// The programs that packets for the socket's cgroup pass, outermost cgroup first.
    pub of_cgroup: [ProgramSeen; PROGRAMS],
    /// The packet's mark.
    pub mark: u32,
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// The packet's bytes from the network header on.
    pub length: u32,
    /// The number of the interface that its route leads to; zero if it has none.
    pub egress: u32,
    /// The bytes of link header in front of the network header.
    pub link_length: u32,
    /// How many of [`Self::bytes`] were captured.
    pub captured: u32,
    /// How many of [`Self::chain`] there are.
    pub frames: u32,
    /// The number of the queue for transmission that it was mapped to.
    pub queue: u16,
    /// Always zero.
    pub pad: u16,
    /// The call chain, innermost frame first; what is behind its end means nothing.
    pub chain: [u64; FRAMES],
    /// The frame's first bytes, from the link header if it has one; what is behind their end means nothing.
    pub bytes: [u8; CAPTURED],
}

/// A socket as the probe sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct SocketView {
    /// What tells it from others.
    pub key: SocketKey,
    /// What else is seen of it.
    pub seen: SocketSeen,
    /// The address of its file.
    pub file: u64,
}

/// A BPF program that looks at the packets of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct ProgramSeen {
    /// Its number; zero if there is none.
    pub id: u32,
    /// Its name, filled up with zeros.
    pub name: [u8; 16],
}

impl ProgramSeen {
    /// The number of a program that has none: a classic filter.
    pub const UNNAMED: u32 = u32::MAX;
}

/// Where the running kernel keeps what only samples need, in bytes from the start of each structure. Zero is unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct SampleOffsets {
    /// `sk_buff.mark`
    pub skb_mark: u32,
    /// `sk_buff.queue_mapping`
    pub skb_queue: u32,
    /// `sock.sk_filter`
    pub sock_filter: u32,
    /// `sk_filter.prog`
    pub filter_prog: u32,
    /// `bpf_prog.aux`
    pub prog_aux: u32,
    /// `bpf_prog_aux.id`
    pub aux_id: u32,
    /// `bpf_prog_aux.name`
    pub aux_name: u32,
    /// `cgroup.bpf.effective`, at the place of programs that see what is received
    pub cgroup_effective: u32,
    /// `bpf_prog_array.items`
    pub array_items: u32,
    /// The size of one of these.
    pub item_size: u32,
}

const _: () = assert!(size_of::<SocketView>() == 144 && size_of::<ProgramSeen>() == 20);
const _: () = assert!(size_of::<SampleOffsets>() == 40 && align_of::<Sample>() == 8);
