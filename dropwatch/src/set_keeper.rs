//! Keeps a filter's sets right while modules come and go.

use std::thread;

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use dropwatch_common::probe::RangeSet;

use crate::{
    btf::KernelBtf,
    console::warn,
    filter::{Filter, Set},
    reasons::{Loaded, Reasons},
    symbols::{Follower, Table},
};

/// What the sets of a filter mean at the start.
///
/// # Errors
/// A name means more than the kernel has room for.
pub fn resolve(filter: &Filter, table: &Table) -> Result<Vec<RangeSet>> {
    filter
        .sets()
        .iter()
        .map(|set| {
            let ranges = set.ranges(table.index(), None)?;
            if ranges == RangeSet::default() {
                let name = set.name();
                warn(&format!("there is no function {name} now: the filter waits for a module that has it"));
            }
            Ok(ranges)
        })
        .collect()
}

/// Rewrites the sets whenever there is a new symbol table, in a thread that ends with the process.
pub fn start(filter: &Filter, mut maps: Array<MapData, RangeSet>, follower: Follower) -> Result<()> {
    let sets = filter.sets().to_vec();
    let follow = move || {
        let mut follower = follower;
        loop {
            if let Err(error) = rewrite(&sets, &follower.next_table(), &mut maps) {
                warn(&format!("the filter keeps what its names meant before: {error:#}"));
            }
        }
    };
    thread::Builder::new().name("filter".into()).spawn(follow).context("cannot start a thread")?;
    Ok(())
}

fn rewrite(sets: &[Set], table: &Table, maps: &mut Array<MapData, RangeSet>) -> Result<()> {
    let is_reason = |set: &Set| matches!(set, Set::Reason { .. });
    let reasons = sets.iter().any(is_reason).then(|| {
        let Loaded { reasons, .. } = Reasons::load(&KernelBtf::default());
        reasons
    });
    for (number, set) in (0..).zip(sets) {
        let ranges = set.ranges(table.index(), reasons.as_ref())?;
        if maps.get(&number, 0)? != ranges {
            // By way of nothing: see `Range`.
            maps.set(number, RangeSet::default(), 0)?;
            maps.set(number, ranges, 0)?;
        }
    }
    Ok(())
}
