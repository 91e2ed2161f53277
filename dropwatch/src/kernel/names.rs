//! Names for what the kernel counts by number, read in the background before a report needs them.

use std::{
    path::Path,
    sync::Arc,
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    kernel::{
        btf::KernelBtf,
        namespaces::Namespaces,
        owners::Owners,
        reasons::{Loaded, Reasons, Source},
        source_lines::{DebugFiles, LineService},
        symbols::{Status, Symbols, Table},
    },
    knowledge::Meanings,
    model::{
        class::{Class, Destination},
        container::Container,
        foreign::Foreign,
        location::{Location, SourceLine},
        namespace::Namespace,
        reason::Reason,
        report::Names,
        socket::{Ownership, Socket},
        symbol_spec::SymbolSpec,
    },
    process::notice::Notices,
    sys::trim_memory,
};

/// How long a report waits for lines of source, unless it is one of many a second.
pub const LINES_WAIT: Duration = Duration::from_secs(1);

/// Symbols and reasons of the running kernel. Callers block only on the table they use.
#[derive(Debug)]
pub struct KernelNames {
    symbols: Symbols,
    notices: Notices,
    /// Of the symbol table that was used last.
    generation: Option<u64>,
    /// Whether the notice that there are no symbols has been sent.
    has_warned: bool,
    /// Whether the notice that another tracer hides locations has been sent.
    has_warned_of_hidden: bool,
    /// None on kernels that give no reasons.
    reasons: Option<Reasons>,
    loading: Option<JoinHandle<Reasons>>,
    lines: Lines,
    /// How long a report waits for them.
    lines_wait: Duration,
    namespaces: Namespaces,
    meanings: Meanings,
    /// Names of interfaces that rules ask for, each at the place of its bit.
    interfaces: Vec<Foreign>,
    /// If rows name processes or containers.
    owners: Option<Owners>,
}

/// Lines of source, once a symbol table says where the kernel is.
#[derive(Debug)]
enum Lines {
    NotAsked(DebugFiles),
    Asked(Option<LineService>),
}

impl KernelNames {
    /// Starts reading the reasons, if they are needed and the kernel gives any, in parallel with the symbols.
    #[must_use]
    pub fn new(
        symbols: Symbols,
        with_reasons: bool,
        kernel: KernelBtf,
        namespaces: Namespaces,
        notices: Notices,
    ) -> Self {
        let warnings = notices.clone();
        let load = || {
            let load = move || load_reasons(kernel, &warnings);
            thread::Builder::new().name("reasons".into()).spawn(load).ok()
        };
        Self {
            symbols,
            notices,
            generation: None,
            has_warned: false,
            has_warned_of_hidden: false,
            reasons: None,
            loading: with_reasons.then(load).flatten(),
            lines: Lines::Asked(None),
            lines_wait: Duration::ZERO,
            namespaces,
            meanings: Meanings::default(),
            interfaces: Vec::new(),
            owners: None,
        }
    }

    /// The same, with the names of interfaces that rows tell apart.
    #[must_use]
    pub fn with_interfaces(mut self, names: &[String]) -> Self {
        self.interfaces = names.iter().map(|name| Foreign::from(&**name)).collect();
        self
    }

    /// The same, with lines of source from `debug_dir` and where this system has debug information. A report waits for
    /// them for `wait` at most; what is not found by then is in a later one.
    #[must_use]
    pub fn with_lines(mut self, debug_dir: Option<&Path>, wait: Duration) -> Self {
        self.lines = DebugFiles::new(debug_dir).map_or(Lines::Asked(None), Lines::NotAsked);
        self.lines_wait = wait;
        self
    }

    /// The same, with the owners of sockets.
    #[must_use]
    pub fn with_owners(mut self, owners: Option<Owners>) -> Self {
        self.owners = owners;
        self
    }

    /// Looks for the owners of new sockets, if anything needs them.
    pub fn look_for_owners(&self, inodes: &[u64]) {
        if let (Some(owners), false) = (&self.owners, inodes.is_empty()) {
            owners.look_for(inodes);
        }
    }

