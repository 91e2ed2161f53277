//! Whether interfaces that a filter or a gate names exist: now, or while a command runs.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    net::if_::if_nameindex,
    sched::{CloneFlags, setns},
};

use crate::{
    filter::Filter,
    kernel::links,
    model::suggestions,
    process::{notice::Notices, privileges},
};

/// How often interfaces are looked for that have not been seen.
const PACE: Duration = Duration::from_millis(100);
/// Where `ip netns` and container runtimes mount namespaces.
const MOUNTED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Where interfaces are looked for, besides the own network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// In those that have names.
    Named,
    /// In those of all processes as well, which are many files.
    All,
}

/// Says which interfaces that a filter names do not exist now.
pub fn warn_of_missing(filter: &Filter, notices: &Notices) {
    let wanted = filter.interfaces();
    if wanted.is_empty() {
        return;
    }
    let search = Search::new(wanted, Reach::All);
    for name in wanted.iter().filter(|name| !search.found.contains(*name)) {
        let hint = suggestions::hint(name, search.others.iter().map(String::as_str));
        let place = if search.is_whole { "" } else { " in the network namespaces that can be looked into" };
        notices.warn(format!(
            "there is no interface '{name}'{place} now, and the filter waits for one of that name{hint}"
        ));
    }
}

/// Interfaces that are looked for while a command runs.
#[derive(Debug)]
pub struct Interfaces {
    wanted: Arc<Vec<String>>,
    seen: Arc<Mutex<HashSet<String>>>,
}

impl Interfaces {
    /// Looks for these from now on, in a thread that ends with the process.
    #[must_use]
    pub fn watch(wanted: Vec<String>) -> Self {
        let interfaces = Self { wanted: Arc::new(wanted), seen: Arc::default() };
        if !interfaces.wanted.is_empty() {
            let (wanted, seen) = (Arc::clone(&interfaces.wanted), Arc::clone(&interfaces.seen));
            let watch = move || {
                privileges::give_up_in_thread();
                while !look(&wanted, &seen, Reach::Named).is_empty() {
                    thread::sleep(PACE);
                }
            };
            // Without a thread none is seen, and the gate says so.
            let _ = thread::Builder::new().name("interfaces".into()).spawn(watch);
        }
        interfaces
    }

    /// Those that have not been seen up to now.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        look(&self.wanted, &self.seen, Reach::All)
    }
}

/// Looks once for those that have not been seen: which are still missing.
fn look(wanted: &[String], seen: &Mutex<HashSet<String>>, reach: Reach) -> Vec<String> {
    let missing = |seen: &HashSet<String>| -> Vec<String> {
        wanted.iter().filter(|name| !seen.contains(*name)).cloned().collect()
    };
    let seen = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    let sought = missing(&seen());
    if sought.is_empty() {
        return sought;
    }
    let Search { found, .. } = Search::new(&sought, reach);
    let mut seen = seen();
    seen.extend(found);
    missing(&seen)
}

/// What was found in all namespaces that can be entered.
#[derive(Debug, Default)]
struct Search {
    found: HashSet<String>,
    /// What other interfaces are called.
    others: BTreeSet<String>,
    /// Whether all namespaces could be looked into.
    is_whole: bool,
}

impl Search {
    /// Looks in a thread of its own, which may leave our namespace.
    fn new(wanted: &[String], reach: Reach) -> Self {
        let search = || {
            let mut search = Self { is_whole: true, ..Self::default() };
            search.here(wanted);
            let mut entered: HashSet<u64> =
                inum(&PathBuf::from("/proc/thread-self/ns/net")).into_iter().collect();
            for path in places(reach) {
                // One that has gone has no interfaces.
                let Some(inum) = inum(&path) else { continue };
                if search.found.len() < wanted.len() && entered.insert(inum) {
                    match File::open(path).map(|file| setns(file, CloneFlags::CLONE_NEWNET)) {
                        Ok(Ok(())) => search.here(wanted),
                        _ => search.is_whole = false,
                    }
                }
            }
            search
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("interfaces".into()).spawn_scoped(scope, search);
            thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_default()
        })
    }

    /// Looks in the namespace that this thread is in.
    fn here(&mut self, wanted: &[String]) {
        self.found.extend(wanted.iter().filter(|name| links::exists(name).unwrap_or(false)).cloned());
        let interfaces = if_nameindex();
        let names =
            interfaces.iter().flatten().map(|interface| interface.name().to_string_lossy().into_owned());
        self.others.extend(names);
    }
}

fn places(reach: Reach) -> Vec<PathBuf> {
    let entries = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
    let mut places: Vec<_> =
        MOUNTED.iter().flat_map(|directory| entries(directory)).map(|entry| entry.path()).collect();
    if reach == Reach::All {
        places.extend(entries("/proc").map(|process| process.path().join("ns/net")));
    }
    places
}

/// The inode number of a namespace's file.
fn inum(path: &PathBuf) -> Option<u64> {
    Some(fs::metadata(path).ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_there_is_seen_and_another_is_not() {
        let interfaces = Interfaces::watch(vec!["lo".into(), "no-such-iface".into()]);
        assert_eq!(interfaces.missing(), ["no-such-iface"]);
        let search = Search::new(&["l0".into()], Reach::Named);
        assert!(search.found.is_empty() && search.others.contains("lo"), "{search:?}");
    }
}
