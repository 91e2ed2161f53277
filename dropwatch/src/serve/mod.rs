//! The exporter: reports become series that only grow, and clients read them over HTTP.
//!
//! What they read is [`Published`], which never changes: the sink's thread makes one for each interval. So a client sees
//! one moment, and neither its number nor its speed holds up anything but itself.

pub mod access;
mod labels;
mod metrics;
pub mod page;
mod process;
mod publisher;
mod series;
mod systemd;
pub mod web;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::body::Bytes;
use tokio::sync::{Semaphore, watch};

#[cfg(feature = "fakes")]
pub use self::access::read_text;
use self::metrics::Texts;
pub use self::publisher::Publisher;
use crate::model::{class::Split, report::Report};

/// What handlers of requests know.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The newest of what has been published; closed once the run ends.
    pub published: watch::Receiver<Arc<Published>>,
    /// How many streams of events there may be.
    pub streams: Arc<Semaphore>,
    /// After how long without a new interval something is wrong.
    pub stale: Duration,
}

impl Shared {
    /// Whether counts still arrive.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let time = self.published.borrow().report.time;
        SystemTime::now().duration_since(time).unwrap_or_default() <= self.stale
    }
}

/// Everything that clients can read, as of one moment.
#[derive(Debug)]
pub struct Published {
    /// The interval's number, from 1; 0 before the first one has ended.
    pub number: u64,
    /// The last interval.
    pub report: Report,
    /// The same in JSON.
    pub json: Bytes,
    /// The last intervals, oldest first.
    pub history: Vec<Moment>,
    texts: Texts,
}

/// An interval in short.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When it ended.
    pub ended: SystemTime,
    /// How long it was.
    pub elapsed: Duration,
    /// Its drops.
    pub drops: u64,
    /// The same by class, as far as that is known.
    pub split: Split,
}

/// What a client gets that sends these bytes, to a run without a drop, and to a socket that is of this host only or not.
/// With `is_restricted`, the user is `prometheus` and the password `password`.
#[cfg(feature = "fakes")]
#[must_use]
pub fn answer(is_loopback: bool, is_restricted: bool, request: &[u8]) -> Vec<u8> {
    let access = is_restricted.then(access::Access::of_a_test);
    web::answer(publisher::ended(), access, is_loopback, request)
}
