//! What a user should know beside the reports.
//!
//! Everything below the commands hands its notices over as values. The command decides what becomes of them: lines on
//! standard error, a status line, a metric.

use std::sync::Arc;

use super::console;

/// Something a user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// A sentence without its full stop.
    pub text: String,
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Requested output, such as the probe's cost.
    Info,
    /// Something is lost, or does not work as it should.
    Warning,
}

/// Where notices go. Clones lead to the same place.
#[derive(Clone)]
pub struct Notices(Arc<dyn Fn(Notice) + Send + Sync>);

impl Notices {
    /// Notices that a function shows.
    pub fn to(show: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self(Arc::new(show))
    }

    /// Notices as lines on standard error.
    #[must_use]
    pub fn to_stderr() -> Self {
        Self::to(|Notice { severity, text }| match severity {
            Severity::Info => console::say(&text),
            Severity::Warning => console::warn(&text),
        })
    }

    /// Requested output.
    pub fn info(&self, text: impl Into<String>) {
        (self.0)(Notice { severity: Severity::Info, text: text.into() });
    }

    /// Something that is lost, or does not work as it should.
    pub fn warn(&self, text: impl Into<String>) {
        (self.0)(Notice { severity: Severity::Warning, text: text.into() });
    }
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}
