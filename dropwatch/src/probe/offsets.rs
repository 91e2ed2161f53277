//! Where the running kernel keeps what the probe reads.

use dropwatch_common::{
    event::TraceOffsets,
    probe::{KindReasons, Offsets},
    sample::SampleOffsets,
    socket::SocketOffsets,
};

use crate::{
    kernel::{
        btf::{Aggregate, Btf, Tracepoint},
        reasons::core_reasons,
    },
    knowledge,
};

/// What the type information says about the tracepoint and the structures behind its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// Where members are.
    pub offsets: Offsets,
    /// `skb:kfree_skb`. It has 2 arguments, with a reason 3, with the receiving socket 4.
    pub tracepoint: Tracepoint,
}

/// What the type information does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's type information has no {0}")]
pub struct Missing(String);

impl KernelLayout {
    /// Whether the tracepoint says why a packet is dropped.
    #[must_use]
    pub fn has_reason(&self) -> bool {
        self.tracepoint.arguments > 2
    }

    /// Whether it says which socket would have received it.
    #[must_use]
    pub fn has_sock(&self) -> bool {
        self.tracepoint.arguments > 3
    }

    /// Reads the type information of the running kernel.
    ///
    /// # Errors
    /// The first member that is not there, or not of the size it is read with.
    pub fn read(btf: &Btf<'_>) -> Result<Self, Missing> {
        let KernelLayout { offsets, tracepoint } = Self::of_packets(btf)?;
        let skb = Struct::find(btf, "sk_buff")?;
        let at = |aggregate: &str, path: &str, size: u32| member(btf, aggregate, path, size);
        // Not before Linux 5.5.
        let optional = |aggregate: &str, path: &str, size| at(aggregate, path, size).unwrap_or(0);
        let offsets = Offsets {
            skb_dev: skb.member("dev", 8)?,
            skb_dst: skb.member("_skb_refdst", 8)?,
            skb_sk: skb.member("sk", 8)?,
            skb_mac_header: skb.member("mac_header", 2)?,
            device_name: at("net_device", "name", 16)?,
            device_ifindex: at("net_device", "ifindex", 4)?,
            device_net: at("net_device", "nd_net.net", 8)?,
            device_index_node: at("net_device", "index_hlist", 16)?,
            device_name_node: optional("net_device", "name_node", 8),
            name_list: optional("netdev_name_node", "list", 16),
            name_device: optional("netdev_name_node", "dev", 8),
            name_text: optional("netdev_name_node", "name", 8),
            net_inum: at("net", "ns.inum", 4)?,
            net_cookie: cookie(btf),
            net_index_table: at("net", "dev_index_head", 8)?,
            dst_dev: at("dst_entry", "dev", 8)?,
            sock_net: at("sock", "__sk_common.skc_net.net", 8)?,
            ..offsets
        };
        Ok(Self { offsets, tracepoint })
    }

    /// The same, as far as telling kinds of packets apart needs it, which takes less time.
    ///
    /// # Errors
    /// As above.
    pub fn of_packets(btf: &Btf<'_>) -> Result<Self, Missing> {
        let tracepoint = btf.tracepoint("kfree_skb").ok_or_else(|| Missing("tracepoint kfree_skb".into()))?;
        let skb = Struct::find(btf, "sk_buff")?;
        let offsets = Offsets {
            skb_pkt_type: skb.packet_type()?,
            skb_iif: skb.member("skb_iif", 4)?,
            skb_protocol: skb.member("protocol", 2)?,
            skb_network_header: skb.member("network_header", 2)?,
            skb_tail: skb.member("tail", 4)?,
            skb_head: skb.member("head", 8)?,
            skb_data: skb.member("data", 8)?,
            skb_len: skb.member("len", 4)?,
            ..Offsets::default()
        };
        Ok(Self { offsets, tracepoint })
    }
}

/// The reasons of the running kernel with which a packet's destination matters.
#[must_use]
pub fn kind_reasons(btf: &Btf<'_>) -> KindReasons {
    let matters = |name: &str| knowledge::reasons_with_kinds().any(|reason| reason == name);
    let codes = core_reasons(btf).filter(|(name, _)| matters(name)).map(|(_, code)| code);
    codes.fold(KindReasons::default(), KindReasons::with)
}

/// A struct of the kernel, for an error that names what it lacks.
struct Struct<'a> {
    name: &'a str,
    aggregate: Aggregate<'a>,
}

impl<'a> Struct<'a> {
    fn find(btf: &'a Btf<'_>, name: &'a str) -> Result<Self, Missing> {
        let aggregate = btf.aggregate(name).ok_or_else(|| Missing(format!("struct {name}")))?;
        Ok(Self { name, aggregate })
    }

    /// Where a member is that has a size.
    fn member(&self, path: &str, size: u32) -> Result<u32, Missing> {
        self.aggregate
            .field(path)
            .filter(|field| field.size == size && field.bitfield.is_none())
            .map(|field| field.offset_bytes)
            .ok_or_else(|| Missing(format!("{}.{path} of {size} bytes", self.name)))
    }

