//! Losses that the kernel counts and the tracepoint never sees.
//!
//! A refused connection request, a slow reader of a packet socket, a card without buffers: each moves a counter and frees
//! no packet where a tracepoint would tell. The counters are read at each report, and those that moved are listed unless
//! a row accounts for the same loss.

mod catalogue;
mod ethtool;
mod links;
mod moved;
mod numbers;
mod owners;
pub mod parse;
mod read;
mod sockets;
mod visit;

use std::{collections::HashMap, io, thread, time::Duration};

use tokio::sync::oneshot;

use self::{
    moved::Moved,
    numbers::{Numbers, Subject},
    visit::{Found, Look, Looked, Traffic},
};
use super::{
    budget::Budget,
    places::{Place, Places},
};
use crate::model::counter::MovedCounter;

/// What a counter of the kernel counts, if it is one that is read.
#[must_use]
pub fn meaning(name: &str) -> Option<&'static str> {
    catalogue::COUNTERS.iter().find(|counter| counter.name == name).map(|counter| counter.meaning)
}

/// How much of the processors one reading of all namespaces may use: what is left waits for the next one.
const BUDGET: Duration = Duration::from_millis(9);
/// The same for the last reading: what it leaves out, no other one has.
const LAST_BUDGET: Duration = Duration::from_secs(2);
/// Of so many namespaces, everything is read each time. Of more, what is rarely of use takes turns: netlink sockets, and
/// whatever may move in a namespace though no packet passes there.
const FEW: usize = 32;

/// What one reading of the counters found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The counters that moved since they were read before.
    pub moved: Vec<MovedCounter>,
    /// Namespaces that were left for the next reading, because the time was up.
    pub waiting: usize,
    /// Whether a namespace has gone since it was read, and what it counted afterwards with it.
    pub has_gone: bool,
    /// Whether there are namespaces that must not be entered or looked at, so that some counters could not be read.
    pub is_partial: bool,
}

/// Reads the counters and tells which moved.
#[derive(Debug)]
pub struct Counters {
    places: Places,
    /// What each namespace had when it was read last; nothing of one that was there at the start and could not be read.
    seen: HashMap<u32, Option<Seen>>,
    /// The numbers of the host.
    host: Option<Numbers>,
    /// The namespace to begin with, after the own one: when there is no time for all of them, they take turns.
    next: u32,
}

/// Counters that a thread is reading.
pub type BeingRead = oneshot::Receiver<Box<(Counters, Reading)>>;

/// Which reading it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Another one comes after it.
    Next,
    /// None does: it is to be whole.
    Last,
}

/// What a namespace had when it was read last.
#[derive(Debug, Default)]
struct Seen {
    numbers: HashMap<Subject, Numbers>,
    /// Whether it was entered, so that all is there.
    is_whole: bool,
    /// How often it was looked at since its netlink sockets were read.
    without_netlink: usize,
    /// How often it was looked at since all else was read.
    idle: usize,
    traffic: Traffic,
}

impl Counters {
    /// Reads every namespace there is, as what counters are compared with.
    #[must_use]
    pub fn start() -> Self {
        Self::of(Places::of_this_host())
    }

    fn of(places: Places) -> Self {
        let mut counters = Self { places, seen: HashMap::new(), host: None, next: 0 };
        in_a_thread(|| {
            // What is not read now cannot be compared later: there is no budget.
            let budget = Budget::of(Duration::MAX);
            for place in counters.places.now() {
                let look = Look {
                    before: None,
                    is_first: true,
                    with_host: counters.host.is_none(),
                    with_netlink_sockets: true,
                    unless: None,
                    budget,
                };
                let mut found = place.visit(|inside| match look.at(inside)? {
                    Looked::Whole(found) => Some(found),
                    Looked::Idle => None,
                });
                counters.host = counters.host.take().or(found.as_mut().and_then(|found| found.host.take()));
                counters.seen.insert(place.inum, found.map(Seen::from));
            }
        });
        counters
    }

