//! Drop reasons by name, as the running kernel names them.
//!
//! A reason is a number whose meaning changes from kernel to kernel: `NETFILTER_DROP` was 6, 7, 8, 11 and 12.
//! The upper 16 bits are a subsystem (since Linux 6.4, 0 is the core), the lower 16 its reason. Names
//! therefore come from the kernel that is running and nowhere else:
//!
//! 1. its type information ([`crate::kernel::btf`]): `enum skb_drop_reason`, `enum skb_drop_reason_subsys`, and, in
//!    the kernel or in modules, the enums of subsystems, whose names end in `drop_reason`;
//! 2. without it, the text of the tracepoint's `format` file, which knows the core's reasons only;
//! 3. without either, numbers: `core:77`.

mod format;
mod load;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use load::{Loaded, Source};

use crate::kernel::btf::{Btf, Enum};
use crate::model::reason::{Reason, SUBSYSTEM_SHIFT, subsystem_of};

/// The subsystem of all reasons before there were subsystems, and of most since.
const CORE: &str = "core";
/// What the kernel puts before the names of the core's reasons. What is no drop, as `SKB_CONSUMED`, has only
/// `SKB_`.
const PREFIX: &str = "SKB_DROP_REASON_";
const SHORT_PREFIX: &str = "SKB_";
const SUBSYSTEM_PREFIX: &str = "SKB_DROP_REASON_SUBSYS_";

/// The reasons of a kernel.
#[derive(Clone, Debug)]
pub struct Reasons {
    names: BTreeMap<u32, Arc<str>>,
    subsystems: BTreeMap<u32, Arc<str>>,
    /// Modules whose type information was read.
    modules: BTreeSet<String>,
}

impl Default for Reasons {
    fn default() -> Self {
        Self::unknown()
    }
}

impl Reasons {
    /// No names at all: every reason is a number.
    #[must_use]
    pub fn unknown() -> Self {
        let subsystems = BTreeMap::from([(0, CORE.into())]);
        Self { names: BTreeMap::new(), subsystems, modules: BTreeSet::new() }
    }

    /// The reasons a kernel's type information names: none before Linux 5.17 (stable kernels: 5.15).
    ///
    /// Those of subsystems are among them if they are built into the kernel; for those in modules see
    /// [`Reasons::add_module`].
    #[must_use]
    pub fn from_btf(kernel: &Btf<'_>) -> Self {
        let mut reasons = Self::unknown();
        let values = |name| kernel.enum_values(name).unwrap_or_default();
        for (name, value) in values("skb_drop_reason") {
            if let Ok(code) = u32::try_from(value) {
                reasons.add_core(code, without_prefix(name));
            }
        }
        for (name, value) in values("skb_drop_reason_subsys") {
            let number = u32::try_from(value).ok().filter(|&number| number <= subsystem_of(u32::MAX));
            // The last one counts the others.
            let name = name.strip_prefix(SUBSYSTEM_PREFIX).filter(|&name| name != "NUM");
            if let (Some(number), Some(name)) = (number, name) {
                reasons.subsystems.insert(number, name.to_ascii_lowercase().into());
            }
        }
        reasons.add_module(kernel);
        reasons
    }

    /// The core's reasons, from the tracepoint's `format` file (`events/skb/kfree_skb/format` in tracefs).
    ///
    /// `None` if the text names no reason: before Linux 5.17 (stable kernels: 5.15) the tracepoint had none.
    #[must_use]
    pub fn from_format(text: &str) -> Option<Self> {
        let mut reasons = Self::unknown();
        for (code, name) in format::symbols(text, "reason") {
            reasons.add_core(code, name);
        }
        (!reasons.is_empty()).then_some(reasons)
    }

    /// Adds the reasons of subsystems that a module's type information names; tells how many.
    ///
    /// They replace those read before: a module may have been rebuilt and loaded again.
    pub fn add_module(&mut self, module: &Btf<'_>) -> usize {
        if self.subsystems.len() == 1 {
            return 0;
        }
        module
            .enums()
            .filter(|found| found.name().ends_with("drop_reason"))
            .map(|found| self.add_enum(found))
            .sum()
    }

    /// Adds a reason of the core. `MAX` is where they end and, where subsystems exist, another value the mask
    /// of their bits: neither is a reason.
    fn add_core(&mut self, code: u32, name: &str) {
        if subsystem_of(code) == 0 && name != "MAX" && !name.is_empty() {
            self.names.entry(code).or_insert_with(|| name.into());
        }
    }

