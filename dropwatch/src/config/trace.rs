//! The command line of `trace`, validated.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{at_least_one, can_be_created, duration, filter, usage};
pub use crate::cli::TraceFormat;
use crate::{cli::TraceArgs, failure::Failure, filter::Filter, host::Host};

/// The most bytes of a packet that are captured: none has more, and tools refuse files that say so.
const MOST_BYTES: u32 = 262_144;

/// What `trace` is to do.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// How drops look on standard output; none if the capture goes there.
    pub format: Option<TraceFormat>,
    /// Where the packets are to be written.
    pub write: Option<Destination>,
    /// Which drops are shown at all.
    pub filter: Option<Filter>,
    /// Stop after so many drops.
    pub count: Option<u64>,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// What the probe is asked to do.
    pub probe: TraceProbeConfig,
    /// A saved kallsyms or a `System.map` to resolve with, instead of the running kernel's own.
    pub kallsyms: Option<PathBuf>,
    /// Created once attached.
    pub ready_file: Option<PathBuf>,
}

/// Where a capture goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

/// What the probe of `trace` is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceProbeConfig {
    /// The most bytes of each frame.
    pub snaplen: u32,
    /// The most drops a second, if they are limited.
    pub rate: Option<u32>,
    /// Whether call chains are asked for.
    pub stack: bool,
}

impl TraceConfig {
    /// Checks the arguments.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the argument, what is wrong with it, and what is right.
    pub fn new(args: &TraceArgs, host: &Host) -> Result<Self, Failure> {
        at_least_one("--count", args.count)?;
        at_least_one("--rate", args.rate.map(Into::into))?;
        if !(1..=MOST_BYTES).contains(&args.snaplen) {
            return Err(usage("--snaplen", &args.snaplen, &format!("it goes from 1 to {MOST_BYTES}")));
        }
        if let Some(file) = &args.ready_file {
            can_be_created("--ready-file", file)?;
        }
        let write = args.write.as_deref().map(destination).transpose()?;
        let has_lines = write != Some(Destination::Stdout);
        if let (false, Some(format)) = (has_lines, args.output) {
            return Err(usage(
                "--output",
                &format!("{format:?}").to_lowercase(),
                "-w - leaves no place for it",
            ));
        }
        Ok(Self {
            format: has_lines.then_some(args.output.unwrap_or(TraceFormat::Text)),
            write,
            filter: filter(args.filter.as_deref(), host)?,
            count: args.count,
            duration: args.duration.as_deref().map(|text| duration("--duration", text)).transpose()?,
            probe: TraceProbeConfig { snaplen: args.snaplen, rate: args.rate, stack: args.stack },
            kallsyms: args.kallsyms.clone(),
            ready_file: args.ready_file.clone(),
        })
    }
}

fn destination(file: &Path) -> Result<Destination, Failure> {
    if file != Path::new("-") {
        can_be_created("--write", file)?;
        return Ok(Destination::File(file.to_owned()));
    }
    if std::io::stdout().is_terminal() {
        return Err(usage("--write", &"-", "packets are nothing for a terminal: redirect standard output"));
    }
    Ok(Destination::Stdout)
}