    /// The byte that has `pkt_type` in its lowest bits.
    fn packet_type(&self) -> Result<u32, Missing> {
        let bits = self.aggregate.field("pkt_type").and_then(|field| field.bitfield);
        bits.filter(|bits| bits.bits == 3 && bits.bit_offset % 8 == 0)
            .map(|bits| bits.bit_offset / 8)
            .ok_or_else(|| Missing(format!("{}.pkt_type of 3 bits", self.name)))
    }
}

/// Where the running kernel keeps what only records of packets need.
///
/// # Errors
/// The first member that is not there, or not of the size it is read with.
pub fn trace_offsets(btf: &Btf<'_>) -> Result<TraceOffsets, Missing> {
    // Of one bit, and gone since Linux 6.2.
    let present = btf.field("sk_buff", "vlan_present").and_then(|field| field.bitfield);
    Ok(TraceOffsets {
        skb_vlan_proto: member(btf, "sk_buff", "vlan_proto", 2)?,
        skb_vlan_tci: member(btf, "sk_buff", "vlan_tci", 2)?,
        skb_vlan_present: present.map_or(0, |bit| bit.bit_offset / 8),
        vlan_present_mask: present.map_or(0, |bit| bit_in_byte(bit.bit_offset % 8)),
        device_type: member(btf, "net_device", "type", 2)?,
    })
}

/// Where the running kernel keeps what only sockets need.
///
/// # Errors
/// The first member that is not there, or not of the size it is read with.
pub fn socket_offsets(btf: &Btf<'_>) -> Result<SocketOffsets, Missing> {
    let at = |aggregate: &str, path: &str, size: u32| member(btf, aggregate, path, size);
    let common = |name: &str, size: u32| at("sock", &format!("__sk_common.{name}"), size);
    // What some kernels do not have is zero there.
    let maybe = |found: Result<u32, Missing>| found.unwrap_or(0);
    let of_kernel = btf
        .field("sock", "sk_kern_sock")
        .and_then(|field| field.bitfield)
        .ok_or_else(|| Missing("sock.sk_kern_sock of a bit".into()))?;
    let file_inode = place(btf, "socket_alloc", "vfs_inode")? + at("inode", "i_ino", 8)?;
    Ok(SocketOffsets {
        sock_family: common("skc_family", 2)?,
        sock_state: common("skc_state", 1)?,
        sock_num: common("skc_num", 2)?,
        sock_dport: common("skc_dport", 2)?,
        sock_saddr: common("skc_rcv_saddr", 4)?,
        sock_daddr: common("skc_daddr", 4)?,
        sock_saddr6: maybe(common("skc_v6_rcv_saddr", 16)),
        sock_daddr6: maybe(common("skc_v6_daddr", 16)),
        sock_listener: common("skc_listener", 8)?,
        sock_cookie: common("skc_cookie", 8)?,
        sock_protocol: at("sock", "sk_protocol", 2)?,
        sock_type: at("sock", "sk_type", 2)?,
        sock_kern: of_kernel.bit_offset / 8,
        sock_kern_mask: bit_in_byte(of_kernel.bit_offset % 8),
        sock_uid: at("sock", "sk_uid", 4)?,
        sock_rmem: at("sock", "sk_backlog.rmem_alloc", 4)?,
        sock_rcvbuf: at("sock", "sk_rcvbuf", 4)?,
        sock_socket: at("sock", "sk_socket", 8)?,
        sock_ino: maybe(at("sock", "sk_ino", 8)),
        sock_cgroup: maybe(at("sock", "sk_cgrp_data.cgroup", 8)),
        sock_cgroup_value: maybe(at("sock", "sk_cgrp_data.val", 8)),
        cgroup_node: at("cgroup", "kn", 8)?,
        node_id: at("kernfs_node", "id", 8)?,
        socket_file: at("socket", "file", 8)?,
        socket_ino: file_inode - place(btf, "socket_alloc", "socket")?,
        task_files: at("task_struct", "files", 8)?,
        files_table: at("files_struct", "fdt", 8)?,
        table_array: at("fdtable", "fd", 8)?,
        table_size: at("fdtable", "max_fds", 4)?,
        task_leader: at("task_struct", "group_leader", 8)?,
        task_comm: at("task_struct", "comm", 16)?,
        task_tgid: at("task_struct", "tgid", 4)?,
        task_pid: at("task_struct", "pid", 4)?,
        task_memory: at("task_struct", "mm", 8)?,
        task_start: at("task_struct", "start_time", 8)?,
        task_cgroups: at("task_struct", "cgroups", 8)?,
        cgroups_default: at("css_set", "dfl_cgrp", 8)?,
        task_namespaces: at("task_struct", "nsproxy", 8)?,
        namespaces_uts: at("nsproxy", "uts_ns", 8)?,
        uts_nodename: at("uts_namespace", "name.nodename", 65)?,
        uts_inum: at("uts_namespace", "ns.inum", 4)?,
        namespaces_net: at("nsproxy", "net_ns", 8)?,
        net_inum: at("net", "ns.inum", 4)?,
        net_cookie: cookie(btf),
        file_inode: at("file", "f_inode", 8)?,
        inode_number: at("inode", "i_ino", 8)?,
        inode_block: at("inode", "i_sb", 8)?,
        block_magic: at("super_block", "s_magic", 8)?,
    })
}

