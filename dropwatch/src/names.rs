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

/// Symbols and reasons of the running kernel. Who needs one of them waits for it, and nobody else.
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
    /// Starts reading the reasons, if they are asked for and the kernel gives any, beside the symbols.
    #[must_use]
    pub fn new(symbols: Symbols, with_reasons: bool, kernel: KernelBtf) -> Self {
        let load = || thread::Builder::new().name("reasons".into()).spawn(move || load_reasons(kernel)).ok();
        Self {
            symbols,
            generation: None,
            told: false,
            reasons: None,
            loading: with_reasons.then(load).flatten(),
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
        ReportNames { kernel: self, table: None }
    }

    /// The newest symbol table.
    fn table(&mut self) -> Arc<Table> {
        let table = self.symbols.table();
        if self.generation != Some(table.generation()) {
            self.generation = Some(table.generation());
            // Looked for once in each table: it takes longer than a report.
            if let (Lines::NotAsked, Some(stext)) = (&self.lines, table.index().unique("_stext")) {
                self.lines = Lines::Asked(LineService::start(stext));
            }
        }
        // That they are hidden is said before anything is done.
        if let (Status::Unavailable(_), false) = (table.status(), self.told) {
            self.told = true;
            warn(&table.status().to_string());
        }
        table
    }

    fn reasons(&mut self) -> Option<&mut Reasons> {
        if let Some(thread) = self.loading.take() {
            self.reasons = Some(thread.join().unwrap_or_default());
        }
        self.reasons.as_mut()
    }
}

/// Reads the reasons, and says once what will be missing.
fn load_reasons(kernel: KernelBtf) -> Reasons {
    let Loaded { reasons, source, warnings } = Reasons::load(&kernel);
    drop(kernel);
    trim_memory();
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
    kernel: &'a mut KernelNames,
    /// Once a row has asked for it.
    table: Option<Arc<Table>>,
}

impl Names for ReportNames<'_> {
    fn location(&mut self, address: u64) -> Location {
        self.table.get_or_insert_with(|| self.kernel.table()).locate(address)
    }

    fn netns(&mut self, inum: u32) -> Option<Arc<str>> {
        self.kernel.namespaces.name(inum)
    }

    fn source(&mut self, location: &Location) -> Option<SourceLine> {
        match &mut self.kernel.lines {
            Lines::Asked(Some(lines)) => lines.line(location),
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
}
