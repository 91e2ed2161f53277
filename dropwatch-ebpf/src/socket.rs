//! The socket that a packet belongs to: each kept once, with what is seen of it.

use core::{arch::asm, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_smp_processor_id,
        generated::{bpf_get_current_task, bpf_probe_read_kernel},
    },
    programs::BtfTracePointContext,
};
use dropwatch_common::{
    Loss,
    sample::SocketView,
    socket::{LOST, SocketKey, SocketSeen, form},
};

use crate::{
    count::{EEXIST, lose},
    maps::{
        HAS_SOCK, NESTED, SOCKET_BELL, SOCKET_LEVEL, SOCKET_LEVELS, SOCKET_ROOM, SOCKETS, offset,
        socket_offset,
    },
    skb::{Kernel, is_kernel, load, opaque, read, read_into, unknown},
};

/// The number of a packet that belongs to no socket.
pub const NONE: u64 = 0;

/// States in which there is no more than the part that all sockets have.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// How many of a task's files are looked at, in blocks of as many as are read at once.
const BLOCK: usize = 64;
const BLOCKS: u64 = 4;

/// Where a socket is put together.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Room {
    view: SocketView,
    /// How many numbers were given here.
    given: u64,
    /// Files of the current task.
    files: [u64; BLOCK],
}

/// The number of the socket that a packet belongs to: the receiver's, if the kernel had found it, else the one that
/// the packet itself refers to. [`NONE`] if there is none, [`LOST`] if it could not be kept.
#[inline(always)]
pub fn number(ctx: &BtfTracePointContext) -> u64 {
    let held = Held::of::<false>(ctx);
    held.leave();
    unknown(held.number)
}

/// A room of this CPU with a packet's socket in it.
#[derive(Clone, Copy)]
pub struct Held {
    /// As of [`number`].
    pub number: u64,
    room: *const Room,
    level: u32,
}

impl Held {
    /// That of a packet, until [`Self::leave`]: `WHOLE` is with what was seen of it at its first drop.
    #[inline(always)]
    pub fn of<const WHOLE: bool>(ctx: &BtfTracePointContext) -> Self {
        let mut held = Self { number: LOST, room: ptr::null(), level: 0 };
        if let Some(level) = enter() {
            held.level = level;
            if let Some(room) = SOCKET_ROOM.get_ptr_mut(level) {
                held.room = room;
                held.number = find::<WHOLE>(ctx, room, level);
            } else {
                leave(level);
            }
        }
        if held.number == LOST {
            lose(Loss::SocketFailed);
        }
        held
    }

    /// The socket as it is seen, also if it could not be kept; none if there is none, or no room.
    #[inline(always)]
    pub fn view(self) -> Option<*const SocketView> {
        // SAFETY: a field of a value of a map.
        (self.number != NONE && !self.room.is_null()).then(|| unsafe { &raw const (*self.room).view })
    }

    /// Gives the room back.
    #[inline(always)]
    pub fn leave(self) {
        if !self.room.is_null() {
            leave(self.level);
        }
    }
}

/// Takes a room of this CPU. Where no drop interrupts another, there is one, and it is not shared.
#[inline(always)]
fn enter() -> Option<u32> {
    if NESTED.load() == 0 {
        return Some(0);
    }
    let taken = SOCKET_LEVEL.get_ptr_mut(0)?;
    // SAFETY: the pointer is a value of a map of this CPU, and what interrupts us here puts it back before we go on.
    unsafe {
        let level = *taken;
        if level >= u64::from(SOCKET_LEVELS) {
            return None;
        }
        *taken = level + 1;
        Some(level as u32)
    }
}

/// Gives the room back.
#[inline(always)]
fn leave(level: u32) {
    if NESTED.load() != 0
        && let Some(taken) = SOCKET_LEVEL.get_ptr_mut(0)
    {
        // SAFETY: as in `enter`.
        unsafe { *taken = u64::from(level) };
    }
}

#[inline(always)]
fn find<const WHOLE: bool>(ctx: &BtfTracePointContext, room: *mut Room, level: u32) -> u64 {
    // SAFETY: `room` is a value of a map.
    if describe_any(ctx, unsafe { &raw mut (*room).view }) { keep::<WHOLE>(room, level) } else { NONE }
}

/// Puts the packet's socket together; false if it belongs to none.
#[inline(always)]
pub fn describe_any(ctx: &BtfTracePointContext, view: *mut SocketView) -> bool {
    let skb: Kernel = ctx.arg(0);
    let mut found = 0_u64;
    // The verifier knows these two as pointers of different kinds, and requires separate instructions for each. What ends
    // each part is not the same, so that the compiler does not make one of both.
    if HAS_SOCK.load() != 0 {
        let receiver: Kernel = ctx.arg(3);
        if describe(view, receiver) {
            // SAFETY: a constant.
            unsafe { asm!("{0} = 1", out(reg) found, options(nomem, nostack)) };
        }
    }
    if found == 0 && describe(view, load(skb, offset!(skb_sk))) {
        // SAFETY: a constant.
        unsafe { asm!("{0} = 2", out(reg) found, options(nomem, nostack)) };
    }
    found != 0
}

