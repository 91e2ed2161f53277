//! `dropwatch dig`: for one dropped packet, the calls that led to it, and which of them refused it.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, Result};

use crate::{
    cli::{DigArgs, config::DigConfig},
    dig::{DigFormat, output::Dug, scan::Machine},
    evidence::objects::{self, Objects, Rules},
    kernel::{
        btf::KernelBtf,
        code::{self, FunctionProbes},
        lookup::Host,
        names::{KernelNames, LINES_WAIT},
        symbols::KallsymsSource,
    },
    probe::{dig::DigProbe, kfree_skb::typed::KernelFilter},
    process::{
        failure::{Failure, Refusal},
        files::ReadyFile,
        notice::Notices,
        privileges,
        signals::Signals,
    },
    render::Width,
    session::{
        digger::{self, Digger, Means, Purpose},
        evidence::{Looker, Which},
        namespaces::{self, Doubts},
        open::{Opened, Opener},
        preflight::{self, Need},
        run_to_end,
    },
    trace::event::Event,
};

/// Runs the command.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running.
pub fn run(args: &DigArgs) -> Result<(), Failure> {
    let signals = Signals::of_a_run()?;
    let (kernel, notices) = (KernelBtf::default(), Notices::to_stderr());
    let namespaces = namespaces::of_this_host(&kernel);
    let config = DigConfig::new(args, &Host::new(&kernel, &namespaces).with_symbols(None))?;
    let machine = digger::machine()?;
    let how = code::function_probes().map_err(lacks)?;
    let ready = ReadyFile::prepare(config.ready_file.as_deref())?;
    preflight::check(&needs(&config), &notices)?;
    if config.search.rules == Rules::Trace {
        objects::can_trace().map_err(|error| Refusal::new(format!("--nft: {error}")))?;
    }
    let opener = Opener { kernel, namespaces, notices, doubts: Doubts::default(), symbols_first: true };
    run_to_end(&ready, dig((config, machine), how, opener, &signals, &ready))
}

fn lacks(option: &str) -> Refusal {
    Refusal::new(format!(
        "dig follows the calls of the kernel's functions, and this kernel cannot report them: it is built without \
         {option}. `dropwatch trace --stack` shows the chain of calls to each drop, and `dropwatch explain FUNCTION` what \
         a drop in a function means"
    ))
}

fn needs(config: &DigConfig) -> Vec<Need> {
    let mut needs = vec![
        Need::Memory,
        Need::Functions,
        Need::Symbols,
        Need::Namespaces,
        Need::Enter("to look at what drops packets in other network namespaces"),
        Need::Objects,
    ];
    needs.extend(objects::has_legacy_rules().then_some(Need::Legacy));
    needs.extend(config.ready_file.clone().map(Need::File));
    needs.extend(config.debug_dir.clone().map(Need::Directory));
    needs
}

async fn dig(
    (config, machine): (DigConfig, Machine),
    how: FunctionProbes,
    opener: Opener,
    signals: &Signals,
    ready: &ReadyFile,
) -> Result<(), Failure> {
    let attach = |filter: Option<KernelFilter>| DigProbe::attach(filter.as_ref(), &opener.kernel, how);
    opener.watch_namespaces()?;
    let looker = Looker::start(Which::All, Objects::new(config.search.rules))?;
    let Opened { probe, symbols, life: _life, .. } =
        opener.attach(config.filter.as_ref(), &[], KallsymsSource::Running, attach)?;
    let to_remove = ready.clone();
    let stop = signals.run(move || to_remove.remove());
    privileges::give_up()?;
    let Opener { kernel, namespaces, notices, .. } = opener;
    let names = KernelNames::new(symbols, probe.has_reason(), kernel.clone(), namespaces, notices.clone())
        .with_lines(config.debug_dir.as_deref(), LINES_WAIT);
    let DigConfig { search, format, width, .. } = config;
    let looker = Arc::new(Mutex::new(looker));
    let means = Means { machine, names, kernel, looker, notices: notices.clone() };
    let digger = Digger::new(search, Stdout { format, width }, probe, means)?;
    notices.info("Waiting for a drop to dig into");
    ready.announce()?;
    digger.run(&stop).await
}

/// Findings go to standard output.
struct Stdout {
    format: DigFormat,
    width: Width,
}

impl Purpose for Stdout {
    fn includes(&mut self, _: &Event<'_>, _: &mut KernelNames) -> bool {
        true
    }

    fn show(&mut self, dug: &Dug<'_>) -> Result<()> {
        let mut out = Vec::new();
        match self.format {
            DigFormat::Text => dug.write_text(self.width.now(), &mut out)?,
            DigFormat::Json => dug.write_json(&mut out)?,
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out).and_then(|()| stdout.flush()).context("cannot write to standard output")
    }
}
