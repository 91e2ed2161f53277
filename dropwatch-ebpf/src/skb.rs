//! What the kernel knows about a packet, read at the offsets of the running kernel.
//!
//! Pointers that come from the tracepoint's arguments are typed: the verifier turns a load through them into one
//! that cannot fault (a bad address reads as zero), so no helper is called. What is not typed, the packet's bytes,
//! is read by helper.

use core::{arch::asm, ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use dropwatch_common::{
    chain::{DeviceName, ended},
    names,
    packet::{Bytes, NEAR, Packet, ethertype, plain::Plain},
    probe::gather,
    program::Place,
};

use crate::{
    drop::ZERO,
    maps::{CASTS, GATHER, any, offset, trace_offset},
};

/// A structure of the kernel: never dereferenced as what it is declared, only loaded from.
pub type Kernel = *const u8;

/// The number of no namespace is below this: they start at `PROC_DYNAMIC_FIRST`, 0xf0000000, and the initial ones
/// have fixed numbers just below that on some kernels (0xeffffff9 on Linux 6.18).
const FIRST_INUM: u32 = 0xefff_fff0;

/// Loads through a typed pointer.
#[inline(always)]
pub fn load<T: Copy>(base: Kernel, offset: u32) -> T {
    // SAFETY: the verifier admits only loads that it knows to be inside the structure, and gives zero for those
    // that fault.
    unsafe { base.add(offset as usize).cast::<T>().read_volatile() }
}

/// Reads memory of the kernel at any address; false if there is nothing.
#[inline(always)]
pub fn read_into<T: Copy>(value: &mut MaybeUninit<T>, address: u64) -> bool {
    // SAFETY: the helper fills the whole of the value, with zeros where it fails.
    let failed = unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void)
    };
    failed == 0
}

/// Reads a small value of the kernel at any address; none if there is nothing.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::uninit();
    // SAFETY: the helper has filled it.
    if read_into(&mut value, address) { Some(unsafe { value.assume_init() }) } else { None }
}

/// The bytes at an address: each load through this pointer is zero if there is nothing. Only where [`CASTS`] is 1.
#[inline(always)]
fn at(address: u64) -> Kernel {
    let pointer;
    // SAFETY: the loader puts the number of the kernel's function there, which the verifier replaces by a move; and what a
    // call may change is said.
    unsafe {
        asm!("call {number}", number = const names::CAST, inlateout("r1") address => _, inlateout("r2") 0_u64 => _,
            lateout("r0") pointer, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(pure, nomem, nostack));
    }
    pointer
}

/// Eight bytes behind a pointer, as a single load: a header may lie at any address, and the compiler would load its bytes one by
/// one, or demand that it is aligned.
#[inline(always)]
fn word<const OFFSET: usize>(pointer: Kernel) -> u64 {
    let word;
    // SAFETY: as for `load`.
    unsafe {
        asm!("{word} = *(u64 *)({pointer} + {offset})", word = out(reg) word, pointer = in(reg) pointer,
            offset = const OFFSET, options(pure, readonly, nostack));
    }
    word
}

/// Whether it can be an address of the kernel: all of them have the sign bit set, on every layout of the address
/// space.
#[inline(always)]
pub fn is_kernel(address: u64) -> bool {
    (address as i64) < 0
}

/// The same pointer, of which the compiler knows nothing.
#[inline(always)]
pub fn opaque(mut pointer: Kernel) -> Kernel {
    // SAFETY: a move to itself. (None at all would leave two lines of source at one instruction, which the kernel
    // refuses.)
    unsafe { asm!("{0} = {0}", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags)) };
    pointer
}

/// The same number, of which a verifier knows nothing.
#[inline(always)]
pub fn unknown(number: u64) -> u64 {
    // SAFETY: a word of a map.
    number | unsafe { (&raw const ZERO).read_volatile() }
}

/// The interface a packet was dropped on, as far as it is known. Zero is unknown.
#[derive(Clone, Copy)]
pub struct Device {
    /// The interface's number in its namespace.
    pub ifindex: u32,
    /// The namespace's inode number.
    pub netns: u32,
    /// The namespace's cookie; zero on kernels that have none.
    pub cookie: u64,
    /// The address of the `net_device`; zero unless its other names are wanted.
    pub address: u64,
    /// The names of rules that it has besides its own, as bits.
    pub names: u64,
    /// The type of its links (`ARPHRD_…`), if that is wanted and it has a name.
    pub kind: u16,
    /// Whether its name has been read.
    pub is_named: u16,
}

