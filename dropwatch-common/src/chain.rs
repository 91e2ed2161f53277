//! Call chains and devices: what rows refer to by number.

/// How many frames a chain has at most: the kernel's own limit (`kernel.perf_event_max_stack`).
pub const FRAMES: usize = 127;

/// A call chain as the kernel walks it, innermost frame first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Chain {
    /// How many frames there are; what follows them means nothing.
    pub depth: u64,
    /// Addresses the calls return to.
    pub frames: [u64; FRAMES],
}

/// An interface: the same number lives in many namespaces.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    /// The inode number of its network namespace.
    pub netns: u32,
    /// Its number there.
    pub ifindex: u32,
}

/// An interface's name, filled up with zeros.
pub type DeviceName = [u8; 16];

const _: () = assert!(size_of::<Chain>() == 1024);
const _: () = assert!(size_of::<DeviceKey>() == 8);
