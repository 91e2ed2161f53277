//! Which wanted names an interface has besides its own, at the moment of a drop.
//!
//! The kernel keeps the alternative names of an interface in a list, which is read as it is now: names that come, go and
//! move to another interface are seen at the drop, and user space follows none of them.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use dropwatch_common::{Loss, chain::LongName, program::Facts};

use crate::{
    chain,
    count::lose,
    drop::{ZERO, forget},
    maps::{INTERFACES, NAME_ROOM, offset},
    skb::{Device, read},
};

/// How many alternative names of an interface are looked at.
const MOST: u32 = 64;

/// Bits of wanted names.
#[derive(Clone, Copy)]
struct Found {
    filter: u64,
    rules: u64,
}

/// Notes the names that the filter and the rules ask for.
#[inline(always)]
pub fn gather(device: &mut Device, facts: &mut Facts) {
    if offset!(device_name_node) == 0 {
        return;
    }
    let Some(own) = read::<u64>(device.address + u64::from(offset!(device_name_node))) else {
        return lose(Loss::NamesUnreadable);
    };
    // Without a node it has no name any more.
    let Some(owner) = read::<u64>(own + u64::from(offset!(name_device))) else { return };
    if owner != device.address {
        return;
    }
    // From here on the interface is what its node says, and the rest is of unknown value: a verifier would follow the list
    // for each way by which an interface is found, and tells a number from a typed pointer.
    forget(facts);
    device.forget();
    // SAFETY: a word of a map. Zero, which the verifier does not know: each way out of the loop is the same to it.
    let zero = unsafe { (&raw const ZERO).read_volatile() };
    let mut found = Found { filter: zero, rules: zero };
    if !find(owner, own, &mut found) {
        lose(Loss::NamesUnreadable);
    }
    facts.names = found.filter;
    device.names = found.rules;
}

/// Whether all names could be looked at of a device with this node.
#[inline(always)]
fn find(device: u64, own: u64, found: &mut Found) -> bool {
    let head = own + u64::from(offset!(name_list));
    let Some(first) = read::<u64>(head) else { return false };
    if first == head {
        return true;
    }
    let Some(level) = chain::enter() else { return false };
    let is_whole = match NAME_ROOM.get_ptr_mut(level) {
        Some(room) => walk(device, head, first, room, found),
        None => false,
    };
    chain::leave(level);
    is_whole
}

/// Whether a node is one of a device, and no memory that has become something else.
#[inline(always)]
fn is_of(node: u64, device: u64) -> bool {
    read::<u64>(node + u64::from(offset!(name_device))) == Some(device)
}

/// Follows the list back to its head.
#[inline(always)]
fn walk(device: u64, head: u64, first: u64, room: *mut LongName, found: &mut Found) -> bool {
    let mut entry = first;
    let mut seen = 0;
    while seen < MOST {
        let node = entry - u64::from(offset!(name_list));
        if !is_of(node, device) || !look_up(node, room, found) {
            return false;
        }
        let Some(next) = read::<u64>(entry) else { return false };
        if next == head {
            return true;
        }
        entry = next;
        seen += 1;
    }
    false
}

/// How many words a name has.
const WORDS: usize = size_of::<LongName>() / size_of::<u64>();

/// Looks up the name of one node; false if it cannot be read.
#[inline(always)]
fn look_up(node: u64, room: *mut LongName, found: &mut Found) -> bool {
    let Some(text) = read::<u64>(node + u64::from(offset!(name_text))) else { return false };
    // SAFETY: a value of a map, of the size given to the helper, which this level has for itself.
    let length = unsafe {
        // By words: values of maps are aligned, which the type does not say.
        room.cast::<[u64; WORDS]>().write([0; WORDS]);
        bpf_probe_read_kernel_str(room.cast(), size_of::<LongName>() as u32, text as *const _)
    };
    if length < 0 {
        return false;
    }
    // SAFETY: as above.
    if let Some(bits) = INTERFACES.get_ptr(unsafe { &*room }) {
        // SAFETY: a value of a map, which is not written any more.
        unsafe {
            found.filter |= (&raw const (*bits).filter).read_volatile();
            found.rules |= (&raw const (*bits).rules).read_volatile();
        }
    }
    true
}
