//! Where drops go to: standard output, a capture file, or both.

use std::{
    fs::File,
    io::{self, BufWriter, Stdout, Write as _},
    path::PathBuf,
    time::Duration,
};

use super::{
    drop::Drop,
    json, line,
    pcapng::{Capture, Sink},
};
use crate::config::{Destination, TraceConfig, TraceFormat};

/// Bytes of lines that are written at once under load.
const BUFFER: usize = 1 << 16;

/// Why a drop could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Standard output is closed: nobody reads any more, which is a good end.
    #[error("nobody reads standard output")]
    Closed,
    /// Standard output failed otherwise.
    #[error("cannot write to standard output: {0}")]
    Stdout(#[source] io::Error),
    /// What is missing from the stream is not known.
    #[error("cannot count what is not shown: {0:#}")]
    Uncounted(anyhow::Error),
    /// The capture file failed.
    #[error("cannot write {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// How.
        #[source]
        error: io::Error,
    },
}

/// The places that were asked for.
pub struct Output {
    lines: Option<(TraceFormat, BufWriter<Stdout>)>,
    capture: Option<(Destination, Capture<Box<dyn Sink + Send>>)>,
}

impl Output {
    /// Opens them; a capture file is made anew.
    ///
    /// # Errors
    /// A capture that cannot be begun.
    pub fn open(config: &TraceConfig) -> Result<Self, WriteError> {
        let lines = config.format.map(|format| (format, BufWriter::with_capacity(BUFFER, io::stdout())));
        let capture = match &config.write {
            None => None,
            Some(destination) => {
                let failed = |error| failure(destination, error);
                let sink: Box<dyn Sink + Send> = match destination {
                    Destination::Stdout => Box::new(io::stdout()),
                    Destination::File(path) => Box::new(File::create(path).map_err(failed)?),
                };
                let capture = Capture::new(sink, config.probe.snaplen).map_err(failed)?;
                Some((destination.clone(), capture))
            }
        };
        Ok(Self { lines, capture })
    }

    /// Writes a drop to all of them.
    ///
    /// # Errors
    /// The first that fails. The capture keeps everything before it.
    pub fn drop(&mut self, drop: &Drop<'_>) -> Result<(), WriteError> {
        if let Some((destination, capture)) = &mut self.capture {
            capture.drop(drop).map_err(|error| failure(destination, error))?;
        }
        match &mut self.lines {
            Some((TraceFormat::Text, out)) => line::write(drop, out),
            Some((TraceFormat::Json, out)) => json::write(drop, out),
            None => Ok(()),
        }
        .map_err(stdout_failure)
    }

    /// Says in the stream that drops are missing from it; objects are summed at the end.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn not_shown(&mut self, drops: u64) -> Result<(), WriteError> {
        match &mut self.lines {
            Some((TraceFormat::Text, out)) => line::write_not_shown(drops, out).map_err(stdout_failure),
            _ => Ok(()),
        }
    }

    /// Hands on what has been written, to be read now.
    ///
    /// # Errors
    /// The first that fails.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if let Some((destination, capture)) = &mut self.capture {
            capture.flush().map_err(|error| failure(destination, error))?;
        }
        match &mut self.lines {
            Some((_, out)) => out.flush().map_err(stdout_failure),
            None => Ok(()),
        }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// The first that fails.
    pub fn finish(&mut self, shown: u64, not_shown: u64, elapsed: Duration) -> Result<(), WriteError> {
        if let Some((TraceFormat::Json, out)) = &mut self.lines {
            json::write_summary(shown, not_shown, elapsed, out).map_err(stdout_failure)?;
        }
        self.flush()
    }
}

fn failure(destination: &Destination, error: io::Error) -> WriteError {
    match destination {
        Destination::Stdout => stdout_failure(error),
        Destination::File(path) => WriteError::File { path: path.clone(), error },
    }
}

fn stdout_failure(error: io::Error) -> WriteError {
    if error.kind() == io::ErrorKind::BrokenPipe { WriteError::Closed } else { WriteError::Stdout(error) }
}
