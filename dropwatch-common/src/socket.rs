//! Sockets that dropped packets belong to, and the processes that have sockets open.

/// What tells a socket from others, as far as the kernel shows it.
///
/// An address alone does not: it is given to another socket at once. The inode number is never reused, but goes when
/// the socket is closed; the cookie exists from its first use on, and stays.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct SocketKey {
    /// Where the kernel has it.
    pub address: u64,
    /// Its cookie; zero until its first use.
    pub cookie: u64,
    /// The inode number of its file; zero if it has none: closed, or not accepted yet.
    pub inode: u64,
    /// The number of its cgroup, of a connection request its listener's; zero if that is unknown.
    pub cgroup: u64,
    /// The local address; an IPv4 address in the first four bytes.
    pub local: [u8; 16],
    /// The remote address, in the same form.
    pub remote: [u8; 16],
    /// The inode number of its network namespace.
    pub netns: u32,
    /// The local port, in host order.
    pub local_port: u16,
    /// The remote port, in host order.
    pub remote_port: u16,
    /// The address family.
    pub family: u16,
    /// The protocol, of a full socket.
    pub protocol: u16,
    /// `SOCK_STREAM` and so on, of a full socket.
    pub kind: u16,
    /// One of [`form`].
    pub form: u8,
    /// 1 if the kernel made it for itself.
    pub of_kernel: u8,
}

/// How much of a socket there is: [`SocketKey::form`].
pub mod form {
    /// All of it.
    pub const FULL: u8 = 0;
    /// A connection request: addresses and namespace, and which listener it is for.
    pub const REQUEST: u8 = 1;
    /// What is left of a connection that has ended: addresses and namespace.
    pub const TIME_WAIT: u8 = 2;
}

/// What else was seen of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct SocketSeen {
    /// What rows call it; never given twice.
    pub number: u64,
    /// Of a connection request, the inode number of its listener's file; zero of all others, and if that is unknown.
    pub listener: u64,
    /// The name of the process that had it open at the first drop; zeros if that is not known.
    pub comm: [u8; 16],
    /// Its number; zero if it is not known.
    pub tgid: u32,
    /// The user it belongs to, or its listener.
    pub uid: u32,
    /// Most bytes that were in its receive buffer at a drop.
    pub receive_used: u32,
    /// The size of the receive buffer at the last drop.
    pub receive_size: u32,
    /// Its state at the last drop, by the kernel's number.
    pub state: u32,
    /// Always zero.
    pub pad: u32,
}

/// Where the running kernel keeps what is read of a socket and its owner, in bytes from the start of each structure.
/// Zero is unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct SocketOffsets {
    /// `sock.__sk_common.skc_family`
    pub sock_family: u32,
    /// `sock.__sk_common.skc_state`
    pub sock_state: u32,
    /// `sock.__sk_common.skc_num`
    pub sock_num: u32,
    /// `sock.__sk_common.skc_dport`
    pub sock_dport: u32,
    /// `sock.__sk_common.skc_rcv_saddr`
    pub sock_saddr: u32,
    /// `sock.__sk_common.skc_daddr`
    pub sock_daddr: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`; zero on kernels without IPv6
    pub sock_saddr6: u32,
    /// `sock.__sk_common.skc_v6_daddr`
    pub sock_daddr6: u32,
    /// `sock.__sk_common.skc_listener`, of a connection request
    pub sock_listener: u32,
    /// `sock.__sk_common.skc_cookie`
    pub sock_cookie: u32,
    /// `sock.sk_protocol`
    pub sock_protocol: u32,
    /// `sock.sk_type`
    pub sock_type: u32,
    /// The byte of `sock.sk_kern_sock`
    pub sock_kern: u32,
    /// Its bit in that byte.
    pub sock_kern_mask: u32,
    /// `sock.sk_uid.val`
    pub sock_uid: u32,
    /// `sock.sk_backlog.rmem_alloc`
    pub sock_rmem: u32,
    /// `sock.sk_rcvbuf`
    pub sock_rcvbuf: u32,
    /// `sock.sk_socket`
    pub sock_socket: u32,
    /// `sock.sk_ino`; zero on kernels before 6.17
    pub sock_ino: u32,
    /// `sock.sk_cgrp_data.cgroup`; zero where it is a number (before Linux 5.15)
    pub sock_cgroup: u32,
    /// `sock.sk_cgrp_data.val`, which is an address if its lowest bit is not set
    pub sock_cgroup_value: u32,
    /// `cgroup.kn`
    pub cgroup_node: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// From a `socket` to the inode number of its file.
    pub socket_ino: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_table: u32,
    /// `fdtable.fd`
    pub table_array: u32,
    /// `fdtable.max_fds`
    pub table_size: u32,
    /// `task_struct.group_leader`
    pub task_leader: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.mm`
    pub task_memory: u32,
    /// `task_struct.start_time`
    pub task_start: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub cgroups_default: u32,
    /// `task_struct.nsproxy`
    pub task_namespaces: u32,
    /// `nsproxy.uts_ns`
    pub namespaces_uts: u32,
    /// `uts_namespace.name.nodename`
    pub uts_nodename: u32,
    /// `uts_namespace.ns.inum`
    pub uts_inum: u32,
    /// `nsproxy.net_ns`
    pub namespaces_net: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `net.net_cookie`; zero on kernels that have none
    pub net_cookie: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_sb`
    pub inode_block: u32,
    /// `super_block.s_magic`
    pub block_magic: u32,
}

/// A socket that a process has open.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct OpenSocket {
    /// The inode number of its file.
    pub inode: u64,
    /// The number of the process's cgroup.
    pub cgroup: u64,
    /// When the process started, in nanoseconds since the system did.
    pub started: u64,
    /// The process's name.
    pub comm: [u8; 16],
    /// The host name that the process sees, as far as it fits; empty if it sees the host's.
    pub nodename: [u8; 64],
    /// The process's number.
    pub tgid: u32,
    /// Always zero.
    pub pad: u32,
}

/// A process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct ListedProcess {
    /// The cookie of its network namespace; zero on kernels that have none.
    pub cookie: u64,
    /// The number of its cgroup.
    pub cgroup: u64,
    /// When it started, in nanoseconds since the system did.
    pub started: u64,
    /// The inode number of its network namespace.
    pub netns: u32,
    /// Its number.
    pub tgid: u32,
    /// Its name.
    pub comm: [u8; 16],
    /// The host name that it sees, as far as it fits; empty if it sees the host's.
    pub nodename: [u8; 64],
}

/// The address of no socket's number: it could not be kept.
pub const LOST: u64 = u64::MAX;

const _: () = assert!(size_of::<SocketKey>() == 80 && align_of::<SocketKey>() == 8);
const _: () = assert!(size_of::<SocketSeen>() == 56 && align_of::<SocketSeen>() == 8);
const _: () = assert!(size_of::<OpenSocket>() == 112 && align_of::<OpenSocket>() == 8);
const _: () = assert!(size_of::<ListedProcess>() == 112 && align_of::<ListedProcess>() == 8);
const _: () = assert!(size_of::<SocketOffsets>() == 48 * 4);
