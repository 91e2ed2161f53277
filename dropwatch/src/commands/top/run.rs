//! The command: what it needs, its probe, and the next one when something else is to be counted.

use std::{
    env, io,
    pin::Pin,
    sync::{Arc, Mutex},
    thread,
};

use anyhow::{Context as _, anyhow};
use nix::sys::{signal::Signal, utsname::uname};
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver},
        oneshot,
    },
    task::JoinHandle,
};

use super::{
    detail::Tools,
    draw::look::Look,
    names,
    screen::{Feed, Request, Shared, Ui},
    state::{About, State},
    terminal,
};
use crate::{
    cli::{
        TopArgs,
        config::{Asked, Fault, Query, TopConfig},
    },
    evidence::objects::{self, Objects, Rules},
    kernel::{
        btf::KernelBtf,
        lookup::Host,
        names::{KernelNames, LINES_WAIT},
        symbols::KallsymsSource,
    },
    probe::kfree_skb::count::Probe,
    process::{
        failure::Failure,
        files::ReadyFile,
        host,
        notice::Notices,
        privileges,
        signals::{Signals, Stop},
    },
    session::{
        collector::Collector,
        evidence::{Looker, Which},
        life::Life,
        namespaces::{self, Doubts},
        open::{Opened, Opener},
        preflight::{self, Need},
        reports::Reports,
        run_to_end, sink,
    },
};

/// Runs the command.
///
/// # Errors
/// A usage error, what cannot be done here, or a failure while running.
pub fn run(args: &TopArgs) -> Result<(), Failure> {
    let signals = Signals::of_a_screen()?;
    let kernel = KernelBtf::default();
    let namespaces = namespaces::of_this_host(&kernel);
    let config = TopConfig::new(
        args,
        &Host::new(&kernel, &namespaces).with_symbols(args.count.symbols.kallsyms.as_deref()),
    )?;
    let ready = ReadyFile::prepare(config.ready_file.as_deref())?;
    let about = About { host: host::name().to_owned(), kernel: release() };
    let mut state =
        State::new(about, config.asked.clone(), config.query.by.clone(), config.interval, config.all);
    state.filter.clone_from(&config.query.filter);
    let (shared, wake) = Shared::new(state).context("cannot wake the screen")?;
    let to_screen = Arc::clone(&shared);
    let notices = Notices::to(move |notice| to_screen.notice(notice));
    preflight::check(&needs(&config), &notices)?;
    let opener = Opener { kernel, namespaces, notices, doubts: Doubts::default(), symbols_first: false };
    let source = opener.symbol_source(config.kallsyms.as_deref(), true)?;
    let ended = run_to_end(&ready, top(&config, source, opener, &signals, &ready, (shared, wake)));
    terminal::restore();
    ended
}

/// The running kernel's release.
fn release() -> String {
    uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// What is needed for as long as it runs: filters, keys and open rows have probes of their own.
fn needs(config: &TopConfig) -> Vec<Need> {
    let mut needs = vec![
        Need::Memory,
        Need::FreshMaps,
        Need::Functions,
        Need::Namespaces,
        Need::Enter("to look at what drops packets in other network namespaces, and at what they lose"),
        Need::Owners,
        Need::Objects,
    ];
    needs.extend(config.kallsyms.is_none().then_some(Need::Symbols));
    needs.extend(objects::has_legacy_rules().then_some(Need::Legacy));
    needs.extend(config.ready_file.clone().map(Need::File));
    needs.extend(config.debug_dir.clone().map(Need::Directory));
    needs
}

/// A probe whose drops are on their way to the screen.
struct Counting {
    sending: Pin<Box<dyn Future<Output = anyhow::Result<()>>>>,
    sunk: oneshot::Receiver<anyhow::Result<()>>,
    stop: Stop,
    /// What keeps its filter and its names up to date.
    _life: Life,
}

/// What is counted, if it can be.
type Tried = Result<(Asked, Query, Opened<Probe>), Untried>;

/// Why something else is not counted.
enum Untried {
    Faulty(Fault),
    Failed(Failure),
}

/// What all probes of the run have in common.
struct Run<'a> {
    config: &'a TopConfig,
    shared: Arc<Shared>,
    tools: Tools,
    generation: u64,
}

async fn top(
    config: &TopConfig,
    source: KallsymsSource,
    opener: Opener,
    signals: &Signals,
    ready: &ReadyFile,
    (shared, wake): (Arc<Shared>, io::PipeReader),
) -> Result<(), Failure> {
    opener.watch_namespaces()?;
    // What later looks compare with is from before the first drop.
    let looker = Looker::start(Which::All, Objects::new(Rules::Compare))?;
    let attached = opener.count(&config.query, source)?;
    let to_remove = ready.clone();
    let on_signal = Arc::clone(&shared);
    let cleanup = move || {
        terminal::restore();
        to_remove.remove();
    };
    let stop = signals.run_with(cleanup, move |signal| match signal {
        Signal::SIGTSTP => on_signal.stop(),
        Signal::SIGCONT => on_signal.continued(),
        _ => on_signal.wake(),
    });
    privileges::give_up()?;
    let to_wake = Arc::clone(&shared);
    let tools = Tools {
        opener: Arc::new(opener),
        symbols: attached.symbols.clone(),
        wake: Arc::new(move || to_wake.wake()),
        looker: Arc::new(Mutex::new(looker)),
        debug_dir: config.debug_dir.clone(),
    };
    let (requests, requested) = mpsc::unbounded_channel();
    let mut run = Run { config, shared: Arc::clone(&shared), tools: tools.clone(), generation: 0 };
    let counting = run.begin(&config.query, attached)?;
    let (closed, mut is_closed) = oneshot::channel();
    let look = Look::of(&|name| env::var(name).ok());
    let ui = Ui::new(Arc::clone(&shared), wake, requests, tools, look).context("cannot use this terminal")?;
    let show = move || {
        privileges::give_up_in_thread();
        // The run may have ended.
        let _ = closed.send(ui.run());
    };
    thread::Builder::new().name("screen".into()).spawn(show).context("cannot start a thread")?;
    ready.announce()?;
    let counted = tokio::select! {
        counted = run.count(counting, requested, &stop) => counted,
        shown = &mut is_closed => {
            terminal::restore();
            let copied = shown.map_err(|_| anyhow!("the screen's thread died"))?;
            terminal::print(&copied.context("cannot wait for the terminal")?);
            return Ok(());
        }
    };
    shared.end();
    if let Ok(Ok(copied)) = is_closed.await {
        terminal::print(&copied);
    }
    counted
}

