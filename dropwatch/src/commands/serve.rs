//! `dropwatch serve`: counts drops for Prometheus, and for a page.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;

use crate::{
    cli::{
        ServeArgs,
        config::{Listen, ServeConfig},
    },
    kernel::{btf::KernelBtf, lookup::Host, names::KernelNames, symbols::KallsymsSource},
    process::{
        console::{self, say},
        failure::Failure,
        files::ReadyFile,
        notice::{Notice, Notices, Severity},
        privileges,
        signals::Signals,
    },
    serve::{
        Publisher,
        access::Access,
        web::{self, Listeners},
    },
    session::{
        collector::Collector,
        namespaces::{self, Doubts},
        open::{self, Opened, Opener},
        preflight::{self, Need},
        reports::Reports,
        run_to_end, sink,
    },
};

/// Runs the command.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    let signals = Signals::of_a_run()?;
    let (kernel, notices) = (KernelBtf::default(), notices());
    let namespaces = namespaces::of_this_host(&kernel);
    let host = Host::new(&kernel, &namespaces).with_symbols(args.count.symbols.kallsyms.as_deref());
    let config = ServeConfig::new(args, &host)?;
    let access = config.web_config.as_deref().map(|file| Access::load(file, notices.clone())).transpose();
    let access =
        access.map_err(|error| Failure::Usage(format!("invalid value for '--web-config': {error}")))?;
    let ready = ReadyFile::prepare(config.ready_file.as_deref())?;
    preflight::check(&needs(&config), &notices)?;
    let listeners = Listeners::open(&config.listen)?;
    if !access.as_ref().is_some_and(Access::is_restricted) {
        warn_of_public(&listeners, &notices);
    }
    let opener = Opener { kernel, namespaces, notices, doubts: Doubts::default(), symbols_first: false };
    let source = opener.symbol_source(config.kallsyms.as_deref(), config.query.names_functions())?;
    let _statistics = open::statistics(config.cost)?;
    let files = listeners.files();
    let ended = run_to_end(&ready, serve(&config, source, opener, &signals, &ready, (listeners, access)));
    files.remove();
    ended
}

fn warn_of_public(listeners: &Listeners, notices: &Notices) {
    for place in listeners.public_places() {
        notices.warn(format!(
            "everything can be read by all hosts that reach {place}: users or client certificates in --web-config \
             restrict access"
        ));
    }
}

/// What is needed, at the start and for longer.
fn needs(config: &ServeConfig) -> Vec<Need> {
    let mut needs =
        preflight::counting(&config.query, config.kallsyms.is_none(), config.cost, config.counters);
    needs.extend(config.ready_file.clone().map(Need::File));
    needs.extend(config.listen.iter().filter_map(Listen::path).map(|path| Need::File(path.to_owned())));
    needs.extend(config.debug_dir.clone().map(Need::Directory));
    needs
}

async fn serve(
    config: &ServeConfig,
    source: KallsymsSource,
    opener: Opener,
    signals: &Signals,
    ready: &ReadyFile,
    (listeners, access): (Listeners, Option<Access>),
) -> Result<(), Failure> {
    if config.query.names_namespaces() {
        opener.watch_namespaces()?;
    }
    let Opened { probe, symbols, owners, life: _life } = opener.count(&config.query, source)?;
    let (to_remove, files) = (ready.clone(), listeners.files());
    let stop = signals.run(move || {
        to_remove.remove();
        files.remove();
    });
    privileges::give_up()?;
    let Opener { kernel, namespaces, notices, .. } = opener;
    let has_reasons = probe.has_reason() && config.query.names_reasons();
    let names = KernelNames::new(symbols, has_reasons, kernel, namespaces, notices.clone())
        .with_lines(config.debug_dir.as_deref(), config.interval)
        .with_owners(owners);
    let mut collector = Collector::new(Box::new(probe), notices.clone(), config.cost);
    if config.counters {
        collector = collector.with_counters();
    }
    let (publisher, shared) =
        Publisher::new(&config.query.by, config.max_series, names, config.interval, config.cost);
    for place in listeners.places() {
        say(&format!("Serving at {place}"));
    }
    let served = web::spawn(listeners, shared, access)?;
    let (reports, intervals) = Reports::new(config.timing(), collector, stop, notices);
    let sunk = sink::spawn(publisher, intervals)?;
    ready.announce()?;
    reports.send().await?;
    sunk.await.context("the publishing thread died")??;
    served.await.context("the web thread died")??;
    say("Stopping");
    Ok(())
}

/// Warnings as lines on standard error, each once: a run lasts for months, and numbers are metrics.
fn notices() -> Notices {
    let said = Mutex::new(HashSet::new());
    Notices::to(move |Notice { severity, text }| {
        let words: String = text.chars().filter(|character| !character.is_ascii_digit()).collect();
        let is_new = said.lock().unwrap_or_else(PoisonError::into_inner).insert(words);
        if severity == Severity::Warning && is_new {
            console::warn(&text);
        }
    })
}