    /// Which counters moved since each namespace was read before.
    ///
    /// Ends when its processor time is spent, and begins the next time where it ended. A namespace that is new has counted
    /// from zero.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn begin(mut self) -> io::Result<BeingRead> {
        let (done, read) = oneshot::channel();
        let advance = move || {
            let reading = self.advance(Turn::Next);
            // Without a receiver, there are no more reports.
            let _ = done.send(Box::new((self, reading)));
        };
        // It goes from one namespace to the next, and ends in any.
        thread::Builder::new().name("counters".into()).spawn(advance)?;
        Ok(read)
    }

    /// The same at the end, when nothing waits for it: all of them.
    pub fn last(&mut self) -> Reading {
        in_a_thread(|| self.advance(Turn::Last)).unwrap_or_default()
    }

    fn advance(&mut self, turn: Turn) -> Reading {
        let budget = Budget::of(if turn == Turn::Last { LAST_BUDGET } else { BUDGET });
        let places = self.places.now();
        let in_turn = self.in_turn(&places);
        let mut reading = Reading { is_partial: self.places.has_hidden(), ..Reading::default() };
        let mut with_host = true;
        for (number, place) in in_turn.iter().enumerate() {
            // Besides the own one, there is always another.
            if number > 1 && budget.is_spent() {
                (self.next, reading.waiting) = (place.inum, in_turn.len() - number);
                break;
            }
            let before = self.seen.get(&place.inum).and_then(Option::as_ref);
            let may_wait = |looks: usize| turn == Turn::Next && looks < places.len() / FEW;
            let look = Look {
                before: before.map(|seen| &seen.numbers),
                is_first: false,
                with_host,
                with_netlink_sockets: before.is_none_or(|seen| !may_wait(seen.without_netlink)),
                unless: before.filter(|seen| !with_host && may_wait(seen.idle)).map(|seen| &seen.traffic),
                budget,
            };
            let mut found = match place.visit(|inside| look.at(inside)) {
                Some(Looked::Whole(found)) => found,
                Some(Looked::Idle) => {
                    self.note_idle(place.inum);
                    continue;
                }
                None => {
                    reading.has_gone |= !place.is_there() && self.seen.remove(&place.inum).is_some();
                    continue;
                }
            };
            if let Some(host) = found.host.take() {
                with_host = false;
                reading.moved.extend(self.host.iter().flat_map(|before| moved::of_host(before, &host)));
                self.host = Some(host);
            }
            reading.is_partial |= !found.is_entered;
            let moved = self.compare(place.inum, found);
            reading.moved.extend(moved.into_iter().map(|moved| self.owned(place.inum, moved, budget)));
        }
        reading.has_gone |= self.forget(&places);
        let read = places.len() - reading.waiting;
        log::debug!("the counters of {read} network namespaces took {:?} of processor time", budget.spent());
        reading
    }

    /// No packet has passed in a namespace since the last look.
    fn note_idle(&mut self, inum: u32) {
        if let Some(Some(seen)) = self.seen.get_mut(&inum) {
            seen.idle += 1;
            seen.without_netlink += 1;
        }
    }

    /// The own namespace, and then the others in turn.
    fn in_turn<'a>(&self, places: &'a [Place]) -> Vec<&'a Place> {
        let first = places.partition_point(|place| place.inum < self.next);
        let mut in_turn: Vec<_> = places[first..].iter().chain(&places[..first]).collect();
        if let Some(own) = in_turn.iter().position(|place| Some(place.inum) == self.places.own()) {
            in_turn[..=own].rotate_right(1);
        }
        in_turn
    }

    /// What moved in a namespace, which is remembered as it is now.
    fn compare(&mut self, inum: u32, found: Found) -> Vec<Moved> {
        // One that is not known yet has counted from zero, unless it was there at the start.
        let before =
            self.seen.remove(&inum).unwrap_or_else(|| Some(Seen { is_whole: true, ..Seen::default() }));
        let (mut now, mut moved) = (Seen::default(), Vec::new());
        if let Some(mut before) = before {
            now.without_netlink = if found.has_netlink_sockets { 0 } else { before.without_netlink + 1 };
            if found.is_entered && !before.is_whole {
                before.add_unknown(&found);
            }
            moved = moved::moved(inum, &before.numbers, &found);
            now.numbers = before.numbers;
            now.numbers.retain(|subject, _| is_there_unread(subject, &found));
        }
        now.is_whole = found.is_entered;
        now.traffic = found.traffic();
        now.numbers.extend(found.numbers);
        self.seen.insert(inum, Some(now));
        moved
    }

    /// A loss with the processes that have its sockets open.
    fn owned(&self, inum: u32, moved: Moved, budget: Budget) -> MovedCounter {
        let Moved { mut counter, inodes } = moved;
        if inodes.is_empty() {
            return counter;
        }
        let owners = owners::find(self.places.proc(), &self.places.processes(inum), &inodes, budget);
        let listeners = counter.part.listeners.iter_mut().map(|listener| &mut listener.process);
        let sockets = counter.part.sockets.iter_mut().map(|socket| &mut socket.process);
        for (process, inode) in listeners.chain(sockets).zip(&inodes) {
            *process = owners.get(inode).cloned();
        }
        counter
    }

    /// Forgets namespaces that have gone: their numbers may be given to others. Whether there were any.
    fn forget(&mut self, places: &[Place]) -> bool {
        let before = self.seen.len();
        self.seen.retain(|inum, _| places.binary_search_by_key(inum, |place| place.inum).is_ok());
        self.seen.len() < before
    }
}

