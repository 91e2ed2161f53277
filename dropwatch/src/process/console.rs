//! Standard error: banners, warnings, errors. Standard output carries reports and nothing else.

use std::io::{self, Write};

use crate::escape;

/// Prints one line; a standard error that is closed is no failure.
pub fn say(line: &str) {
    say_lines(&escape::without(line, |character| character == '\n'));
}

/// Prints a message that has lines of its own; what is foreign in it is [`escape::Escaped`].
pub fn say_lines(message: &str) {
    let _ = writeln!(io::stderr(), "{}", escape::message(message));
}

/// Warns of something that does not end the run.
pub fn warn(message: &str) {
    say(&format!("warning: {message}"));
}

/// Standard error for diagnostics, which name files and functions as they are.
#[derive(Debug)]
pub struct Diagnostics;

impl Write for Diagnostics {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        io::stderr().write_all(escape::message(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
