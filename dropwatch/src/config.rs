//! The command line, validated: from here on nothing can be a usage error.

mod trace;

use std::{
    ffi::{OsStr, OsString},
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

pub use trace::{Destination, TraceConfig, TraceFormat, TraceProbeConfig};

pub use crate::cli::Format;
use crate::{
    check::rule::{Bound, Rule},
    cli::{CheckArgs, WatchArgs},
    failure::Failure,
    filter::Filter,
    host::Host,
    keys::Key,
    render::{Style, default_keys},
    report::Limits,
};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest: beyond it clocks overflow, and nobody waits.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The most rows: a per-CPU map of more would not fit the memory of any machine there is.
const MOST_ROWS: u32 = 1 << 24;

/// What is counted.
#[derive(Clone, Debug)]
pub struct Query {
    /// What a row stands for.
    pub by: Vec<Key>,
    /// Room for distinct keys.
    pub max_rows: u32,
    /// Which drops are counted at all.
    pub filter: Option<Filter>,
}

/// What `watch` is to do.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// Time between reports.
    pub interval: Duration,
    /// Stop after so many reports.
    pub reports: Option<u64>,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// How reports look.
    pub format: Format,
    /// Which rows are shown.
    pub limits: Limits,
    /// What is counted.
    pub query: Query,
    /// A saved kallsyms or a `System.map` to resolve with, instead of the running kernel's own.
    pub kallsyms: Option<PathBuf>,
    /// Created once attached.
    pub ready_file: Option<PathBuf>,
    /// Measure the probe.
    pub cost: bool,
}

impl Query {
    /// Whether rows name functions, or the filter has sets, which are looked up again with each symbol table.
    #[must_use]
    pub fn names_functions(&self) -> bool {
        self.by.iter().any(|key| matches!(key, Key::Location | Key::Stack))
            || self.filter.as_ref().is_some_and(|filter| !filter.sets().is_empty())
    }

    /// Whether rows name reasons.
    #[must_use]
    pub fn names_reasons(&self) -> bool {
        self.by.contains(&Key::Reason)
    }
}

impl WatchConfig {
    /// Checks the arguments, with the names of this host.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the argument, what is wrong with it, and what is right.
    pub fn new(args: &WatchArgs, host: &Host) -> Result<Self, Failure> {
        let format =
            args.output.unwrap_or(if std::io::stdout().is_terminal() { Format::Table } else { Format::Text });
        at_least_one("--reports", args.reports)?;
        at_least_one("--top", args.top.map(|top| top as u64))?;
        if let Some(file) = &args.ready_file {
            can_be_created("--ready-file", file)?;
        }
        Ok(Self {
            interval: interval(&args.interval)?,
            reports: args.reports,
            duration: args.duration.as_deref().map(|text| duration("--duration", text)).transpose()?,
            format,
            limits: Limits { top: args.top, min: args.min },
            query: Query {
                by: by(args.by.as_deref(), format)?,
                max_rows: max_rows(args.max_rows)?,
                filter: filter(args.filter.as_deref(), host)?,
            },
            kallsyms: args.kallsyms.clone(),
            ready_file: args.ready_file.clone(),
            cost: args.cost,
        })
    }

    /// How reports look on what standard output is.
    #[must_use]
    pub fn style(&self) -> Style {
        let milliseconds = self.interval < Duration::from_secs(1);
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Style { milliseconds, ..Style::default() };
        }
        Style {
            width: terminal_size::terminal_size().map(|(width, _)| width.0),
            colour: anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
            milliseconds,
        }
    }
}

/// What `check` is to do; its rules are read later, with the names of the kernel.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// What is to hold.
    pub rules: Vec<Rule>,
    /// How long to wait for late drops.
    pub settle: Duration,
    /// Where to write what was found.
    pub document: Option<(PathBuf, DocumentFormat)>,
    /// What is counted.
    pub query: Query,
    /// A symbol file to resolve with, instead of the running kernel's own.
    pub kallsyms: Option<PathBuf>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// What a document of a check looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    /// JUnit XML.
    Junit,
    /// JSON.
    Json,
}

impl CheckConfig {
    /// Checks the arguments, with the names of this host.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the argument, what is wrong with it, and what is right.
    pub fn new(args: &CheckArgs, host: &Host) -> Result<Self, Failure> {
        let settle = match args.settle.as_str() {
            "0" | "0s" | "0ms" => Duration::ZERO,
            text => duration("--settle", text)?,
        };
        let rules = rules(args, host)?;
        let mut by = vec![Key::Location, Key::Reason];
        for key in rules.iter().flat_map(Rule::keys) {
            if !by.contains(&key) {
                by.push(key);
            }
        }
        let filter = filter(args.filter.as_deref(), host)?;
        Ok(Self {
            rules,
            settle,
            document: args.report.as_deref().map(document).transpose()?,
            query: Query { by, max_rows: max_rows(args.max_rows)?, filter },
            kallsyms: args.kallsyms.clone(),
            command: args.command.clone(),
        })
    }
}

