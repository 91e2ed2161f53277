//! What user space passes to the probe before it is loaded: constants that the verifier knows.

/// Where the running kernel keeps what the probe reads, in bytes from the start of each structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Offsets {
    /// `sk_buff.dev`
    pub skb_dev: u32,
    /// `sk_buff._skb_refdst`
    pub skb_dst: u32,
    /// `sk_buff.sk`
    pub skb_sk: u32,
    /// `sk_buff.skb_iif`
    pub skb_iif: u32,
    /// The byte of `sk_buff` whose lowest bits are `pkt_type`
    pub skb_pkt_type: u32,
    /// `sk_buff.protocol`
    pub skb_protocol: u32,
    /// `sk_buff.network_header`
    pub skb_network_header: u32,
    /// `sk_buff.mac_header`
    pub skb_mac_header: u32,
    /// `sk_buff.tail`, itself an offset from `head`
    pub skb_tail: u32,
    /// `sk_buff.head`
    pub skb_head: u32,
    /// `sk_buff.data`
    pub skb_data: u32,
    /// `sk_buff.len`
    pub skb_len: u32,
    /// `net_device.name`
    pub device_name: u32,
    /// `net_device.ifindex`
    pub device_ifindex: u32,
    /// `net_device.nd_net.net`
    pub device_net: u32,
    /// `net_device.index_hlist`
    pub device_index_node: u32,
    /// `net_device.name_node`; zero on kernels without alternative names (before 5.5)
    pub device_name_node: u32,
    /// `netdev_name_node.list`, by which alternative names follow each other
    pub name_list: u32,
    /// `netdev_name_node.dev`
    pub name_device: u32,
    /// `netdev_name_node.name`
    pub name_text: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `net.net_cookie`; zero on kernels that give a namespace none at its start (before 5.12)
    pub net_cookie: u32,
    /// `net.dev_index_head`
    pub net_index_table: u32,
    /// `dst_entry.dev`
    pub dst_dev: u32,
    /// `sock.__sk_common.skc_net.net`
    pub sock_net: u32,
}

/// What the probe gathers about a drop: bits of the constant `GATHER`.
pub mod gather {
    /// The interface's number.
    pub const IFACE: u32 = 1 << 0;
    /// The network namespace.
    pub const NETNS: u32 = 1 << 1;
    /// The ethertype.
    pub const PROTOCOL: u32 = 1 << 2;
    /// What the packet's headers say: transport protocol, addresses, ports.
    pub const HEADERS: u32 = 1 << 3;
    /// The length from the network header on.
    pub const LENGTH: u32 = 1 << 4;
    /// The interface's name.
    pub const IFACE_NAME: u32 = 1 << 5;
    /// Whether user space knows which names the network namespace has.
    pub const NETNS_NAMES: u32 = 1 << 6;
    /// Where the packet's bytes are, for a filter that reads any of them.
    pub const BYTES: u32 = 1 << 7;
    /// The link header, for a filter.
    pub const LINK: u32 = 1 << 8;
    /// VLAN tags, for a filter.
    pub const VLAN: u32 = 1 << 9;
    /// Which of the wanted names the interface has besides its own.
    pub const IFACE_NAMES: u32 = 1 << 10;
}

/// What a row is counted by: bits of the constant `KEYS`.
pub mod keys {
    /// Where.
    pub const LOCATION: u32 = 1 << 0;
    /// Why.
    pub const REASON: u32 = 1 << 1;
    /// On which interface.
    pub const IFACE: u32 = 1 << 2;
    /// In which network namespace.
    pub const NETNS: u32 = 1 << 3;
    /// With which ethertype.
    pub const PROTOCOL: u32 = 1 << 4;
    /// With which transport protocol.
    pub const IPPROTO: u32 = 1 << 5;
    /// From which address.
    pub const SADDR: u32 = 1 << 6;
    /// To which address.
    pub const DADDR: u32 = 1 << 7;
    /// From which port.
    pub const SPORT: u32 = 1 << 8;
    /// To which port.
    pub const DPORT: u32 = 1 << 9;
    /// On which CPU.
    pub const CPU: u32 = 1 << 10;
    /// By which call chain.
    pub const STACK: u32 = 1 << 11;
    /// For whom, as far as a class depends on it.
    pub const KIND: u32 = 1 << 12;
    /// By which of the wanted names the interface has besides its own.
    pub const IFACE_NAMES: u32 = 1 << 13;
    /// Of which socket.
    pub const SOCKET: u32 = 1 << 14;
}

/// The reasons, as bits by number, with which a drop's class depends on the packet's destination. With others it is not
/// read, and the packet counts as unicast.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct KindReasons(pub [u64; 4]);

impl KindReasons {
    /// Adds a reason, if it has room for one of that number: those of subsystems it has not.
    #[must_use]
    pub fn with(mut self, reason: u32) -> Self {
        if let Some(word) = self.0.get_mut(reason as usize / 64) {
            *word |= 1 << (reason % 64);
        }
        self
    }
}

/// Consecutive values.
///
/// Not a start and an end: user space may write a range while the probe reads it. It clears the range first, so that
/// a half-written one never matches.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Range {
    /// The first.
    pub start: u64,
    /// How many there are; of an empty one, and of those behind it, zero.
    pub length: u64,
}

/// How many ranges a set has at most: a name may be of several functions, and of parts of them.
pub const RANGES_PER_SET: usize = 16;

/// The values that a `location` or a `reason` of a filter means.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct RangeSet(pub [Range; RANGES_PER_SET]);

/// How many names of interfaces a filter has at most.
pub const FILTER_NAMES: usize = 64;

/// How many the rules have at most.
pub const RULE_NAMES: usize = 32;

/// Where a name of an interface is wanted: its bit among the names of the filter, and among those of the rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct NameBits {
    /// Of the filter.
    pub filter: u64,
    /// Of the rules.
    pub rules: u64,
}

const _: () = assert!(size_of::<Offsets>() == 25 * 4);
