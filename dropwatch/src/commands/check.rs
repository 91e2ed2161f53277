//! `dropwatch check`: runs a command, then holds the drops seen meanwhile against rules.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::{
    check::{
        annotation::annotation,
        document::{self, DocumentFormat, Findings},
        existence,
        scope::Scope,
        uncounted,
        verdict::{Ending, Verdict, conclusion},
    },
    cli::{CheckArgs, config::CheckConfig},
    escape::Escaped,
    evidence::objects::{self, Objects, Rules},
    kernel::{
        btf::KernelBtf,
        lookup::Host,
        names::{KernelNames, LINES_WAIT},
        namespaces::Namespaces,
        netns::entering,
    },
    model::{
        belonging::Belonging,
        keys::Key,
        report::{Order, Report, View},
    },
    process::{
        command::{Exit, RunningCommand},
        console::say,
        failure::Failure,
        files, host,
        notice::Notices,
        privileges,
        signals::Signals,
    },
    render::{Enter, Format, Style, renderer},
    session::{
        collector::Collector,
        evidence::{Looker, Which},
        interfaces::Interfaces,
        judge::There,
        life::Life,
        namespaces::{self, Doubts},
        open::{Opened, Opener},
        preflight::{self, Need},
        presence::Presence,
    },
};

/// Rows shown after the verdicts.
const LARGEST: usize = 10;
/// The exit status for dropwatch's own failures, distinct from the command's.
pub const OURS: u8 = 125;

/// Runs the command and its check; the status to end with.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running: all end with status 125.
pub fn run(args: &CheckArgs) -> Result<u8, Failure> {
    let signals = Signals::of_a_command(interrupted("before the command ran"))?;
    let (kernel, notices) = (KernelBtf::default(), Notices::to_stderr());
    let namespaces = namespaces::of_this_host(&kernel);
    let host = Host::new(&kernel, &namespaces).with_symbols(args.symbols.kallsyms.as_deref());
    let config = CheckConfig::new(args, &host)?;
    preflight::check(&needs(&config), &notices)?;
    let opener = Opener { kernel, namespaces, notices, doubts: Doubts::default(), symbols_first: true };
    let (mut watch, command) = Watch::start(&config, opener, &signals)?;
    let ending = match command {
        Ok(command) => end_of(command)?,
        Err(ending) => ending,
    };
    signals.exit(interrupted("before the rules were checked"));
    thread::sleep(config.settle);
    watch.conclude(ending)
}

/// What watches while the command runs, and judges afterwards.
struct Watch<'a> {
    config: &'a CheckConfig,
    namespaces: Namespaces,
    doubts: Doubts,
    interfaces: Interfaces,
    presence: Presence,
    collector: Collector,
    names: KernelNames,
    looker: Option<Looker>,
    /// What keeps up to date what rows and the filter mean.
    _life: Life,
}

impl<'a> Watch<'a> {
    /// Attaches the probe, starts the command, and gives up what only that required.
    fn start(
        config: &'a CheckConfig,
        opener: Opener,
        signals: &Signals,
    ) -> Result<(Self, Result<RunningCommand, Ending>), Failure> {
        let source = opener.symbol_source(config.kallsyms.as_deref(), true)?;
        if names_namespaces(config) {
            opener.watch_containers()?;
        } else {
            opener.watch_namespaces()?;
        }
        let interfaces = Interfaces::watch(named_interfaces(config));
        let mut attached = opener.count(&config.query, source)?;
        // Rules hold without samples as well.
        let samples = opener.sample(&mut attached, !config.rules.is_empty(), |why| log::info!("{why}"))?;
        // What later looks compare with is from before the command runs.
        let looker = || Looker::start(Which::All, Objects::new(Rules::Compare)).map(Looker::ready);
        let looker = samples.as_ref().map(|_| looker()).transpose()?;
        let Opened { probe, symbols, owners, life } = attached;
        let Opener { kernel, namespaces, notices, doubts, .. } = opener;
        let has_reason = probe.has_reason();
        let mut collector = Collector::new(Box::new(probe), notices.clone(), false).with_samples(samples);
        if reads_counters(config) {
            collector = collector.with_counters();
        }
        let presence = Presence::watch(named_belongings(config), owners.clone());
        // The command has what we were given: it starts before we give it up.
        let command = start(&config.command, signals);
        if let Some(name) = config.command.first().and_then(|path| Path::new(path).file_name()) {
            presence.note_process(name.as_bytes());
        }
        privileges::give_up()?;
        let names = KernelNames::new(symbols, has_reason, kernel, namespaces.clone(), notices)
            .with_lines(config.debug_dir.as_deref(), LINES_WAIT)
            .with_interfaces(&config.query.interfaces)
            .with_owners(owners);
        let watch =
            Self { config, namespaces, doubts, interfaces, presence, collector, names, looker, _life: life };
        Ok((watch, command))
    }

