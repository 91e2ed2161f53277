//! Call chains, which rows refer to by number, and names of interfaces.

/// How many frames a chain has at most: the kernel's own limit (`kernel.perf_event_max_stack`).
pub const FRAMES: usize = 127;

/// A call chain as the kernel walks it, innermost frame first.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Chain {
    /// How many frames there are; what follows them means nothing.
    pub depth: u64,
    /// Addresses the calls return to.
    pub frames: [u64; FRAMES],
}

/// An interface's name, filled up with zeros.
pub type DeviceName = [u8; 16];

/// A name of any kind that an interface may have, an alternative one included, filled up with zeros.
pub type LongName = [u8; 128];

/// A name of an interface, as words of a little-endian machine, with nothing but zeros behind its end; none if it is
/// empty or has no end.
///
/// Which bytes are in it says nothing: the kernel takes controls in the name of an interface.
#[inline(always)]
#[must_use]
pub fn ended([first, last]: [u64; 2]) -> Option<[u64; 2]> {
    let ends_first = first_zero(first);
    let ends_last = first_zero(last);
    if first as u8 == 0 || ends_first | ends_last == 0 {
        return None;
    }
    if ends_first != 0 {
        return Some([first & (ends_first - 1), 0]);
    }
    Some([first, last & (ends_last - 1)])
}

/// The highest bit of the first byte that is zero; zero if none is. The first byte is the lowest one.
#[inline(always)]
fn first_zero(word: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    // The lowest of these bits is exact: only above it a borrow can have made another.
    let zeros = word.wrapping_sub(LOW) & !word & (LOW << 7);
    zeros & zeros.wrapping_neg()
}

const _: () = assert!(size_of::<Chain>() == 1024);
