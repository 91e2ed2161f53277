//! What the probe has counted, at one moment.

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use dropwatch_common::Loss;
use serde::Serialize;

use crate::count_map::Counts;

/// Everything counted so far. Counts only ever grow: what happened in an interval is a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Drops by key, summed over the CPUs; keys are distinct, in no order.
    pub counts: Counts,
    /// Whether these counters have ended: in the next snapshot all counts start from zero.
    pub last: bool,
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
    /// The kernel's recursion guard skipped the probe; `None` where the kernel does not count that.
    pub recursion_missed: Option<u64>,
}

impl Ledger {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            map_full: self.map_full.wrapping_sub(earlier.map_full),
            update_failed: self.update_failed.wrapping_sub(earlier.update_failed),
            stack_failed: self.stack_failed.wrapping_sub(earlier.stack_failed),
            recursion_missed: self
                .recursion_missed
                .map(|now| now.wrapping_sub(earlier.recursion_missed.unwrap_or(0))),
        }
    }

    /// Drops that are in no row at all, as far as the kernel counts them.
    #[must_use]
    pub fn lost(self) -> u64 {
        self.map_full + self.update_failed + self.recursion_missed.unwrap_or(0)
    }
}

/// The probe's own count of what it could not count.
pub struct Losses(PerCpuArray<MapData, u64>);

impl Losses {
    /// A reader of the probe's ledger.
    pub fn new(map: Map) -> Result<Self> {
        Ok(Self(PerCpuArray::try_from(map)?))
    }

    /// The ledger now, with what the kernel counts itself.
    pub fn read(&self, recursion_missed: Option<u64>) -> Result<Ledger> {
        Ok(Ledger {
            map_full: self.lost(Loss::MapFull)?,
            update_failed: self.lost(Loss::UpdateFailed)?,
            stack_failed: self.lost(Loss::StackFailed)?,
            recursion_missed,
        })
    }

    fn lost(&self, loss: Loss) -> Result<u64> {
        let values = self.0.get(&(loss as u32), 0).context("cannot read the ledger from the kernel")?;
        Ok(values.iter().sum())
    }
}
