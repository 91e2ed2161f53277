//! What rows refer to by number: call chains, each kept once.

use std::{collections::HashMap, sync::Arc};

use anyhow::Result;
use dropwatch_common::{
    chain::{Chain, FRAMES},
    row::{RowKey, known},
};

use crate::model::references::{Frames, References, trimmed};

/// How many chains keep their numbers when the kernel's counters end: some 20 MB at most.
const REMEMBERED: usize = 32_768;

/// Call chains by our own numbers: those that are the same without our own frames have one.
///
/// A number is never given to another chain, and a chain keeps its number until there are too many. The kernel's
/// numbers mean something in one generation of its maps only.
#[derive(Debug)]
pub struct Chains {
    /// By the number in the kernel and the location, in the present generation.
    known: HashMap<(u64, u64), u64>,
    numbers: HashMap<Frames, u64>,
    /// By the number, of which the first is `first`.
    frames: Vec<Frames>,
    first: u64,
    remembered: usize,
    /// Whether all are forgotten before the next reading.
    is_over: bool,
}

impl Default for Chains {
    fn default() -> Self {
        Self::remembering(REMEMBERED)
    }
}

impl Chains {
    fn remembering(remembered: usize) -> Self {
        Self {
            known: HashMap::new(),
            numbers: HashMap::new(),
            frames: Vec::new(),
            first: 0,
            remembered,
            is_over: false,
        }
    }

    /// Before a reading: what the last one referred to is not needed any more, if that has ended.
    pub fn begin(&mut self) {
        if std::mem::take(&mut self.is_over) {
            self.first += self.frames.len() as u64;
            self.numbers = HashMap::new();
            self.frames = Vec::new();
        }
    }

    /// Our number of a chain, which is read from the kernel when it is new there.
    pub fn number(
        &mut self,
        kernel: u64,
        location: u64,
        read: impl FnOnce(u64) -> Result<Chain>,
    ) -> Result<u64> {
        if let Some(&number) = self.known.get(&(kernel, location)) {
            return Ok(number);
        }
        let chain = read(kernel)?;
        let depth = usize::try_from(chain.depth).unwrap_or(FRAMES).min(FRAMES);
        let number = self.intern(trimmed(&chain.frames[..depth], location).into());
        self.known.insert((kernel, location), number);
        Ok(number)
    }

    /// How many chains the kernel keeps, as far as has been seen.
    #[must_use]
    pub fn of_generation(&self) -> usize {
        self.known.len()
    }

    /// The kernel's numbers mean nothing any more; whether ours are of no use for the next generation either.
    #[must_use]
    pub fn end_generation(&mut self) -> bool {
        self.known = HashMap::new();
        self.is_over = self.frames.len() > self.remembered;
        self.is_over
    }

    /// The chains of some keys that have our numbers.
    pub fn references<'a>(&self, keys: impl Iterator<Item = &'a RowKey>) -> References {
        let mut references = References::default();
        for key in keys {
            if key.known & known::STACK != 0 {
                references.chains.entry(key.stack).or_insert_with(|| self.frames(key.stack));
            }
        }
        references
    }

    fn intern(&mut self, frames: Frames) -> u64 {
        let next = self.first + self.frames.len() as u64;
        let number = *self.numbers.entry(Arc::clone(&frames)).or_insert(next);
        if number == next {
            self.frames.push(frames);
        }
        number
    }

    fn frames(&self, number: u64) -> Frames {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.frames.get(index)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn chain(frames: &[u64]) -> Chain {
        let mut chain = Chain { depth: frames.len() as u64, frames: [0; FRAMES] };
        chain.frames[..frames.len()].copy_from_slice(frames);
        chain
    }

    fn number(chains: &mut Chains, kernel: u64, frames: &[u64]) -> u64 {
        chains.number(kernel, 7, |_| Ok(chain(frames))).expect("a chain")
    }

    #[test]
    fn chains_that_differ_only_in_our_own_frames_are_one() {
        let mut chains = Chains::default();
        let one = number(&mut chains, 1, &[1, 7, 8]);
        let same = number(&mut chains, 2, &[2, 7, 8]);
        let other = number(&mut chains, 3, &[1, 7, 9]);
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_eq!(&*chains.frames(other), [7, 9]);
        assert_eq!(chains.of_generation(), 3);
        let known = chains.number(2, 7, |_| anyhow::bail!("it was read before")).expect("known");
        assert_eq!(known, one);
    }

    #[test]
    fn a_number_of_the_kernel_is_of_one_generation() {
        let mut chains = Chains::default();
        let one = number(&mut chains, 1, &[7, 8]);
        assert!(!chains.end_generation());
        chains.begin();
        let other = number(&mut chains, 1, &[7, 9]);
        assert_ne!(one, other);
        assert_eq!(number(&mut chains, 2, &[7, 8]), one, "it keeps ours");
    }

    proptest! {
        /// Whatever comes and goes, a number leads to its chain while the reading lasts, never to another one, and
        /// what is kept stays within its bound.
        #[test]
        fn numbers_stay_right_and_tables_small(
            generations in vec(vec(0_u64..40, 0..12), 1..30),
            remembered in 0_usize..20,
        ) {
            let mut chains = Chains::remembering(remembered);
            let mut given: HashMap<u64, u64> = HashMap::new();
            let mut now: HashMap<u64, u64> = HashMap::new();
            for (generation, frames) in (0..).zip(generations) {
                chains.begin();
                for frame in frames {
                    // The kernel's numbers come back for other chains.
                    let kernel = (frame + generation) % 40;
                    let ours = number(&mut chains, kernel, &[7, 100 + frame]);
                    prop_assert_eq!(*given.entry(ours).or_insert(frame), frame, "never another one");
                    prop_assert_eq!(*now.entry(frame).or_insert(ours), ours, "the same until they are renumbered");
                    prop_assert_eq!(&*chains.frames(ours), &[7, 100 + frame][..]);
                }
                if chains.end_generation() {
                    now.clear();
                }
                prop_assert!(chains.frames.len() <= remembered + 12);
                prop_assert_eq!(chains.frames.len(), chains.numbers.len());
                prop_assert_eq!(chains.of_generation(), 0);
            }
        }
    }
}
