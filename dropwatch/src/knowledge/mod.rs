//! What drop reasons and dropping functions mean to people who are not kernel developers.
//!
//! The texts are the TOML files beside this one, a file for each part of the network stack; the build makes constants
//! of them (`build/knowledge.rs`). They are written from the kernel's sources and from drops that were caused on
//! purpose. Which kernels say what: an entry's `since`, `until` and `seen`.
//!
//! An entry applies by what it names:
//!
//! * reasons and functions: these reasons in these functions, where the function gives the reason another meaning;
//! * functions alone: where the kernel gives no reason, or `NOT_SPECIFIED`;
//! * reasons alone: wherever they are given.
//!
//! The first of these that fits says what a drop means.

mod rows;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::LazyLock};

pub use rows::Meanings;
use serde::Serialize;

use crate::model::{
    class::{Class, Destination},
    evidence::Kind as Evidence,
};

/// Every entry, in the order of the files.
pub static ENTRIES: &[Entry] = include!(concat!(env!("OUT_DIR"), "/knowledge.rs"));

/// The kernel's name for "no reason given".
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// What is known of a kind of drop.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The part of the network stack: the file's name.
    pub topic: &'static str,
    /// The kernel's names, without the core's prefix.
    pub reasons: &'static [&'static str],
    /// Exact names, or the start of names that ends in `*`.
    pub functions: &'static [&'static str],
    /// The module that the functions are in, where the same name exists in others.
    pub module: Option<&'static str>,
    /// A few words.
    pub title: &'static str,
    /// A sentence or three.
    pub meaning: &'static str,
    /// What such a drop is worth, unless one of `when` fits.
    pub class: Class,
    /// Where the packet decides.
    pub when: &'static [When],
    /// The usual ones, most likely first.
    pub causes: &'static [&'static str],
    /// What to run.
    pub check: &'static [Check],
    /// The kernel's own counters that move with it, as `nstat` names them.
    pub counters: &'static [&'static str],
    /// Settings that decide it.
    pub sysctls: &'static [&'static str],
    /// What else of the system shows the cause.
    pub evidence: &'static [Evidence],
    /// Whether such drops look harmless, and are losses where there is evidence.
    #[serde(skip)]
    pub in_doubt: bool,
    /// The first kernel with the reason, where that is known.
    pub since: Option<&'static str>,
    /// The last kernel with it.
    pub until: Option<&'static str>,
    /// A kernel, and a function in it, whose source this was written from.
    pub seen: Option<&'static str>,
}

/// Another class for packets of one kind.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct When {
    /// Whom they are for.
    pub destination: Destination,
    /// What these are worth.
    pub class: Class,
    /// Why.
    pub because: &'static str,
}

/// A command that shows whether this is the cause.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What to type; words in braces, as `{iface}`, stand for what a row says.
    pub run: &'static str,
    /// What to look at in its output.
    pub shows: &'static str,
}

/// What is known of a drop when its meaning is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// The reason's name, of whichever subsystem: no two of them share a name.
    pub reason: Option<&'a str>,
    /// The function it happened in.
    pub function: Option<&'a str>,
    /// The module that function is in.
    pub module: Option<&'a str>,
}

/// Entries by reason; those without one by the empty name.
static BY_REASON: LazyLock<HashMap<&str, Vec<&Entry>>> = LazyLock::new(|| {
    let mut index: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for entry in ENTRIES {
        for &reason in if entry.reasons.is_empty() { &[""] } else { entry.reasons } {
            index.entry(reason).or_default().push(entry);
        }
    }
    index
});

/// The entry that says most about a drop; `None` if it is unknown to us.
#[must_use]
pub fn lookup(drop: Query<'_>) -> Option<&'static Entry> {
    let reason = drop.reason.unwrap_or(NOT_SPECIFIED);
    let named = drop.reason.and_then(|reason| BY_REASON.get(reason));
    let bare = (reason == NOT_SPECIFIED).then(|| BY_REASON.get("")).flatten();
    let candidates = named.into_iter().chain(bare).flatten();
    let fitting = candidates.filter_map(|entry| Some((entry.fit(drop)?, *entry)));
    fitting.max_by_key(|(fit, _)| *fit).map(|(_, entry)| entry)
}

/// The class of a drop by what is known of it: lost, if nothing is; `None` if it depends on a destination that is
/// unknown.
#[must_use]
pub fn class(entry: Option<&Entry>, destination: Destination) -> Option<Class> {
    let Some(entry) = entry else { return Some(Class::Lost) };
    let decides = !entry.when.is_empty() && destination == Destination::Unknown;
    (!decides).then(|| entry.class_of(destination))
}

/// The reasons with which a drop's class depends on the packet's destination, in some functions at least.
pub fn reasons_with_kinds() -> impl Iterator<Item = &'static str> {
    let decided = ENTRIES.iter().filter(|entry| !entry.when.is_empty());
    decided.flat_map(|entry| if entry.reasons.is_empty() { &[NOT_SPECIFIED] } else { entry.reasons }).copied()
}

/// Whether any entry is about this reason.
#[must_use]
pub fn knows_reason(name: &str) -> bool {
    !name.is_empty() && BY_REASON.contains_key(name)
}

/// How well an entry fits: by a longer part of the function's name, by its module, by its reason.
type Fit = (usize, bool, bool);

impl Entry {
    /// How well the entry fits, apart from the reason, which does; `None` if it does not.
    fn fit(&self, drop: Query<'_>) -> Option<Fit> {
        let function = match (self.functions, drop.function) {
            ([], _) => 0,
            (_, None) => return None,
            (patterns, Some(function)) => {
                patterns.iter().filter_map(|pattern| matched(pattern, function)).max()?
            }
        };
        match (self.module, drop.module) {
            (Some(ours), theirs) if theirs != Some(ours) => None,
            (ours, _) => Some((function, ours.is_some(), !self.reasons.is_empty())),
        }
    }

    /// What a drop of a packet for this destination is worth.
    #[must_use]
    pub fn class_of(&self, destination: Destination) -> Class {
        let when = self.when.iter().find(|when| when.destination == destination);
        when.map_or(self.class, |when| when.class)
    }

    /// Whether the entry is about this function, of whatever module.
    #[must_use]
    pub fn is_about_function(&self, function: &str) -> bool {
        self.functions.iter().any(|pattern| matched(pattern, function).is_some())
    }

    /// What it is about, in the form of a query: `IP_INHDR@ip_forward +1`, with the number of further names at its end.
    #[must_use]
    pub fn name(&self) -> String {
        let module = self.module.map(|module| format!("[{module}]")).unwrap_or_default();
        let more = (self.reasons.len() + self.functions.len()) - 1;
        let (first, more) = match (self.reasons.first(), self.functions.first()) {
            (Some(reason), Some(function)) => (format!("{reason}@{function}"), more - 1),
            (Some(name), None) | (None, Some(name)) => ((*name).to_string(), more),
            (None, None) => (String::new(), 0),
        };
        let more = if more == 0 { String::new() } else { format!(" +{more}") };
        format!("{first}{module}{more}")
    }
}

/// How much of a function's name the pattern matches; an exact match is more than any other.
fn matched(pattern: &str, function: &str) -> Option<usize> {
    // What compilers add to the names of parts and clones: `.isra.0`, `.constprop.0`, `.cold`.
    let function = function.split('.').next().unwrap_or(function);
    match pattern.strip_suffix('*') {
        Some(start) => function.starts_with(start).then_some(start.len()),
        None => (function == pattern).then_some(usize::MAX),
    }
}
