//! Whether processes and containers that a gate names were there while its command ran.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::{
    kernel::owners::Owners,
    model::{belonging::Belonging, socket::Ownership},
    process::privileges,
};

/// How much of its name the kernel keeps of a process.
const COMM: usize = 15;

/// Processes and containers that are looked for while a command runs: those that have a socket open, since others lose
/// no packet of their own.
#[derive(Debug)]
pub struct Presence {
    wanted: Arc<Vec<Belonging>>,
    seen: Arc<Mutex<BTreeSet<usize>>>,
    owners: Option<Owners>,
}

impl Presence {
    /// Looks for these from now on, in a thread that ends with the process.
    #[must_use]
    pub fn watch(wanted: Vec<Belonging>, owners: Option<Owners>) -> Self {
        let presence = Self { wanted: Arc::new(wanted), seen: Arc::default(), owners };
        // The kernel is always there.
        presence.add(presence.places(|to| to.means(&Ownership::Kernel.into()) == Some(true)));
        if let Some(owners) = presence.owners.clone().filter(|_| !presence.missing_places().is_empty()) {
            let (wanted, seen) = (Arc::clone(&presence.wanted), Arc::clone(&presence.seen));
            let watch = move || {
                privileges::give_up_in_thread();
                let seen = || seen.lock().unwrap_or_else(PoisonError::into_inner);
                while seen().len() < wanted.len() {
                    let present = owners.present(&wanted);
                    seen().extend(present);
                }
            };
            // Without a thread they are looked for once, at the end.
            let _ = thread::Builder::new().name("presence".into()).spawn(watch);
        }
        presence
    }

    /// Notes a process by its name, which is not looked for.
    pub fn note_process(&self, name: &[u8]) {
        let comm = &name[..name.len().min(COMM)];
        self.add(self.places(|to| matches!(to, Belonging::Process(wanted) if wanted.as_bytes() == comm)));
    }

    /// Those that have not been seen up to now.
    #[must_use]
    pub fn missing(&self) -> Vec<Belonging> {
        if let Some(owners) = self.owners.as_ref().filter(|_| !self.missing_places().is_empty()) {
            self.add(owners.present(&self.wanted));
        }
        self.missing_places().into_iter().map(|place| self.wanted[place].clone()).collect()
    }

    fn places(&self, is_it: impl Fn(&Belonging) -> bool) -> Vec<usize> {
        (0..self.wanted.len()).filter(|place| is_it(&self.wanted[*place])).collect()
    }

    fn missing_places(&self) -> Vec<usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (0..self.wanted.len()).filter(|place| !seen.contains(place)).collect()
    }

    fn add(&self, places: Vec<usize>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(places);
    }
}
