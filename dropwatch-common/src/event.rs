//! One drop with its packet: what the probe of `trace` puts in the ring buffer.
//!
//! A record is a [`DropEvent`], then a [`SocketView`](crate::sample::SocketView) if [`known::SOCKET`], then
//! [`DropEvent::slots`] addresses of eight bytes, then [`DropEvent::captured`] bytes of the packet. What follows them is
//! what the ring buffer held before.

/// The head of a record. Numbers have the machine's byte order, those of the packet too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropEvent {
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// The address after the call that freed the packet: the tracepoint's `location`.
    pub location: u64,
    /// The cookie of the network namespace; zero on kernels that have none.
    pub cookie: u64,
    /// The kernel's number for the reason; zero on kernels that give none.
    pub reason: u32,
    /// The network namespace's inode number, if [`known::NETNS`].
    pub netns: u32,
    /// The device's number in its namespace, if [`known::DEVICE`].
    pub ifindex: u32,
    /// The CPU that freed the packet.
    pub cpu: u32,
    /// The packet's bytes from the network header on.
    pub length: u32,
    /// The packet's bytes with its link header, if it has one.
    pub frame_length: u32,
    /// How many bytes of the frame follow: the first ones.
    pub captured: u32,
    /// For how many addresses of a call chain there is room behind this.
    pub slots: u16,
    /// How many of them there are, innermost first.
    pub frames: u16,
    /// The bytes of link header in front of the network header; 0 if there is none.
    pub link_length: u32,
    /// Which fields mean something: bits of [`known`]; and above them the [`Cases`](crate::program::Cases) in which the drop
    /// passes.
    pub known: u32,
    /// The device's kind of link header (`ARPHRD_…`), if [`known::DEVICE_NAME`].
    pub link_type: u16,
    /// The packet's ethertype, as the kernel has it.
    pub protocol: u16,
    /// The ethertype of the VLAN tag that the kernel took out of the frame, if [`known::VLAN`].
    pub vlan_protocol: u16,
    /// That tag.
    pub vlan_tci: u16,
    /// The device's name, ended by a zero or the end, if [`known::DEVICE_NAME`].
    pub iface: [u8; 16],
}

/// Bits of [`DropEvent::known`].
pub mod known {
    /// The kernel knows which device the packet is on, by its number.
    pub const DEVICE: u32 = 1;
    /// The device's name and link type are known.
    pub const DEVICE_NAME: u32 = 32;
    /// The kernel knows which network namespace the packet is in.
    pub const NETNS: u32 = 2;
    /// A VLAN tag stands beside the frame, not in it.
    pub const VLAN: u32 = 4;
    /// The kernel gives reasons.
    pub const REASON: u32 = 8;
    /// The call chain was requested and could not be read.
    pub const STACK_FAILED: u32 = 16;
    /// The filter names network namespaces, and user space has not looked yet whether this is one of them: the drop
    /// passes if it is.
    pub const UNDECIDED: u32 = 64;
    /// The packet's socket follows, all zeros if it belongs to none.
    pub const SOCKET: u32 = 128;
    /// Which socket it belongs to could not be found out.
    pub const SOCKET_FAILED: u32 = 256;
}

const _: () = assert!(known::SOCKET_FAILED < 1 << crate::program::Cases::SHIFT);

/// How many addresses there is room for if call chains are requested.
pub const SLOTS: usize = 127;

/// Where the running kernel keeps what only records of packets need, in bytes from the start of each structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct TraceOffsets {
    /// `sk_buff.vlan_proto`
    pub skb_vlan_proto: u32,
    /// `sk_buff.vlan_tci`
    pub skb_vlan_tci: u32,
    /// The byte with `sk_buff.vlan_present`.
    pub skb_vlan_present: u32,
    /// Its bit in that byte; zero on kernels that have no such member (since 6.2): there a tag that is not zero is
    /// there.
    pub vlan_present_mask: u32,
    /// `net_device.type`
    pub device_type: u32,
}

/// How `--rate` chooses: user space says which share of the drops is to be taken, the probe keeps to the limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct RateState {
    /// When the current second began: with the first drop that was taken after the one before.
    pub start: u64,
    /// How many were taken in it.
    pub taken: u64,
    /// The share of drops to take, of `u32::MAX`.
    pub share: u32,
    /// Always zero.
    pub pad: u32,
}

/// Drops that are in no record, as indices into an array with one `u64` for each CPU.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// The ring buffer had no room: the reader is slower than the drops.
    Lost = 0,
    /// Left out by `--rate`.
    SampledOut = 1,
}

impl LeftOut {
    /// How many there are.
    pub const COUNT: u32 = 2;
}

const _: () = assert!(size_of::<TraceOffsets>() == 20 && size_of::<RateState>() == 24);
const _: () = assert!(size_of::<DropEvent>() == 88 && align_of::<DropEvent>() == 8);
