//! The key of a row that stands for more than a location and a reason.

/// What a drop can be counted by. What was not asked for is zero, and so is what is not known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// The address after the call that freed the packet: the tracepoint's `location`.
    pub location: u64,
    /// The call chain's number in the map of chains; zero if it could not be kept.
    pub stack: u64,
    /// The source address; an IPv4 address in the first four bytes.
    pub saddr: [u8; 16],
    /// The destination address, likewise.
    pub daddr: [u8; 16],
    /// The kernel's number for the reason.
    pub reason: u32,
    /// The inode number of the network namespace.
    pub netns: u32,
    /// The interface's number in its namespace.
    pub ifindex: u32,
    /// The CPU it was dropped on.
    pub cpu: u32,
    /// The ethertype, in host order.
    pub protocol: u16,
    /// The source port, in host order.
    pub sport: u16,
    /// The destination port, in host order.
    pub dport: u16,
    /// The transport protocol; behind the extension headers of IPv6.
    pub ipproto: u8,
    /// Which of the fields are known: bits of [`known`].
    pub known: u8,
}

/// Bits of [`RowKey::known`].
pub mod known {
    /// The interface is known.
    pub const IFACE: u8 = 1 << 0;
    /// The network namespace is known.
    pub const NETNS: u8 = 1 << 1;
    /// The ethertype is known.
    pub const PROTOCOL: u8 = 1 << 2;
    /// The transport protocol is known.
    pub const IPPROTO: u8 = 1 << 3;
    /// The addresses are known, and are of IPv4.
    pub const IPV4: u8 = 1 << 4;
    /// The addresses are known, and are of IPv6.
    pub const IPV6: u8 = 1 << 5;
    /// The ports are known.
    pub const PORTS: u8 = 1 << 6;
    /// The call chain was kept.
    pub const STACK: u8 = 1 << 7;
}

const _: () = assert!(size_of::<RowKey>() == 72 && align_of::<RowKey>() == 8);