/// Reads the rules, with the names of this host.
fn rules(args: &CheckArgs, host: &Host) -> Result<Vec<Rule>, Failure> {
    let max = args.max.iter().map(|text| (Bound::Max, text));
    let expect = args.expect.iter().map(|text| (Bound::Expect, text));
    max.chain(expect)
        .map(|(bound, text)| {
            Rule::parse(bound, text, host).map_err(|error| Failure::Usage(error.to_string()))
        })
        .collect()
}

fn filter(text: Option<&str>, host: &Host) -> Result<Option<Filter>, Failure> {
    text.map(|text| {
        Filter::parse(text, host)
            .map_err(|error| Failure::Usage(format!("invalid value for '--filter': {error}")))
    })
    .transpose()
}

fn document(file: &Path) -> Result<(PathBuf, DocumentFormat), Failure> {
    can_be_created("--report", file)?;
    let format = match file.extension().and_then(OsStr::to_str) {
        Some("xml") => DocumentFormat::Junit,
        Some("json") => DocumentFormat::Json,
        _ => return Err(usage("--report", &file.display(), "its name is to end in .xml (JUnit) or .json")),
    };
    Ok((file.to_owned(), format))
}

fn max_rows(rows: u32) -> Result<u32, Failure> {
    if (1..=MOST_ROWS).contains(&rows) {
        Ok(rows)
    } else {
        Err(usage("--max-rows", &rows, &format!("it goes from 1 to {MOST_ROWS}")))
    }
}

/// The keys asked for, each once, as far as the format can show them.
fn by(text: Option<&str>, format: Format) -> Result<Vec<Key>, Failure> {
    let Some(text) = text else { return Ok(default_keys(format).to_vec()) };
    let mut by = Vec::new();
    for word in text.split(',') {
        let key = Key::find(word.trim(), &Key::ALL).map_err(|error| usage("--by", &text, &error))?;
        if by.contains(&key) {
            return Err(usage("--by", &text, &format!("it has '{}' twice", key.word())));
        }
        by.push(key);
    }
    match format {
        Format::Classic if by != [Key::Location] => {
            Err(usage("--by", &text, "the classic format is by location alone"))
        }
        Format::Folded if !by.contains(&Key::Stack) => {
            Err(usage("--by", &text, "the folded format takes 'stack' among the keys"))
        }
        _ => Ok(by),
    }
}

fn usage(option: &str, value: &dyn std::fmt::Display, cure: &str) -> Failure {
    Failure::Usage(format!("invalid value '{value}' for '{option}': {cure}"))
}

fn at_least_one(option: &str, value: Option<u64>) -> Result<(), Failure> {
    if value == Some(0) { Err(usage(option, &0, "it takes at least 1")) } else { Ok(()) }
}

fn interval(text: &str) -> Result<Duration, Failure> {
    let interval = duration("--interval", text).map_err(|error| {
        if is_interface(text) {
            let cure = format!(
                "it is a time, and '{text}' is an interface: -f 'iface {text}' counts its drops alone"
            );
            usage("--interval", &text, &cure)
        } else {
            error
        }
    })?;
    if interval < SHORTEST {
        return Err(usage("--interval", &text, "it takes at least 10ms"));
    }
    Ok(interval)
}

fn is_interface(text: &str) -> bool {
    !text.is_empty() && !text.contains('/') && Path::new("/sys/class/net").join(text).exists()
}

/// `500ms`, `1m 30s`, or a bare number of seconds.
fn duration(option: &str, text: &str) -> Result<Duration, Failure> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    };
    match parsed {
        Ok(Duration::ZERO) => Err(usage(option, &text, "it takes more than nothing")),
        Ok(duration) if duration > LONGEST => Err(usage(option, &text, "it takes at most 10 years")),
        Ok(duration) => Ok(duration),
        Err(error) => {
            let cure = format!("{error} (it takes 500ms, 1s, 1m, or a number of seconds)");
            Err(usage(option, &text, &cure))
        }
    }
}

fn can_be_created(option: &str, file: &Path) -> Result<(), Failure> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if file.is_dir() || !parent.is_dir() {
        return Err(usage(option, &file.display(), "it is to be a file in a directory that exists"));
    }
    Ok(())
}
