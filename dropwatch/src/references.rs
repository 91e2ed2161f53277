//! What rows refer to by number: interfaces and call chains.

use std::{collections::HashMap, sync::Arc};

use anyhow::Result;
use aya::maps::{self, Map, MapData, MapError};
use dropwatch_common::{
    chain::{Chain, DeviceKey, DeviceName, FRAMES},
    row::{RowKey, known},
};

use crate::{aggregate::Count, count_map::Counts};

/// A call chain, innermost frame first, starting where the packet was dropped.
pub type Frames = Arc<[u64]>;

/// The names of interfaces and the frames of chains, as the rows of one interval refer to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Interfaces whose names are known.
    pub devices: HashMap<DeviceKey, Arc<str>>,
    /// Chains by number.
    pub chains: HashMap<u64, Frames>,
}

/// Reads from the kernel what rows refer to.
pub struct Resolver {
    devices: maps::HashMap<MapData, DeviceKey, DeviceName>,
    chains: maps::HashMap<MapData, u64, Chain>,
    interned: Interned,
}

/// Chains that are the same once our own frames are gone have one number.
#[derive(Default)]
struct Interned {
    /// By the number in the kernel and the location.
    known: HashMap<(u64, u64), u64>,
    numbers: HashMap<Frames, u64>,
    chains: Vec<Frames>,
}

impl Resolver {
    /// A reader of the two maps.
    pub fn new(devices: Map, chains: Map) -> Result<Self> {
        Ok(Self {
            devices: maps::HashMap::try_from(devices)?,
            chains: maps::HashMap::try_from(chains)?,
            interned: Interned::default(),
        })
    }

    /// Gives chains that are the same without our own frames the same number, for good.
    pub fn number_chains(&mut self, counts: &mut Counts) -> Result<()> {
        for (key, _) in counts {
            if key.known & known::STACK != 0 {
                key.stack = self.chain(key)?;
            }
        }
        Ok(())
    }

    /// What the rows of an interval, whose chains have their numbers, refer to.
    pub fn references(&self, counts: &[Count]) -> Result<References> {
        let mut references = References::default();
        for Count { key, .. } in counts {
            if key.known & known::IFACE != 0 {
                self.device(key, &mut references)?;
            }
            if key.known & known::STACK != 0 {
                references.chains.entry(key.stack).or_insert_with(|| self.interned.frames(key.stack));
            }
        }
        Ok(references)
    }

    fn device(&self, key: &RowKey, references: &mut References) -> Result<()> {
        let device = DeviceKey { netns: key.netns, ifindex: key.ifindex };
        if references.devices.contains_key(&device) {
            return Ok(());
        }
        match self.devices.get(&device, 0) {
            Ok(name) => {
                references.devices.insert(device, text(&name).into());
            }
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn chain(&mut self, key: &RowKey) -> Result<u64> {
        let kernel = (key.stack, key.location);
        if let Some(&number) = self.interned.known.get(&kernel) {
            return Ok(number);
        }
        let chain = self.chains.get(&key.stack, 0)?;
        let depth = usize::try_from(chain.depth).unwrap_or(FRAMES).min(FRAMES);
        Ok(self.interned.insert(kernel, trimmed(&chain.frames[..depth], key.location).into()))
    }
}

impl Interned {
    fn insert(&mut self, kernel: (u64, u64), frames: Frames) -> u64 {
        let next = self.chains.len() as u64;
        let number = *self.numbers.entry(Arc::clone(&frames)).or_insert(next);
        if number == next {
            self.chains.push(frames);
        }
        self.known.insert(kernel, number);
        number
    }

    fn frames(&self, number: u64) -> Frames {
        usize::try_from(number).ok().and_then(|number| self.chains.get(number)).cloned().unwrap_or_default()
    }
}

/// The chain from the drop on: in front of it are the functions that call us.
///
/// A packet freed for somebody else (`net_tx_action`) has the start of a function as its location, and the frame is
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

/// A name up to its first zero.
fn text(name: &DeviceName) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
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

    #[test]
    fn chains_that_differ_only_in_our_own_frames_are_one() {
        let mut interned = Interned::default();
        let one = interned.insert((1, 7), [7, 8].into());
        let same = interned.insert((2, 7), [7, 8].into());
        let other = interned.insert((3, 7), [7, 9].into());
        assert_eq!((one, same), (0, 0));
        assert_ne!(one, other);
        assert_eq!(&*interned.frames(other), [7, 9]);
        assert_eq!(interned.known.get(&(2, 7)), Some(&one));
    }

    #[test]
    fn a_name_ends_at_its_zero() {
        let mut name = [0; 16];
        name[..4].copy_from_slice(b"eth0");
        assert_eq!(text(&name), "eth0");
        assert_eq!(text(b"0123456789abcdef"), "0123456789abcdef");
    }
}
