//! The command line of `trace`, validated.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{at_least_one, debug_dir, duration, ready_file, usage};
use crate::{
    cli::TraceArgs,
    filter::{Filter, quoted},
    kernel::lookup::Host,
    probe::kfree_skb::trace::TraceProbeConfig,
    process::{
        failure::Failure,
        files::{self, Unsuitable},
    },
    trace::{Destination, TraceFormat, dissect::Style},
};

/// The most bytes of a packet that are captured: none has more, and tools refuse files that say so.
const MOST_BYTES: u32 = 262_144;

/// What `trace` is to do.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// How drops look on standard output; none if the capture goes there.
    pub format: Option<TraceFormat>,
    /// How packets look.
    pub style: Style,
    /// Where packets are written.
    pub write: Option<Destination>,
    /// Which drops are shown at all.
    pub filter: Option<Filter>,
    /// Stop after so many drops.
    pub count: Option<u64>,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// What the probe does.
    pub probe: TraceProbeConfig,
    /// A saved kallsyms or a `System.map` to resolve with, instead of the running kernel's own.
    pub kallsyms: Option<PathBuf>,
    /// Where debug information is looked for first.
    pub debug_dir: Option<PathBuf>,
    /// Created once attached.
    pub ready_file: Option<PathBuf>,
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
            return Err(usage("--snaplen", &args.snaplen, &format!("must be from 1 to {MOST_BYTES}")));
        }
        let write = args.write.as_deref().map(destination).transpose()?;
        let has_lines = write != Some(Destination::Stdout);
        if let (false, Some(format)) = (has_lines, args.output) {
            return Err(usage(
                "--output",
                &format!("{format:?}").to_lowercase(),
                "-w - uses standard output for packets, so there are no lines",
            ));
        }
        Ok(Self {
            format: has_lines.then_some(args.output.unwrap_or(TraceFormat::Text)),
            write,
            style: Style { link_header: args.packets.link_header, quick: args.packets.quick },
            filter: filter(&args.expression, args.filter.as_deref(), args.interface.as_deref(), host)?,
            count: args.count,
            duration: args.duration.as_deref().map(|text| duration("--duration", text)).transpose()?,
            probe: TraceProbeConfig {
                snaplen: args.snaplen,
                rate: args.rate,
                stack: args.stack,
                socket: args.socket,
            },
            kallsyms: args.symbols.kallsyms.clone(),
            debug_dir: debug_dir(args.symbols.debug_dir.as_ref())?,
            ready_file: ready_file(&args.run)?,
        })
    }
}

/// The filter made of the arguments, `-f` and `-i`.
///
/// Each is read alone first: its faults are shown as it was given, and no parenthesis reaches into another.
pub(super) fn filter(
    expression: &[String],
    filter: Option<&str>,
    interface: Option<&str>,
    host: &Host,
) -> Result<Option<Filter>, Failure> {
    let read = |option: &str, text: &str| {
        Filter::parse(text, host)
            .map_err(|error| Failure::Usage(format!("invalid value for '{option}': {error}")))
    };
    let interface = interface.filter(|name| *name != "any").map(iface).transpose()?;
    let words = Some(expression.join(" ")).filter(|words| !words.trim().is_empty());
    let parts = [("--interface", interface), ("--filter", filter.map(str::to_owned)), ("[EXPR]...", words)];
    let parts: Vec<_> = parts.into_iter().filter_map(|(option, text)| Some((option, text?))).collect();
    let filters = parts.iter().map(|(option, text)| read(option, text)).collect::<Result<Vec<_>, _>>()?;
    if filters.len() < 2 {
        return Ok(filters.into_iter().next());
    }
    let texts: Vec<_> = parts.iter().map(|(_, text)| format!("({text})")).collect();
    read("[EXPR]...", &texts.join(" and ")).map(Some)
}

/// The expression for an interface.
fn iface(name: &str) -> Result<String, Failure> {
    if name.contains('"') && name.contains('\'') {
        let cure = "it has quotes of both kinds, with which no expression can name it";
        return Err(usage("--interface", &name, cure));
    }
    Ok(format!("iface {}", quoted(name)))
}

fn destination(file: &Path) -> Result<Destination, Failure> {
    if file != Path::new("-") {
        files::check_stream(file).map_err(|error| {
            let cure = match error {
                Unsuitable::Special => {
                    "must be a regular file: for a FIFO, use -w - and redirect it".to_owned()
                }
                error => error.to_string(),
            };
            usage("--write", &file.display(), &cure)
        })?;
        return Ok(Destination::File(file.to_owned()));
    }
    if std::io::stdout().is_terminal() {
        return Err(usage(
            "--write",
            &"-",
            "refusing to write packets to a terminal: redirect standard output",
        ));
    }
    Ok(Destination::Stdout)
}