    fn add_enum(&mut self, found: Enum<'_>) -> usize {
        let placeholder = found.name().trim_start_matches('_');
        let mut added = 0;
        for (name, value) in found.values() {
            // Such enums repeat values of the core beside their own.
            let code = u32::try_from(value).ok().filter(|&code| subsystem_of(code) != 0);
            let code = code.filter(|&code| self.subsystems.contains_key(&subsystem_of(code)));
            let name = name.trim_start_matches('_');
            // `__OVS_DROP_REASON` starts `enum ovs_drop_reason`, `OVS_DROP_MAX` ends it: neither is a reason.
            let is_marker = name.eq_ignore_ascii_case(placeholder) || name.ends_with("_MAX");
            if let Some(code) = code.filter(|_| !is_marker) {
                self.names.insert(code, name.into());
                added += 1;
            }
        }
        added
    }

    /// Whether no reason has a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many reasons have names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// A reason by its number: all that is known of it.
    #[must_use]
    pub fn get(&self, code: u32) -> Reason {
        Reason {
            code,
            subsystem: self.subsystems.get(&subsystem_of(code)).cloned(),
            name: self.names.get(&code).cloned(),
        }
    }

    /// Every reason that has a name, by number.
    pub fn iter(&self) -> impl Iterator<Item = Reason> {
        self.names.keys().map(|&code| self.get(code))
    }

    /// The numbers of a reason, in whatever way a user may write it; case does not matter.
    ///
    /// A name (`NO_SOCKET`, also with the kernel's prefix `SKB_DROP_REASON_`), which several subsystems may
    /// have given, its number as JSON has it (`12`), or what an unnamed reason is displayed as (`core:77`, `2:5`),
    /// which need not be known. Empty if there is no such reason.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<u32> {
        if let Some((subsystem, number)) = text.split_once(':') {
            return self.code(subsystem, number).into_iter().collect();
        }
        if let Ok(code) = text.parse() {
            return vec![code];
        }
        let bare = without_prefix_in_any_case(text);
        let is_it = |code: u32, name: &str| {
            name.eq_ignore_ascii_case(text) || (subsystem_of(code) == 0 && name.eq_ignore_ascii_case(bare))
        };
        self.names.iter().filter(|&(&code, name)| is_it(code, name)).map(|(&code, _)| code).collect()
    }

    fn code(&self, subsystem: &str, number: &str) -> Option<u32> {
        let named = self.subsystems.iter().find(|(_, name)| name.eq_ignore_ascii_case(subsystem));
        let subsystem = match named {
            Some((&subsystem, _)) => u16::try_from(subsystem).ok()?,
            None => subsystem.parse().ok()?,
        };
        let number: u16 = number.parse().ok()?;
        Some(u32::from(subsystem) << SUBSYSTEM_SHIFT | u32::from(number))
    }

    /// Whether the kernel can give this reason, as far as the names of its subsystem are known.
    #[must_use]
    pub fn can_be(&self, code: u32) -> bool {
        let first = subsystem_of(code) << SUBSYSTEM_SHIFT;
        let names_subsystem = self.names.range(first..=first | u32::from(u16::MAX)).next().is_some();
        !names_subsystem || self.names.contains_key(&code)
    }

    /// Whether a reason is of a subsystem of which no reason has a name: its module may have been loaded
    /// since, and [`Reasons::refresh`] may find them.
    #[must_use]
    pub fn is_missing_subsystem(&self, code: u32) -> bool {
        let subsystem = subsystem_of(code);
        let first = subsystem << SUBSYSTEM_SHIFT;
        subsystem != 0 && self.names.range(first..=first | u32::from(u16::MAX)).next().is_none()
    }
}

/// The name of a value of the core's enum.
/// The reasons of the core, without their prefix, and their numbers: reading no more than these takes less time.
pub fn core_reasons<'a>(kernel: &'a Btf<'_>) -> impl Iterator<Item = (&'a str, u32)> {
    let values = kernel.enum_values("skb_drop_reason").unwrap_or_default().into_iter();
    values.filter_map(|(name, code)| Some((without_prefix(name), u32::try_from(code).ok()?)))
}

fn without_prefix(name: &str) -> &str {
    name.strip_prefix(PREFIX).or_else(|| name.strip_prefix(SHORT_PREFIX)).unwrap_or(name)
}

/// A user's word without the kernel's prefix.
fn without_prefix_in_any_case(text: &str) -> &str {
    match text.split_at_checked(PREFIX.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(PREFIX) => rest,
        _ => text,
    }
}
