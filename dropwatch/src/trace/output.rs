//! Where drops go to: standard output, a capture file, or both.

use std::{
    io::{self, BufWriter, Stdout, Write as _},
    path::PathBuf,
    time::Duration,
};

use super::{
    Destination, TraceFormat,
    dissect::Style,
    dropped_packet::DroppedPacket,
    json, line,
    pcapng::{Capture, Sink},
};
use crate::{escape::Escaped, process::files};

/// Bytes of lines that are written at once under load.
const BUFFER: usize = 1 << 16;

/// Why a drop could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Standard output is closed by its reader, which is a normal end.
    #[error("standard output is closed")]
    Closed,
    /// Standard output failed otherwise.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// What is missing from the stream is not known.
    #[error("cannot count what is not shown: {0:#}")]
    Uncounted(anyhow::Error),
    /// The capture file failed.
    #[error("cannot write {}", Escaped::path(path))]
    File {
        /// Which.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
}

/// Where a drop is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// In any of the places.
    pub shown: bool,
    /// In the capture.
    pub captured: bool,
}

/// The requested outputs.
pub struct Output {
    lines: Option<(TraceFormat, BufWriter<Stdout>)>,
    style: Style,
    capture: Option<(Destination, Capture<Box<dyn Sink + Send>>)>,
}

impl Output {
    /// Opens them; a capture file is created once its beginning can be written.
    ///
    /// # Errors
    /// A capture that cannot be begun.
    pub fn open(
        format: Option<TraceFormat>,
        style: Style,
        write: Option<&Destination>,
        snaplen: u32,
    ) -> Result<Self, WriteError> {
        let lines = format.map(|format| (format, BufWriter::with_capacity(BUFFER, io::stdout())));
        let capture = match write {
            None => None,
            Some(destination) => {
                let begin = |sink: Box<dyn Sink + Send>| Capture::new(sink, snaplen);
                let capture = match destination {
                    Destination::Stdout => begin(Box::new(io::stdout())),
                    Destination::File(path) => files::begin(path, |file| begin(Box::new(file))),
                };
                Some((destination.clone(), capture.map_err(|error| failure(destination, error))?))
            }
        };
        Ok(Self { lines, style, capture })
    }

    /// Writes a drop to all of them.
    ///
    /// # Errors
    /// The first that fails. The capture keeps everything before it.
    pub fn write(&mut self, drop: &DroppedPacket<'_>) -> Result<Written, WriteError> {
        let mut written = Written { shown: self.lines.is_some(), captured: false };
        if let Some((destination, capture)) = &mut self.capture
            && drop.frame.is_of_a_network()
        {
            (written.shown, written.captured) = (true, true);
            capture.write(drop).map_err(|error| failure(destination, error))?;
        }
        match &mut self.lines {
            Some((TraceFormat::Text, out)) => line::write(drop, self.style, out),
            Some((TraceFormat::Json, out)) => json::write(drop, self.style, out),
            None => Ok(()),
        }
        .map_err(stdout_failure)?;
        Ok(written)
    }

    /// Whether packets are captured.
    #[must_use]
    pub fn captures(&self) -> bool {
        self.capture.is_some()
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
        if let Some((destination, capture)) = &mut self.capture {
            capture.finish().map_err(|error| failure(destination, error))?;
        }
        self.flush()
    }
}

fn failure(destination: &Destination, error: io::Error) -> WriteError {
    match destination {
        Destination::Stdout => stdout_failure(error),
        Destination::File(path) => WriteError::File { path: path.clone(), source: error },
    }
}

fn stdout_failure(error: io::Error) -> WriteError {
    if error.kind() == io::ErrorKind::BrokenPipe { WriteError::Closed } else { WriteError::Stdout(error) }
}
