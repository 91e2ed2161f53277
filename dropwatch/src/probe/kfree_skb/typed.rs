//! What the programs with types have in common: a filter, and the maps that it needs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use aya::maps::{self, Array};
use dropwatch_common::{
    chain::LongName,
    names,
    probe::{NameBits, RangeSet, gather},
    program::{Cases, Insn, need},
};

use crate::{
    filter::{Filter, code::code},
    model::{
        interface::padded,
        keys::{Key, counted},
    },
    probe::{
        loader::{Loaded, Loader},
        source::FilterMaps,
        types::KernelTypes,
    },
};

/// Room for network namespaces that drops are seen in, where their names decide.
const MOST_NAMESPACES: u32 = 8192;

/// Room for places and reasons whose class the kernel knows, where it decides.
const MOST_CAUSES: u32 = 4096;

/// What the kernel needs of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFilter {
    /// The program.
    pub insns: Vec<Insn>,
    /// What it needs to know of a drop: bits of [`need`].
    pub needs: u32,
    /// The values that their sets have at the start.
    pub sets: Vec<RangeSet>,
    /// The names of interfaces, each at the place of its bit.
    pub interfaces: Vec<String>,
    /// The programs, if there are several.
    pub cases: Cases,
    /// What tells which case a drop is.
    pub deciding: Vec<Key>,
}

impl KernelFilter {
    /// The filter, as its names are understood at the start.
    #[must_use]
    pub fn new(filter: &Filter, sets: Vec<RangeSet>) -> Self {
        let (insns, interfaces) = (filter.insns().to_vec(), filter.interfaces().to_vec());
        let cases = filter.cases();
        let mut deciding = if cases.ask_for_classes() { counted(&[Key::Class]) } else { Vec::new() };
        if !cases.belongings().is_empty() {
            deciding.push(Key::Socket);
        }
        Self { insns, needs: filter.needs(), sets, interfaces, cases: filter.starts(), deciding }
    }

    /// Whether the filter needs names of namespaces, which user space passes to the kernel.
    pub(super) fn names_namespaces(&self) -> bool {
        self.needs & need::NETNS_NAMES != 0
    }

    /// What the probe has to find out to decide.
    pub(in crate::probe) fn gathered(&self) -> u32 {
        [
            (need::ETHERTYPE, gather::PROTOCOL),
            (need::PACKET, gather::HEADERS),
            (need::LENGTH, gather::LENGTH),
            (need::NETNS, gather::NETNS),
            (need::NETNS_NAMES, gather::NETNS | gather::NETNS_NAMES),
            (need::IFACE, gather::IFACE | gather::IFACE_NAME | gather::IFACE_NAMES),
            (need::BYTES, gather::BYTES),
            (need::LINK, gather::LINK),
            (need::VLAN, gather::VLAN),
        ]
        .into_iter()
        .filter(|(needed, _)| self.needs & needed != 0)
        .fold(0, |bits, (_, gathered)| bits | gathered)
    }
}

/// What every program with types is loaded with: what it is to gather, and the filter.
pub(in crate::probe) fn typed_loader<T>(
    types: &KernelTypes<T>,
    filter: Option<&KernelFilter>,
    gathered: u32,
) -> Result<Loader> {
    let loader = Loader::kfree_skb()
        .constant(names::HAS_REASON, u8::from(types.layout.has_reason()))
        .constant(names::HAS_SOCK, u8::from(types.layout.has_sock()))
        .constant(names::NESTED, u8::from(types.nested))
        .constant(names::OFFSETS, types.layout.offsets)
        .constant(names::KIND_REASONS, types.kind_reasons)
        .constant(names::GATHER, gathered)
        .cast(types.cast);
    let Some(filter) = filter else { return Ok(loader) };
    Ok(loader
        .constant(names::FILTERED, 1_u8)
        .constant(names::CASES, Cases::all(filter.cases.count))
        .max_entries(names::POSSIBLE, if filter.cases.count > 0 { MOST_CAUSES } else { 1 })
        .filter(code(&filter.insns, filter.cases))
        .max_entries(names::NAMESPACES, if filter.names_namespaces() { MOST_NAMESPACES } else { 1 })
        .max_entries(names::RANGES, u32::try_from(filter.sets.len())?.max(1)))
}

/// The filter's sets, with the values that they have at the start; no namespace has been looked at yet.
pub(in crate::probe) fn filter_maps(
    loaded: &mut Loaded,
    filter: Option<&KernelFilter>,
) -> Result<FilterMaps> {
    let sets = filter.map_or(&[][..], |filter| &filter.sets);
    let ranges = if loaded.has(names::RANGES) {
        let mut ranges = Array::try_from(loaded.take(names::RANGES)?)?;
        (0..).zip(sets).try_for_each(|(number, set)| ranges.set(number, *set, 0))?;
        Some(ranges)
    } else {
        None
    };
    let namespaces = maps::HashMap::try_from(loaded.take(names::NAMESPACES)?)?;
    let possible = maps::HashMap::try_from(loaded.take(names::POSSIBLE)?)?;
    Ok(FilterMaps { ranges: ranges.map(|ranges| Arc::new(Mutex::new(ranges))), namespaces, possible })
}

/// The names of interfaces that the kernel has to know, with their bits.
pub(in crate::probe) fn interface_names(
    filter: Option<&KernelFilter>,
    of_rules: &[String],
) -> HashMap<LongName, NameBits> {
    let mut names: HashMap<LongName, NameBits> = HashMap::new();
    for (place, name) in filter.map_or(&[][..], |filter| &filter.interfaces).iter().enumerate() {
        names.entry(padded(name)).or_default().filter |= 1 << place;
    }
    for (place, name) in of_rules.iter().enumerate() {
        names.entry(padded(name)).or_default().rules |= 1 << place;
    }
    names
}

/// How many entries a map of them has.
pub(in crate::probe) fn room(names: &HashMap<LongName, NameBits>) -> u32 {
    u32::try_from(names.len()).unwrap_or(u32::MAX).max(1)
}

/// Tells the kernel, before drops are counted.
pub(in crate::probe) fn tell_names(loaded: &mut Loaded, names: &HashMap<LongName, NameBits>) -> Result<()> {
    let mut map = maps::HashMap::<_, LongName, NameBits>::try_from(loaded.take(names::INTERFACES)?)?;
    names.iter().try_for_each(|(name, bits)| map.insert(name, bits, 0))?;
    Ok(())
}
