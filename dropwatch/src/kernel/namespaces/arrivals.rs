//! Names that come and go before anybody has looked which namespaces they are of.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::model::foreign::Foreign;

/// How many such names are kept; of names beyond that any may have been missed.
const KEPT: usize = 1024;

/// A change of a directory of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Made(Foreign),
    Removed(Foreign),
    /// More than the kernel keeps for us.
    Unknown,
}

/// Reports names as they are created and removed in directories.
pub struct Arrivals {
    inotify: Option<Inotify>,
    /// Directories that are not watched yet: there may be none of that name.
    waiting: Vec<PathBuf>,
    names: Names,
}

/// Names by what was seen of them, no I/O.
#[derive(Debug, Default)]
struct Names {
    /// Made, and not looked at yet.
    new: HashSet<Foreign>,
    /// Removed before that.
    missed: BTreeSet<Foreign>,
    /// Whether there were others, which are not known.
    missed_others: bool,
}

impl Arrivals {
    pub fn new(directories: &[PathBuf]) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok();
        Self { inotify, waiting: directories.to_vec(), names: Names::default() }
    }

    /// What has changed since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE;
        self.waiting.retain(|directory| inotify.add_watch(directory, flags).is_err());
        let mut changes = Vec::new();
        while let Ok(events) = inotify.read_events() {
            changes.extend(events.into_iter().filter_map(|event| {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    return Some(Change::Unknown);
                }
                let name = Foreign::from(event.name?);
                let is_new = event.mask.contains(AddWatchFlags::IN_CREATE);
                Some(if is_new { Change::Made(name) } else { Change::Removed(name) })
            }));
        }
        changes
    }

    /// Takes in what had changed before names were looked at, and those that were there then.
    pub fn take_in<'a>(&mut self, changes: Vec<Change>, seen: impl Iterator<Item = &'a Foreign>) {
        self.names.take_in(changes, seen);
    }

    /// Whether a namespace has had this name and it is not known which.
    pub fn has_missed(&self, name: &str) -> bool {
        self.names.missed_others || self.names.missed.iter().any(|missed| *missed == *name)
    }
}

impl Names {
    fn take_in<'a>(&mut self, changes: Vec<Change>, seen: impl Iterator<Item = &'a Foreign>) {
        for change in changes {
            match change {
                Change::Made(name) => {
                    self.new.insert(name);
                }
                Change::Removed(name) => {
                    if self.new.remove(&name) {
                        self.miss(name);
                    }
                }
                Change::Unknown => self.missed_others = true,
            }
        }
        for name in seen {
            self.new.remove(name);
        }
        // Files that are no namespaces, and stay.
        if self.new.len() > KEPT {
            self.new.clear();
            self.missed_others = true;
        }
    }

    fn miss(&mut self, name: Foreign) {
        if self.missed.len() < KEPT {
            self.missed.insert(name);
        } else {
            self.missed_others |= !self.missed.contains(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is missed after these steps: changes of the name `d` as letters, and whether it was looked at then.
    fn missed(steps: &[(&str, bool)]) -> bool {
        let name = Foreign::from("d");
        let mut names = Names::default();
        for (changes, is_seen) in steps {
            let change = |letter| match letter {
                'm' => Change::Made(name.clone()),
                _ => Change::Removed(name.clone()),
            };
            let changes = changes.chars().map(change).collect();
            names.take_in(changes, is_seen.then_some(&name).into_iter());
        }
        names.missed.contains(&name)
    }

    #[test]
    fn a_name_that_was_never_looked_at_is_missed() {
        assert!(!missed(&[("m", true), ("r", false)]));
        assert!(!missed(&[("m", false), ("", true), ("r", false)]));
        assert!(!missed(&[("rm", true)]), "made again");
        assert!(missed(&[("mr", false)]));
        assert!(missed(&[("m", false), ("r", false)]));
        assert!(missed(&[("mrm", true)]), "another came after it");
    }

    #[test]
    fn what_has_no_room_is_not_forgotten_in_silence() {
        let coming_and_going = |number: usize| {
            let name = Foreign::from(number.to_string().as_str());
            vec![Change::Made(name.clone()), Change::Removed(name)]
        };
        let mut names = Names::default();
        names.take_in((0..KEPT).flat_map(coming_and_going).collect(), std::iter::empty());
        names.take_in(coming_and_going(3), std::iter::empty());
        assert!(!names.missed_others, "all are known");
        names.take_in(coming_and_going(KEPT), std::iter::empty());
        assert!(names.missed_others && names.missed.len() == KEPT);

        let made = (0..=KEPT).map(|number| Change::Made(number.to_string().as_str().into()));
        let mut names = Names::default();
        names.take_in(made.collect(), std::iter::empty());
        assert!(names.missed_others && names.new.is_empty());

        let mut names = Names::default();
        names.take_in(vec![Change::Unknown], std::iter::empty());
        assert!(names.missed_others);
    }

    #[test]
    fn directories_tell_of_names() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut arrivals = Arrivals::new(&[directory.path().into(), "/no/such/directory".into()]);
        assert_eq!(arrivals.changes(), []);
        let path = directory.path().join("d");
        std::fs::write(&path, "").expect("a file");
        std::fs::remove_file(&path).expect("the file is there");
        let changes = arrivals.changes();
        assert_eq!(changes, [Change::Made("d".into()), Change::Removed("d".into())]);
        arrivals.take_in(changes, std::iter::empty());
        assert!(arrivals.has_missed("d"));
    }
}
