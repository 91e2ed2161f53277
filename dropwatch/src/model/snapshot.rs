//! What the probe has counted, at one moment.

use dropwatch_common::row::RowKey;
use serde::Serialize;

/// The numbers of drops by key, each summed over the CPUs; keys are distinct, in no order.
pub type Counts = Vec<(RowKey, u64)>;

/// Everything counted so far. Counts only ever grow: what happened in an interval is a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Drops by key, summed over the CPUs; keys are distinct, in no order.
    pub counts: Counts,
    /// Whether these counters have ended: in the next snapshot all counts start from zero.
    pub last: bool,
    /// Whether the next counters refer to the same call chains by other numbers; then these are the last ones.
    pub renumbers: bool,
    /// Drops that are in no row.
    pub ledger: Ledger,
}

/// What was seen and is in no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// The map had no room for another key.
    pub map_full: u64,
    /// The kernel refused to insert a key for another cause.
    pub update_failed: u64,
    /// The call chain could not be read or kept: such a drop is in a row that has none.
    pub stack_failed: u64,
    /// The socket could not be kept: such a drop is in a row without it.
    pub socket_failed: u64,
    /// The kernel's recursion guard skipped the probe; `None` where the kernel does not count that.
    pub recursion_missed: Option<u64>,
    /// They passed or not by the names of their network namespace, which were not known in time.
    pub undecided: u64,
    /// The packet's headers could not be read: such a drop is in a row without them, or was not decided by them.
    pub headers_unreadable: u64,
    /// Alternative names of the interface could not be read: such a drop was decided without them.
    pub names_unreadable: u64,
}

impl Ledger {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            map_full: self.map_full.wrapping_sub(earlier.map_full),
            update_failed: self.update_failed.wrapping_sub(earlier.update_failed),
            stack_failed: self.stack_failed.wrapping_sub(earlier.stack_failed),
            socket_failed: self.socket_failed.wrapping_sub(earlier.socket_failed),
            // What was not known may be known later.
            undecided: self.undecided.saturating_sub(earlier.undecided),
            headers_unreadable: self.headers_unreadable.wrapping_sub(earlier.headers_unreadable),
            names_unreadable: self.names_unreadable.wrapping_sub(earlier.names_unreadable),
            recursion_missed: self
                .recursion_missed
                .map(|now| now.wrapping_sub(earlier.recursion_missed.unwrap_or(0))),
        }
    }

    /// What was lost in two intervals.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            map_full: self.map_full + other.map_full,
            update_failed: self.update_failed + other.update_failed,
            stack_failed: self.stack_failed + other.stack_failed,
            socket_failed: self.socket_failed + other.socket_failed,
            undecided: self.undecided + other.undecided,
            headers_unreadable: self.headers_unreadable + other.headers_unreadable,
            names_unreadable: self.names_unreadable + other.names_unreadable,
            recursion_missed: match (self.recursion_missed, other.recursion_missed) {
                (None, None) => None,
                (one, other) => Some(one.unwrap_or(0) + other.unwrap_or(0)),
            },
        }
    }

    /// Drops that are in no row at all, as far as the kernel counts them.
    #[must_use]
    pub fn lost(self) -> u64 {
        self.map_full + self.update_failed + self.undecided + self.recursion_missed.unwrap_or(0)
    }
}