impl Device {
    pub const UNKNOWN: Self =
        Self { ifindex: 0, netns: 0, cookie: 0, address: 0, names: 0, kind: 0, is_named: 0 };

    /// Makes the verifier forget what it knows of the numbers, as [`unknown`] does.
    #[inline(always)]
    pub fn forget(&mut self) {
        let numbers = unknown(u64::from(self.ifindex) | u64::from(self.netns) << 32);
        (self.ifindex, self.netns) = (numbers as u32, (numbers >> 32) as u32);
        self.cookie = unknown(self.cookie);
        self.is_named = unknown(self.is_named.into()) as u16;
    }
}

/// Reads the name of an interface, with nothing but zeros behind its end; false if it has none.
#[inline(always)]
fn read_name(device: u64, name: &mut DeviceName) -> bool {
    match read(device + u64::from(offset!(device_name))).and_then(ended) {
        Some(bytes) => {
            set_name(name, bytes);
            true
        }
        None => false,
    }
}

#[inline(always)]
fn set_name(name: &mut DeviceName, bytes: [u64; 2]) {
    // SAFETY: as many bytes, which any values make a name of.
    unsafe { (&raw mut *name).cast::<[u64; 2]>().write_unaligned(bytes) };
}

/// How many interfaces of a namespace share a bucket of its table, at most; the others stay without a name.
const BUCKET: usize = 32;
/// How many buckets there are (`NETDEV_HASHENTRIES`).
const BUCKETS: u32 = 256;

/// The `net_device` of a number, by the namespace's own table.
#[inline(always)]
fn numbered(net: u64, ifindex: u32) -> Option<u64> {
    let table: u64 = read(net + u64::from(offset!(net_index_table)))?;
    let mut node: u64 = read(table + u64::from(ifindex % BUCKETS) * 8)?;
    let mut seen = 0;
    while seen < BUCKET && is_kernel(node) {
        let device = node - u64::from(offset!(device_index_node));
        if read::<u32>(device + u64::from(offset!(device_ifindex)))? == ifindex {
            return Some(device);
        }
        node = read(node)?;
        seen += 1;
    }
    None
}

/// The interface, by the first of these that holds: the packet's own, the one by whose number it came in, and that
/// of its route.
///
/// `skb->dev` shares storage with scratch of the UDP receive queue and with the links of lists and trees, so it
/// is accepted only if it has a plausible number, namespace and name. The route's comes last: that of a packet for
/// this host is the loopback, wherever it came from.
///
/// Its name is put there if it is wanted, and if it is `TRACED` the type of its links is noted as well.
#[inline(always)]
pub fn device<const TRACED: bool>(skb: Kernel, rx_sock: Kernel, name: &mut DeviceName) -> Device {
    let mut device = match own::<TRACED>(skb, name) {
        Some(device) => device,
        None => taken::<TRACED>(skb, rx_sock, name),
    };
    device.forget();
    device
}

/// Whether the name of an interface is to be read.
#[inline(always)]
fn wants_name<const TRACED: bool>() -> bool {
    TRACED || any(&GATHER, gather::IFACE_NAME)
}

/// The interface that the packet itself refers to.
#[inline(always)]
fn own<const TRACED: bool>(skb: Kernel, name: &mut DeviceName) -> Option<Device> {
    let dev: Kernel = load(skb, offset!(skb_dev));
    if !is_kernel(dev as u64) {
        return None;
    }
    let net: Kernel = load(dev, offset!(device_net));
    let mut device = Device {
        ifindex: load(dev, offset!(device_ifindex)),
        netns: if is_kernel(net as u64) { load(net, offset!(net_inum)) } else { 0 },
        ..Device::UNKNOWN
    };
    let bytes = ended([load(dev, offset!(device_name)), load(dev, offset!(device_name) + 8)])?;
    if !is_plausible(device.ifindex, device.netns) {
        return None;
    }
    if offset!(net_cookie) != 0 {
        device.cookie = load(net, offset!(net_cookie));
    }
    if wants_name::<TRACED>() {
        set_name(name, bytes);
        device.is_named = 1;
    }
    if TRACED {
        device.kind = load(dev, trace_offset!(device_type));
    }
    if any(&GATHER, gather::IFACE_NAMES) {
        // As a number: a verifier tells it from a typed pointer.
        device.address = read(skb as u64 + u64::from(offset!(skb_dev))).unwrap_or(0);
    }
    Some(device)
}

