//! What every kind of probe offers to a session.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use aya::maps::{self, Array, MapData};
use dropwatch_common::{DropKey, probe::RangeSet, row::RowKey, trampoline::Trampolines};

use super::open_sockets::SocketWatch;
use crate::sys::ProgramStats;
use crate::{
    filter::assume::Decision,
    model::{
        class::Destination, namespace::Namespace, references::References, sample::Sample, snapshot::Snapshot,
        socket::Socket,
    },
    process::failure::{Failure, Refusal},
};

/// A probe that counts drops.
///
/// The session joins the intervals of all its sources; each brings its own BPF program and maps, which exist only
/// while it does.
pub trait Source: Send {
    /// Everything counted since the probe was attached, by the requested keys.
    ///
    /// # Errors
    /// The kernel does not let its maps be read.
    fn snapshot(&mut self) -> Result<Snapshot>;

    /// What the keys of a snapshot refer to.
    ///
    /// # Errors
    /// The kernel does not let its maps be read.
    fn references(&mut self, keys: &mut dyn Iterator<Item = &RowKey>) -> References;

    /// Whether a drop is known to be one of those that are counted.
    fn counts(&mut self, sample: &Sample) -> bool;

    /// How many distinct keys there is room for.
    fn room(&self) -> u32;

    /// What the kernel counts about the program itself.
    ///
    /// # Errors
    /// The kernel does not say.
    fn stats(&self) -> Result<ProgramStats>;

    /// Stops counting; what has been counted can still be read.
    fn stop(&mut self);
}

/// What is known of drops that passed the filter because the kernel did not know all that decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// Their namespace, if its names were not known.
    pub namespace: Option<Namespace>,
    /// The cases of the filter in which they passed, as bits; none if in all.
    pub passed: u32,
    /// What tells which case they are, unless they passed in all.
    pub cause: Option<Cause>,
    /// The socket they belong to, if the filter needs it and they have not passed in all.
    pub socket: Option<Belongs>,
}

/// Which socket drops belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Belongs {
    /// The one of this number.
    To(u64),
    /// None.
    ToNone,
    /// It is not known.
    Unknown,
}

/// A socket by its number.
pub type FindSocket<'a> = &'a dyn Fn(u64) -> Option<Socket>;

/// What the class of drops depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cause {
    /// Where.
    pub location: u64,
    /// Why.
    pub reason: u32,
    /// Whom they were for.
    pub destination: Destination,
}

/// What becomes of drops that passed the filter because the kernel did not know all that decides. An answer never changes,
/// as far as it depends on their class and their socket: counts only grow.
pub type Decide = Box<dyn FnMut(&[Question], FindSocket<'_>) -> Vec<Decision> + Send>;

/// What the kernel decides by and user space keeps up to date.
pub struct FilterMaps {
    /// The filter's sets, if it refers to any.
    pub ranges: Option<Arc<Mutex<Array<MapData, RangeSet>>>>,
    /// Namespaces by what the kernel knows them by, and whether user space has looked at their names.
    pub namespaces: maps::HashMap<MapData, u64, u64>,
    /// The cases of the filter that drops can be, by where and why.
    pub possible: maps::HashMap<MapData, DropKey, u64>,
}

/// What the kernel knows of trampolines, which hide locations.
pub type TrampolineMap = Array<MapData, Trampolines>;

/// A probe with values that change while it runs: the sets of its filter, and the trampolines of other tracers.
pub trait Filtered {
    /// Where the trampolines are written, for one caller to keep up to date.
    fn take_trampolines(&mut self) -> Option<TrampolineMap>;

    /// The maps, for one caller to keep up to date.
    fn take_filter_maps(&mut self) -> Option<FilterMaps>;

    /// How drops are decided about that passed because the kernel did not know all that decides.
    fn decide_by(&mut self, decide: Decide);

    /// Who has sockets open, for one caller to find out; none unless rows or the filter need sockets.
    fn take_socket_watch(&mut self) -> Option<SocketWatch> {
        None
    }
}

/// What a kernel refuses that is locked down for confidentiality, and what it does not.
pub const LOCKED_DOWN: &str = "this kernel is locked down (lockdown=confidentiality), so no BPF program may read its \
                               memory: keys and filters beyond location and reason, and `trace`, need to. \
                               `dropwatch` by location and reason works; boot with lockdown=integrity or without \
                               lockdown for the rest";

/// Why a probe is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel cannot do it, or does not let this process; says what to do.
    #[error("{0}")]
    Refused(String),
    /// It went wrong on our side.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Refused(message) => Self::Refused(Refusal::new(message)),
            AttachError::Failed(error) => Self::Failed(error),
        }
    }
}
