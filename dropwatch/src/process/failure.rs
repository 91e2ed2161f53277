//! How a run can fail, and the exit status that says so.

/// Why a run ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// It cannot be done here: a privilege, a kernel feature or a file is missing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It went wrong while running.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    /// The exit status: 1 for a failure while running, 2 for usage, 3 for what cannot be done here.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
        }
    }
}

/// This cannot be done here; the message names the cause and the cure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    /// A refusal with its one message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}
