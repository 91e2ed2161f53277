//! What drops are worth, for a filter: decided once for each place, reason and kind of packet.

use std::collections::HashMap;

use super::{
    btf::KernelBtf,
    reasons::{Loaded, Reasons, Source},
    symbols::Symbols,
};
use crate::{
    knowledge::Meanings,
    model::{
        class::{Class, Destination},
        location::KERNEL,
    },
};

/// Classes of drops in the running kernel.
#[derive(Debug)]
pub struct Classes {
    symbols: Symbols,
    /// None on kernels that give no reasons.
    reasons: Option<Reasons>,
    meanings: Meanings,
    known: HashMap<(u64, u32, Destination), Class>,
}

impl Classes {
    /// Reads the reasons.
    #[must_use]
    pub fn new(symbols: Symbols, kernel: &KernelBtf) -> Self {
        let Loaded { reasons, source, warnings } = Reasons::load(kernel);
        let gives_none = matches!(source, Source::Nothing) && warnings.is_empty();
        let reasons = (!gives_none).then_some(reasons);
        Self { symbols, reasons, meanings: Meanings::default(), known: HashMap::new() }
    }

    /// The class of a drop; one whose class depends on something unknown is lost. It does not change any more, even if
    /// another module is loaded to that place: counts that have passed a filter cannot leave it again.
    pub fn of(&mut self, location: u64, reason: u32, destination: Destination) -> Class {
        if let Some(class) = self.known.get(&(location, reason, destination)) {
            return *class;
        }
        let class = self.look_up(location, reason, destination).unwrap_or(Class::Lost);
        self.known.insert((location, reason, destination), class);
        class
    }

    /// The class of all drops at a place for a reason, whomever they are for, in code that is never unloaded; none if there
    /// is not one for all.
    pub fn of_all(&mut self, location: u64, reason: u32) -> Option<Class> {
        let symbol = self.symbols.table().locate(location).symbol?;
        if symbol.module != *KERNEL {
            return None;
        }
        self.look_up(location, reason, Destination::Unknown)
    }

    fn look_up(&mut self, location: u64, reason: u32, destination: Destination) -> Option<Class> {
        let symbol = self.symbols.table().locate(location).symbol?;
        let reason = self.reasons.as_mut().map(|reasons| {
            if reasons.is_missing_subsystem(reason) {
                // Its module may have been loaded since.
                reasons.refresh();
            }
            reasons.get(reason)
        });
        self.meanings.class(reason.as_ref(), &symbol, destination)
    }
}
