//! Digging into a row: which function refused the next of its packets.

use std::{
    io,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};

use super::{
    Target, Tools,
    packets::is_own,
    view::{Kind, Line},
    worker::{Shared, Sought, words},
};
use crate::{
    cli::config::DigSearch,
    dig::output::Dug,
    kernel::{
        code::{self, FunctionProbes},
        names::{KernelNames, LINES_WAIT},
    },
    model::identity::Identity,
    probe::{clock::Clock, dig::DigProbe, kfree_skb::typed::KernelFilter},
    process::{
        failure::{Failure, Refusal},
        notice::{Notice, Notices, Severity},
        privileges,
        signals::Stop,
    },
    session::{
        digger::{Digger, Means, Purpose, machine},
        event_loop,
        open::{Opened, Opener},
    },
    trace::{dropped_packet::DroppedPacket, event::Event},
};

/// A run beside the pane. It ends when this is dropped.
pub struct Digging {
    stop: Stop,
    running: JoinHandle<()>,
}

impl Digging {
    /// Starts one; `command` does the same elsewhere.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(target: Target, tools: Tools, shared: Shared, command: String) -> io::Result<Self> {
        let stop = Stop::new();
        let until = stop.clone();
        let dig = move || {
            privileges::give_up_in_thread();
            let ended = match code::function_probes() {
                Ok(how) => run(&target, &tools, &shared, how, &until),
                Err(option) => return shared.change(|view| view.dug = lacks(option, &command)),
            };
            if let Err(failure) = ended {
                shared.change(|view| view.dug = vec![(Kind::Fault, words(failure))]);
            }
        };
        let running = thread::Builder::new().name("dig".into()).spawn(dig)?;
        Ok(Self { stop, running })
    }

    /// Whether it has not come to its end yet.
    pub fn is_running(&self) -> bool {
        !self.running.is_finished()
    }

    /// Requests its end.
    pub fn end(&self) {
        self.stop.ask();
    }
}

impl Drop for Digging {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why nothing is followed here, and what does it elsewhere.
pub fn lacks(option: &str, command: &str) -> Vec<Line> {
    let why = format!(
        "This kernel cannot report the calls of its functions: it is built without {option}. The call chain below is what \
         it can tell. On a kernel that can, this shows which function refuses such packets:"
    );
    vec![(Kind::Text, why), (Kind::Text, format!("    {command}"))]
}

/// Follows calls until one of the row's packets has been looked into, or the end is requested.
fn run(
    target: &Target,
    tools: &Tools,
    shared: &Shared,
    how: FunctionProbes,
    stop: &Stop,
) -> Result<(), Failure> {
    let machine = machine()?;
    let sought = Sought::new(target);
    if sought.needs_sockets() {
        return Err(Refusal::new(
            "dig does not know whose sockets packets belong to, which tells this row's packets from others: it digs in rows \
             by other keys (b), without a filter by process or container",
        )
        .into());
    }
    let Opener { kernel, namespaces, .. } = &*tools.opener;
    let attach = |filter: Option<KernelFilter>| DigProbe::attach(filter.as_ref(), kernel, how);
    let Opened { probe, symbols, life: _life, .. } =
        tools.opener.attach_with(sought.filter.as_ref(), &[], &tools.symbols, attach)?;
    let notices = Notices::to(said(shared.clone()));
    let names =
        KernelNames::new(symbols, probe.has_reason(), kernel.clone(), namespaces.clone(), notices.clone())
            .with_lines(tools.debug_dir.as_deref(), LINES_WAIT);
    let (kernel, looker) = (kernel.clone(), tools.looker.clone());
    let means = Means { machine, names, kernel, looker, notices: notices.clone() };
    let row = OfRow { identity: sought.identity, shared: shared.clone() };
    let digger = Digger::new(DigSearch::default(), row, probe, means)?;
    shared.change(|view| view.dug.clear());
    notices.info("Waiting for the next of these packets (d ends this)");
    event_loop()?.block_on(digger.run(stop))
}

/// How far it has come is one line; what goes wrong stays.
fn said(shared: Shared) -> impl Fn(Notice) + Send + Sync + 'static {
    move |Notice { severity, text }| {
        shared.change(|view| {
            if severity == Severity::Info {
                view.dug.retain(|(kind, _)| *kind != Kind::Aside);
            }
            let kind = if severity == Severity::Info { Kind::Aside } else { Kind::Fault };
            view.dug.push((kind, text));
        });
    }
}

/// Findings about packets of a row go into its pane.
struct OfRow {
    identity: Identity,
    shared: Shared,
}

impl Purpose for OfRow {
    fn includes(&mut self, event: &Event<'_>, names: &mut KernelNames) -> bool {
        let drop = DroppedPacket::new(*event, Clock::now(), &mut names.for_report(), true);
        is_own(&self.identity, event, &drop)
    }

    fn show(&mut self, dug: &Dug<'_>) -> Result<()> {
        let mut text = Vec::new();
        dug.write_text(None, &mut text).context("cannot write to memory")?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(|line| (Kind::Text, line.to_owned()));
        self.shared.change(|view| {
            view.dug.retain(|(kind, _)| *kind == Kind::Fault);
            view.dug.extend(lines);
        });
        Ok(())
    }
}
