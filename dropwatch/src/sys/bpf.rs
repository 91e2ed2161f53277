//! `bpf(2)`: maps, programs and what they are attached to.

use std::{
    ffi::{CStr, c_char},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya::Pod;
use aya_obj::generated::{
    BPF_F_KPROBE_MULTI_RETURN, bpf_attach_type, bpf_attr,
    bpf_attr__bindgen_ty_14__bindgen_ty_3__bindgen_ty_3, bpf_cmd, bpf_insn, bpf_link_info, bpf_prog_info,
    bpf_prog_type,
};

use super::perf::function_event;

/// Calls `bpf(2)`; the result is not negative.
pub(super) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole, initialised union; the kernel reads no further than the size given, and
    // the pointers inside are the callers' responsibility.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(command as u32),
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Calls `bpf(2)` for something new: its descriptor, which no other program inherits.
fn bpf_new(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = i32::try_from(bpf(command, attr)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An attribute with every byte zero, as bpf(2) requires for fields that a command does not use.
pub(super) fn zeroed_attr() -> bpf_attr {
    // SAFETY: `bpf_attr` is a union of plain integers and structures of integers.
    unsafe { std::mem::zeroed() }
}

/// Whether the system call is there at all.
///
/// # Errors
/// `ENOSYS` on a kernel without BPF; `EPERM` where a seccomp filter forbids it.
pub fn probe_bpf() -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = u32::MAX;
    match bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Err(error),
        // Anything else is the kernel's answer to a descriptor that does not exist.
        _ => Ok(()),
    }
}

/// A value as the kernel gets it.
pub fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: a `Pod` has no padding, so that all its bytes are initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The name of something new, cut to the length the kernel keeps.
fn name_of(name: &str) -> [c_char; 16] {
    let mut kept = [0; 16];
    for (kept, byte) in kept[..15].iter_mut().zip(name.bytes()) {
        *kept = c_char::from_ne_bytes([byte]);
    }
    kept
}

/// Makes a map; a map of maps needs an example of what is inside.
///
/// # Errors
/// Whatever the kernel answers, `EPERM` also for too much memory before Linux 5.11.
pub fn create_map(
    name: &str,
    definition: &aya_obj::Map,
    inner: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_1.map_type = definition.map_type();
    attr.__bindgen_anon_1.key_size = definition.key_size();
    attr.__bindgen_anon_1.value_size = definition.value_size();
    attr.__bindgen_anon_1.max_entries = definition.max_entries();
    attr.__bindgen_anon_1.map_flags = definition.map_flags();
    attr.__bindgen_anon_1.map_name = name_of(name);
    attr.__bindgen_anon_1.inner_map_fd = inner.map_or(0, |inner| inner.as_raw_fd().cast_unsigned());
    bpf_new(bpf_cmd::BPF_MAP_CREATE, &mut attr)
}

/// Gives the only element of an array that was made by its definition the value in there.
///
/// # Errors
/// Whatever the kernel answers; `InvalidInput` for a value that is not of the size in there.
pub fn fill_map(map: BorrowedFd<'_>, definition: &aya_obj::Map) -> io::Result<()> {
    let (key, value) = (0_u32, definition.data());
    if value.len() != definition.value_size() as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = std::ptr::from_ref(&key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Ends all writing to a map from here, which makes its values constants to the verifier (Linux 5.2).
///
/// # Errors
/// Whatever the kernel answers.
pub fn freeze_map(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

/// What a program is run by, and how it gets its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// A tracepoint, with its arguments as numbers.
    RawTracepoint,
    /// What it is attached to, and the number of its type in the kernel's type information: arguments have their types.
    Typed(bpf_attach_type, u32),
    /// A function, at its start or end: the arguments are in the registers.
    Function,
    /// The same of many functions by one link.
    Functions(Ends),
}

/// Where in functions a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// At their start.
    Start,
    /// Where they return.
    Return,
    /// At both, unless the program returned 1 at the start (Linux 6.10).
    Both,
}

impl Ends {
    /// How such a program is attached.
    fn attach_type(self) -> u32 {
        // Newer than the bindings.
        const BPF_TRACE_KPROBE_SESSION: u32 = 56;
        match self {
            Self::Start | Self::Return => bpf_attach_type::BPF_TRACE_KPROBE_MULTI as u32,
            Self::Both => BPF_TRACE_KPROBE_SESSION,
        }
    }
}

/// A program to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct NewProgram<'a> {
    /// What tools call it.
    pub name: &'a str,
    /// Its licence: most helpers are for those of the GPL.
    pub license: &'a CStr,
    /// What it does.
    pub instructions: &'a [bpf_insn],
    /// What runs it.
    pub kind: ProgramKind,
}

/// Loads a program; with room for it, the verifier says what it thinks.
///
/// # Errors
/// Whatever the kernel answers, `ENOSPC` for too little room.
pub fn load_program(program: &NewProgram<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let too_large = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32;
    attr.__bindgen_anon_3.insns = program.instructions.as_ptr() as u64;
    attr.__bindgen_anon_3.insn_cnt = program.instructions.len().try_into().map_err(too_large)?;
    attr.__bindgen_anon_3.license = program.license.as_ptr() as u64;
    attr.__bindgen_anon_3.prog_name = name_of(program.name);
    match program.kind {
        ProgramKind::RawTracepoint => {}
        ProgramKind::Typed(attached_to, id) => {
            attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
            attr.__bindgen_anon_3.expected_attach_type = attached_to as u32;
            attr.__bindgen_anon_3.attach_btf_id = id;
        }
        ProgramKind::Function => {
            attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
        }
        ProgramKind::Functions(ends) => {
            attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
            attr.__bindgen_anon_3.expected_attach_type = ends.attach_type();
        }
    }
    if !log.is_empty() {
        attr.__bindgen_anon_3.log_level = 1;
        attr.__bindgen_anon_3.log_buf = log.as_mut_ptr() as u64;
        attr.__bindgen_anon_3.log_size = log.len().try_into().map_err(too_large)?;
    }
    bpf_new(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Attaches a program to a tracepoint until the descriptor is closed. A BTF-typed program already names its tracepoint.
///
/// # Errors
/// `ENOENT` if there is no such tracepoint, `EINVAL` if it does not have all arguments that the program reads.
pub fn attach_tracepoint(program: BorrowedFd<'_>, name: Option<&CStr>) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.raw_tracepoint.name = name.map_or(0, |name| name.as_ptr() as u64);
    attr.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
    bpf_new(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// Attaches a program to functions until the descriptor is closed (Linux 5.18). It gets the cookie of the function that it is
/// run by.
///
/// # Errors
/// `EINVAL`, `ENOENT` or `ESRCH` if one of the addresses is not the start of a function that can be traced;
/// `EOPNOTSUPP` without `CONFIG_FPROBE`.
pub fn attach_functions(
    program: BorrowedFd<'_>,
    functions: &[(u64, u64)],
    ends: Ends,
) -> io::Result<OwnedFd> {
    let (addresses, cookies): (Vec<u64>, Vec<u64>) = functions.iter().copied().unzip();
    let mut attr = zeroed_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = ends.attach_type();
    attr.link_create.__bindgen_anon_3.kprobe_multi = bpf_attr__bindgen_ty_14__bindgen_ty_3__bindgen_ty_3 {
        flags: if ends == Ends::Return { BPF_F_KPROBE_MULTI_RETURN } else { 0 },
        cnt: u32::try_from(functions.len()).map_err(io::Error::other)?,
        syms: 0,
        addrs: addresses.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
    };
    bpf_new(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Attaches a program to one function, with a cookie (Linux 5.15); `kind` is the number of such events.
///
/// # Errors
/// Whatever the kernel answers.
pub fn attach_function(
    program: BorrowedFd<'_>,
    kind: u32,
    function: (u64, u64),
    at_end: bool,
) -> io::Result<OwnedFd> {
    let (address, cookie) = function;
    let event = function_event(kind, address, at_end)?;
    let mut attr = zeroed_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_fd = event.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = bpf_attach_type::BPF_PERF_EVENT as u32;
    attr.link_create.__bindgen_anon_3.perf_event.bpf_cookie = cookie;
    // The link holds the event.
    bpf_new(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// How many calls the kernel did not report to the programs of a link to functions (Linux 6.7).
///
/// # Errors
/// Whatever the kernel answers.
pub fn missed_calls(link: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: a structure of plain integers.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = link.as_raw_fd().cast_unsigned();
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    attr.info.info_len = u32::try_from(size_of::<bpf_link_info>()).unwrap_or(u32::MAX);
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: all of it was initialised; what the kernel does not know is zero.
    Ok(unsafe { info.__bindgen_anon_1.kprobe_multi.missed })
}

/// Has an iterator ready to run for as long as the descriptor lives (Linux 5.8).
///
/// # Errors
/// Whatever the kernel answers.
pub fn link_iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    bpf_new(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// A file that runs an iterator when it is read, once.
///
/// # Errors
/// Whatever the kernel answers.
pub fn open_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.iter_create.link_fd = link.as_raw_fd().cast_unsigned();
    bpf_new(bpf_cmd::BPF_ITER_CREATE, &mut attr)
}

/// The values that some bytes are, whole ones only.
#[must_use]
pub fn values_of<T: Pod>(bytes: &[u8]) -> Vec<T> {
    let values = bytes.chunks_exact(size_of::<T>());
    // SAFETY: any bytes make a `Pod`, and there are as many as it has.
    values.map(|value| unsafe { value.as_ptr().cast::<T>().read_unaligned() }).collect()
}

/// What the kernel counts about a loaded program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Runs, while BPF statistics were enabled.
    pub runs: u64,
    /// Time spent in those runs, in nanoseconds.
    pub run_time_ns: u64,
    /// Runs the kernel's recursion guard skipped; `None` where the kernel does not count them (before 5.12).
    pub recursion_missed: Option<u64>,
}

/// Reads a program's statistics from the kernel.
///
/// # Errors
/// Whatever the kernel answers, such as `EPERM`.
pub fn program_stats(program: BorrowedFd<'_>) -> io::Result<ProgramStats> {
    let (info, known) = program_info(program)?;
    let counted = known >= std::mem::offset_of!(bpf_prog_info, recursion_misses) + size_of::<u64>();
    Ok(ProgramStats {
        runs: info.run_cnt,
        run_time_ns: info.run_time_ns,
        recursion_missed: counted.then_some(info.recursion_misses),
    })
}

/// The number by which the kernel lists a program.
///
/// # Errors
/// Whatever the kernel answers.
#[cfg(feature = "bpf-log")]
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(program_info(program)?.0.id)
}

/// What the kernel says about a program, and how many bytes of it are its own.
fn program_info(program: BorrowedFd<'_>) -> io::Result<(bpf_prog_info, usize)> {
    // SAFETY: a structure of plain integers.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = program.as_raw_fd().cast_unsigned();
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    attr.info.info_len = u32::try_from(size_of::<bpf_prog_info>()).unwrap_or(u32::MAX);
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: the kernel has left the number of bytes it knows in the same member.
    let known = unsafe { attr.info.info_len } as usize;
    Ok((info, known))
}

/// What the kernel calls a loaded program, by its number.
///
/// # Errors
/// Whatever the kernel answers, `ENOENT` for one that has gone.
pub fn program_name(id: u32) -> io::Result<Vec<u8>> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    let program = bpf_new(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    let name = program_info(program.as_fd())?.0.name.map(|byte| byte.to_ne_bytes()[0]);
    Ok(name.split(|&byte| byte == 0).next().unwrap_or_default().to_vec())
}

/// To what programs are attached.
#[derive(Clone, Copy, Debug)]
pub enum AttachedTo<'a> {
    /// An interface of the namespace that this thread is in.
    Interface(u32),
    /// A cgroup, by its directory.
    Cgroup(BorrowedFd<'a>),
    /// A cgroup and those above it: what is in effect there.
    CgroupAndAbove(BorrowedFd<'a>),
}

/// The numbers of the programs that are attached in a way, in the order in which they run.
///
/// # Errors
/// Whatever the kernel answers, `EINVAL` where it knows no such way.
pub fn attached_programs(to: AttachedTo<'_>, way: bpf_attach_type) -> io::Result<Vec<u32>> {
    const MOST: u32 = 64;
    const EFFECTIVE: u32 = 1;
    let mut ids = [0_u32; MOST as usize];
    let mut attr = zeroed_attr();
    match to {
        AttachedTo::Interface(index) => attr.query.__bindgen_anon_1.target_ifindex = index,
        AttachedTo::Cgroup(group) | AttachedTo::CgroupAndAbove(group) => {
            attr.query.__bindgen_anon_1.target_fd = group.as_raw_fd().cast_unsigned();
        }
    }
    if matches!(to, AttachedTo::CgroupAndAbove(_)) {
        attr.query.query_flags = EFFECTIVE;
    }
    attr.query.attach_type = way as u32;
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.prog_cnt = MOST;
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: the kernel has left it in the member that this command uses, all of which was initialised.
    let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt } as usize;
    Ok(ids[..count.min(ids.len())].to_vec())
}

/// Runs a raw tracepoint's program here and now, with these arguments (Linux 5.10); what it returns.
///
/// # Errors
/// `EINVAL` for a program of another type.
pub fn run_program(program: BorrowedFd<'_>, arguments: [u64; 2]) -> io::Result<u32> {
    let mut attr = zeroed_attr();
    attr.test.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.test.ctx_in = arguments.as_ptr() as u64;
    attr.test.ctx_size_in = u32::try_from(size_of_val(&arguments)).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    // SAFETY: the kernel has left it in the member that this command uses, all of which was initialised.
    Ok(unsafe { attr.test.retval })
}
