//! Names of this host that can be completed.

use std::{collections::BTreeSet, fs, sync::Arc, thread};

use super::input::{Functions, Vocabulary};
use crate::{
    escape::Escaped,
    evidence::places::{Place, Places},
    kernel::{btf::KernelBtf, namespaces::Namespaces, reasons::Reasons, symbols::Symbols},
};

/// The most namespaces whose interfaces are read.
const MOST_NAMESPACES: usize = 256;

/// All that there is now. A name that the language cannot say is left out. The namespaces that rows have been `seen` in
/// come first.
pub fn read(
    kernel: &KernelBtf,
    namespaces: &Namespaces,
    symbols: &Symbols,
    seen: &BTreeSet<u32>,
) -> Vocabulary {
    let reasons = Reasons::load(kernel).reasons;
    let can_be_said = |name: &String| {
        !name.is_empty()
            && !name.contains(|character: char| character.is_whitespace() || "()\"'\\".contains(character))
    };
    namespaces.refresh();
    let mut known = namespaces.current();
    known.push("self".to_owned());
    Vocabulary {
        reasons: reasons
            .iter()
            .filter_map(|reason| Some(reason.name?.to_string()))
            .filter(can_be_said)
            .collect(),
        interfaces: interfaces(seen).into_iter().filter(can_be_said).collect(),
        namespaces: known.into_iter().filter(can_be_said).collect(),
        functions: Some(functions(symbols.clone())),
    }
}

/// The interfaces of all namespaces that can be read.
fn interfaces(seen: &BTreeSet<u32>) -> BTreeSet<String> {
    let read = || {
        let mut places = Places::of_this_host().now();
        places.sort_by_key(|place| !seen.contains(&place.inum));
        places.truncate(MOST_NAMESPACES);
        places.iter().flat_map(interfaces_of).collect()
    };
    // It goes from one namespace to the next, and ends in any.
    thread::scope(|scope| {
        let reading = thread::Builder::new().name("names".into()).spawn_scoped(scope, read);
        let reading = reading.map_err(|error| log::warn!("cannot start a thread: {error}")).ok()?;
        reading.join().ok()
    })
    .unwrap_or_default()
}

fn interfaces_of(place: &Place) -> Vec<String> {
    let list = place.visit(|inside| fs::read(inside.directory.join("dev")).ok());
    let list = list.unwrap_or_default();
    // Lines with a colon are those of interfaces, whose names have none.
    let lines =
        list.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok()?.split_once(':'));
    lines.map(|(name, _)| Escaped::new(name.trim_start()).to_string()).collect()
}

fn functions(symbols: Symbols) -> Functions {
    Arc::new(move |start, most| {
        let table = symbols.table();
        let found = table.index().find_where(|name, _| name.starts_with(start));
        let mut names: Vec<_> = found.map(|symbol| symbol.name.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(most);
        names
    })
}