/// Where the running kernel keeps what only samples need. What some kernels are built without is zero there.
///
/// # Errors
/// The first member that is not there, or not of the size it is read with.
pub fn sample_offsets(btf: &Btf<'_>) -> Result<SampleOffsets, Missing> {
    let at = |aggregate: &str, path: &str, size: u32| member(btf, aggregate, path, size);
    // Both have the programs that see what is received at their start, and nothing is known of others.
    let received = |name: &str, value: &str| {
        let values = btf.enum_values(name)?;
        values.into_iter().find(|(found, _)| *found == value).map(|(_, number)| number)
    };
    let received = received("cgroup_bpf_attach_type", "CGROUP_INET_INGRESS")
        .or_else(|| received("bpf_attach_type", "BPF_CGROUP_INET_INGRESS"))
        .and_then(|number| u32::try_from(number).ok());
    let programs = received.and_then(|number| {
        let effective = place(btf, "cgroup", "bpf.effective").ok()? + number * 8;
        Some((
            effective,
            place(btf, "bpf_prog_array", "items").ok()?,
            btf.aggregate("bpf_prog_array_item")?.size(),
        ))
    });
    let (cgroup_effective, array_items, item_size) = programs.unwrap_or_default();
    Ok(SampleOffsets {
        skb_mark: at("sk_buff", "mark", 4)?,
        skb_queue: at("sk_buff", "queue_mapping", 2)?,
        sock_filter: at("sock", "sk_filter", 8)?,
        filter_prog: at("sk_filter", "prog", 8)?,
        prog_aux: at("bpf_prog", "aux", 8)?,
        aux_id: at("bpf_prog_aux", "id", 4)?,
        aux_name: at("bpf_prog_aux", "name", 16)?,
        cgroup_effective,
        array_items,
        item_size,
    })
}

/// Where a namespace has its cookie; zero on kernels that assign one only on demand (before 5.12), where it is no
/// plain number but an `atomic64_t`.
fn cookie(btf: &Btf<'_>) -> u32 {
    let is_lazy = btf.field("net", "net_cookie.counter").is_some();
    if is_lazy { 0 } else { member(btf, "net", "net_cookie", 8).unwrap_or(0) }
}

/// A bit as its byte's value, by its number in BTF: that counts from the least significant bit where the machine does.
fn bit_in_byte(bit: u32) -> u32 {
    if cfg!(target_endian = "little") { 1 << bit } else { 0x80 >> bit }
}

/// Where a member is, whatever its size.
fn place(btf: &Btf<'_>, aggregate: &str, path: &str) -> Result<u32, Missing> {
    let field = btf.field(aggregate, path).ok_or_else(|| Missing(format!("{aggregate}.{path}")))?;
    Ok(field.offset_bytes)
}

/// Where a member is that has a size.
fn member(btf: &Btf<'_>, aggregate: &str, path: &str, size: u32) -> Result<u32, Missing> {
    Struct::find(btf, aggregate)?.member(path, size)
}

#[cfg(test)]
mod tests {
    use dropwatch_testing::skip;

    use super::*;
    use crate::kernel::btf;

    #[test]
    fn the_running_kernel_has_all_of_them() {
        let Ok(bytes) = btf::read_vmlinux() else { return skip("this kernel has no type information") };
        let layout = KernelLayout::read(&Btf::parse(&bytes).expect("type information")).expect("all members");
        assert!((2..=4).contains(&layout.tracepoint.arguments), "{layout:?}");
        let Offsets { skb_dev, skb_len, skb_head, skb_data, .. } = layout.offsets;
        assert_eq!(skb_data, skb_head + 8, "side by side in every kernel there has been");
        assert!(skb_dev < skb_len, "{layout:?}");
        let trace = trace_offsets(&Btf::parse(&bytes).expect("type information")).expect("all members");
        let sockets = socket_offsets(&Btf::parse(&bytes).expect("type information")).expect("all members");
        assert_eq!(
            sockets.sock_daddr.abs_diff(sockets.sock_saddr),
            4,
            "side by side in every kernel there has been"
        );
        let samples = sample_offsets(&Btf::parse(&bytes).expect("type information")).expect("all members");
        assert!(samples.cgroup_effective == 0 || samples.item_size >= 8, "{samples:?}");
        let apart = trace.skb_vlan_tci.abs_diff(trace.skb_vlan_proto);
        assert_eq!(apart, 2, "side by side in every kernel there has been");
    }
}
