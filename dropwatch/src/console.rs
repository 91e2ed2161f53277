//! Standard error: banners, warnings, errors. Standard output carries reports and nothing else.

use std::io::{self, Write as _};

/// Says something; a standard error that is closed is nobody's problem.
pub fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Warns of something that does not end the run.
pub fn warn(message: &str) {
    say(&format!("warning: {message}"));
}
