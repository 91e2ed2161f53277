//! The maps, read whole: what has been counted since the probe was attached.

use std::{io, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use dropwatch_common::{DropKey, Loss};

use crate::sys::BatchReader;

/// Everything counted so far. Counts only ever grow: what happened in an interval is a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Drops by key, summed over the CPUs; keys are distinct, in no order.
    pub counts: Vec<(DropKey, u64)>,
    /// Drops that are in no row.
    pub ledger: Ledger,
}

/// What was seen and is in no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The map had no room for another key.
    pub map_full: u64,
    /// The kernel refused to insert a key for another cause.
    pub update_failed: u64,
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
            recursion_missed: self
                .recursion_missed
                .map(|now| now.wrapping_sub(earlier.recursion_missed.unwrap_or(0))),
        }
    }

    /// All that was lost, as far as the kernel counts it.
    #[must_use]
    pub fn lost(self) -> u64 {
        self.map_full + self.update_failed + self.recursion_missed.unwrap_or(0)
    }
}

/// Reads the probe's maps.
pub struct MapReader {
    counts: Map,
    losses: PerCpuArray<MapData, u64>,
    batch: BatchReader<DropKey>,
    batched: bool,
}

impl MapReader {
    /// A reader of the two maps: a per-CPU hash map of counts and a per-CPU array of losses.
    pub fn new(counts: Map, losses: Map) -> Result<Self> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(path, error)| anyhow::Error::new(error).context(format!("cannot read {path}")))?;
        let losses = PerCpuArray::try_from(losses)?;
        Ok(Self { counts, losses, batch: BatchReader::new(cpus), batched: true })
    }

    /// The counts, in a call or two; key by key on kernels that have no batches for this map.
    pub fn counts(&mut self) -> Result<Vec<(DropKey, u64)>> {
        if self.batched {
            match self.counts_batched() {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    log::debug!("no batched look-ups on this kernel: reading key by key");
                    self.batched = false;
                }
                counts => return counts.context("cannot read the drop counts from the kernel"),
            }
        }
        self.counts_by_key().context("cannot read the drop counts from the kernel")
    }

    fn counts_batched(&mut self) -> io::Result<Vec<(DropKey, u64)>> {
        let Map::PerCpuHashMap(data) = &self.counts else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut counts = Vec::new();
        self.batch.read(data.fd().as_fd(), |key, values| counts.push((*key, values.iter().sum())))?;
        Ok(counts)
    }

    fn counts_by_key(&self) -> Result<Vec<(DropKey, u64)>, MapError> {
        PerCpuHashMap::try_from(&self.counts)?
            .iter()
            .map(|entry| entry.map(|(key, values)| (key, values.iter().sum())))
            .collect()
    }

    /// The drops lost in the way that `loss` names.
    pub fn lost(&self, loss: Loss) -> Result<u64> {
        let values = self.losses.get(&(loss as u32), 0).context("cannot read the ledger from the kernel")?;
        Ok(values.iter().sum())
    }
}
