//! Counters in front of the hash map: most drops of a host have a few keys.

use crate::DropKey;

/// How many keys a CPU has counters for there.
pub const SLOTS: usize = 256;

/// A counter that the first key to come by keeps for good.
///
/// Nothing is ever evicted, so a count only grows, and the drops of a key are those in its slots and those in the
/// hash map together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Slot {
    /// The key it counts; a location of zero means that the slot is free.
    pub key: DropKey,
    /// Drops on this CPU.
    pub count: u64,
}

/// The counters of a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Cache(pub [Slot; SLOTS]);

/// Where a key may have its slot.
#[inline(always)]
#[must_use]
pub fn slot_of(location: u64, reason: u32) -> usize {
    // The middle of the product depends on all low bits of both; calls of one function differ in few of them.
    let mixed = (location ^ (reason as u64) << 17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize % SLOTS
}

const _: () = assert!(size_of::<Slot>() == 24 && SLOTS.is_power_of_two());
