//! Reads the kernel's text as it is now, with calls that were patched at run time.
//!
//! A program that is run on request reads it: `/proc/kcore` requires more privileges, and is not in all kernels.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{Array, MapData};
use dropwatch_common::dig::TEXT;

use crate::sys;

/// The program, and where it puts what it has read.
pub struct TextReader {
    program: OwnedFd,
    room: Array<MapData, [u8; TEXT]>,
}

impl TextReader {
    pub(super) fn new(program: OwnedFd, room: Array<MapData, [u8; TEXT]>) -> Self {
        Self { program, room }
    }

    /// So many bytes from an address on; fewer if that is more than is read at a time.
    ///
    /// # Errors
    /// The kernel does not run programs, or has nothing there.
    pub fn read(&self, address: u64, length: u64) -> io::Result<Vec<u8>> {
        let length = length.min(TEXT as u64 - 1);
        let failed = sys::run_program(self.program.as_fd(), [address, length])?;
        if failed != 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let text = self.room.get(&0, 0).map_err(io::Error::other)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        Ok(text[..length].to_vec())
    }
}
