//! Names for what the kernel counts by number, read in the background before a report needs them.

use std::{sync::Arc, thread, thread::JoinHandle};

use crate::{
    btf::KernelBtf,
    console::warn,
    namespaces::Namespaces,
    reasons::{Loaded, Reason, Reasons, Source},
    report::Names,
    source_lines::{LineService, SourceLine},
    symbols::{Location, Status, Symbols, Table},
    sys::trim_memory,
};

/// Symbols and reasons of the running kernel.
#[derive(Debug)]
pub struct KernelNames {
    symbols: Symbols,
    /// Of the symbol table that was used last.
    generation: Option<u64>,
    /// Whether somebody has been told that there are no symbols.
    told: bool,
    /// None on kernels that give no reasons.
    reasons: Option<Reasons>,
    loading: Option<JoinHandle<Reasons>>,
    lines: Lines,
    namespaces: Namespaces,
}

/// Lines of source, once a symbol table says where the kernel is.
#[derive(Debug)]
enum Lines {
    NotAsked,
    Asked(Option<LineService>),
}

impl KernelNames {
    /// Starts reading the reasons, if the kernel gives any, beside the symbols.
    #[must_use]
    pub fn new(symbols: Symbols, has_reason: bool, kernel: KernelBtf) -> Self {
        let load = || thread::Builder::new().name("reasons".into()).spawn(move || load_reasons(&kernel)).ok();
        Self {
            symbols,
            generation: None,
            told: false,
            reasons: None,
            loading: has_reason.then(load).flatten(),
            lines: Lines::NotAsked,
            namespaces: Namespaces::default(),
        }
    }

    /// The names for one report.
    pub fn for_report(&mut self) -> ReportNames<'_> {
        self.namespaces.start_report();
        self.so_far()
    }

    /// The same, without another search for the names of namespaces that had none a moment ago.
    pub fn so_far(&mut self) -> ReportNames<'_> {
        if let Some(thread) = self.loading.take() {
            self.reasons = Some(thread.join().unwrap_or_default());
        }
        let table = self.symbols.table();
        if self.generation != Some(table.generation()) {
            self.generation = Some(table.generation());
            // Looked for once in each table: it takes longer than a report.
            if let (Lines::NotAsked, Some(stext)) = (&self.lines, table.index().unique("_stext")) {
                self.lines = Lines::Asked(LineService::start(stext));
            }
            // What reading it took is not needed any more.
            trim_memory();
        }
        // That they are hidden is said before anything is done.
        if let (Status::Unavailable(_), false) = (table.status(), self.told) {
            self.told = true;
            warn(&table.status().to_string());
        }
        let lines = if let Lines::Asked(lines) = &mut self.lines { lines.as_mut() } else { None };
        ReportNames { table, reasons: self.reasons.as_mut(), lines, namespaces: &mut self.namespaces }
    }
}

/// Reads the reasons, and says once what will be missing.
fn load_reasons(kernel: &KernelBtf) -> Reasons {
    let Loaded { reasons, source, warnings } = Reasons::load(kernel);
    let causes: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    let causes = causes.join("; ");
    match source {
        Source::Btf if warnings.is_empty() => {}
        Source::Btf => warn(&format!("some reasons are printed as numbers: {causes}")),
        Source::Format => warn(&format!("only the reasons of the network core have names: {causes}")),
        Source::Nothing => warn(&format!("reasons are printed as numbers: {causes}")),
    }
    reasons
}

/// The names for one report: one symbol table for all of its rows.
#[derive(Debug)]
pub struct ReportNames<'a> {
    table: Arc<Table>,
    reasons: Option<&'a mut Reasons>,
    lines: Option<&'a mut LineService>,
    namespaces: &'a mut Namespaces,
}

impl Names for ReportNames<'_> {
    fn location(&mut self, address: u64) -> Location {
        self.table.locate(address)
    }

    fn netns(&mut self, inum: u32) -> Option<Arc<str>> {
        self.namespaces.name(inum)
    }

    fn source(&mut self, location: &Location) -> Option<SourceLine> {
        self.lines.as_mut()?.line(location)
    }

    fn reason(&mut self, code: u32) -> Option<Reason> {
        let reasons = self.reasons.as_mut()?;
        if reasons.is_missing_subsystem(code) {
            // Its module may have been loaded since.
            reasons.refresh();
        }
        Some(reasons.get(code))
    }
}
