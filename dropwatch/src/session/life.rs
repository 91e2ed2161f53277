//! How long the threads beside a probe live: as long as their [`Life`] is held.

use std::{
    fmt,
    io::{self, PipeReader},
};

/// Dropping it ends the threads beside a probe; without that, they end with the process.
#[derive(Default)]
pub struct Life(Vec<Box<dyn FnOnce() + Send>>);

impl Life {
    /// Has this done at the end.
    pub fn at_end(&mut self, end: impl FnOnce() + Send + 'static) {
        self.0.push(Box::new(end));
    }

    /// A pipe that hangs up at the end.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn hangup(&mut self) -> io::Result<PipeReader> {
        let (reader, writer) = io::pipe()?;
        self.at_end(move || drop(writer));
        Ok(reader)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|end| end());
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Life").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_waits_for_the_end_sees_it_when_the_last_owner_goes() {
        let mut life = Life::default();
        let mut reader = life.hangup().expect("a pipe");
        let waiting = std::thread::spawn(move || reader.read(&mut [0]).expect("an end"));
        assert!(!waiting.is_finished());
        drop(life);
        assert_eq!(waiting.join().expect("a thread"), 0);
    }
}
