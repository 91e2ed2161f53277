//! The command line, validated: from here on nothing can be a usage error.

mod dig;
mod serve;
mod top;
mod trace;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use dropwatch_common::probe::RULE_NAMES;

pub use dig::{DigConfig, DigSearch};
pub use serve::{Listen, ServeConfig};
pub use top::{Asked, Fault, TopConfig};
pub use trace::TraceConfig;

use crate::{
    check::{
        contradictions,
        document::DocumentFormat,
        excluded, existence,
        rule::{Bound, Rule, RuleError},
    },
    cli::{CheckArgs, RunArgs, ShowArgs, Sort, WatchArgs},
    escape::{self, Escaped, is_unsafe},
    evidence::objects::Rules,
    filter::Filter,
    kernel::{lookup::Host, netns::entering},
    model::{
        keys::{self, Key},
        plural::counted,
        report::{Order, View},
    },
    process::{failure::Failure, files, host},
    render::{Enter, Format, Style, Width, default_keys},
};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(10);
/// The shortest interval with the kernel's own counters: reading them costs more than a short one is worth.
const SHORTEST_WITH_COUNTERS: Duration = Duration::from_secs(1);
/// The longest: beyond it clocks overflow.
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
    /// Names of interfaces that rows tell apart besides the own ones.
    pub interfaces: Vec<String>,
}

/// When reports are due, and when they end.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between reports.
    pub interval: Duration,
    /// Stop after so many reports.
    pub reports: Option<u64>,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// The step in which peaks are looked for.
    pub peak: Option<Duration>,
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
    /// The step in which peaks are looked for.
    pub peak: Option<Duration>,
    /// Which rows are shown, and in which order.
    pub view: View,
    /// What is counted.
    pub query: Query,
    /// A saved kallsyms or a `System.map` to resolve with, instead of the running kernel's own.
    pub kallsyms: Option<PathBuf>,
    /// Where debug information is looked for first.
    pub debug_dir: Option<PathBuf>,
    /// Created once attached.
    pub ready_file: Option<PathBuf>,
    /// Measure the probe.
    pub cost: bool,
    /// Explain the largest lost rows, and how commands enter their namespaces.
    pub explain: Option<Enter>,
    /// How the rule that drops packets is found.
    pub rules: Rules,
    /// Read the kernel's own counters of losses.
    pub counters: bool,
    /// Words on standard input end the run.
    pub words: bool,
}

impl Query {
    /// Whether rows or the filter name functions.
    #[must_use]
    pub fn names_functions(&self) -> bool {
        keys::counted(&self.by).iter().any(|key| matches!(key, Key::Location | Key::Stack))
            || self.filter.as_ref().is_some_and(Filter::names_functions)
    }

    /// Whether rows name network namespaces.
    #[must_use]
    pub fn names_namespaces(&self) -> bool {
        self.by.iter().any(|key| matches!(key, Key::Iface | Key::Netns))
    }

    /// Whether the probe reads the kernel's memory: location and reason are handed to it.
    #[must_use]
    pub fn reads_memory(&self) -> bool {
        let is_handed_over =
            |key: &Key| matches!(key, Key::Location | Key::Function | Key::Reason | Key::Class);
        self.filter.is_some() || !self.by.iter().all(is_handed_over)
    }

    /// Whether rows name reasons.
    #[must_use]
    pub fn names_reasons(&self) -> bool {
        keys::counted(&self.by).contains(&Key::Reason)
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
        at_least_one("--top", args.show.top.map(|top| top as u64))?;
        let by = by(args.by.as_deref(), format)?;
        if args.show.explain {
            explainable(&by, format)?;
        }
        Ok(Self {
            interval: interval(&args.interval)?,
            reports: args.reports,
            duration: args.duration.as_deref().map(|text| duration("--duration", text)).transpose()?,
            format,
            peak: peak(&args.show, format, interval(&args.interval)?)?,
            view: view(&args.show, format)?,
            query: Query {
                by,
                max_rows: max_rows(args.count.max_rows)?,
                filter: filter(args.filter.as_deref(), host)?,
                interfaces: Vec::new(),
            },
            explain: args.show.explain.then_some(entering as Enter),
            rules: if args.show.nft { Rules::Trace } else { Rules::Compare },
            kallsyms: args.count.symbols.kallsyms.clone(),
            debug_dir: debug_dir(args.count.symbols.debug_dir.as_ref())?,
            ready_file: ready_file(&args.run)?,
            cost: args.cost,
            counters: !args.count.no_counters
                && args.filter.is_none()
                && interval(&args.interval)? >= SHORTEST_WITH_COUNTERS,
            words: args.lookup_method.is_some() && !std::io::stdin().is_terminal(),
        })
    }

