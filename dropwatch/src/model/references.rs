//! What rows refer to by number: call chains and sockets.

use std::{collections::HashMap, sync::Arc};

use dropwatch_common::row::RowKey;

use super::socket::Socket;

/// A call chain, innermost frame first, starting where the packet was dropped.
pub type Frames = Arc<[u64]>;

/// Frames of chains and sockets, as the rows of one interval refer to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Chains by number.
    pub chains: HashMap<u64, Frames>,
    /// Sockets by number.
    pub sockets: HashMap<u64, Socket>,
    /// Whether the kernel says which socket would have received a packet: without, a packet of no socket may be of any.
    pub receivers: bool,
}

impl References {
    /// The socket of a row.
    #[must_use]
    pub fn socket(&self, row: &RowKey) -> Option<&Socket> {
        self.sockets.get(&row.socket)
    }

    /// Whether the drops of a row certainly belong to no socket.
    #[must_use]
    pub fn has_none(&self, row: &RowKey) -> bool {
        row.socket == 0 && self.receivers
    }
}

/// The chain from the drop on: in front of it are the functions that call us.
///
/// A packet that is freed later, by `net_tx_action`, has the start of a function as its location, and the frame is
/// inside that function: the nearest behind the location. No function is as long as `FARTHEST`.
#[must_use]
pub fn trimmed(frames: &[u64], location: u64) -> &[u64] {
    const FARTHEST: u64 = 0x1_0000;
    let behind = |&frame: &u64| frame.wrapping_sub(location);
    let drop = frames.iter().enumerate().min_by_key(|(_, frame)| behind(frame));
    match drop {
        Some((start, frame)) if behind(frame) < FARTHEST => &frames[start..],
        _ => frames,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_starts_at_the_drop() {
        let frames = [0x9000, 0x5010, 0x1234, 0x8000, 0x1234];
        assert_eq!(trimmed(&frames, 0x1234), &frames[2..], "the innermost of two");
        assert_eq!(trimmed(&frames, 0x1200), &frames[2..], "inside the function that starts there");
        assert_eq!(trimmed(&frames, 0xffff_0000), &frames, "nowhere near");
        assert_eq!(trimmed(&[], 1), &[] as &[u64]);
    }
}
