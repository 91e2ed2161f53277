//! The entries that a user means.

use super::name::{Name, bare_reason, is_address, is_number, names};
use crate::{
    escape::Escaped,
    knowledge::{ENTRIES, Entry, Query, knows_reason, lookup},
    model::suggestions,
};

/// The entries about these names, each once.
///
/// # Errors
/// All the names that are unknown, with the nearest ones that are known.
pub fn find(words: &[String]) -> Result<Vec<&'static Entry>, String> {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    for name in names(words) {
        match of(name) {
            Ok(found) => entries.extend(found),
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    Ok(each_once(entries))
}

/// The entries in which each of these words occurs, whatever its case; all, without words.
///
/// # Errors
/// There is none.
pub fn search(words: &[String]) -> Result<Vec<&'static Entry>, String> {
    let words: Vec<_> = words.iter().map(|word| word.trim().to_lowercase()).collect();
    let has_all = |entry: &&Entry| {
        let text = everything(entry);
        words.iter().all(|word| text.contains(word.as_str()))
    };
    let found: Vec<_> = ENTRIES.iter().filter(has_all).collect();
    if found.is_empty() {
        let words = words.join(" ");
        return Err(format!(
            "nothing known has the words '{}' in it: try fewer, or 'dropwatch explain --list'",
            Escaped::new(&words)
        ));
    }
    Ok(found)
}

fn each_once(entries: Vec<&'static Entry>) -> Vec<&'static Entry> {
    let mut once: Vec<&'static Entry> = Vec::new();
    for entry in entries {
        if !once.iter().any(|seen| std::ptr::eq(*seen, entry)) {
            once.push(entry);
        }
    }
    once
}

fn of(name: Name<'_>) -> Result<Vec<&'static Entry>, String> {
    let reason = bare_reason(name.word);
    if let Some(function) = name.function {
        return both(&reason, name, function);
    }
    if knows_reason(&reason) {
        return Ok(about_reason(&reason));
    }
    let about = about_function(name.word, name.module);
    if about.is_empty() { Err(unknown(name.word)) } else { Ok(about) }
}

/// The one entry that fits both, which may be the reason's in general.
fn both(reason: &str, name: Name<'_>, function: &str) -> Result<Vec<&'static Entry>, String> {
    if !knows_reason(reason) {
        return Err(unknown(name.word));
    }
    let query = Query { reason: Some(reason), function: Some(function), module: name.module };
    lookup(query).map(|entry| vec![entry]).ok_or_else(|| unknown(name.word))
}

/// What the reason means anywhere, then where it means something else.
fn about_reason(reason: &str) -> Vec<&'static Entry> {
    let mut about: Vec<_> = ENTRIES.iter().filter(|entry| entry.reasons.contains(&reason)).collect();
    about.sort_by_key(|entry| !entry.functions.is_empty());
    about
}

fn about_function(function: &str, module: Option<&str>) -> Vec<&'static Entry> {
    let is_elsewhere = |entry: &Entry| module.is_some() && entry.module.is_some() && entry.module != module;
    let about = |function: &str| -> Vec<&'static Entry> {
        ENTRIES.iter().filter(|entry| entry.is_about_function(function) && !is_elsewhere(entry)).collect()
    };
    let found = about(function);
    if found.is_empty() { about(&function.to_ascii_lowercase()) } else { found }
}

/// Why a word means nothing here, and what it may have been meant to be.
fn unknown(word: &str) -> String {
    let shown = Escaped::new(word);
    if is_number(word) {
        return format!(
            "'{shown}' is a number, and each kernel numbers its reasons anew: use the name, which dropwatch prints \
             where the kernel's type information is readable"
        );
    }
    if is_address(word) {
        return format!("'{shown}' is an address: use the function's name, which dropwatch prints as root");
    }
    let near = nearest(word);
    let hint = if near.is_empty() {
        "'dropwatch explain --list WORD' searches all that are known".to_string()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    format!("no reason or function '{shown}' is known: {hint}")
}

/// The names that are most like a word.
fn nearest(word: &str) -> Vec<&'static str> {
    let reasons = ENTRIES.iter().flat_map(|entry| entry.reasons).copied();
    let functions = ENTRIES.iter().flat_map(|entry| entry.functions).copied();
    let functions = functions.filter(|name| !name.ends_with('*'));
    let bare = bare_reason(word);
    let near = [suggestions::nearest(&bare, reasons), suggestions::nearest(word, functions)];
    near.into_iter().flatten().collect()
}

/// All words of an entry, in lower case.
fn everything(entry: &Entry) -> String {
    let Entry { topic, reasons, functions, title, meaning, class, causes, check, counters, sysctls, .. } =
        entry;
    let lists = [*reasons, *functions, *causes, *counters, *sysctls].map(|list| list.join(" "));
    let checks =
        check.iter().map(|check| format!("{} {}", check.run, check.shows)).collect::<Vec<_>>().join(" ");
    let module = entry.module.unwrap_or_default();
    format!("{topic} {class} {title} {meaning} {} {checks} {module}", lists.join(" ")).to_lowercase()
}
