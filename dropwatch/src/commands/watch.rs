//! `dropwatch watch`: counts drops and prints a sorted report every interval.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    cli::{WatchArgs, config::WatchConfig},
    evidence::objects::{self, Objects, Rules},
    kernel::{
        btf::KernelBtf,
        lookup::Host,
        names::{KernelNames, LINES_WAIT},
        symbols::KallsymsSource,
    },
    process::{
        console::say,
        failure::{Failure, Refusal},
        files::ReadyFile,
        notice::Notices,
        privileges,
        signals::Signals,
    },
    render::{EXPLAINED, Format, renderer},
    session::{
        collector::Collector,
        evidence::{Looker, Which},
        namespaces::{self, Doubts},
        open::{self, Opened, Opener},
        preflight::{self, Need},
        printer::Printer,
        reports::Reports,
        run_to_end, sink, words,
    },
};

/// Runs the command.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running.
pub fn run(args: &WatchArgs) -> Result<(), Failure> {
    let signals = Signals::of_a_run()?;
    let (kernel, notices) = (KernelBtf::default(), Notices::to_stderr());
    let namespaces = namespaces::of_this_host(&kernel);
    let host = Host::new(&kernel, &namespaces).with_symbols(args.count.symbols.kallsyms.as_deref());
    let config = WatchConfig::new(args, &host)?;
    let ready = ReadyFile::prepare(config.ready_file.as_deref())?;
    preflight::check(&needs(&config), &notices)?;
    if config.rules == Rules::Trace {
        objects::can_trace().map_err(|error| Refusal::new(format!("--nft: {error}")))?;
    }
    let opener = Opener { kernel, namespaces, notices, doubts: Doubts::default(), symbols_first: false };
    let source = opener.symbol_source(config.kallsyms.as_deref(), config.query.names_functions())?;
    let _statistics = open::statistics(config.cost)?;
    run_to_end(&ready, watch(&config, source, opener, &signals, &ready))
}

/// What is needed, at the start and for longer.
fn needs(config: &WatchConfig) -> Vec<Need> {
    let mut needs =
        preflight::counting(&config.query, config.kallsyms.is_none(), config.cost, config.counters);
    if config.explain.is_some() {
        needs.extend([
            Need::Namespaces,
            Need::Enter("to look at what drops packets in other network namespaces"),
            Need::Owners,
            Need::Objects,
        ]);
        needs.extend(objects::has_legacy_rules().then_some(Need::Legacy));
    }
    needs.extend(config.ready_file.clone().map(Need::File));
    needs.extend(config.debug_dir.clone().map(Need::Directory));
    needs
}

async fn watch(
    config: &WatchConfig,
    source: KallsymsSource,
    opener: Opener,
    signals: &Signals,
    ready: &ReadyFile,
) -> Result<(), Failure> {
    if config.query.names_namespaces() {
        opener.watch_namespaces()?;
    }
    // What later looks compare with is from before the first drop.
    let looker = || Looker::start(looked_at(config.format), Objects::new(config.rules)).map(Looker::ready);
    let looker = config.explain.map(|_| looker()).transpose()?;
    let mut attached = opener.count(&config.query, source)?;
    let samples = opener.sample(&mut attached, config.explain.is_some(), |why| opener.notices.warn(why))?;
    let Opened { probe, symbols, owners, life: _life } = attached;
    let to_remove = ready.clone();
    let stop = signals.run(move || to_remove.remove());
    privileges::give_up()?;
    let Opener { kernel, namespaces, notices, .. } = opener;
    let has_reason = probe.has_reason();
    let mut collector = Collector::new(Box::new(probe), notices.clone(), config.cost);
    collector = collector.with_peaks(config.peak).with_samples(samples);
    if config.counters {
        collector = collector.with_counters();
    }
    say("Monitoring for dropped packets");
    say(&config.started());
    ready.announce()?;
    // Only now: what reads the reasons would take a processor from what has to be done before.
    let names = KernelNames::new(
        symbols,
        has_reason && config.query.names_reasons(),
        kernel,
        namespaces,
        notices.clone(),
    )
    .with_lines(config.debug_dir.as_deref(), lines_wait(config.interval))
    .with_owners(owners);
    if config.words {
        words::obey(stop.clone())?;
    }
    let render = renderer(config.format, config.style());
    let sink = Printer::new(config.query.by.clone(), config.view, names, render).with_evidence(looker);
    let (reports, intervals) = Reports::new(config.timing(), collector, stop, notices);
    let printed = sink::spawn(sink, intervals)?;
    reports.send().await?;
    printed.await.context("the printing thread died")??;
    say("Stopping dropped packet monitor");
    Ok(())
}

/// Which lost rows are looked at: as many as are shown with what they mean.
fn looked_at(format: Format) -> Which {
    if format == Format::Table { Which::Kinds(EXPLAINED) } else { Which::All }
}

/// How long a report waits for lines of source: no longer than the reports after it can wait for it.
fn lines_wait(interval: Duration) -> Duration {
    LINES_WAIT.min(interval * 10)
}
