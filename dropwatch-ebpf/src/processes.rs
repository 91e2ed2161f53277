//! Every process, listed at each read of the iterator.

use dropwatch_common::socket::ListedProcess;

use crate::{
    maps::socket_offset,
    open_sockets::{cgroup, copy, own_host_name, write},
    skb::{Kernel, load},
};

/// `struct bpf_iter__task`
#[repr(C)]
pub struct Task {
    meta: Kernel,
    task: Kernel,
}

/// Writes one process's line, if the task is its first thread, and neither a thread of the kernel nor about to go.
#[inline(always)]
pub fn list(context: *const Task) {
    // SAFETY: the kernel gives a whole one; loads that fault give zero.
    let (meta, task) = unsafe {
        ((&raw const (*context).meta).read_volatile(), (&raw const (*context).task).read_volatile())
    };
    if task.is_null() {
        return;
    }
    let tgid: u32 = load(task, socket_offset!(task_tgid));
    let namespaces: Kernel = load(task, socket_offset!(task_namespaces));
    if tgid != load(task, socket_offset!(task_pid))
        || load::<u64>(task, socket_offset!(task_memory)) == 0
        || namespaces.is_null()
    {
        return;
    }
    let net: Kernel = load(namespaces, socket_offset!(namespaces_net));
    let mut line = ListedProcess {
        cookie: 0,
        cgroup: cgroup(task),
        started: load(task, socket_offset!(task_start)),
        netns: load(net, socket_offset!(net_inum)),
        tgid,
        comm: [0; 16],
        nodename: own_host_name(namespaces),
    };
    if socket_offset!(net_cookie) != 0 {
        line.cookie = load(net, socket_offset!(net_cookie));
    }
    copy(&mut line.comm, task, socket_offset!(task_comm));
    write(meta, &line);
}