    /// When reports are due.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let &Self { interval, reports, duration, peak, .. } = self;
        Timing { interval, reports, duration, peak }
    }

    /// What has been started, in words.
    #[must_use]
    pub fn started(&self) -> String {
        let every = in_words(self.interval);
        let drops = match &self.query.filter {
            None => "all namespaces".to_owned(),
            Some(filter) => format!("those that match '{filter}'"),
        };
        let reports = self.reports.map(|reports| format!(", {}", counted(reports, "report")));
        let duration = self.duration.map(|duration| format!(", for {}", in_words(duration)));
        let first = in_words(self.duration.unwrap_or(self.interval).min(self.interval));
        let (reports, duration) = (reports.unwrap_or_default(), duration.unwrap_or_default());
        format!("every {every}, {drops}{reports}{duration}; first report in {first}")
    }

    /// How reports look on what standard output is.
    #[must_use]
    pub fn style(&self) -> Style {
        let (milliseconds, host) = (self.interval < Duration::from_secs(1), host::name());
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Style { milliseconds, host, explain: self.explain, ..Style::default() };
        }
        Style {
            width: Width::OF_TERMINAL,
            colour: anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
            milliseconds,
            host,
            explain: self.explain,
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
    /// Where debug information is looked for first.
    pub debug_dir: Option<PathBuf>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
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
        if let Some(filter) = &filter {
            excluded::by_filter(&rules, filter).map_err(|error| refused(&error))?;
        }
        let interfaces = interfaces(&rules)?;
        Ok(Self {
            rules,
            settle,
            document: args.report.as_deref().map(document).transpose()?,
            query: Query { by, max_rows: max_rows(args.max_rows)?, filter, interfaces },
            kallsyms: args.symbols.kallsyms.clone(),
            debug_dir: debug_dir(args.symbols.debug_dir.as_ref())?,
            command: args.command.clone(),
        })
    }
}

fn refused(error: &RuleError) -> Failure {
    Failure::Usage(Escaped::new(&error.to_string()).to_string())
}

/// Reads the rules, with the names of this host.
fn rules(args: &CheckArgs, host: &Host) -> Result<Vec<Rule>, Failure> {
    let max = args.max.iter().map(|text| (Bound::Max, text));
    let expect = args.expect.iter().map(|text| (Bound::Expect, text));
    let rules = max.chain(expect).map(|(bound, text)| Rule::parse(bound, text, host));
    let rules: Vec<_> = rules.collect::<Result<_, _>>().map_err(|error| refused(&error))?;
    contradictions::between(&rules).map_err(|error| refused(&error))?;
    Ok(rules)
}

/// The names of interfaces in rules, each once.
fn interfaces(rules: &[Rule]) -> Result<Vec<String>, Failure> {
    let names: BTreeSet<_> = rules.iter().flat_map(|rule| existence::interfaces(rule, None)).collect();
    if names.len() > RULE_NAMES {
        return Err(Failure::Usage(format!("rules can name {RULE_NAMES} interfaces, not {}", names.len())));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

fn filter(text: Option<&str>, host: &Host) -> Result<Option<Filter>, Failure> {
    text.map(|text| {
        Filter::parse(text, host)
            .map_err(|error| Failure::Usage(format!("invalid value for '--filter': {error}")))
    })
    .transpose()
}

fn document(file: &Path) -> Result<(PathBuf, DocumentFormat), Failure> {
    let file = new_file("--report", file)?;
    let format = match file.extension().and_then(OsStr::to_str) {
        Some("xml") => DocumentFormat::Junit,
        Some("json") => DocumentFormat::Json,
        _ => return Err(usage("--report", &file.display(), "the name must end in .xml (JUnit) or .json")),
    };
    Ok((file, format))
}

fn max_rows(rows: u32) -> Result<u32, Failure> {
    if (1..=MOST_ROWS).contains(&rows) {
        Ok(rows)
    } else {
        Err(usage("--max-rows", &rows, &format!("must be from 1 to {MOST_ROWS}")))
    }
}

/// The requested keys, each once, as far as the format can show them.
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
            Err(usage("--by", &text, "the folded format needs 'stack' among the keys"))
        }
        _ => Ok(by),
    }
}

