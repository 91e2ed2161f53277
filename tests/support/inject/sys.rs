//! System calls that no crate makes: options of sockets, programs of two instructions, a device of our own.
#![expect(unsafe_code, reason = "these calls take structures that no crate offers")]

use std::{
    ffi::{CStr, c_char},
    fs::{self, File},
    io,
    net::TcpStream,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

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

/// How many frames a packet socket had no room for, since the last call.
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
        *to = c_char::from_ne_bytes([from]);
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
    Tracing = 26,
}

/// Where programs are attached, as the kernel numbers it.
#[derive(Clone, Copy)]
pub enum Hook {
    CgroupIngress = 0,
    CgroupEgress = 1,
    FunctionExit = 25,
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
    unused: [u32; 9],
    function: u32,
}

/// The kernel's `bpf_attr` for attaching a program where it says itself.
#[repr(C)]
#[derive(Default)]
struct Open {
    name: u64,
    program: u32,
    padding: u32,
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

/// Loads a program that answers `verdict` to everything.
fn load(kind: Kind, hook: Hook, function: u32, verdict: u8) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_long = 5;
    // Before Linux 5.11 every program counts against this limit, those of dropwatch included. Later kernels have no use
    // for it, and some machines do not let it be raised.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
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
        unused: [0; 9],
        function,
    };
    // SAFETY: the code and the licence outlive the call.
    unsafe { bpf(PROG_LOAD, &load) }
}

/// Attaches a program that answers `verdict` to everything; it goes with the descriptor.
pub fn attach(kind: Kind, hook: Hook, target: u32, flags: u32, verdict: u8) -> io::Result<OwnedFd> {
    const LINK_CREATE: libc::c_long = 28;
    let program = load(kind, hook, 0, verdict)?;
    let program = program.as_raw_fd().cast_unsigned();
    // SAFETY: no pointers.
    unsafe { bpf(LINK_CREATE, &Attach { program, target, hook: hook as u32, flags }) }
}

/// A program that runs when a function of the kernel returns, named by the number of its type; it goes with the
/// descriptor.
pub fn trace_return(function: u32) -> io::Result<OwnedFd> {
    const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
    let program = load(Kind::Tracing, Hook::FunctionExit, function, 0)?;
    let program = program.as_raw_fd().cast_unsigned();
    // SAFETY: no pointers.
    unsafe { bpf(RAW_TRACEPOINT_OPEN, &Open { program, ..Open::default() }) }
}

/// The kernel's `perf_event_attr`, as its first version has it.
#[repr(C)]
#[derive(Default)]
struct PerfEvent {
    kind: u32,
    size: u32,
    config: u64,
    sample: [u64; 3],
    flags: u64,
    wakeup: [u32; 2],
    function: u64,
}

/// A return probe on a function of the kernel; it goes with the descriptor.
pub fn probe_return(function: &CStr) -> io::Result<OwnedFd> {
    const RETURNS: u64 = 1;
    let kind = fs::read_to_string("/sys/bus/event_source/devices/kprobe/type")?;
    let event = PerfEvent {
        kind: kind.trim().parse().map_err(io::Error::other)?,
        size: u32::try_from(size_of::<PerfEvent>()).map_err(io::Error::other)?,
        config: RETURNS,
        function: function.as_ptr().expose_provenance() as u64,
        ..PerfEvent::default()
    };
    let (every_process, cpu, no_group, no_flags) = (-1, 0, -1, 0);
    // SAFETY: the structure has the size that it says, and the name outlives the call.
    unsafe {
        let event = std::ptr::from_ref(&event);
        let fd = libc::syscall(libc::SYS_perf_event_open, event, every_process, cpu, no_group, no_flags);
        owned(RawFd::try_from(fd).expect("a descriptor"))
    }
}
