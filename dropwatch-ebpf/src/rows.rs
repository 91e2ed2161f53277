//! Rows that stand for more than a location and a reason.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_get_smp_processor_id,
    programs::BtfTracePointContext,
};
use dropwatch_common::{
    Loss,
    chain::{DeviceKey, DeviceName},
    packet::{self, Packet, family},
    probe::keys,
    row::{RowKey, known},
};

use crate::{
    chain,
    count::{E2BIG, EEXIST, increment, lose},
    drop::Drop,
    maps::{DEVICES, KEYS, ROWS, Rows, any},
    skb::Device,
};

/// Adds one drop to its row, or to the ledger.
#[inline(always)]
pub fn count(ctx: &BtfTracePointContext, drop: &mut Drop) {
    let mut key = RowKey::default();
    fill(&mut key, ctx, drop);
    let Some(rows) = ROWS.get(0) else { return lose(Loss::UpdateFailed) };
    if let Some(counter) = rows.get_ptr_mut(&key) {
        return increment(counter);
    }
    if key.known & (known::IFACE | known::NETNS) != 0 && !keep_name(&mut drop.device) {
        // What looked like an interface is none.
        (key.ifindex, key.netns) = (0, 0);
        key.known &= !(known::IFACE | known::NETNS);
    }
    count_first(rows, &key);
}

/// The first drop of a row on any CPU; another CPU may be inserting the same one.
#[inline(always)]
fn count_first(rows: &Rows, key: &RowKey) {
    match rows.insert(key, &1, u64::from(BPF_NOEXIST)) {
        Ok(()) => {}
        Err(EEXIST) => match rows.get_ptr_mut(key) {
            Some(counter) => increment(counter),
            None => lose(Loss::UpdateFailed),
        },
        Err(E2BIG) => lose(Loss::MapFull),
        Err(_) => lose(Loss::UpdateFailed),
    }
}

/// The parts of the key that were asked for.
#[inline(always)]
fn fill(key: &mut RowKey, ctx: &BtfTracePointContext, drop: &Drop) {
    // First, while there is one path for the verifier to follow: its loops are long.
    if any(&KEYS, keys::STACK) {
        key.stack = chain::number(ctx);
        if key.stack == chain::NONE {
            lose(Loss::StackFailed);
        } else {
            key.known |= known::STACK;
        }
    }
    if any(&KEYS, keys::LOCATION) {
        key.location = drop.facts.location;
    }
    if any(&KEYS, keys::REASON) {
        key.reason = drop.facts.reason;
    }
    if any(&KEYS, keys::CPU) {
        // SAFETY: it has no arguments and no conditions.
        key.cpu = unsafe { bpf_get_smp_processor_id() };
    }
    device_key(key, &drop.device);
    packet_key(key, &drop.facts.packet);
}

#[inline(always)]
fn device_key(key: &mut RowKey, device: &Device) {
    if any(&KEYS, keys::IFACE) && device.ifindex != 0 {
        // The number says nothing without the namespace.
        key.ifindex = device.ifindex;
        key.netns = device.netns;
        key.known |= known::IFACE;
    }
    if any(&KEYS, keys::NETNS) && device.netns != 0 {
        key.netns = device.netns;
        key.known |= known::NETNS;
    }
}

#[inline(always)]
fn packet_key(key: &mut RowKey, packet: &Packet) {
    let knows = |bits: u8| packet.known & bits == bits;
    if any(&KEYS, keys::PROTOCOL) && packet.ethertype != 0 {
        key.protocol = packet.ethertype;
        key.known |= known::PROTOCOL;
    }
    if any(&KEYS, keys::IPPROTO) && knows(packet::known::IPPROTO) {
        key.ipproto = packet.ipproto;
        key.known |= known::IPPROTO;
    }
    if any(&KEYS, keys::SADDR | keys::DADDR) && knows(packet::known::SADDR | packet::known::DADDR) {
        if any(&KEYS, keys::SADDR) {
            key.saddr = packet.saddr;
        }
        if any(&KEYS, keys::DADDR) {
            key.daddr = packet.daddr;
        }
        key.known |= if packet.family == family::IPV4 { known::IPV4 } else { known::IPV6 };
    }
    if any(&KEYS, keys::SPORT | keys::DPORT) && knows(packet::known::SPORT | packet::known::DPORT) {
        if any(&KEYS, keys::SPORT) {
            key.sport = packet.sport;
        }
        if any(&KEYS, keys::DPORT) {
            key.dport = packet.dport;
        }
        key.known |= known::PORTS;
    }
}

/// Keeps the interface's name for the report; false if it is shown to be none that an interface can have.
#[inline(always)]
fn keep_name(device: &mut Device) -> bool {
    let mut name = DeviceName::default();
    // Where there is no interface to look at any more, the number is what is known.
    if !device.has_name() || device.find() == 0 {
        return true;
    }
    if !device.read_name(&mut name) {
        return false;
    }
    let key = DeviceKey { netns: device.netns, ifindex: device.ifindex };
    // A name that does not fit is printed as unknown.
    let _ = DEVICES.insert(&key, &name, u64::from(BPF_ANY));
    true
}
