//! Which names which namespaces have had: what was seen in, what is known out, no I/O.

use std::collections::{HashMap, VecDeque};

use crate::model::{foreign::Foreign, namespace::Namespace};

/// How many namespaces that no longer have a name keep the ones they had.
const REMEMBERED: usize = 4096;

/// The names of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    /// Those it has had, the one it got last at the end.
    had: Vec<Foreign>,
    /// Those of them that it has now.
    has: Vec<Foreign>,
}

/// Names by namespace. A name is never taken away from a namespace that has had it.
#[derive(Debug)]
pub struct History {
    names: HashMap<Namespace, Names>,
    /// Namespaces without a name now, the one that lost it first in front.
    former: VecDeque<Namespace>,
    remembered: usize,
}

impl Default for History {
    fn default() -> Self {
        Self::remembering(REMEMBERED)
    }
}

impl History {
    fn remembering(remembered: usize) -> Self {
        Self { names: HashMap::new(), former: VecDeque::new(), remembered }
    }

    /// Takes in which namespaces have which names now; whether anything has changed.
    pub fn observe(&mut self, seen: &[(Namespace, Foreign)]) -> bool {
        let mut now: HashMap<Namespace, Vec<Foreign>> = HashMap::new();
        for (namespace, name) in seen {
            now.entry(*namespace).or_default().push(name.clone());
        }
        for names in now.values_mut() {
            names.sort_unstable();
        }
        let mut changed = self.forget(&now);
        for (namespace, has) in now {
            let names = self.names.entry(namespace).or_default();
            if names.has == has {
                continue;
            }
            changed = true;
            if names.has.is_empty() {
                self.former.retain(|former| *former != namespace);
            }
            for name in &has {
                if !names.has.contains(name) {
                    names.had.retain(|had| had != name);
                    names.had.push(name.clone());
                }
            }
            names.has = has;
        }
        self.trim();
        changed
    }

    /// Notes which namespaces have lost all of their names.
    fn forget(&mut self, now: &HashMap<Namespace, Vec<Foreign>>) -> bool {
        let lost = self
            .names
            .iter_mut()
            .filter(|(namespace, names)| !names.has.is_empty() && !now.contains_key(namespace));
        let before = self.former.len();
        for (namespace, names) in lost {
            names.has.clear();
            self.former.push_back(*namespace);
        }
        self.former.len() != before
    }

    fn trim(&mut self) {
        while self.former.len() > self.remembered
            && let Some(oldest) = self.former.pop_front()
        {
            self.names.remove(&oldest);
        }
    }

    /// The name to show: the one it got last of those it has, else of those it has had.
    pub fn name(&self, namespace: Namespace) -> Option<Foreign> {
        let names = self.names.get(&namespace)?;
        let newest = names.had.iter().rev();
        newest.clone().find(|name| names.has.contains(name)).or(names.had.last()).cloned()
    }

    /// The namespace that has an inode number and a name now.
    pub fn numbered(&self, inum: u32) -> Option<Namespace> {
        let mut named = self.names.iter().filter(|(_, names)| !names.has.is_empty());
        named.find(|(namespace, _)| namespace.inum == inum).map(|(namespace, _)| *namespace)
    }

    /// All names that a namespace has had.
    pub fn had(&self, namespace: Namespace) -> &[Foreign] {
        self.names.get(&namespace).map_or(&[], |names| &names.had)
    }

    /// The namespaces that have a name or have had it: those that have it first.
    pub fn bearers(&self, name: &str) -> Vec<Namespace> {
        let is_it = |known: &Foreign| *known == *name;
        let mut bearers: Vec<_> =
            self.names.iter().filter(|(_, names)| names.had.iter().any(is_it)).collect();
        bearers.sort_unstable_by_key(|(namespace, names)| (!names.has.iter().any(is_it), **namespace));
        bearers.into_iter().map(|(namespace, _)| *namespace).collect()
    }

    /// The names that are in use now.
    pub fn current(&self) -> impl Iterator<Item = &Foreign> {
        self.names.values().flat_map(|names| &names.has)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Namespaces of few inode numbers, which come back with another cookie.
    fn namespace() -> impl Strategy<Value = Namespace> {
        (0_u32..3, 0_u64..6)
            .prop_map(|(inum, life)| Namespace { inum, cookie: life * 3 + u64::from(inum) + 1 })
    }

    fn name() -> impl Strategy<Value = Foreign> {
        "[a-d]".prop_map(Into::into)
    }

    proptest! {
        #[test]
        fn a_namespace_has_had_the_names_it_was_seen_with_and_no_others(
            seen in vec(vec((namespace(), name()), 0..6), 0..12),
        ) {
            let mut history = History::default();
            let mut had: HashMap<Namespace, HashSet<Foreign>> = HashMap::new();
            for now in &seen {
                history.observe(now);
                prop_assert!(!history.observe(now), "nothing has changed");
                for (namespace, name) in now {
                    had.entry(*namespace).or_default().insert(name.clone());
                }
                for inum in 0..3 {
                    for life in 0..6 {
                        let namespace = Namespace { inum, cookie: life * 3 + u64::from(inum) + 1 };
                        let known: HashSet<_> = history.had(namespace).iter().cloned().collect();
                        prop_assert_eq!(known.clone(), had.get(&namespace).cloned().unwrap_or_default());
                        let has: Vec<_> = now.iter().filter(|(one, _)| *one == namespace).collect();
                        match history.name(namespace) {
                            None => prop_assert!(known.is_empty()),
                            Some(shown) if has.is_empty() => prop_assert!(known.contains(&shown)),
                            Some(shown) => prop_assert!(has.iter().any(|(_, name)| *name == shown)),
                        }
                        for name in ["a", "b", "c", "d"] {
                            let bears = history.bearers(name).contains(&namespace);
                            prop_assert_eq!(bears, known.iter().any(|known| *known == *name));
                        }
                    }
                }
            }
        }

        #[test]
        fn what_is_remembered_is_bounded(seen in vec(vec((namespace(), name()), 0..6), 0..30)) {
            let mut history = History::remembering(2);
            for now in &seen {
                history.observe(now);
                let has: HashSet<_> = now.iter().map(|(namespace, _)| *namespace).collect();
                prop_assert!(history.names.len() <= has.len() + 2);
                prop_assert!(has.iter().all(|namespace| history.name(*namespace).is_some()));
            }
        }
    }

    #[test]
    fn a_name_that_comes_back_is_of_both() {
        let (first, second) = (Namespace { inum: 7, cookie: 1 }, Namespace { inum: 7, cookie: 2 });
        let mut history = History::default();
        history.observe(&[(first, "d".into())]);
        history.observe(&[]);
        history.observe(&[(second, "d".into())]);
        assert_eq!(history.bearers("d"), [second, first], "the one that has it now comes first");
        assert_eq!(history.numbered(7), Some(second), "the number is of the one that is there now");
        history.observe(&[]);
        assert_eq!(history.numbered(7), None, "it may be given to another one");
    }
}