#[inline(always)]
fn is_plausible(ifindex: u32, netns: u32) -> bool {
    netns >= FIRST_INUM && ifindex.wrapping_sub(1) < 0x7fff_ffff
}

/// Where an interface is known from.
#[derive(Clone, Copy)]
struct Found {
    ifindex: u32,
    netns: u32,
    /// The address of the `net`, by which a number becomes a `net_device`.
    net: u64,
    /// The address of the `net_device`, or zero.
    address: u64,
}

impl Found {
    const NOTHING: Self = Self { ifindex: 0, netns: 0, net: 0, address: 0 };

    /// The same, of which a verifier knows nothing.
    #[inline(always)]
    fn unknown(self) -> Self {
        Self {
            ifindex: unknown(self.ifindex.into()) as u32,
            netns: unknown(self.netns.into()) as u32,
            net: unknown(self.net),
            address: unknown(self.address),
        }
    }
}

/// The interface of a packet that a socket has taken, or has made.
#[inline(always)]
fn taken<const TRACED: bool>(skb: Kernel, rx_sock: Kernel, name: &mut DeviceName) -> Device {
    let mut found = found(skb, rx_sock).unknown();
    if found.netns == 0 {
        return Device::UNKNOWN;
    }
    let mut device =
        Device { ifindex: found.ifindex, netns: found.netns, cookie: cookie(found.net), ..Device::UNKNOWN };
    if !wants_name::<TRACED>() {
        return device;
    }
    if found.address == 0 && found.ifindex != 0 {
        found.address = numbered(found.net, found.ifindex).unwrap_or(0);
    }
    device.address = unknown(found.address);
    if device.address == 0 {
        return device;
    }
    if read_name(device.address, name) {
        device.is_named = 1;
        if TRACED {
            device.kind = read(device.address + u64::from(trace_offset!(device_type))).unwrap_or(0);
        }
        device
    } else if TRACED {
        // An invalid name means that this is not a net_device.
        Device::UNKNOWN
    } else {
        device
    }
}

/// By the number in the packet and its socket, or by its route.
#[inline(always)]
fn found(skb: Kernel, rx_sock: Kernel) -> Found {
    let ifindex: u32 = load(skb, offset!(skb_iif));
    // A number alone means nothing: it is another interface in each namespace.
    let net = match unknown(sock_net(rx_sock)) {
        0 => sock_net(load(skb, offset!(skb_sk))),
        net => net,
    };
    let net = unknown(net);
    let netns = match read::<u32>(net + u64::from(offset!(net_inum))) {
        Some(inum) if net != 0 && inum >= FIRST_INUM => inum,
        _ => 0,
    };
    let of_socket = Found { ifindex, netns, net, address: 0 };
    if netns != 0 && ifindex != 0 {
        return of_socket;
    }
    let route = routed(skb);
    if ifindex == 0 && route.ifindex != 0 {
        route
    } else if netns == 0 {
        Found { ifindex, address: 0, ..route }
    } else {
        of_socket
    }
}

/// The cookie of a namespace by its address.
#[inline(always)]
fn cookie(net: u64) -> u64 {
    if offset!(net_cookie) == 0 { 0 } else { read(net + u64::from(offset!(net_cookie))).unwrap_or(0) }
}

/// The interface of the packet's route. `_skb_refdst` shares storage with list links, so it is checked.
#[inline(always)]
fn routed(skb: Kernel) -> Found {
    // The lowest bit says whether the reference is counted.
    let dst = load::<u64>(skb, offset!(skb_dst)) & !1;
    match route(dst) {
        Some(found) if is_plausible(found.ifindex, found.netns) => found,
        _ => Found::NOTHING,
    }
}

