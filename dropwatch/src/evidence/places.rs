//! Network namespaces that can be read: through a process that is in it, or by its mount.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use caps::Capability;
use nix::sched::{CloneFlags, setns};

use crate::process::privileges;

/// A scan for one namespace is worth repeating when it is this many times older than it was long.
const PATIENCE: u32 = 50;
/// A scan for namespaces that nothing is known of.
const MORE_PATIENCE: u32 = 500;
/// And no sooner than after this.
const SOONEST: Duration = Duration::from_secs(1);

/// Processes through which a namespace is tried to be entered.
const WAYS: usize = 3;

/// Where `ip netns` and container runtimes mount namespaces.
pub(super) const MOUNTED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// A namespace and the ways to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace's inode number.
    pub inum: u32,
    /// The directory of processes.
    proc: Arc<Path>,
    /// Processes that are in it, those with the lowest numbers first.
    processes: Vec<u32>,
    /// Where it is mounted, if no process is in it.
    mount: Option<PathBuf>,
    /// Whether it is entered.
    enters: bool,
}

/// A namespace as a reader has it before it.
#[derive(Clone, Copy, Debug)]
pub struct Inside<'a> {
    /// The directory with what the namespace shows.
    pub directory: &'a Path,
    /// Whether the thread has entered it: then sockets are made in it.
    pub is_entered: bool,
}

/// The namespaces of this host, as far as they can be found.
#[derive(Debug)]
pub struct Places {
    proc: Arc<Path>,
    mounted: Vec<PathBuf>,
    enters: bool,
    found: BTreeMap<u32, Place>,
    /// Where processes were seen.
    processes: BTreeMap<u32, Seen>,
    /// The namespace of this process.
    own: Option<u32>,
    /// When all processes were looked at, and how long that took.
    scanned: Instant,
    took: Duration,
    /// When those were looked at that are new.
    updated: Instant,
}

/// Where a process was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// In the namespace of this number.
    In(u32),
    /// Somewhere that must not be looked at.
    Hidden,
}

/// Which processes a scan looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    All,
    /// Those that are new. Others are rarely in another namespace than before.
    New,
}

impl Places {
    /// Those of this host.
    #[must_use]
    pub fn of_this_host() -> Self {
        Self::of(Path::new("/proc"), MOUNTED.map(PathBuf::from).to_vec(), true)
    }

    /// Those of processes, and those that are mounted in directories.
    pub(super) fn of(proc: &Path, mounted: Vec<PathBuf>, enters: bool) -> Self {
        let begin = Instant::now();
        let mut places = Self {
            proc: proc.into(),
            mounted,
            enters,
            found: BTreeMap::new(),
            processes: BTreeMap::new(),
            own: inum(Path::new("/proc/thread-self/ns/net")),
            scanned: begin,
            took: Duration::ZERO,
            updated: begin,
        };
        places.scan(Scan::All);
        places
    }

    /// The namespace that this process was in at the start.
    pub fn own(&self) -> Option<u32> {
        self.own
    }

    /// The directory of processes.
    pub fn proc(&self) -> &Path {
        &self.proc
    }

    /// Whether there are processes whose namespaces must not be looked at.
    pub fn has_hidden(&self) -> bool {
        self.processes.values().any(|seen| *seen == Seen::Hidden)
    }

    /// The namespaces now; scans again if that has not been done for long enough.
    pub fn now(&mut self) -> Vec<Place> {
        if self.is_outdated(MORE_PATIENCE) {
            self.scan(Scan::All);
        } else if self.updated.elapsed() >= SOONEST {
            self.scan(Scan::New);
        }
        self.found.values().cloned().collect()
    }

    fn is_outdated(&self, patience: u32) -> bool {
        self.scanned.elapsed() >= SOONEST.max(self.took * patience)
    }

    /// Whether a namespace was there at the last scan.
    pub fn has(&self, inum: u32) -> bool {
        self.found.contains_key(&inum)
    }

    /// A namespace, if it can be found; scans again if that has not been done for long enough.
    pub fn find(&mut self, inum: u32) -> Option<Place> {
        let is_there = |places: &Self| places.found.get(&inum).is_some_and(Place::is_there);
        if !is_there(self) && self.is_outdated(PATIENCE) {
            self.scan(Scan::All);
        }
        self.found.get(&inum).cloned()
    }

    /// The processes there are, those of a namespace first.
    pub fn processes(&self, inum: u32) -> Vec<u32> {
        let mut pids = self.found.get(&inum).map(|place| place.processes.clone()).unwrap_or_default();
        let known: HashSet<_> = pids.iter().copied().collect();
        pids.extend(pids_in(&self.proc).into_iter().filter(|pid| !known.contains(pid)));
        pids
    }

