//! The numbers that instructions are made of.

/// What an instruction does; the first byte of [`Insn::head`](super::Insn::head).
///
/// Each names the words it compares with.
pub mod op {
    /// Nothing: the drop passes. An array of zeros is a filter that everything passes.
    pub const PASS: u8 = 0;
    /// The ethertype is `value[0]`.
    pub const ETHERTYPE: u8 = 1;
    /// The protocol byte of an IP header is `value[0]`, or an IPv6 fragment header right behind it says so;
    /// `select` has the bits of [`family`](crate::packet::family) that are meant, and [`FIRST`](super::FIRST).
    pub const PROTOCOL: u8 = 2;
    /// The source address under `mask` is `value`; `select` has bits of [`family`](crate::packet::family).
    pub const SADDR: u8 = 3;
    /// The same for the destination address.
    pub const DADDR: u8 = 4;
    /// The source port is in `value[0]..=value[1]`; `select` has bits of
    /// [`transport`](crate::packet::transport).
    pub const SPORT: u8 = 5;
    /// The same for the destination port.
    pub const DPORT: u8 = 6;
    /// The length is in `value[0]..=value[1]`.
    pub const LENGTH: u8 = 7;
    /// The network namespace's inode number is `value[0]`, and its cookie `value[1]` if that is not zero.
    pub const NETNS: u8 = 8;
    /// The network namespace is in the set `value[0]`, by its cookie where the kernel has one, else by its number. Of
    /// one that user space has not looked at yet, `select` is the answer.
    pub const NETNS_NAMED: u8 = 19;
    /// The interface's name is `value`, as bytes padded with zeros, or it has a name whose bit is in `mask[0]`.
    pub const IFACE: u8 = 9;
    /// The location is in the set `value[0]`.
    pub const LOCATION: u8 = 10;
    /// The reason is in the set `value[0]`.
    pub const REASON: u8 = 11;
    /// The location is `value[0]`.
    pub const ADDRESS: u8 = 12;
    /// The link header under `mask` is `value`; see [`Facts::link`](crate::program::Facts::link).
    pub const LINK: u8 = 13;
    /// The number of a VLAN tag is in `value[0]..=value[1]`.
    pub const VLAN: u8 = 14;
    /// Puts bytes of the packet into slot `a`. `select` is a [`base`](super::base) and, from bit 4 on, how many
    /// bytes. The offset is `value[0]`, or slot `b` if that is one; `value[1]` is added to it. A packet that has no
    /// such header continues at the second target.
    pub const LOAD: u8 = 15;
    /// Puts what an [`alu`](super::alu) operation, `select`, makes of slot `a` and slot `b` into slot `a`;
    /// `value[0]` stands for a `b` that is no slot. With [`REVERSED`](super::alu::REVERSED) the other one comes first.
    pub const ALU: u8 = 16;
    /// Compares slot `a` with slot `b`, or `value[0]`, by [`compare`](super::compare).
    pub const COMPARE: u8 = 17;
    /// The commonest comparison in one, for programs of many: bytes as in [`LOAD`] at the offset `value[0]`, under
    /// `mask[0]`, compared with `value[1]` by [`compare`](super::compare) in `a`. Before that the packet must be of
    /// the ethertype `mask[1]`, if that is not zero, and of the protocol `b` as with [`FIRST`](super::FIRST), if it is
    /// one.
    pub const BYTES: u8 = 18;
}

/// The bit of [`op::PROTOCOL`] by which the protocol's header has to follow that of IP: no later fragment has it, and
/// no packet with a fragment header.
pub const FIRST: u8 = 0x80;

/// What an offset counts from.
pub mod base {
    /// The link header.
    pub const LINK: u8 = 0;
    /// The network header.
    pub const NETWORK: u8 = 1;
    /// The end of an IPv4 header, by its own length, whatever the packet is.
    pub const TRANSPORT: u8 = 2;
    /// Nothing: what is loaded is the packet's length.
    pub const LENGTH: u8 = 3;
}

/// Operations on numbers of 32 bits.
pub mod alu {
    /// The bit for the numbers in the other order.
    pub const REVERSED: u8 = 0x80;
    /// The second alone.
    pub const SET: u8 = 0;
    /// The sum.
    pub const ADD: u8 = 1;
    /// The difference.
    pub const SUB: u8 = 2;
    /// The product.
    pub const MUL: u8 = 3;
    /// The quotient; a division by zero ends the walk.
    pub const DIV: u8 = 4;
    /// The remainder; zero as above.
    pub const MOD: u8 = 5;
    /// Bits of both.
    pub const AND: u8 = 6;
    /// Bits of either.
    pub const OR: u8 = 7;
    /// Bits of one of them.
    pub const XOR: u8 = 8;
    /// The first, shifted left.
    pub const LSH: u8 = 9;
    /// The first, shifted right.
    pub const RSH: u8 = 10;
}

/// Comparisons of numbers.
pub mod compare {
    /// The first equals the second.
    pub const EQ: u8 = 0;
    /// The first differs from the second.
    pub const NE: u8 = 1;
    /// The first is larger.
    pub const GT: u8 = 2;
    /// The first is larger or equal.
    pub const GE: u8 = 3;
    /// The first is smaller.
    pub const LT: u8 = 4;
    /// The first is smaller or equal.
    pub const LE: u8 = 5;
}

/// Bits of what a filter needs to know: the rest need not be gathered.
pub mod need {
    /// The protocol byte of the IP header.
    pub const PROTOCOL: u32 = 1;
    /// Addresses.
    pub const ADDRESSES: u32 = 2;
    /// Ports.
    pub const PORTS: u32 = 4;
    /// The length.
    pub const LENGTH: u32 = 8;
    /// The network namespace.
    pub const NETNS: u32 = 16;
    /// The interface's name.
    pub const IFACE: u32 = 32;
    /// The location.
    pub const LOCATION: u32 = 64;
    /// The reason.
    pub const REASON: u32 = 128;
    /// The names of the network namespace.
    pub const NETNS_NAMES: u32 = 256;
    /// Any byte from the network header on.
    pub const BYTES: u32 = 512;
    /// The link header.
    pub const LINK: u32 = 1024;
    /// VLAN tags.
    pub const VLAN: u32 = 2048;
    /// The ethertype.
    pub const ETHERTYPE: u32 = 4096;
    /// Whatever is read from the packet's headers.
    pub const PACKET: u32 = PROTOCOL | ADDRESSES | PORTS;
}

/// Bits of [`Facts::known`](super::Facts::known).
pub mod known {
    /// The length.
    pub const LENGTH: u32 = 1;
    /// The network namespace.
    pub const NETNS: u32 = 2;
    /// The interface's name.
    pub const IFACE: u32 = 4;
    /// The reason: old kernels give none.
    pub const REASON: u32 = 8;
    /// User space has not looked yet which names the network namespace has.
    pub const UNDECIDED: u32 = 16;
    /// The link header, one of Ethernet.
    pub const LINK: u32 = 32;
}
