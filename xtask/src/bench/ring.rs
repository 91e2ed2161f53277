//! The ring buffer of a program that another process loaded.
//!
//! The program is held while its process is gone, so the benchmark empties its ring buffer.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, RingBuf};
use nix::unistd::Pid;

use super::fdinfo::{self, field};

/// `BPF_MAP_TYPE_RINGBUF`.
const RING_BUFFER: u32 = 27;

#[derive(Clone)]
pub struct Ring(Arc<Mutex<RingBuf<MapData>>>);

impl Ring {
    /// Create it when there is no other reader: two readers would not know of each other.
    pub fn new(map: MapData) -> Result<Self> {
        let ring = RingBuf::try_from(Map::RingBuf(map)).context("cannot read a ring buffer")?;
        Ok(Self(Arc::new(Mutex::new(ring))))
    }

    /// Empties it, and returns how many records it held.
    pub fn empty(&self) -> usize {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = 0;
        while ring.next().is_some() {
            records += 1;
        }
        records
    }
}

/// The process's ring buffer, kept alive by this.
pub fn map_of(pid: Pid) -> Result<MapData> {
    let texts = fdinfo::texts(Path::new(&format!("/proc/{pid}/fdinfo")))?;
    let id = texts.iter().find_map(|text| ring(text)).context("dropwatch has no ring buffer open")?;
    MapData::from_id(id).context("the ring buffer is gone")
}

/// The number of the map, if that is what the descriptor is of.
fn ring(fdinfo: &str) -> Option<u32> {
    let kind: u32 = field(fdinfo, "map_type")?;
    (kind == RING_BUFFER).then(|| field(fdinfo, "map_id"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_and_other_maps_are_distinguished() {
        assert_eq!(ring("pos:\t0\nmap_type:\t27\nmap_id:\t41\n"), Some(41));
        assert_eq!(ring("pos:\t0\nmap_type:\t5\nmap_id:\t40\n"), None);
        assert_eq!(ring("pos:\t0\n"), None);
    }
}
