//! Words on standard input, as scripts give them to C dropwatch.

use std::{
    io::{self, BufRead, Read as _},
    thread,
};

use anyhow::{Context as _, Result};

use crate::process::signals::Stop;

/// So much is read: far more than a script has to say.
const MOST_BYTES: u64 = 1 << 16;

/// Ends the run when standard input says so, in a thread that ends with the process.
///
/// # Errors
/// No thread can be started.
pub fn obey(stop: Stop) -> Result<()> {
    let obey = move || {
        if says_end(io::stdin().lock().take(MOST_BYTES)) {
            stop.ask();
        }
    };
    thread::Builder::new().name("words".into()).spawn(obey).context("cannot start a thread")?;
    Ok(())
}

/// Waits for a word that ends the run; the end of the input does not, as after `echo start |`.
fn says_end(words: impl BufRead) -> bool {
    words
        .split(b'\n')
        .map_while(Result::ok)
        .any(|line| matches!(line.trim_ascii(), b"stop" | b"exit" | b"quit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_words_end_a_run() {
        for words in ["exit", "start\nstop\n", "start\n quit \r\nmore", "\n\nexit\n"] {
            assert!(says_end(words.as_bytes()), "{words:?}");
        }
        for words in ["", "start\n", "exited\n", "set alertlimit 5\n", "\u{fffd}\0\n"] {
            assert!(!says_end(words.as_bytes()), "{words:?}");
        }
    }
}