    /// The names for one report.
    pub fn for_report(&mut self) -> ReportNames<'_> {
        ReportNames { kernel: self, table: None, lines_until: None }
    }

    /// Whether a function is or was there, as far as has been seen.
    #[must_use]
    pub fn has_seen(&mut self, function: &SymbolSpec) -> bool {
        self.table().has_seen(function)
    }

    /// The newest symbol table.
    pub fn table(&mut self) -> Arc<Table> {
        let table = self.symbols.table();
        if self.generation != Some(table.generation()) {
            self.generation = Some(table.generation());
            // Looked for once in each table: that is slower than a report.
            if let (Lines::NotAsked(files), Some(stext)) = (&self.lines, table.index().unique("_stext")) {
                self.lines = Lines::Asked(LineService::start(files.clone(), stext, &self.notices));
            }
        }
        // That they are hidden is said before anything is done.
        if let (Status::Unavailable(_), false) = (table.status(), self.has_warned) {
            self.has_warned = true;
            self.notices.warn(table.status().to_string());
        }
        table
    }

    /// Says once that another tracer hides locations.
    fn warn_of_hidden(&mut self, location: &Location) {
        if location.is_hidden() && !std::mem::replace(&mut self.has_warned_of_hidden, true) {
            self.notices.warn(format!(
                "another tracer has a return probe (kretprobe, fexit or function graph) on the function that frees \
                 packets: as long as it has, drops are shown at {location} instead of where they happened, and filters \
                 by location do not match them; end that tracer (see kprobe_events and current_tracer in \
                 /sys/kernel/tracing, and `bpftool prog`)"
            ));
        }
    }

    fn reasons(&mut self) -> Option<&mut Reasons> {
        if let Some(thread) = self.loading.take() {
            self.reasons = Some(thread.join().unwrap_or_default());
        }
        self.reasons.as_mut()
    }
}

/// Reads the reasons, and says once what will be missing.
fn load_reasons(kernel: KernelBtf, notices: &Notices) -> Reasons {
    let Loaded { reasons, source, warnings } = Reasons::load(&kernel);
    drop(kernel);
    trim_memory();
    let causes: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    let causes = causes.join("; ");
    match source {
        Source::Btf if warnings.is_empty() => {}
        Source::Btf => notices.warn(format!("some reasons are printed as numbers: {causes}")),
        Source::Format => notices.warn(format!("only the reasons of the network core have names: {causes}")),
        Source::Nothing => notices.warn(format!("reasons are printed as numbers: {causes}")),
    }
    reasons
}

/// The names for one report: one symbol table for all of its rows.
#[derive(Debug)]
pub struct ReportNames<'a> {
    kernel: &'a mut KernelNames,
    /// Once a row has needed it.
    table: Option<Arc<Table>>,
    /// When to stop waiting for lines of source, once one has been requested: symbols are read before.
    lines_until: Option<Instant>,
}

impl ReportNames<'_> {
    fn locate(&mut self, address: u64) -> Location {
        self.table.get_or_insert_with(|| self.kernel.table()).locate(address)
    }
}

impl Names for ReportNames<'_> {
    fn location(&mut self, address: u64) -> Location {
        let location = self.locate(address);
        self.kernel.warn_of_hidden(&location);
        location
    }

    fn frame(&mut self, address: u64) -> Location {
        let call = self.locate(address.wrapping_sub(1));
        call.returned(address)
    }

    fn netns(&mut self, namespace: Namespace) -> Option<Foreign> {
        self.kernel.namespaces.refresh_if_stale();
        self.kernel.namespaces.name(namespace)
    }

    fn netns_names(&mut self, namespace: Namespace) -> Vec<Foreign> {
        self.kernel.namespaces.names(namespace)
    }

    fn interfaces(&mut self, bits: u32) -> Vec<Foreign> {
        let names = self.kernel.interfaces.iter().enumerate();
        names.filter(|(place, _)| bits >> place & 1 != 0).map(|(_, name)| name.clone()).collect()
    }

    fn owner(&mut self, socket: &Socket) -> Ownership {
        self.kernel.owners.as_ref().map_or(Ownership::Unknown, |owners| owners.owner(socket))
    }

    fn container(&mut self, socket: &Socket) -> Option<Container> {
        self.kernel.owners.as_ref()?.container(socket)
    }

    fn source(&mut self, location: &Location) -> Option<SourceLine> {
        match &mut self.kernel.lines {
            Lines::Asked(Some(lines)) => {
                let wait = self.kernel.lines_wait;
                lines.line(location, *self.lines_until.get_or_insert_with(|| Instant::now() + wait))
            }
            _ => None,
        }
    }

    fn reason(&mut self, code: u32) -> Option<Reason> {
        let reasons = self.kernel.reasons()?;
        if reasons.is_missing_subsystem(code) {
            // Its module may have been loaded since.
            reasons.refresh();
        }
        Some(reasons.get(code))
    }

    fn class(&mut self, location: u64, reason: u32, destination: Destination) -> Option<Class> {
        let symbol = self.location(location).symbol?;
        let reason = self.reason(reason);
        self.kernel.meanings.class(reason.as_ref(), &symbol, destination)
    }
}
