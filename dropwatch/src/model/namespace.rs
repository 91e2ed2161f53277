//! Which network namespace.

use serde::Serialize;

/// A network namespace.
///
/// Its inode number is what people see, and is given to another one as soon as it has gone; its cookie never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Namespace {
    /// Its inode number.
    pub inum: u32,
    /// Its cookie; zero on kernels that have none (before 5.12).
    #[serde(skip)]
    pub cookie: u64,
}

impl Namespace {
    /// What the probe knows it by: the cookie where it has one.
    #[must_use]
    pub fn id(self) -> u64 {
        if self.cookie == 0 { self.inum.into() } else { self.cookie }
    }

    /// Whether it is another one, as far as is known of both.
    #[must_use]
    pub fn is(self, other: Self) -> bool {
        self.inum == other.inum && (self.cookie == other.cookie || self.cookie == 0 || other.cookie == 0)
    }
}

/// Which network namespaces a filter or a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichNetns {
    /// This one.
    One(Namespace),
    /// Those that have this name while drops are counted.
    Named(String),
}
