//! The running kernel's functions: where they are, what they return, and their text.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    dig::plan::{Code, Function},
    kernel::{
        btf::{KernelBtf, Prototype},
        code::{ColdParts, function_of_part, functions_with, prototypes, returning_nothing},
        kallsyms::Symbol,
        symbols::Table,
    },
    model::references::trimmed,
    probe::dig::text::TextReader,
    trace::event::Event,
};

/// How many functions of a call chain are tried to find roots.
const FRAMES: usize = 12;

/// The functions of a name.
pub fn named(table: &Table, name: &str) -> Vec<Function> {
    let is_it = |known: &str, _: &str| known == name || known.split('.').next() == Some(name);
    let found = table.index().find_where(is_it).filter(|symbol| function_of_part(symbol.name).is_none());
    found.map(|symbol| of_symbol(&symbol)).collect()
}

fn of_symbol(symbol: &Symbol<'_>) -> Function {
    Function { start: symbol.start, name: symbol.name.into(), module: Arc::clone(symbol.module).into() }
}

/// The functions that were being called when a packet was dropped, innermost first.
pub fn chain(table: &Table, event: &Event<'_>) -> Vec<Function> {
    let frames: Vec<_> = event.stack().collect();
    let frames = trimmed(&frames, event.head.location);
    let frames = if frames.is_empty() { &[event.head.location][..] } else { frames };
    frames.iter().take(FRAMES).filter_map(|frame| function_at(table, frame.wrapping_sub(1))).collect()
}

/// The function of an address, also if it is in the part that the compiler moved away.
fn function_at(table: &Table, address: u64) -> Option<Function> {
    let symbol = table.index().lookup(address)?;
    let Some(name) = function_of_part(symbol.name) else { return Some(of_symbol(&symbol)) };
    let whole = table.index().find_where(|known, module| known == name && module == &**symbol.module).next();
    whole.map(|whole| of_symbol(&whole))
}

pub fn of_functions(kernel: &KernelBtf, functions: &[Function]) -> Vec<Option<Prototype>> {
    let names: Vec<_> = functions
        .iter()
        .map(|function| (function.source_name(), function.module.text().into_owned()))
        .collect();
    let known = prototypes(kernel, names.iter().map(|(name, module)| (name.as_str(), module.as_str())));
    names.iter().map(|name| known.get(name).cloned()).collect()
}

/// The functions that are called with all of some structures.
pub fn with(structures: &[&str], table: &Table, kernel: &KernelBtf) -> Vec<Function> {
    let wanted = functions_with(structures, kernel);
    let is_wanted = |name: &str, module: &str| {
        let name = name.split('.').next().unwrap_or(name);
        wanted.contains(&(name.to_owned(), module.to_owned()))
    };
    let found = table.index().find_where(is_wanted).filter(|symbol| function_of_part(symbol.name).is_none());
    found.map(|symbol| of_symbol(&symbol)).collect()
}

/// The running kernel's text and symbols.
pub struct KernelCode<'a> {
    table: &'a Table,
    text: &'a TextReader,
    kernel: &'a KernelBtf,
    cold: ColdParts,
    /// The functions that return nothing, by module.
    returning_nothing: HashMap<String, HashSet<String>>,
}

impl<'a> KernelCode<'a> {
    pub fn new(table: &'a Table, text: &'a TextReader, kernel: &'a KernelBtf) -> Self {
        let cold = ColdParts::of(table.index());
        Self { table, text, kernel, cold, returning_nothing: HashMap::new() }
    }

    fn part(&self, start: u64, size: u64) -> Option<(u64, Vec<u8>)> {
        let text = self.text.read(start, size);
        let text = text.inspect_err(|error| log::debug!("no text at {start:#x}: {error}"));
        Some((start, text.ok()?))
    }
}

impl Code for KernelCode<'_> {
    fn starting_at(&self, address: u64) -> Option<Function> {
        let symbol = self.table.index().lookup(address).filter(|symbol| symbol.start == address)?;
        (function_of_part(symbol.name).is_none()).then(|| of_symbol(&symbol))
    }

    fn text(&mut self, function: &Function) -> Vec<(u64, Vec<u8>)> {
        let symbol = self.table.index().lookup(function.start);
        // The last function of a module has no known end.
        let size = symbol.and_then(|symbol| symbol.size).unwrap_or(512);
        let cold = self.cold.get(&function.name.text(), &function.module.text());
        let parts = [Some((function.start, size)), cold].into_iter().flatten();
        parts.filter_map(|(start, size)| self.part(start, size)).collect()
    }

    fn returns_nothing(&mut self, function: &Function) -> bool {
        let module = function.module.text().into_owned();
        let names = self
            .returning_nothing
            .entry(module)
            .or_insert_with_key(|module| returning_nothing(self.kernel, module));
        names.contains(&function.source_name())
    }
}
