//! A drop reason.

use std::{fmt, sync::Arc};

use crate::escape::Escaped;

/// A drop reason, as far as it is known.
///
/// Displayed as its name, or as `subsystem:number`: `NO_SOCKET`, `core:77`, `2:5`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The kernel's number, subsystem included.
    pub code: u32,
    /// In lower case: `core`, `openvswitch`. `None` if the kernel does not say.
    pub subsystem: Option<Arc<str>>,
    /// The kernel's own name, without the prefix of the core's: `NO_SOCKET`, `OVS_DROP_LAST_ACTION`.
    pub name: Option<Arc<str>>,
}

/// How far a subsystem is shifted in a reason's number.
pub(crate) const SUBSYSTEM_SHIFT: u32 = 16;

/// The subsystem of a reason's number.
pub(crate) fn subsystem_of(code: u32) -> u32 {
    code >> SUBSYSTEM_SHIFT
}

impl Reason {
    /// The reason's number in its subsystem.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.code & ((1 << SUBSYSTEM_SHIFT) - 1)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.subsystem) {
            (Some(name), _) => f.pad(&Escaped::new(&**name).to_string()),
            (None, Some(subsystem)) => f.pad(&format!("{}:{}", Escaped::new(&**subsystem), self.number())),
            (None, None) => f.pad(&format!("{}:{}", subsystem_of(self.code), self.number())),
        }
    }
}