impl From<Found> for Seen {
    fn from(found: Found) -> Self {
        let traffic = found.traffic();
        Self { numbers: found.numbers, is_whole: found.is_entered, traffic, ..Self::default() }
    }
}

impl Seen {
    /// What could not be read before has not moved since.
    fn add_unknown(&mut self, found: &Found) {
        for (subject, numbers) in &found.numbers {
            self.numbers.entry(subject.clone()).or_insert_with(|| numbers.clone());
        }
    }
}

/// Whether a subject may still be there though this look did not read it.
fn is_there_unread(subject: &Subject, found: &Found) -> bool {
    match subject {
        Subject::Namespace => false,
        Subject::NetlinkSocket(_) => !found.has_netlink_sockets,
        Subject::Listener(_) => found.listeners.is_empty(),
        Subject::Driver(index, name) => {
            !found.is_entered || found.links.iter().any(|link| link.index == *index && link.name == *name)
        }
        Subject::Interface(..) | Subject::Qdisc(..) | Subject::PacketSocket(_) => !found.is_entered,
    }
}

/// Does this in a thread of its own; none if there can be no further thread.
fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("counters".into()).spawn_scoped(scope, work).ok()?;
        Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Reads a message as all that is counted.
#[cfg(feature = "fakes")]
pub(super) fn read_answer(message: &[u8]) {
    let _ = (links::parse(message), sockets::parse_packet(message), sockets::parse_listening(message));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A process in a directory, in our own namespace.
    fn process(proc: &Path, drops: u64) {
        let process = proc.join("12");
        std::fs::create_dir_all(process.join("ns")).expect("a directory");
        std::fs::create_dir_all(process.join("net")).expect("a directory");
        let _ = std::os::unix::fs::symlink("/proc/self/ns/net", process.join("ns/net"));
        let write =
            |name: &str, text: String| std::fs::write(process.join("net").join(name), text).expect("a file");
        write("dev", String::new());
        write("netstat", format!("TcpExt: ListenDrops ListenOverflows\nTcpExt: {drops} {drops}\n"));
        write("softnet_stat", format!("0 {drops:x} 0 0 0 0 0 0 0 0 0\n"));
    }

    #[test]
    fn what_was_counted_before_the_start_is_no_news() {
        let proc = tempfile::tempdir().expect("a directory");
        process(proc.path(), 3);
        let mut counters = Counters::of(Places::of(proc.path(), Vec::new(), false));
        let nothing = Reading { is_partial: true, ..Reading::default() };
        assert_eq!(counters.advance(Turn::Next), nothing);
        process(proc.path(), 8);
        let moved: Vec<_> = counters.advance(Turn::Next).moved;
        let counts: Vec<_> = moved.iter().map(|moved| (moved.name.text(), moved.count)).collect();
        assert_eq!(counts, [("SoftnetDropped".into(), 5), ("TcpExtListenDrops".into(), 5)]);
        assert!(moved[0].netns.is_none() && moved[1].netns.is_some());
        assert_eq!(counters.advance(Turn::Next), nothing);
        std::fs::remove_dir_all(proc.path().join("12")).expect("the last process ends");
        let has_gone = |counters: &mut Counters| counters.advance(Turn::Next).has_gone;
        assert!(has_gone(&mut counters), "what it counted since is not known");
        assert!(!has_gone(&mut counters), "it has gone once");
    }

    #[test]
    fn netlink_sockets_that_were_not_read_have_not_moved() {
        const NETNS: u32 = 7;
        let found = |drops: Option<u64>| {
            let sockets = drops
                .map(|drops| (Subject::NetlinkSocket("0 1 11".to_owned()), [("drops".into(), drops)].into()));
            Found {
                numbers: sockets.into_iter().collect(),
                is_entered: true,
                has_netlink_sockets: drops.is_some(),
                ..Found::default()
            }
        };
        let mut counters = Counters::of(Places::of(Path::new("/no/such"), Vec::new(), false));
        counters.seen.insert(NETNS, Some(found(Some(3)).into()));
        let mut moved = |drops| {
            let moved = counters.compare(NETNS, found(drops));
            let looks = counters.seen[&NETNS].as_ref().map_or(0, |seen| seen.without_netlink);
            (moved.into_iter().map(|moved| moved.counter.count).collect::<Vec<_>>(), looks)
        };
        assert_eq!(moved(None), (vec![], 1));
        assert_eq!(moved(None), (vec![], 2));
        assert_eq!(moved(Some(8)), (vec![5], 0));
    }
}
