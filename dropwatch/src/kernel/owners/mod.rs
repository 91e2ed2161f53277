//! Which processes have a socket open, and what these run in.
//!
//! A socket's file has a number that is never given to another one. All open sockets are listed when a drop's socket is
//! new, at once and not when a report is due: by then the process may have gone. What was found is kept.

mod cgroups;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use dropwatch_common::socket::OpenSocket;

use self::cgroups::Cgroups;
use crate::model::{
    belonging::{Belonging, Owned},
    container::Container,
    foreign::Foreign,
    socket::{Ownership, Process, Socket},
};

/// The least time from one search to the next.
const REST: Duration = Duration::from_millis(10);
/// How many times as long as a search the rest after it is: searching takes a twentieth of a CPU at most.
const REST_PER_SEARCH: u32 = 19;
/// How many sockets are kept that may have gone.
const KEPT: usize = 1 << 16;
/// The cgroup of everything that is in no other.
const ROOT: u64 = 1;

/// Lists the sockets that processes have open.
pub trait ListSockets: Send {
    /// All of them; one that several processes have open is listed for each.
    ///
    /// # Errors
    /// Whatever the kernel answers.
    fn list(&self) -> io::Result<Vec<OpenSocket>>;
}

/// The owners of sockets. Clones share them.
#[derive(Clone)]
pub struct Owners(Arc<Mutex<State>>);

/// A process that has a socket open, and what is known of it.
#[derive(Clone, Debug)]
struct Owner {
    process: Process,
    cgroup: u64,
    nodename: Foreign,
}

struct State {
    lister: Box<dyn ListSockets>,
    /// The sockets of the last search.
    latest: HashMap<u64, Owner>,
    /// Those that drops were seen of.
    kept: HashMap<u64, Owner>,
    /// Those that no process had open in a search.
    absent: HashSet<u64>,
    /// When the last search began.
    searched: Option<Instant>,
    /// When it is time for another one.
    rested: Option<Instant>,
    /// None if containers are not among the keys.
    containers: Option<Containers>,
}

/// What is known of containers.
struct Containers {
    cgroups: Cgroups,
    /// What this host calls itself: what is called the same is not a container of its own.
    hostname: Vec<u8>,
    /// The host name that processes in a cgroup see.
    nodenames: HashMap<u64, Foreign>,
    /// Paths of processes whose cgroup of the second version says nothing.
    paths: HashMap<u64, Foreign>,
}

/// When to search again after a search that has begun at `begin` and ends now.
fn rest_after(begin: Instant) -> Instant {
    Instant::now() + REST.max(begin.elapsed() * REST_PER_SEARCH)
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").finish_non_exhaustive()
    }
}

impl Owners {
    /// Owners of sockets, and what they run in if that is a key.
    #[must_use]
    pub fn new(lister: Box<dyn ListSockets>, with_containers: bool) -> Self {
        let containers = with_containers.then(|| Containers {
            cgroups: Cgroups::new(&fs::read("/proc/self/mountinfo").unwrap_or_default()),
            hostname: fs::read("/proc/sys/kernel/hostname").unwrap_or_default().trim_ascii_end().to_vec(),
            nodenames: HashMap::new(),
            paths: HashMap::new(),
        });
        Self(Arc::new(Mutex::new(State {
            lister,
            latest: HashMap::new(),
            kept: HashMap::new(),
            absent: HashSet::new(),
            searched: None,
            rested: None,
            containers,
        })))
    }

    /// Looks for the processes of new sockets, if they are not known: waits until it is time for another search.
    pub fn look_for(&self, inodes: &[u64]) {
        let (needed, wait) = {
            let mut state = self.lock();
            if inodes.iter().all(|inode| state.keep(*inode) || state.absent.contains(inode)) {
                return;
            }
            (Instant::now(), state.rest())
        };
        thread::sleep(wait);
        let mut state = self.lock();
        // Another thread may have made this search meanwhile.
        if state.searched.is_none_or(|begin| begin < needed) {
            state.search();
        }
        for inode in inodes {
            state.note(*inode);
        }
    }