/// Puts a socket together; false if there is none.
#[inline(always)]
fn describe(view: *mut SocketView, sock: Kernel) -> bool {
    if sock.is_null() {
        return false;
    }
    // The verifier requires the comparison with zero, which the next one would make superfluous.
    let sock = opaque(sock);
    if !is_kernel(sock as u64) {
        return false;
    }
    // SAFETY: `view` is in a value of a map, or in a record of a ring buffer.
    let view = unsafe { &mut *view };
    view.key = SocketKey { address: sock as u64, ..SocketKey::default() };
    view.seen = SocketSeen::default();
    view.file = 0;
    let state: u8 = load(sock, socket_offset!(sock_state));
    view.seen.state = state.into();
    common(view, sock);
    match state {
        TIME_WAIT => view.key.form = form::TIME_WAIT,
        NEW_SYN_RECV => request(view, sock),
        _ => full(view, sock),
    }
    true
}

/// What all sockets have.
#[inline(always)]
fn common(view: &mut SocketView, sock: Kernel) {
    let key = &mut view.key;
    key.cookie = load(sock, socket_offset!(sock_cookie));
    let net: Kernel = load(sock, offset!(sock_net));
    key.netns = load(net, offset!(net_inum));
    key.family = load(sock, socket_offset!(sock_family));
    if key.family == AF_INET {
        let local: u32 = load(sock, socket_offset!(sock_saddr));
        let remote: u32 = load(sock, socket_offset!(sock_daddr));
        key.local = u128::from(local).to_le_bytes();
        key.remote = u128::from(remote).to_le_bytes();
    } else if key.family == AF_INET6 && socket_offset!(sock_saddr6) != 0 {
        key.local = address6(sock, socket_offset!(sock_saddr6));
        key.remote = address6(sock, socket_offset!(sock_daddr6));
    } else {
        return;
    }
    key.local_port = load(sock, socket_offset!(sock_num));
    key.remote_port = u16::from_be(load(sock, socket_offset!(sock_dport)));
}

#[inline(always)]
fn address6(sock: Kernel, offset: u32) -> [u8; 16] {
    let words: [u32; 4] =
        [load(sock, offset), load(sock, offset + 4), load(sock, offset + 8), load(sock, offset + 12)];
    let [a, b, c, d] = words.map(u128::from);
    (a | b << 32 | c << 64 | d << 96).to_le_bytes()
}

/// A connection request is its listener's. The verifier does not know what the address means.
#[inline(always)]
fn request(view: &mut SocketView, sock: Kernel) {
    view.key.form = form::REQUEST;
    let listener: u64 = load(sock, socket_offset!(sock_listener));
    if !is_kernel(listener) {
        return;
    }
    let at = |address: u64, offset: u32| read::<u64>(address + u64::from(offset)).unwrap_or(0);
    let socket = at(listener, socket_offset!(sock_socket));
    if socket != 0 {
        view.seen.listener = at(socket, socket_offset!(socket_ino));
    }
    view.seen.uid = read(listener + u64::from(socket_offset!(sock_uid))).unwrap_or(0);
    let cgroup = if socket_offset!(sock_cgroup) != 0 {
        at(listener, socket_offset!(sock_cgroup))
    } else {
        at(listener, socket_offset!(sock_cgroup_value))
    };
    view.key.cgroup = number_of(cgroup);
}

/// The number of a cgroup by what a socket keeps of it: an address, or on some kernels a number with the lowest bit set.
#[inline(always)]
fn number_of(cgroup: u64) -> u64 {
    if cgroup == 0 || cgroup & 1 != 0 {
        return 0;
    }
    let node = read::<u64>((cgroup & !3) + u64::from(socket_offset!(cgroup_node))).unwrap_or(0);
    read(node + u64::from(socket_offset!(node_id))).unwrap_or(0)
}

/// What only a full socket has: of others, other memory is there.
#[inline(always)]
fn full(view: &mut SocketView, sock: Kernel) {
    view.key.protocol = load(sock, socket_offset!(sock_protocol));
    view.key.kind = load(sock, socket_offset!(sock_type));
    let flags: u8 = load(sock, socket_offset!(sock_kern));
    view.key.of_kernel = u8::from(u32::from(flags) & socket_offset!(sock_kern_mask) != 0);
    view.key.cgroup = cgroup(sock);
    view.seen.uid = load(sock, socket_offset!(sock_uid));
    view.seen.receive_used = load(sock, socket_offset!(sock_rmem));
    view.seen.receive_size = load(sock, socket_offset!(sock_rcvbuf));
    // A socket without a family is no more than a device's.
    // SAFETY: a member of a value of a map. Read again, or the compiler would remember by which way it got here.
    if unsafe { (&raw const view.key.family).read_volatile() } != 0 {
        file(view, sock);
    }
}

