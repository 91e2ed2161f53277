//! Keeps what the kernel looks locations up in right, while modules and trampolines come and go.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use dropwatch_common::probe::RangeSet;

use crate::{
    filter::{Filter, Set},
    kernel::{
        btf::KernelBtf,
        filter_sets::{self, TooMany},
        reasons::{Loaded, Reasons},
        symbols::{Follower, Table},
        trampolines,
    },
    probe::source::TrampolineMap,
    process::{notice::Notices, privileges},
    session::life::Life,
};

/// What the sets of a filter mean at the start.
///
/// # Errors
/// A name means more than the kernel has room for.
pub fn resolve(filter: &Filter, table: &Table, notices: &Notices) -> Result<Vec<RangeSet>, TooMany> {
    filter
        .sets()
        .iter()
        .map(|set| {
            let ranges = filter_sets::ranges(set, table.index(), None)?;
            if ranges == RangeSet::default() && !matches!(set, Set::Netns(_)) {
                let name = set.name();
                notices.warn(format!(
                    "there is no function {name} now: the filter waits for a module that has it"
                ));
            }
            Ok(ranges)
        })
        .collect()
}

/// Where a filter's sets are.
pub type SetMap = Arc<Mutex<Array<MapData, RangeSet>>>;

/// What the kernel looks locations up in: the sets of a filter, and the trampolines that hide locations.
#[derive(Default)]
pub struct Meanings {
    /// The filter's sets, and where they are.
    pub sets: Option<(Vec<Set>, SetMap)>,
    /// Where the trampolines are.
    pub trampolines: Option<TrampolineMap>,
}

impl Meanings {
    /// Tells the kernel at once what `table` says, unless it is empty; the sets have been told already.
    ///
    /// # Errors
    /// The kernel does not let it be written.
    pub fn tell_trampolines(&mut self, table: &Table) -> Result<()> {
        let Some(map) = &mut self.trampolines else { return Ok(()) };
        let trampolines = trampolines::find(table.index());
        if map.get(&0, 0)? != trampolines {
            map.set(0, trampolines, 0)?;
        }
        Ok(())
    }

    /// Rewrites all of it whenever there is a new symbol table, in a thread that ends with `life`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(mut self, mut follower: Follower, notices: Notices, life: &mut Life) -> Result<()> {
        life.at_end(follower.ender());
        let follow = move || {
            privileges::give_up_in_thread();
            while let Some(table) = follower.next_table() {
                if let Err(error) = self.rewrite_sets(&table) {
                    notices.warn(format!(
                        "the filter could not be updated and keeps the old meaning of its names: {error:#}"
                    ));
                }
                if let Err(error) = self.tell_trampolines(&table) {
                    log::warn!("return probes of other tracers may hide locations: {error:#}");
                }
            }
        };
        thread::Builder::new().name("filter".into()).spawn(follow).context("cannot start a thread")?;
        Ok(())
    }

    fn rewrite_sets(&self, table: &Table) -> Result<()> {
        let Some((sets, maps)) = &self.sets else { return Ok(()) };
        let is_reason = |set: &Set| matches!(set, Set::Reason { .. });
        let reasons = sets.iter().any(is_reason).then(|| {
            let Loaded { reasons, .. } = Reasons::load(&KernelBtf::default());
            reasons
        });
        let mut maps = maps.lock().unwrap_or_else(PoisonError::into_inner);
        let follows = |(_, set): &(u32, &Set)| !matches!(set, Set::Netns(_));
        for (number, set) in (0..).zip(sets).filter(follows) {
            let ranges = filter_sets::ranges(set, table.index(), reasons.as_ref())?;
            if maps.get(&number, 0)? != ranges {
                // Clear first, so that a half-written range never matches.
                maps.set(number, RangeSet::default(), 0)?;
                maps.set(number, ranges, 0)?;
            }
        }
        Ok(())
    }
}