    /// Which of these have any socket open now, by place: waits until it is time for another search.
    #[must_use]
    pub fn present(&self, wanted: &[Belonging]) -> Vec<usize> {
        let wait = self.lock().rest();
        thread::sleep(wait);
        let mut state = self.lock();
        let open = state.search();
        let with_containers = wanted.iter().any(|it| !matches!(it, Belonging::Process(_)));
        let mut processes: HashMap<u32, Owned> = HashMap::new();
        for socket in &open {
            processes.entry(socket.tgid).or_insert_with(|| {
                let containers = state.containers.as_mut().filter(|_| with_containers);
                let container = containers.and_then(|containers| containers.of(socket));
                let process = Process { pid: socket.tgid, comm: until_zero(&socket.comm), others: 0 };
                Owned { process: Ownership::Process(process), container, is_container_known: false }
            });
        }
        let is_there = |to: &Belonging| processes.values().any(|owned| to.means(owned) == Some(true));
        (0..wanted.len()).filter(|place| is_there(&wanted[*place])).collect()
    }

    /// Whose a socket is.
    #[must_use]
    pub fn owner(&self, socket: &Socket) -> Ownership {
        if socket.is_remainder() {
            return Ownership::Nobody;
        }
        if let Some(owner) = self.lock().find(socket.owned_inode()) {
            return Ownership::Process(owner.process.clone());
        }
        if socket.is_of_kernel() {
            return Ownership::Kernel;
        }
        // Had it open when its first packet was dropped, and has gone since.
        match socket.seen.tgid {
            0 => Ownership::Unknown,
            pid => Ownership::Process(Process { pid, comm: until_zero(&socket.seen.comm), others: 0 }),
        }
    }