/// The file of a socket. A connection that is not accepted yet has none, though it may have its listener's number.
#[inline(always)]
fn file(view: &mut SocketView, sock: Kernel) {
    let socket: Kernel = load(sock, socket_offset!(sock_socket));
    if socket.is_null() {
        return;
    }
    view.key.inode = if socket_offset!(sock_ino) != 0 {
        load(sock, socket_offset!(sock_ino))
    } else {
        read(socket as u64 + u64::from(socket_offset!(socket_ino))).unwrap_or(0)
    };
    view.file = read(socket as u64 + u64::from(socket_offset!(socket_file))).unwrap_or(0);
}

/// The number of a socket's cgroup; zero if it has none.
#[inline(always)]
fn cgroup(sock: Kernel) -> u64 {
    if socket_offset!(sock_cgroup) != 0 {
        let cgroup: Kernel = load(sock, socket_offset!(sock_cgroup));
        let node: Kernel = load(cgroup, socket_offset!(cgroup_node));
        return load(node, socket_offset!(node_id));
    }
    if socket_offset!(sock_cgroup_value) != 0 {
        return number_of(load(sock, socket_offset!(sock_cgroup_value)));
    }
    0
}

/// The number of a socket that is put together: the one it has, or a new one.
#[inline(always)]
fn keep<const WHOLE: bool>(room: *mut Room, level: u32) -> u64 {
    // SAFETY: `room` is a value of a map, and what is in it is defined.
    let room = unsafe { &mut *room };
    if let Some(known) = SOCKETS.get_ptr_mut(&room.view.key) {
        if WHOLE {
            // SAFETY: a value of a map, whose owner is not written any more.
            (room.view.seen.tgid, room.view.seen.comm) = unsafe { ((*known).tgid, (*known).comm) };
        }
        return see(known, &room.view.seen);
    }
    find_owner(room);
    room.given += 1;
    // SAFETY: it has no arguments and no conditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    room.view.seen.number = room.given << 16 | u64::from(cpu & 0x3fff) << 2 | u64::from(level & 3);
    match SOCKETS.insert(&room.view.key, &room.view.seen, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            // Without room, its owner is looked for later.
            if room.view.key.inode != 0 {
                let _ = SOCKET_BELL.output::<u64>(&room.view.key.inode, 0);
            } else if room.view.seen.listener != 0 {
                let _ = SOCKET_BELL.output::<u64>(&room.view.seen.listener, 0);
            }
            room.view.seen.number
        }
        // Another CPU was first.
        Err(EEXIST) => match SOCKETS.get_ptr_mut(&room.view.key) {
            Some(known) => see(known, &room.view.seen),
            None => LOST,
        },
        Err(_) => LOST,
    }
}

/// Notes what has changed since a socket was seen before; its number. All CPUs share this: most drops write nothing.
#[inline(always)]
fn see(known: *mut SocketSeen, now: &SocketSeen) -> u64 {
    // SAFETY: a value of a map; each member is written whole.
    unsafe {
        if (*known).state != now.state {
            (*known).state = now.state;
        }
        if (*known).receive_size != now.receive_size {
            (*known).receive_size = now.receive_size;
            (*known).receive_used = now.receive_used;
        } else if (*known).receive_used < now.receive_used {
            (*known).receive_used = now.receive_used;
        }
        (*known).number
    }
}

/// Notes the current task's process as the owner, if it has the socket open.
///
/// The running task tells nothing about the packet's owner: a receiver's packet is dropped while the sender runs, or any
/// task that a softirq interrupts.
#[inline(always)]
fn find_owner(room: &mut Room) {
    if room.view.file == 0 {
        return;
    }
    // SAFETY: it has no arguments and no conditions.
    let task = unsafe { bpf_get_current_task() };
    let at = |address: u64, offset: u32| unknown(read(address + u64::from(offset)).unwrap_or(0));
    let table = at(at(task, socket_offset!(task_files)), socket_offset!(files_table));
    let size = u64::from(at(table, socket_offset!(table_size)) as u32);
    let array = at(table, socket_offset!(table_array));
    let mut block = 0;
    while block < BLOCKS && block * (BLOCK as u64) < size {
        if has_open(room, array + block * size_of::<[u64; BLOCK]>() as u64) {
            let leader = at(task, socket_offset!(task_leader));
            let mut comm = MaybeUninit::uninit();
            if read_into(&mut comm, leader + u64::from(socket_offset!(task_comm))) {
                room.view.seen.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
                // SAFETY: the helper has filled it.
                room.view.seen.comm = unsafe { comm.assume_init() };
            }
            return;
        }
        block += 1;
    }
}

/// Whether the socket's file is in a block of a table of files.
#[inline(always)]
fn has_open(room: &mut Room, block: u64) -> bool {
    // SAFETY: as many bytes of the map's value as are there.
    let failed = unsafe {
        bpf_probe_read_kernel(
            room.files.as_mut_ptr().cast(),
            size_of::<[u64; BLOCK]>() as u32,
            block as *const core::ffi::c_void,
        )
    };
    // One way through for the verifier: a bit is left of files that all differ.
    let (mut differs, mut index) = (u64::MAX, 0);
    while index < BLOCK {
        let difference = room.files[index] ^ room.view.file;
        differs &= difference | difference.wrapping_neg();
        index += 1;
    }
    failed == 0 && differs >> 63 == 0
}
