//! What a shell offers for the values of options: keys, reasons, functions, interfaces, the words of filters.
//!
//! Nothing here needs privileges or asks the kernel for more than the names of interfaces.

use std::{collections::BTreeMap, ffi::OsStr, fs, path::Path};

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::{filter, knowledge::ENTRIES, model::keys::Key};

/// For `--by`: the keys that are not chosen yet.
pub fn keys() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        completed(typed, ',', |before| {
            let is_new = |key: &Key| !before.split(',').any(|word| word == key.word());
            Key::ALL.into_iter().filter(is_new).map(|key| (key.word().to_owned(), "")).collect()
        })
    })
}

/// For `explain`: reasons and functions, with their titles.
pub fn names() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        completed(typed, ' ', |_| {
            let functions =
                ENTRIES.iter().flat_map(|entry| entry.functions.iter().map(|name| (*name, entry.title)));
            let exact = functions
                .filter(|(name, _)| !name.ends_with('*'))
                .map(|(name, title)| (name.to_owned(), title));
            reasons().chain(exact).collect()
        })
    })
}

/// For an interface of this namespace.
pub fn interfaces() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        completed(typed, ' ', |_| interfaces_in(Path::new("/sys/class/net")).map(|name| (name, "")).collect())
    })
}

/// For a filter, the whole of it or a word.
pub fn filters() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| completed(typed, ' ', |before| terms(before).collect()))
}

/// For a rule of `check`: a key, or a reason behind `reason=`.
pub fn rules() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        completed(typed, ',', |_| {
            let keys = Key::ALL
                .into_iter()
                .filter(|key| *key != Key::Stack)
                .map(|key| (format!("{}=", key.word()), ""));
            let classes = CLASSES.map(|class| (format!("{class}:0"), "none of this class"));
            keys.chain(classes)
                .chain(reasons().map(|(name, title)| (format!("reason={name}"), title)))
                .collect()
        })
    })
}

/// The words for a class.
const CLASSES: [&str; 3] = ["lost", "refused", "harmless"];

/// A value, and what it means.
type Word = (String, &'static str);

/// What may follow in a filter: where the word before says what it is about, that.
fn terms(before: &str) -> Box<dyn Iterator<Item = Word>> {
    match before.split_whitespace().next_back() {
        Some("reason") => Box::new(reasons()),
        Some("class") => Box::new(CLASSES.into_iter().map(|word| (word.to_owned(), ""))),
        Some("iface" | "ifname") => {
            Box::new(interfaces_in(Path::new("/sys/class/net")).map(|name| (name, "")))
        }
        Some(_) => Box::new(words()),
        // Of an expression in several arguments, only this one is known here.
        None => Box::new(words().chain(reasons())),
    }
}

fn words() -> impl Iterator<Item = Word> {
    filter::words().map(|word| (word.to_owned(), ""))
}

/// All reasons with the title of the entry that is about them alone.
fn reasons() -> impl Iterator<Item = Word> {
    let mut found = BTreeMap::new();
    for entry in ENTRIES {
        for reason in entry.reasons {
            if entry.functions.is_empty() || !found.contains_key(reason) {
                found.insert(*reason, entry.title);
            }
        }
    }
    found.into_iter().map(|(name, title)| (name.to_owned(), title))
}

fn interfaces_in(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter()
}

/// The candidates that begin as what was typed does since the last separator, with all before it.
fn completed(
    typed: &OsStr,
    separator: char,
    candidates: impl FnOnce(&str) -> Vec<Word>,
) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let at = typed.rfind(separator).map_or(0, |at| at + separator.len_utf8());
    let (before, begun) = typed.split_at(at);
    let fitting = candidates(before).into_iter().filter(|(word, _)| word.starts_with(begun));
    fitting
        .map(|(word, help)| {
            let candidate = CompletionCandidate::new(format!("{before}{word}"));
            if help.is_empty() { candidate } else { candidate.help(Some(help.into())) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(completer: &ArgValueCompleter, typed: &str) -> Vec<String> {
        let found = completer.complete(OsStr::new(typed));
        found.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn keys_are_completed_behind_commas_and_offered_once() {
        assert_eq!(values(&keys(), "sad"), ["saddr"]);
        assert_eq!(
            values(&keys(), "saddr,iface,s"),
            ["saddr,iface,sport", "saddr,iface,socket", "saddr,iface,stack"]
        );
    }

    #[test]
    fn reasons_are_completed_where_they_may_stand() {
        assert!(values(&names(), "NO_SOCK").contains(&"NO_SOCKET".to_owned()));
        assert_eq!(values(&filters(), "udp and reason NO_SOCK"), ["udp and reason NO_SOCKET"]);
        assert_eq!(values(&filters(), "class l"), ["class lost"]);
        assert!(
            values(&rules(), "iface=eth0,reason=NO_SOCK").contains(&"iface=eth0,reason=NO_SOCKET".to_owned())
        );
        assert_eq!(values(&rules(), "lo"), ["location=", "lost:0"]);
    }

    #[test]
    fn interfaces_are_those_of_this_namespace() {
        assert_eq!(values(&filters(), "iface l").iter().filter(|value| *value == "iface lo").count(), 1);
        assert!(values(&interfaces(), "").contains(&"lo".to_owned()));
        assert_eq!(interfaces_in(Path::new("/nonexistent")).count(), 0);
    }
}
