//! System calls that no crate makes: options of sockets, programs of two instructions, a device of our own.
#![expect(unsafe_code, reason = "these calls take structures that no crate offers")]

use std::{
    fs::File,
    io,
    net::TcpStream,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
};

/// Sets an option of a socket.
pub fn set_option<T>(socket: &impl AsFd, level: i32, option: i32, value: &T) {
    let length = u32::try_from(size_of::<T>()).expect("a length");
    // SAFETY: the value outlives the call, and its true length is given.
    let result = unsafe {
        let value = std::ptr::from_ref(value).cast();
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, value, length)
    };
    assert_eq!(result, 0, "option {option} of a socket: {}", io::Error::last_os_error());
}

/// An option of a socket.
fn option<T: Default>(socket: &impl AsFd, level: i32, option: i32) -> T {
    let mut value = T::default();
    let mut length = u32::try_from(size_of::<T>()).expect("a length");
    // SAFETY: the value outlives the call, and its true length is given; its type is of integers only.
    let result = unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, option, value, &raw mut length)
    };
    assert_eq!(result, 0, "option {option} of a socket: {}", io::Error::last_os_error());
    value
}

/// The sequence numbers that a connection sends and expects next.
pub fn sequences(connection: &TcpStream) -> (u32, u32) {
    const OFF_WITHOUT_PROBE: i32 = -1;
    const RECEIVED: i32 = 1;
    const SENT: i32 = 2;
    let set = |option, value: i32| set_option(connection, libc::IPPROTO_TCP, option, &value);
    let next = |queue| {
        set(libc::TCP_REPAIR_QUEUE, queue);
        option(connection, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ)
    };
    set(libc::TCP_REPAIR, 1);
    let sequences = (next(SENT), next(RECEIVED));
    set(libc::TCP_REPAIR, OFF_WITHOUT_PROBE);
    sequences
}

/// Attaches a filter to a socket that keeps no byte of any packet.
pub fn refuse_all(socket: &impl AsFd) {
    const RETURN_CONSTANT: u16 = 6;
    let mut program = [libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program);
}

/// A socket that receives every frame of the current namespace, but reads none.
pub fn packet_socket() -> io::Result<OwnedFd> {
    let every = i32::from(u16::try_from(libc::ETH_P_ALL).expect("an ethertype").to_be());
    // SAFETY: no pointers; a new descriptor is ours alone.
    unsafe { owned(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, every)) }
}

/// How many frames a packet socket had no room for, since it was last asked.
pub fn frames_refused(socket: &OwnedFd) -> u32 {
    let [_taken, refused]: [u32; 2] = option(socket, libc::SOL_PACKET, libc::PACKET_STATISTICS);
    refused
}

/// From here on no other thread runs on the CPU of this one, until the scheduler's share for one thread (by default
/// 0.95 of a second) is used up.
pub fn run_alone() {
    const THIS_THREAD: libc::pid_t = 0;
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::sched_setscheduler(THIS_THREAD, libc::SCHED_FIFO, &raw const priority) };
    assert_eq!(result, 0, "priority of a thread: {}", io::Error::last_os_error());
}

/// A device of the current namespace whose wire is this file: what is written to it arrives.
pub fn tap(name: &str) -> io::Result<File> {
    let mut options = File::options();
    // Only what need not wait is shown to a program before it is a packet.
    let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: zero is a value of all its fields.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = flags.try_into().expect("flags");
    // SAFETY: the request outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

/// # Safety
/// The descriptor, if it is one, is new.
unsafe fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: as promised.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

/// Kinds of programs, as the kernel numbers them.
#[derive(Clone, Copy)]
pub enum Kind {
    Xdp = 6,
    CgroupSkb = 8,
}

/// Where programs are attached, as the kernel numbers it.
#[derive(Clone, Copy)]
pub enum Hook {
    CgroupIngress = 0,
    CgroupEgress = 1,
    Xdp = 37,
}

/// The kernel's `bpf_attr` for loading a program.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    hook: u32,
}

/// The kernel's `bpf_attr` for attaching one.
#[repr(C)]
struct Attach {
    program: u32,
    target: u32,
    hook: u32,
    flags: u32,
}

/// Makes a `bpf` call that returns a descriptor.
///
/// # Safety
/// The attributes are those of the command, and what they point to is alive.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: as promised; the kernel returns a new descriptor.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>());
        owned(RawFd::try_from(fd).expect("a descriptor"))
    }
}

/// Attaches a program that answers `verdict` to everything; it goes with the descriptor.
pub fn attach(kind: Kind, hook: Hook, target: u32, flags: u32, verdict: u8) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_long = 5;
    const LINK_CREATE: libc::c_long = 28;
    // r0 = verdict; exit
    let code: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, verdict, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let load = Load {
        kind: kind as u32,
        instructions: 2,
        code: code.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"refuse_all\0\0\0\0\0\0",
        device: 0,
        hook: hook as u32,
    };
    // SAFETY: the code and the licence outlive the call.
    let program = unsafe { bpf(PROG_LOAD, &load) }?;
    let program = program.as_raw_fd().cast_unsigned();
    // SAFETY: no pointers.
    unsafe { bpf(LINK_CREATE, &Attach { program, target, hook: hook as u32, flags }) }
}