/// The number of the interface that the packet's route leads to; zero if it has none.
#[inline(always)]
pub fn egress(skb: Kernel) -> u32 {
    routed(skb).ifindex
}

#[inline(always)]
fn route(dst: u64) -> Option<Found> {
    if !is_kernel(dst) {
        return None;
    }
    let address: u64 = read(dst + u64::from(offset!(dst_dev)))?;
    if !is_kernel(address) {
        return None;
    }
    let net: u64 = read(address + u64::from(offset!(device_net)))?;
    if !is_kernel(net) {
        return None;
    }
    Some(Found {
        ifindex: read(address + u64::from(offset!(device_ifindex)))?,
        netns: read(net + u64::from(offset!(net_inum)))?,
        net,
        address,
    })
}

/// The `net` of any kind of socket, also of those that consist of the common part only; zero if there is none.
#[inline(always)]
fn sock_net(sock: Kernel) -> u64 {
    if sock.is_null() {
        return 0;
    }
    // The verifier requires the comparison with zero, which the next one would make superfluous.
    let sock = opaque(sock);
    if !is_kernel(sock as u64) {
        return 0;
    }
    // As a number: a verifier tells it from a typed pointer, and kernels that know which members can be trusted look each one
    // up by name, among all the types that there are.
    read::<u64>(sock as u64 + u64::from(offset!(sock_net))).filter(|net| is_kernel(*net)).unwrap_or(0)
}

/// Where a packet's bytes are.
#[derive(Clone, Copy)]
pub struct Layout {
    /// The address of the network header; zero if there is none.
    network: u64,
    /// Bytes from there to the end of the linear part.
    linear: u32,
    /// Bytes from there to the end of the packet.
    pub length: u32,
    /// The ethertype; of a tagged frame that of its contents. Zero is unknown.
    pub protocol: u16,
    /// Whether a part of the packet lies outside the linear part.
    pub is_paged: bool,
}

/// Finds the network header, its ethertype and the bytes behind it.
#[inline(always)]
pub fn layout(skb: Kernel) -> Layout {
    let head: u64 = load(skb, offset!(skb_head));
    let data: u64 = load(skb, offset!(skb_data));
    let len: u32 = load(skb, offset!(skb_len));
    let header = u32::from(load::<u16>(skb, offset!(skb_network_header)));
    let tail: u32 = load(skb, offset!(skb_tail));
    let protocol = u16::from_be(load(skb, offset!(skb_protocol)));
    let is_paged = len > tail.wrapping_sub((data as u32).wrapping_sub(head as u32));
    // No packet has its network header where its buffer starts: zero means that none was set.
    if header == 0 || tail <= header {
        return Layout { network: 0, linear: 0, length: len, protocol, is_paged: header != 0 && is_paged };
    }
    let network = head + u64::from(header);
    Layout {
        network,
        linear: tail - header,
        // The data may start in front of the header (a frame) or behind it (a segment).
        length: len.wrapping_add((data as u32).wrapping_sub(network as u32)),
        protocol,
        is_paged,
    }
}

/// The packet's first bytes from its network header on, if it is of IPv4 and has so many in its linear part.
#[inline(always)]
pub fn ipv4_start(skb: Kernel, start: &mut MaybeUninit<Plain>) -> bool {
    let header = u32::from(load::<u16>(skb, offset!(skb_network_header)));
    let tail: u32 = load(skb, offset!(skb_tail));
    let protocol: u16 = load(skb, offset!(skb_protocol));
    if protocol != ethertype::IPV4.to_be() || header == 0 || tail < header + size_of::<Plain>() as u32 {
        return false;
    }
    let network = load::<u64>(skb, offset!(skb_head)) + u64::from(header);
    if CASTS.load() == 0 {
        return read_into(start, network);
    }
    let first = at(network);
    start.write(Plain([word::<0>(first), word::<8>(first), word::<16>(first)]));
    true
}

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;

impl Layout {
    /// Whether headers may lie where they are not read, when this is what was found of them.
    #[inline(always)]
    pub fn hides(&self, packet: &Packet) -> bool {
        self.is_paged && (self.network == 0 || packet.cut != 0)
    }