    /// Judges by what was seen until now, writes and says it; the status to end with.
    fn conclude(&mut self, ending: Ending) -> Result<u8, Failure> {
        let config = self.config;
        let interval = self.collector.last_interval()?;
        // Drops have happened before this: names that were there are read.
        self.namespaces.refresh();
        let names = &mut self.names;
        let mut report = Report::new(interval, &config.query.by, View::default(), &mut names.for_report());
        let there = There {
            filter: config.query.filter.as_ref(),
            namespaces: &self.namespaces,
            missing: &self.interfaces.missing(),
            absent: &self.presence.missing(),
            doubts: self.doubts.all(),
            has_unread_counters: self.collector.has_unread_counters(),
        };
        let judge = |rule| {
            if ending.ran() { there.judge(rule, &report, names) } else { Verdict::unjudged(rule.clone()) }
        };
        let verdicts: Vec<_> = config.rules.iter().map(judge).collect();
        let (status, conclusion) = conclusion(ending, &verdicts);
        if let Some(looker) = self.looker.as_mut().filter(|_| verdicts.iter().any(Verdict::is_broken)) {
            looker.look(&mut report, names);
        }
        let command: Vec<_> = config.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let findings = Findings {
            host: host::name(),
            command: &command,
            status,
            conclusion: &conclusion,
            scope: &Scope::new(config.query.filter.as_ref()),
            verdicts: &verdicts,
            report: &report,
        };
        let written = write_document(config, &findings);
        tell(&findings);
        written?;
        say(&format!("dropwatch check: {conclusion}"));
        Ok(status)
    }
}

/// Whether what only the kernel's counters show decides: a rule limits all that is lost, wherever the filter looks.
fn reads_counters(config: &CheckConfig) -> bool {
    config.rules.iter().any(uncounted::concern) && !uncounted::are_left_out(config.query.filter.as_ref())
}

/// Whether a rule names a network namespace, which may be a container's and come and go with it.
fn names_namespaces(config: &CheckConfig) -> bool {
    config.rules.iter().any(|rule| !existence::namespaces(rule, None).is_empty())
}

/// The interfaces that rules and the filter name.
fn named_interfaces(config: &CheckConfig) -> Vec<String> {
    let filter = config.query.filter.as_ref();
    let names = config.rules.iter().flat_map(|rule| existence::interfaces(rule, filter));
    let names: BTreeSet<_> = names.map(str::to_owned).collect();
    names.into_iter().collect()
}

/// The processes, containers and cgroups that rules and the filter name, each once.
fn named_belongings(config: &CheckConfig) -> Vec<Belonging> {
    let filter = config.query.filter.as_ref();
    let mut named = Vec::new();
    for belonging in config.rules.iter().flat_map(|rule| existence::belongings(rule, filter)) {
        if !named.contains(&belonging) {
            named.push(belonging);
        }
    }
    named
}

/// What is needed, at the start and for longer.
fn needs(config: &CheckConfig) -> Vec<Need> {
    let mut needs = vec![Need::Command, Need::Namespaces];
    if config.query.reads_memory() {
        needs.extend([Need::Memory, Need::FreshMaps]);
    }
    if config.kallsyms.is_none() {
        needs.push(Need::Symbols);
    }
    if reads_counters(config) {
        needs.push(Need::Enter("to read what interfaces and sockets of other network namespaces lose"));
        needs.push(Need::Owners);
    }
    if config.query.by.contains(&Key::Iface) || !named_interfaces(config).is_empty() {
        needs.push(Need::Enter("to look for interfaces in other network namespaces"));
    }
    if !config.rules.is_empty() {
        needs.push(Need::Enter("to look at what drops packets in other network namespaces"));
        needs.extend([Need::Owners, Need::Objects]);
        needs.extend(objects::has_legacy_rules().then_some(Need::Legacy));
    }
    needs.extend(config.document.clone().map(|(path, _)| Need::File(path)));
    needs.extend(config.debug_dir.clone().map(Need::Directory));
    needs
}

/// What a signal does that is not for the command: a check that has not been made to its end does not succeed.
fn interrupted(when: &'static str) -> impl Fn(Signal) -> u8 {
    move |signal| {
        let status = u8::try_from(128 + signal as i32).unwrap_or(OURS);
        say(&format!("dropwatch check: exit status {status}: ended by {signal} {when}"));
        status
    }
}

/// Starts the command, with our standard streams, our terminal and the signals meant for it.
fn start(command: &[OsString], signals: &Signals) -> Result<RunningCommand, Ending> {
    signals.start(command).map_err(|error| {
        let program = command.first().map(|program| Escaped::path(program.as_ref()).to_string());
        say(&format!("dropwatch check: cannot run {}: {error}", program.unwrap_or_default()));
        if error.kind() == io::ErrorKind::NotFound { Ending::NotFound } else { Ending::NotExecutable }
    })
}

fn end_of(command: RunningCommand) -> Result<Ending> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    Ok(match command.wait().context("cannot wait for the command")? {
        Exit::Status(status) => Ending::Exited(byte(status)),
        Exit::Signal(signal) => Ending::Killed(byte(signal)),
    })
}

/// A line for each rule, then the largest rows.
fn tell(findings: &Findings<'_>) {
    for verdict in findings.verdicts {
        say(&format!("dropwatch check: {verdict}"));
    }
    if std::env::var_os("GITHUB_ACTIONS").is_some_and(|set| !set.is_empty()) {
        findings.verdicts.iter().filter_map(annotation).for_each(|line| say(&line));
    }
    let report = findings.report;
    say(&format!("dropwatch check: drops seen {} while the command ran:", findings.scope.placed()));
    let shown = report.clone().arranged(View { top: Some(LARGEST), order: Order::Class, ..View::default() });
    let mut table = Vec::new();
    // A vector takes everything.
    let style = Style { explain: report.is_explained.then_some(entering as Enter), ..Style::default() };
    let _ = renderer(Format::Table, style).report(&shown, &mut table);
    let _ = io::stderr().write_all(&table);
}

fn write_document(config: &CheckConfig, findings: &Findings<'_>) -> Result<()> {
    let Some((path, format)) = &config.document else { return Ok(()) };
    let text = match format {
        DocumentFormat::Junit => document::junit(findings)?,
        DocumentFormat::Json => document::json(findings)?,
    };
    files::write(path, text.as_bytes()).with_context(|| format!("cannot write {}", Escaped::path(path)))
}