    /// What a socket's owner runs in: by the socket's cgroup, which it keeps when its process is gone.
    #[must_use]
    pub fn container(&self, socket: &Socket) -> Option<Container> {
        let (mut state, inode) = (self.lock(), socket.owned_inode());
        if socket.is_remainder() || (socket.is_of_kernel() && state.find(inode).is_none()) {
            return None;
        }
        let owner = state.find(inode).cloned();
        let containers = state.containers.as_mut()?;
        let (path, nodename) = match socket.key.cgroup {
            // Where cgroups are of the first version, all sockets are in the root of the second.
            0 | ROOT => {
                let of_process =
                    owner.as_ref().and_then(|owner| containers.paths.get(&inode).zip(Some(owner)));
                match of_process {
                    Some((path, owner)) => (path.clone(), Some(owner.nodename.clone())),
                    None if socket.key.cgroup == ROOT && owner.is_some() => ("/".into(), None),
                    None => return None,
                }
            }
            cgroup => {
                let nodename = owner.map(|owner| owner.nodename);
                let nodename = nodename.or_else(|| containers.nodenames.get(&cgroup).cloned());
                (containers.cgroups.path(cgroup)?, nodename)
            }
        };
        let nodename = nodename.filter(|name| containers.is_own(name));
        Some(Container::of(&path, nodename.as_ref()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who has a socket open, or had when its first packet was dropped.
    fn find(&mut self, inode: u64) -> Option<&Owner> {
        if inode == 0 {
            return None;
        }
        if !self.keep(inode) && !self.absent.contains(&inode) {
            // Its bell was not heard: there were too many at once.
            self.search();
            self.note(inode);
        }
        self.kept.get(&inode)
    }

    /// Keeps the owner of a socket, if it is known.
    fn keep(&mut self, inode: u64) -> bool {
        if self.kept.contains_key(&inode) {
            return true;
        }
        let Some(owner) = self.latest.get(&inode).cloned() else { return false };
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        if let Some(containers) = &mut self.containers {
            containers.note(inode, &owner);
        }
        self.kept.insert(inode, owner);
        true
    }

    /// Keeps the owner that a search has found, or that there is none.
    fn note(&mut self, inode: u64) {
        if !self.keep(inode) {
            if self.absent.len() >= KEPT {
                self.absent.clear();
            }
            self.absent.insert(inode);
        }
    }

    /// Lists all sockets, and remembers whose they are.
    fn search(&mut self) -> Vec<OpenSocket> {
        let begin = Instant::now();
        let open = self.lister.list().unwrap_or_else(|error| {
            log::warn!("cannot list the sockets of processes: {error}");
            Vec::new()
        });
        self.latest = owners(&open);
        if let Some(containers) = &mut self.containers {
            containers.nodenames.extend(open.iter().map(|open| (open.cgroup, until_zero(&open.nodename))));
        }
        (self.searched, self.rested) = (Some(begin), Some(rest_after(begin)));
        open
    }

    /// How long it is until then.
    fn rest(&self) -> Duration {
        self.rested.map_or(Duration::ZERO, |rested| rested.saturating_duration_since(Instant::now()))
    }
}

impl Containers {
    /// What a process runs in.
    fn of(&mut self, open: &OpenSocket) -> Option<Container> {
        let path = self.cgroups.path(open.cgroup).filter(|_| open.cgroup != ROOT);
        let of_process =
            || most_telling(&fs::read(format!("/proc/{}/cgroup", open.tgid)).unwrap_or_default());
        let nodename = Some(until_zero(&open.nodename)).filter(|name| self.is_own(name));
        Some(Container::of(&path.or_else(of_process)?, nodename.as_ref()))
    }

    /// Whether a host name is a container's own.
    fn is_own(&self, nodename: &Foreign) -> bool {
        !nodename.bytes().is_empty() && nodename.bytes() != self.hostname
    }

    /// Looks what a process runs in while it is there.
    fn note(&mut self, inode: u64, owner: &Owner) {
        let path = self.cgroups.path(owner.cgroup);
        if owner.cgroup == ROOT || path.is_none() {
            let read = fs::read(format!("/proc/{}/cgroup", owner.process.pid)).unwrap_or_default();
            if let Some(path) = most_telling(&read) {
                if self.paths.len() >= KEPT {
                    self.paths.clear();
                }
                self.paths.insert(inode, path);
            }
        }
    }
}

/// The path that says most of all that a process has: a container's, a unit's, any.
pub(super) fn most_telling(cgroups: &[u8]) -> Option<Foreign> {
    let paths =
        cgroups.split(|&byte| byte == b'\n').filter_map(|line| line.splitn(3, |&byte| byte == b':').nth(2));
    let rank = |path: &Foreign| {
        let container = Container::of(path, None);
        (container.is_container(), container.runtime.is_some(), path.bytes().len())
    };
    paths.map(Foreign::from).max_by_key(rank)
}

/// The owner of each socket: of several processes the oldest one. Numbers do not tell, because they begin anew at the end.
fn owners(open: &[OpenSocket]) -> HashMap<u64, Owner> {
    let mut processes: HashMap<u64, HashMap<u32, &OpenSocket>> = HashMap::new();
    for socket in open {
        processes.entry(socket.inode).or_default().insert(socket.tgid, socket);
    }
    let owner = |(inode, processes): (u64, HashMap<u32, &OpenSocket>)| {
        let (pid, first) = processes.iter().min_by_key(|(pid, open)| (open.started, **pid))?;
        let process = Process { pid: *pid, comm: until_zero(&first.comm), others: processes.len() - 1 };
        Some((inode, Owner { process, cgroup: first.cgroup, nodename: until_zero(&first.nodename) }))
    };
    processes.into_iter().filter_map(owner).collect()
}

/// A name of the kernel's up to its first zero.
pub(super) fn until_zero(name: &[u8]) -> Foreign {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name[..end].into()
}

#[cfg(test)]
mod tests {
    use dropwatch_common::socket::{SocketKey, SocketSeen, form};

    use super::*;

    /// Lists what is there at the moment.
    #[derive(Clone, Default)]
    struct Listed(Arc<Mutex<(Vec<OpenSocket>, usize)>>);

    impl ListSockets for Listed {
        fn list(&self) -> io::Result<Vec<OpenSocket>> {
            let mut listed = self.0.lock().expect("the list");
            listed.1 += 1;
            Ok(listed.0.clone())
        }
    }

    fn padded<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|index| text.as_bytes().get(index).copied().unwrap_or(0))
    }

    fn open(inode: u64, tgid: u32, comm: &str) -> OpenSocket {
        OpenSocket {
            inode,
            cgroup: ROOT,
            started: tgid.into(),
            comm: padded(comm),
            nodename: padded("host"),
            tgid,
            pad: 0,
        }
    }

    fn socket(inode: u64) -> Socket {
        Socket { key: SocketKey { inode, ..SocketKey::default() }, seen: SocketSeen::default() }
    }

    fn process(pid: u32, comm: &str, others: usize) -> Ownership {
        Ownership::Process(Process { pid, comm: comm.into(), others })
    }

    #[test]
    fn an_owner_is_kept_when_it_has_gone() {
        let listed = Listed::default();
        let owners = Owners::new(Box::new(listed.clone()), false);
        listed.0.lock().expect("the list").0 =
            vec![open(7, 20, "b"), open(7, 10, "a"), open(7, 10, "a"), open(8, 9, "c")];
        owners.look_for(&[7]);
        listed.0.lock().expect("the list").0.clear();
        owners.look_for(&[9]);
        assert_eq!(owners.owner(&socket(7)), process(10, "a", 1));
        assert_eq!(owners.owner(&socket(8)), Ownership::Unknown, "it was not requested");
        let searches = listed.0.lock().expect("the list").1;
        assert_eq!(owners.owner(&socket(8)), Ownership::Unknown);
        assert_eq!(owners.owner(&socket(9)), Ownership::Unknown);
        assert_eq!(listed.0.lock().expect("the list").1, searches, "looked for once");
    }

    #[test]
    fn of_several_processes_the_oldest_owns_a_socket() {
        let younger = OpenSocket { started: 2, ..open(7, 300, "younger") };
        let oldest = OpenSocket { started: 1, ..open(7, 30_000, "oldest") };
        let listed = Listed::default();
        listed.0.lock().expect("the list").0 = vec![younger, oldest];
        let owners = Owners::new(Box::new(listed), false);
        assert_eq!(owners.owner(&socket(7)), process(30_000, "oldest", 1));
    }

    #[test]
    fn what_has_no_owner_says_why() {
        let owners = Owners::new(Box::new(Listed::default()), false);
        let mut left = socket(0);
        left.key.form = form::TIME_WAIT;
        assert_eq!(owners.owner(&left), Ownership::Nobody);
        let mut control = socket(5);
        control.key.of_kernel = 1;
        assert_eq!(owners.owner(&control), Ownership::Kernel);
        let mut gone = socket(6);
        (gone.seen.tgid, gone.seen.comm) = (33, padded("dig"));
        assert_eq!(owners.owner(&gone), process(33, "dig", 0), "as the kernel saw it");
    }

    #[test]
    fn the_path_that_names_a_container_is_taken() {
        let id = "4f".repeat(32);
        let cgroups = format!("4:memory:/docker/{id}\n1:name=systemd:/system.slice/x.service\n0::/\n");
        assert_eq!(most_telling(cgroups.as_bytes()), Some(format!("/docker/{id}").as_str().into()));
        assert_eq!(
            most_telling(b"1:name=systemd:/a.service\n0::/longer/than/it\n"),
            Some("/a.service".into())
        );
        assert_eq!(most_telling(b""), None);
    }
}