    /// The packet's bytes, where they are.
    #[inline(always)]
    pub fn place(&self) -> Place {
        Place {
            network: self.network,
            linear: self.linear.into(),
            length: if self.is_paged { self.length.into() } else { 0 },
            missed: 0,
        }
    }

    /// The same packet without tags that are still in front of its contents.
    ///
    /// The kernel keeps the network header behind a tag that it has put there itself, and in front of one that a
    /// packet socket has sent.
    #[inline(always)]
    pub fn untagged(self) -> Self {
        self.without_tag().unknown()
    }

    /// The same, of which a verifier knows nothing: it would follow all that comes after for each way to get here.
    #[inline(always)]
    fn unknown(self) -> Self {
        Self {
            network: unknown(self.network),
            linear: unknown(self.linear.into()) as u32,
            length: unknown(self.length.into()) as u32,
            protocol: unknown(self.protocol.into()) as u16,
            is_paged: unknown(self.is_paged.into()) != 0,
        }
    }

    #[inline(always)]
    fn without_tag(self) -> Self {
        if self.protocol != VLAN && self.protocol != QINQ || self.network == 0 {
            return self;
        }
        let Some(before) = read::<[u8; 2]>(self.network - 2) else { return self };
        match u16::from_be_bytes(before) {
            VLAN | QINQ => {
                if self.linear < 4 {
                    // What the tag contains is not here.
                    return Self { network: 0, linear: 0, ..self };
                }
                let Some([_, _, inner @ ..]) = read::<[u8; 4]>(self.network) else { return self };
                Self {
                    network: self.network + 4,
                    linear: self.linear.saturating_sub(4),
                    length: self.length.saturating_sub(4),
                    protocol: u16::from_be_bytes(inner),
                    ..self
                }
            }
            inner => Self { protocol: inner, ..self },
        }
    }
}

/// Aligned, so that addresses are loaded as words.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Near([u8; NEAR]);

/// The packet's bytes from its network header on, the first of them read at once.
pub struct Headers {
    near: MaybeUninit<Near>,
    network: u64,
    linear: u32,
}

impl Headers {
    /// The headers of a packet; without any, none of their bytes can be read.
    #[inline(always)]
    pub fn read(layout: &Layout) -> Self {
        let mut headers =
            Self { near: MaybeUninit::uninit(), network: layout.network, linear: layout.linear };
        if !read_into(&mut headers.near, layout.network) {
            headers.linear = 0;
        }
        headers
    }
}

impl Bytes for Headers {
    #[inline(always)]
    fn near<const OFFSET: usize, const N: usize>(&self) -> Option<[u8; N]> {
        if self.linear < (OFFSET + N) as u32 {
            return None;
        }
        Some(self.raw::<OFFSET, N>())
    }

    #[inline(always)]
    fn far<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        if u64::from(offset) + N as u64 > u64::from(self.linear) {
            return None;
        }
        read(self.network + u64::from(offset))
    }

    #[inline(always)]
    fn has(&self, length: u32) -> u32 {
        let mut rest = u64::from(self.linear);
        // A difference and its sign, of which the compiler knows nothing: it would branch by it.
        // SAFETY: calculates with a register.
        unsafe {
            asm!("{0} -= {1}", "{0} >>= 63", "{0} ^= 1", inout(reg) rest, in(reg) u64::from(length),
                options(pure, nomem, nostack));
        }
        rest as u32
    }

    #[inline(always)]
    fn raw<const OFFSET: usize, const N: usize>(&self) -> [u8; N] {
        // SAFETY: callers keep to the first NEAR bytes, which the helper has filled.
        unsafe { self.near.as_ptr().cast::<u8>().add(OFFSET).cast::<[u8; N]>().read_unaligned() }
    }

    #[inline(always)]
    fn is_equal(&self, one: u32, other: u32) -> u32 {
        let mut difference = u64::from(one ^ other);
        // SAFETY: calculates with a register; only zero is followed by a number with the highest bit.
        unsafe {
            asm!("{0} += -1", "{0} >>= 63", inout(reg) difference, options(pure, nomem, nostack));
        }
        difference as u32
    }

    #[inline(always)]
    fn unknown(&self, number: u32) -> u32 {
        unknown(number.into()) as u32
    }
}