/// Which rows are shown: only tables have what is lost first.
fn view(args: &ShowArgs, format: Format) -> Result<View, Failure> {
    let order = match (args.sort, format) {
        (Some(Sort::Class) | None, Format::Table) => Order::Class,
        (Some(Sort::Class), _) => {
            return Err(usage("--sort", &"class", "only tables (-o table) are sorted by class"));
        }
        (Some(Sort::Count) | None, _) => Order::Count,
    };
    Ok(View { top: args.top, min: args.min, order, fold: !args.all })
}

/// A step of at least 10 ms, shorter than the interval.
fn peak(args: &ShowArgs, format: Format, interval: Duration) -> Result<Option<Duration>, Failure> {
    if args.peak.is_some() && matches!(format, Format::Classic | Format::Folded) {
        return Err(Failure::Usage("--peak is for tables, text and JSON".to_owned()));
    }
    peak_step(args.peak.as_ref(), interval)
}

fn peak_step(text: Option<&String>, interval: Duration) -> Result<Option<Duration>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let step = duration("--peak", text)?;
    if step < SHORTEST {
        return Err(usage("--peak", text, "it must be at least 10ms"));
    }
    if step >= interval {
        let cure = format!("it must be shorter than the interval ({})", in_words(interval));
        return Err(usage("--peak", text, &cure));
    }
    Ok(Some(step))
}

/// Only tables and JSON explain rows, and only rows with a reason and a place.
fn explainable(by: &[Key], format: Format) -> Result<(), Failure> {
    let has_place = by.iter().any(|key| matches!(key, Key::Location | Key::Function));
    if !matches!(format, Format::Table | Format::Json) {
        return Err(Failure::Usage("--explain is for tables and JSON (-o table, -o json)".to_owned()));
    }
    if !has_place || !by.contains(&Key::Reason) {
        return Err(Failure::Usage(
            "--explain requires the keys reason and location (or function) in --by".to_owned(),
        ));
    }
    Ok(())
}

fn usage(option: &str, value: &dyn std::fmt::Display, cure: &str) -> Failure {
    let value = value.to_string();
    // The cure may repeat the value, which is foreign.
    let (value, cure) = (Escaped::new(&value), escape::without(cure, is_unsafe));
    Failure::Usage(format!("invalid value '{value}' for '{option}': {cure}"))
}

fn at_least_one(option: &str, value: Option<u64>) -> Result<(), Failure> {
    if value == Some(0) { Err(usage(option, &0, "it must be at least 1")) } else { Ok(()) }
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
        return Err(usage("--interval", &text, "it must be at least 10ms"));
    }
    Ok(interval)
}

/// `500 ms`, `5 s`, `1m 30s`
fn in_words(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_nanos()) {
        (0, _) => format!("{} ms", duration.as_secs_f64() * 1000.0),
        (1..60, _) => format!("{} s", duration.as_secs_f64()),
        _ => humantime::format_duration(duration).to_string(),
    }
}

fn is_interface(text: &str) -> bool {
    !text.is_empty() && !text.contains('/') && Path::new("/sys/class/net").join(text).exists()
}

/// `500ms`, `1m 30s`, or a bare number of seconds.
fn duration(option: &str, text: &str) -> Result<Duration, Failure> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    match parsed {
        Some(Duration::ZERO) => Err(usage(option, &text, "it must be longer than zero")),
        Some(duration) if duration > LONGEST => Err(usage(option, &text, "it must be at most 10 years")),
        Some(duration) => Ok(duration),
        None => Err(usage(option, &text, "a duration is like 500ms, 1s or 1m, or a number of seconds")),
    }
}

fn debug_dir(directory: Option<&PathBuf>) -> Result<Option<PathBuf>, Failure> {
    match directory {
        Some(directory) if !directory.is_dir() => {
            Err(usage("--debug-dir", &directory.display(), "there is no such directory"))
        }
        directory => Ok(directory.cloned()),
    }
}

fn ready_file(args: &RunArgs) -> Result<Option<PathBuf>, Failure> {
    args.ready_file.as_deref().map(|file| new_file("--ready-file", file)).transpose()
}

/// A file that is yet to be made.
fn new_file(option: &str, file: &Path) -> Result<PathBuf, Failure> {
    files::check(file).map_err(|error| usage(option, &file.display(), &error.to_string()))?;
    Ok(file.to_owned())
}
