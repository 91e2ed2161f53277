//! Where the running kernel keeps what the probe reads.

use dropwatch_common::{event::TraceOffsets, probe::Offsets};

use crate::btf::{Btf, Tracepoint};

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
        let tracepoint = btf.tracepoint("kfree_skb").ok_or_else(|| Missing("tracepoint kfree_skb".into()))?;
        let at = |aggregate: &str, path: &str, size: u32| member(btf, aggregate, path, size);
        let offsets = Offsets {
            skb_dev: at("sk_buff", "dev", 8)?,
            skb_dst: at("sk_buff", "_skb_refdst", 8)?,
            skb_sk: at("sk_buff", "sk", 8)?,
            skb_iif: at("sk_buff", "skb_iif", 4)?,
            skb_protocol: at("sk_buff", "protocol", 2)?,
            skb_network_header: at("sk_buff", "network_header", 2)?,
            skb_mac_header: at("sk_buff", "mac_header", 2)?,
            skb_tail: at("sk_buff", "tail", 4)?,
            skb_head: at("sk_buff", "head", 8)?,
            skb_data: at("sk_buff", "data", 8)?,
            skb_len: at("sk_buff", "len", 4)?,
            device_name: at("net_device", "name", 16)?,
            device_ifindex: at("net_device", "ifindex", 4)?,
            device_net: at("net_device", "nd_net.net", 8)?,
            device_index_node: at("net_device", "index_hlist", 16)?,
            net_inum: at("net", "ns.inum", 4)?,
            net_index_table: at("net", "dev_index_head", 8)?,
            dst_dev: at("dst_entry", "dev", 8)?,
            sock_net: at("sock", "__sk_common.skc_net.net", 8)?,
        };
        Ok(Self { offsets, tracepoint })
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

/// A bit as its byte's value, by its number in BTF: that counts from the least significant bit where the machine does.
fn bit_in_byte(bit: u32) -> u32 {
    if cfg!(target_endian = "little") { 1 << bit } else { 0x80 >> bit }
}

/// Where a member is that has a size.
fn member(btf: &Btf<'_>, aggregate: &str, path: &str, size: u32) -> Result<u32, Missing> {
    btf.field(aggregate, path)
        .filter(|field| field.size == size && field.bitfield.is_none())
        .map(|field| field.offset_bytes)
        .ok_or_else(|| Missing(format!("{aggregate}.{path} of {size} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf;

    #[test]
    fn the_running_kernel_has_all_of_them() {
        let Ok(bytes) = btf::read_vmlinux() else {
            eprintln!("SKIPPED: this kernel has no type information");
            return;
        };
        let layout = KernelLayout::read(&Btf::parse(&bytes).expect("type information")).expect("all members");
        assert!((2..=4).contains(&layout.tracepoint.arguments), "{layout:?}");
        let Offsets { skb_dev, skb_len, skb_head, skb_data, .. } = layout.offsets;
        assert_eq!(skb_data, skb_head + 8, "side by side in every kernel there has been");
        assert!(skb_dev < skb_len, "{layout:?}");
        let trace = trace_offsets(&Btf::parse(&bytes).expect("type information")).expect("all members");
        let apart = trace.skb_vlan_tci.abs_diff(trace.skb_vlan_proto);
        assert_eq!(apart, 2, "side by side in every kernel there has been");
    }
}