impl Run<'_> {
    /// Has a probe's drops shown from now on.
    fn begin(&mut self, query: &Query, opened: Opened<Probe>) -> Result<Counting, Failure> {
        let Opened { probe, symbols, owners, life } = opened;
        let Opener { kernel, namespaces, notices, .. } = &*self.tools.opener;
        let names = KernelNames::new(
            symbols,
            probe.has_reason() && query.names_reasons(),
            kernel.clone(),
            namespaces.clone(),
            notices.clone(),
        )
        .with_lines(self.config.debug_dir.as_deref(), LINES_WAIT.min(self.config.interval * 10))
        .with_owners(owners);
        let mut collector =
            Collector::new(Box::new(probe), notices.clone(), false).with_peaks(self.config.peak);
        if self.config.counters && query.filter.is_none() {
            collector = collector.with_counters();
        }
        let stop = Stop::new();
        let feed = Feed {
            shared: Arc::clone(&self.shared),
            generation: self.generation,
            by: query.by.clone(),
            names,
        };
        let (reports, intervals) =
            Reports::new(self.config.timing(), collector, stop.clone(), notices.clone());
        let sunk = sink::spawn(feed, intervals)?;
        Ok(Counting { sending: Box::pin(reports.send()), sunk, stop, _life: life })
    }

    /// Counts until the end, and what is requested.
    async fn count(
        &mut self,
        mut counting: Counting,
        mut requested: UnboundedReceiver<Request>,
        stop: &Stop,
    ) -> Result<(), Failure> {
        let mut trying: Option<JoinHandle<Tried>> = None;
        loop {
            tokio::select! {
                sent = &mut counting.sending => {
                    sent?;
                    counting.sunk.await.context("the naming thread died")??;
                    return Ok(());
                }
                () = stop.asked() => return Ok(()),
                Some(request) = requested.recv() => match request {
                    Request::Count(asked) if trying.is_none() => trying = Some(self.attempt(asked)),
                    Request::Count(_) => {}
                    Request::Vocabulary => self.read_names(),
                },
                tried = wait_for(&mut trying) => {
                    trying = None;
                    if let Some(next) = self.tried(tried.context("the attaching thread died")?)? {
                        end(std::mem::replace(&mut counting, next)).await?;
                    }
                }
            }
        }
    }

    /// Reads what was typed and attaches a probe for it, beside the one that counts.
    fn attempt(&self, asked: Asked) -> JoinHandle<Tried> {
        let (tools, max_rows) = (self.tools.clone(), self.config.query.max_rows);
        let kallsyms = self.config.kallsyms.clone();
        tokio::task::spawn_blocking(move || {
            let opener = &tools.opener;
            let host = Host::new(&opener.kernel, &opener.namespaces).with_symbols(kallsyms.as_deref());
            let query = asked.query(max_rows, &host).map_err(Untried::Faulty)?;
            let attached = opener.count_with(&query, &tools.symbols).map_err(Untried::Failed)?;
            Ok((asked, query, attached))
        })
    }

    /// What was tried is counted from now on, or it is said why not.
    fn tried(&mut self, tried: Tried) -> Result<Option<Counting>, Failure> {
        match tried {
            Ok((asked, query, opened)) => {
                self.generation += 1;
                let generation = self.generation;
                self.shared.change(|state| state.applied(generation, asked, &query));
                self.begin(&query, opened).map(Some)
            }
            Err(untried) => {
                self.shared.change(|state| match untried {
                    Untried::Faulty(Fault::Filter(error)) => {
                        state.faulty(error.problem().to_owned(), Some(error.span()));
                    }
                    Untried::Faulty(Fault::Keys(problem)) => state.faulty(problem, None),
                    Untried::Failed(failure) => state.faulty(failure.to_string(), None),
                });
                Ok(None)
            }
        }
    }

    /// Reads the names that can be completed, beside all else.
    fn read_names(&self) {
        let (tools, shared) = (self.tools.clone(), Arc::clone(&self.shared));
        drop(tokio::task::spawn_blocking(move || {
            let Opener { kernel, namespaces, .. } = &*tools.opener;
            let seen = shared.change(|state| state.namespaces());
            let vocabulary = names::read(kernel, namespaces, &tools.symbols, &seen);
            shared.change(|state| state.know(vocabulary));
        }));
    }
}

/// What was tried, once it is; never, if nothing is.
async fn wait_for(trying: &mut Option<JoinHandle<Tried>>) -> Result<Tried, tokio::task::JoinError> {
    match trying {
        Some(trying) => trying.await,
        None => std::future::pending().await,
    }
}

/// Ends a probe that another one has replaced: the drops of its last interval are shown.
async fn end(counting: Counting) -> anyhow::Result<()> {
    counting.stop.ask();
    counting.sending.await?;
    counting.sunk.await.context("the naming thread died")?
}
