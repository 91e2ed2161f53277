//! Bytes of a packet, of which only the first may be known.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The requested bytes were not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// A part of a packet: the bytes captured of it, and how many it has.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl<'a> View<'a> {
    /// A packet of `length` bytes of which `bytes` are known; no packet is shorter than what is known of it.
    pub fn new(bytes: &'a [u8], length: usize) -> Self {
        Self { bytes, length: length.max(bytes.len()) }
    }

    /// How many bytes it has, known or not.
    pub fn length(&self) -> usize {
        self.length
    }

    /// What follows the first `at` bytes.
    pub fn from(&self, at: usize) -> Self {
        Self { bytes: self.bytes.get(at..).unwrap_or_default(), length: self.length.saturating_sub(at) }
    }

    /// No more than the first `length` bytes: a header inside says that there are no more.
    pub fn limited(&self, length: usize) -> Self {
        let known = self.bytes.len().min(length);
        Self { bytes: &self.bytes[..known], length: self.length.min(length) }
    }

    /// The first `N` bytes from `at` on.
    pub fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Short> {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Short)
    }

    /// A range of bytes.
    pub fn slice(&self, at: usize, length: usize) -> Result<&'a [u8], Short> {
        self.bytes.get(at..at.saturating_add(length)).ok_or(Short)
    }

    /// The number in the byte at `at`.
    pub fn u8(&self, at: usize) -> Result<u8, Short> {
        self.bytes.get(at).copied().ok_or(Short)
    }

    /// The number in the two bytes at `at`.
    pub fn u16(&self, at: usize) -> Result<u16, Short> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// The number in the four bytes at `at`.
    pub fn u32(&self, at: usize) -> Result<u32, Short> {
        self.array(at).map(u32::from_be_bytes)
    }

    /// The address in the four bytes at `at`.
    pub fn ipv4(&self, at: usize) -> Result<Ipv4Addr, Short> {
        self.array::<4>(at).map(Ipv4Addr::from)
    }

    /// The address in the sixteen bytes at `at`.
    pub fn ipv6(&self, at: usize) -> Result<Ipv6Addr, Short> {
        self.array::<16>(at).map(Ipv6Addr::from)
    }

    /// The link address in the six bytes at `at`.
    pub fn mac(&self, at: usize) -> Result<String, Short> {
        Ok(self.array::<6>(at)?.map(|byte| format!("{byte:02x}")).join(":"))
    }
}
