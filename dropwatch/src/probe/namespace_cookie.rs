//! Reads the cookie of a network namespace that we hold open.
//!
//! No system call returns it without entering the namespace, which requires a privilege that is dropped. This is a
//! program of a few instructions that walks from this task to its open file, to the file's inode, to the
//! namespace.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_insn;

use crate::{
    kernel::btf::Btf,
    sys::{self, NewProgram, ProgramKind},
};

/// A program that reads cookies, loaded.
#[derive(Debug)]
pub struct CookieReader {
    program: OwnedFd,
}

/// Where the kernel keeps what leads from a task to a namespace.
struct Path {
    files: u32,
    table: u32,
    array: u32,
    inode: u32,
    private: u32,
    /// From the part of a namespace that all kinds share to the cookie.
    cookie: i32,
}

impl CookieReader {
    /// Loads the program; none on kernels that give a namespace no cookie at its start.
    ///
    /// # Errors
    /// Whatever the kernel answers, such as `EPERM`.
    pub fn load(btf: &Btf<'_>) -> io::Result<Option<Self>> {
        let Some(path) = Path::find(btf) else { return Ok(None) };
        let instructions = path.program();
        let program = NewProgram {
            name: "net_cookie",
            license: c"Dual MIT/GPL",
            instructions: &instructions,
            kind: ProgramKind::RawTracepoint,
        };
        sys::load_program(&program, &mut []).map(|program| Some(Self { program }))
    }

    /// The cookie of a network namespace: the caller has made sure that the file is one.
    ///
    /// # Errors
    /// The kernel does not run the program, or the program finds nothing.
    pub fn read(&self, namespace: BorrowedFd<'_>) -> io::Result<u64> {
        let number = u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
        let half = |which| sys::run_program(self.program.as_fd(), [number, which]).map(u64::from);
        match half(0)? | half(1)? << 32 {
            0 => Err(io::ErrorKind::NotFound.into()),
            cookie => Ok(cookie),
        }
    }
}

impl Path {
    fn find(btf: &Btf<'_>) -> Option<Self> {
        // An atomic number is assigned only on demand (before Linux 5.12).
        if btf.field("net", "net_cookie.counter").is_some() {
            return None;
        }
        let at = |aggregate, path| Some(btf.field(aggregate, path)?.offset_bytes);
        let common = at("net", "ns.inum")?.checked_sub(at("ns_common", "inum")?)?;
        Some(Self {
            files: at("task_struct", "files")?,
            table: at("files_struct", "fdt")?,
            array: at("fdtable", "fd")?,
            inode: at("file", "f_inode")?,
            private: at("inode", "i_private")?,
            cookie: i32::try_from(i64::from(at("net", "net_cookie")?) - i64::from(common)).ok()?,
        })
    }

    /// Reads from the task on; the arguments are the number of the file and which half of the cookie to return.
    fn program(&self) -> Vec<bpf_insn> {
        const GET_CURRENT_TASK: i32 = 35;
        let mut program = Program::default();
        program.load(6, 1, 0).load(7, 1, 8).call(GET_CURRENT_TASK).copy(8, 0);
        for offset in [self.files, self.table, self.array] {
            program.follow(offset.cast_signed());
        }
        program.shift_left(6, 3).add_register(8, 6).follow(0);
        program.follow(self.inode.cast_signed()).follow(self.private.cast_signed()).follow(self.cookie);
        program.skip_if_zero(7, 1).shift_right(8, 32).copy(0, 8).exit();
        program.0
    }
}

/// Instructions, one after the other. Register 8 is where we are, 10 the end of the stack.
#[derive(Default)]
struct Program(Vec<bpf_insn>);

impl Program {
    fn push(&mut self, code: u8, to: u8, from: u8, off: i16, imm: i32) -> &mut Self {
        let registers = bpf_insn::new_bitfield_1(to, from);
        self.0.push(bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers, off, imm });
        self
    }

    fn load(&mut self, to: u8, from: u8, offset: i16) -> &mut Self {
        self.push(0x79, to, from, offset, 0)
    }

    fn copy(&mut self, to: u8, from: u8) -> &mut Self {
        self.push(0xbf, to, from, 0, 0)
    }

    fn set(&mut self, to: u8, value: i32) -> &mut Self {
        self.push(0xb7, to, 0, 0, value)
    }

    fn add(&mut self, to: u8, value: i32) -> &mut Self {
        self.push(0x07, to, 0, 0, value)
    }

    fn add_register(&mut self, to: u8, from: u8) -> &mut Self {
        self.push(0x0f, to, from, 0, 0)
    }

    fn shift_left(&mut self, register: u8, bits: i32) -> &mut Self {
        self.push(0x67, register, 0, 0, bits)
    }

    fn shift_right(&mut self, register: u8, bits: i32) -> &mut Self {
        self.push(0x77, register, 0, 0, bits)
    }

    fn call(&mut self, helper: i32) -> &mut Self {
        self.push(0x85, 0, 0, 0, helper)
    }

    fn exit(&mut self) -> &mut Self {
        self.push(0x95, 0, 0, 0, 0)
    }

    fn skip_if_zero(&mut self, register: u8, instructions: i16) -> &mut Self {
        self.push(0x15, register, 0, instructions, 0)
    }

    /// Reads the word at an offset from where we are, and goes there; ends with zero if there is none.
    fn follow(&mut self, offset: i32) -> &mut Self {
        const PROBE_READ_KERNEL: i32 = 113;
        self.copy(1, 10).add(1, -8).set(2, 8).copy(3, 8).add(3, offset).call(PROBE_READ_KERNEL);
        self.skip_if_zero(0, 2).set(0, 0).exit().load(8, 10, -8)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::net::UnixStream};

    use super::*;
    use crate::kernel::btf::KernelBtf;

    #[test]
    fn one_namespace_has_one_cookie() {
        let kernel = KernelBtf::default();
        let Ok(btf) = kernel.get() else { return dropwatch_testing::skip("no type information") };
        let reader = match CookieReader::load(btf) {
            Ok(Some(reader)) => reader,
            Ok(None) => return dropwatch_testing::skip("a kernel without cookies"),
            Err(error) => return dropwatch_testing::skip(format!("no program can be loaded: {error}")),
        };
        let own = || File::open("/proc/self/ns/net").expect("the own namespace");
        let read = |file: &File| reader.read(file.as_fd()).expect("a cookie");
        let (one, same) = (own(), own());
        assert_eq!(read(&one), read(&same));
        let (socket, _) = UnixStream::pair().expect("a socket");
        if let Some(told) = sys::socket_netns_cookie(socket.as_fd()) {
            assert_eq!(read(&one), told, "as the kernel tells it of a socket");
        }
    }
}
