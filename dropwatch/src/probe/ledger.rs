//! What the probe could not count, as it counts it itself.

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use dropwatch_common::Loss;

use crate::model::snapshot::Ledger;

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
            undecided: 0,
            headers_unreadable: self.lost(Loss::HeadersUnreadable)?,
            names_unreadable: self.lost(Loss::NamesUnreadable)?,
            socket_failed: self.lost(Loss::SocketFailed)?,
            recursion_missed,
        })
    }

    fn lost(&self, loss: Loss) -> Result<u64> {
        let values = self.0.get(&(loss as u32), 0).context("cannot read the ledger from the kernel")?;
        Ok(values.iter().sum())
    }
}
