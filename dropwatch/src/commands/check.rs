//! `dropwatch check`: runs a command, then holds the drops seen meanwhile against rules.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::Command,
    thread,
};

use anyhow::{Context as _, Result};

use super::{attach, symbol_source};
use crate::{
    btf::KernelBtf,
    check::{
        document::{self, Findings},
        verdict::{Ending, Verdict, conclusion},
    },
    cli::CheckArgs,
    collector::Collector,
    config::{CheckConfig, DocumentFormat, Format},
    console::{say, warn},
    failure::Failure,
    forward::Forwarder,
    host::Host,
    names::KernelNames,
    preflight::{self, Needs},
    render::{Style, renderer},
    report::{Limits, Report},
};

/// Rows shown after the verdicts.
const LARGEST: usize = 10;
/// The status of a failure of ours, by which nobody mistakes it for the command's.
pub const OURS: u8 = 125;

/// Runs the command and its check; the status to end with.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running: all end with status 125.
pub fn run(args: &CheckArgs) -> Result<u8, Failure> {
    let kernel = KernelBtf::default();
    let config = CheckConfig::new(args, &Host::new(&kernel))?;
    for warning in preflight::check(Needs { symbols: config.kallsyms.is_none(), statistics: false })? {
        warn(&warning);
    }
    let source = symbol_source(config.kallsyms.as_deref(), true)?;
    // Before any thread is started, which would take what is meant for the command.
    let signals = Forwarder::block()?;
    let (probe, probe_config, symbols) = attach(&config.query, source, &kernel)?;
    let mut names = KernelNames::new(symbols, probe.has_reason(), kernel);
    let mut collector = Collector::new(probe, probe_config, false);

    let ending = run_command(&config, signals)?;
    thread::sleep(config.settle);
    let interval = collector.last_interval()?;
    let report = Report::new(interval, &config.query.by, Limits::default(), &mut names.for_report());
    let judged = |rule| if ending.ran() { Verdict::new(rule, &report) } else { Verdict::unjudged(rule) };
    let verdicts: Vec<_> = config.rules.iter().cloned().map(judged).collect();
    let (status, conclusion) = conclusion(ending, &verdicts);
    let command: Vec<_> = config.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let findings = Findings {
        command: &command,
        status,
        conclusion: &conclusion,
        scope: &scope(&config),
        verdicts: &verdicts,
        report: &report,
    };
    let written = write_document(&config, &findings);
    tell(&findings);
    written?;
    say(&format!("dropwatch check: {conclusion}"));
    Ok(status)
}

/// Which drops were looked at, in words.
fn scope(config: &CheckConfig) -> String {
    match &config.query.filter {
        None => "the whole host".to_owned(),
        Some(filter) => format!("the whole host, of those that match '{filter}',"),
    }
}

/// Runs the command to its end, with our standard streams, our terminal and the signals meant for it.
fn run_command(config: &CheckConfig, signals: Forwarder) -> Result<Ending> {
    let [program, arguments @ ..] = config.command.as_slice() else { return Ok(Ending::NotFound) };
    let spawned = match Command::new(program).args(arguments).spawn() {
        // A script that does not say what runs it is the shell's, as everywhere.
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
            Command::new("/bin/sh").arg(program).args(arguments).spawn()
        }
        spawned => spawned,
    };
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            say(&format!("dropwatch check: cannot run {}: {error}", program.display()));
            return Ok(if error.kind() == io::ErrorKind::NotFound {
                Ending::NotFound
            } else {
                Ending::NotExecutable
            });
        }
    };
    signals.forward_to(child.id())?;
    let status = child.wait().context("cannot wait for the command")?;
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(byte(code)),
        (None, signal) => Ending::Killed(byte(signal.unwrap_or(0))),
    })
}

/// A line for each rule, then the largest rows.
fn tell(findings: &Findings<'_>) {
    for verdict in findings.verdicts {
        say(&format!("dropwatch check: {verdict}"));
    }
    let report = findings.report;
    say(&format!("dropwatch check: drops seen on {} while the command ran:", findings.scope));
    let mut shown = report.clone();
    let rest = shown.rows.split_off(LARGEST.min(shown.rows.len()));
    shown.cut.rows = rest.len() as u64;
    shown.cut.drops = rest.iter().map(|row| row.count).sum();
    let mut table = Vec::new();
    // A vector takes everything.
    let _ = renderer(Format::Table, Style::default()).report(&shown, &mut table);
    let _ = io::stderr().write_all(&table);
}

fn write_document(config: &CheckConfig, findings: &Findings<'_>) -> Result<()> {
    let Some((path, format)) = &config.document else { return Ok(()) };
    let text = match format {
        DocumentFormat::Junit => document::junit(findings)?,
        DocumentFormat::Json => document::json(findings)?,
    };
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