    fn scan(&mut self, scan: Scan) {
        let begin = Instant::now();
        self.found.clear();
        let mut before = std::mem::take(&mut self.processes);
        if scan == Scan::All {
            before.clear();
        }
        for pid in pids_in(&self.proc) {
            let seen = before.remove(&pid).or_else(|| self.see(pid));
            if let Some(Seen::In(inum)) = seen {
                self.place(inum).processes.push(pid);
            }
            self.processes.extend(seen.map(|seen| (pid, seen)));
        }
        let mounts = self.mounted.iter().flat_map(fs::read_dir).flatten().flatten();
        for mount in mounts.collect::<Vec<_>>() {
            if let Some(inum) = inum(&mount.path()) {
                self.place(inum).mount.get_or_insert(mount.path());
            }
        }
        self.updated = Instant::now();
        if scan == Scan::All {
            (self.scanned, self.took) = (self.updated, begin.elapsed());
        }
    }

    /// Where a process is; none if it has gone.
    fn see(&self, pid: u32) -> Option<Seen> {
        match fs::metadata(self.proc.join(format!("{pid}/ns/net"))) {
            Ok(namespace) => namespace.ino().try_into().ok().map(Seen::In),
            // With the privilege, it is something else that hides it.
            Err(error) => {
                (error.kind() == io::ErrorKind::PermissionDenied && !may_look()).then_some(Seen::Hidden)
            }
        }
    }

    fn place(&mut self, inum: u32) -> &mut Place {
        self.found.entry(inum).or_insert_with(|| {
            let (proc, processes, mount) = (Arc::clone(&self.proc), Vec::new(), None);
            Place { inum, proc, processes, mount, enters: self.enters }
        })
    }
}

/// Whether this thread may look at the namespaces of all processes.
fn may_look() -> bool {
    privileges::held().contains(&Capability::CAP_SYS_PTRACE)
}

/// The processes there are, by age.
fn pids_in(proc: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten();
    let mut pids: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

impl Place {
    /// Has `read` read what the namespace shows; none if it has gone, or must not be looked into.
    ///
    /// The thread may be in another namespace afterwards. Nothing that is opened here outlives the call: a namespace
    /// lives as long as a socket or a file of its own.
    pub fn visit<T>(&self, read: impl FnOnce(Inside<'_>) -> Option<T>) -> Option<T> {
        if self.enters && self.enter() {
            return read(Inside { directory: Path::new("/proc/thread-self/net"), is_entered: true });
        }
        let process = self.proc.join(self.processes.first()?.to_string());
        let found = read(Inside { directory: &process.join("net"), is_entered: false })?;
        // The process may have gone elsewhere meanwhile, and its numbers with it.
        (inum(&process.join("ns/net")) == Some(self.inum)).then_some(found)
    }

    /// Whether it is still where it was found.
    pub fn is_there(&self) -> bool {
        self.ways().any(|path| inum(&path) == Some(self.inum))
    }

    /// Where its file is.
    fn ways(&self) -> impl Iterator<Item = PathBuf> {
        let of_processes =
            self.processes.iter().take(WAYS).map(|pid| self.proc.join(format!("{pid}/ns/net")));
        self.mount.iter().cloned().chain(of_processes)
    }

    /// Enters the namespace, by its mount or by a process that is still in it; the own one needs no privilege.
    fn enter(&self) -> bool {
        let own = || inum(Path::new("/proc/thread-self/ns/net")) == Some(self.inum);
        self.ways().any(|path| {
            // Whatever else is there, opening it does not wait.
            let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
            let namespace = opened.ok().filter(|file| inum_of(file) == Some(self.inum));
            namespace.is_some_and(|namespace| setns(namespace, CloneFlags::CLONE_NEWNET).is_ok())
        }) || own()
    }
}

/// The inode number of an open file.
fn inum_of(file: &File) -> Option<u32> {
    file.metadata().ok()?.ino().try_into().ok()
}

/// The inode number of a namespace's file.
fn inum(file: &Path) -> Option<u32> {
    fs::metadata(file).ok()?.ino().try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn new_processes_are_found_without_looking_at_the_others() {
        let proc = tempfile::tempdir().expect("a directory");
        let enters = |pid: u32, namespace: &str| {
            let directory = proc.path().join(format!("{pid}/ns"));
            fs::create_dir_all(&directory).expect("a directory");
            let _ = fs::remove_file(directory.join("net"));
            symlink(format!("/proc/self/ns/{namespace}"), directory.join("net")).expect("a link");
        };
        let inum = |namespace: &str| inum(Path::new("/proc/self/ns").join(namespace).as_path());
        let [one, other] = ["net", "uts"].map(|namespace| inum(namespace).expect("a number"));
        enters(12, "net");
        let mut places = Places::of(proc.path(), Vec::new(), false);
        let mut scanned = |scan| {
            places.scan(scan);
            let found = places.found.values().map(|place| (place.inum, place.processes.clone()));
            found.collect::<Vec<_>>()
        };
        assert_eq!(scanned(Scan::New), [(one, vec![12])]);
        enters(13, "net");
        enters(12, "uts");
        assert_eq!(scanned(Scan::New), [(one, vec![12, 13])]);
        let mut expected = [(one, vec![13]), (other, vec![12])];
        expected.sort_unstable();
        assert_eq!(scanned(Scan::All), expected);
        fs::remove_dir_all(proc.path().join("12")).expect("it ends");
        assert_eq!(scanned(Scan::New), [(one, vec![13])]);
    }
}
