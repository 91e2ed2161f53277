//! Every socket that a process has open, listed at each read of the iterator.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_seq_write;
use dropwatch_common::socket::OpenSocket;

use crate::{
    maps::socket_offset,
    skb::{Kernel, load, read_into},
};

/// `SOCKFS_MAGIC`
const SOCKETS: u64 = 0x534f_434b;

/// `PROC_UTS_INIT_INO`, the number of the first UTS namespace.
const HOSTS: u32 = 0xeffffffe;

/// `struct bpf_iter__task_file`
#[repr(C)]
pub struct TaskFile {
    meta: Kernel,
    task: Kernel,
    number: u64,
    file: Kernel,
}

/// Writes one file's line, if it is a socket.
#[inline(always)]
pub fn list(context: *const TaskFile) {
    // SAFETY: the kernel gives a whole one; loads that fault give zero.
    let (task, file) = unsafe {
        ((&raw const (*context).task).read_volatile(), (&raw const (*context).file).read_volatile())
    };
    if task.is_null() || file.is_null() {
        return;
    }
    let inode: Kernel = load(file, socket_offset!(file_inode));
    let block: Kernel = load(inode, socket_offset!(inode_block));
    if load::<u64>(block, socket_offset!(block_magic)) != SOCKETS {
        return;
    }
    let mut line = OpenSocket {
        inode: load(inode, socket_offset!(inode_number)),
        cgroup: cgroup(task),
        started: 0,
        comm: [0; 16],
        nodename: own_host_name(load(task, socket_offset!(task_namespaces))),
        tgid: load(task, socket_offset!(task_tgid)),
        pad: 0,
    };
    let leader: Kernel = load(task, socket_offset!(task_leader));
    line.started = load(leader, socket_offset!(task_start));
    copy(&mut line.comm, leader, socket_offset!(task_comm));
    // SAFETY: the kernel gives a whole one.
    write(unsafe { (&raw const (*context).meta).read_volatile() }, &line);
}

/// The number of a task's cgroup.
#[inline(always)]
pub fn cgroup(task: Kernel) -> u64 {
    let cgroups: Kernel = load(task, socket_offset!(task_cgroups));
    let cgroup: Kernel = load(cgroups, socket_offset!(cgroups_default));
    let node: Kernel = load(cgroup, socket_offset!(cgroup_node));
    load(node, socket_offset!(node_id))
}

/// The host name in these namespaces, if it is not the host's: one has a number that no other has.
#[inline(always)]
pub fn own_host_name(namespaces: Kernel) -> [u8; 64] {
    let mut name = [0; 64];
    if !namespaces.is_null() {
        let uts: Kernel = load(namespaces, socket_offset!(namespaces_uts));
        if load::<u32>(uts, socket_offset!(uts_inum)) != HOSTS {
            copy(&mut name, uts, socket_offset!(uts_nodename));
        }
    }
    name
}

/// Copies bytes that are there; zeros stay if they cannot be read.
#[inline(always)]
pub fn copy<const N: usize>(to: &mut [u8; N], from: Kernel, offset: u32) {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    if read_into(&mut bytes, from as u64 + u64::from(offset)) {
        // SAFETY: the helper has filled it.
        *to = unsafe { bytes.assume_init() };
    }
}

/// Writes a line of an iterator's file.
#[inline(always)]
pub fn write<T>(meta: Kernel, line: &T) {
    // SAFETY: the kernel's own file, and as many bytes as there are. Without room, the kernel comes back with more.
    unsafe {
        let seq: Kernel = load(meta, 0);
        bpf_seq_write(seq.cast_mut().cast(), (&raw const *line).cast::<c_void>(), size_of::<T>() as u32);
    }
}
