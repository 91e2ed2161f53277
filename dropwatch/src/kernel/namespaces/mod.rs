//! Names of network namespaces: where they are mounted, or a process that is in one.
//!
//! Names come and go while a run lasts. What is mounted is watched, and each name is kept with the namespace that had
//! it: an inode number that is given to another namespace does not hand a name on.

mod arrivals;
mod history;
mod processes;

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::ControlFlow,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use dropwatch_common::socket::ListedProcess;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::{arrivals::Arrivals, history::History, processes::Processes};
use crate::{
    model::{foreign::Foreign, namespace::Namespace},
    process::privileges,
};

/// What the host's own namespace is called.
pub const HOST: &str = "host";
/// Where `ip netns` and container runtimes mount namespaces.
const MOUNTED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// The kernel says of this file when something is mounted or unmounted.
const MOUNTS: &str = "/proc/self/mountinfo";
/// How long names may be out of date that are not mounts: those of symbolic links.
const STALE: Duration = Duration::from_secs(1);

/// Says which namespace an open file is, if it is one for networks: whether it is one, and its cookie.
pub trait Identify: Send + Sync {
    /// Whether the file is a network namespace.
    fn is_network(&self, file: BorrowedFd<'_>) -> bool;
    /// The cookie; zero on kernels that have none, and if it cannot be read.
    fn cookie(&self, namespace: BorrowedFd<'_>) -> u64;
    /// What lists processes faster than `/proc` and says more of them, where there is such a thing.
    fn lister(&self) -> Option<Box<dyn ListProcesses>> {
        None
    }
}

/// Lists the processes that there are.
pub trait ListProcesses: Send {
    /// All of them, without threads of the kernel.
    ///
    /// # Errors
    /// Whatever the kernel answers.
    fn list(&self) -> io::Result<Vec<ListedProcess>>;
}

/// The namespaces of this host and their names. Clones share what they know.
#[derive(Clone)]
pub struct Namespaces(Arc<Shared>);

struct Shared {
    mounted: Vec<PathBuf>,
    identify: Box<dyn Identify>,
    state: Mutex<State>,
    /// Apart: to list processes takes longer than some names are there, which must be seen meanwhile.
    processes: Mutex<Processes>,
}

struct State {
    history: History,
    arrivals: Arrivals,
    /// When names were read last.
    read: Option<Instant>,
    /// The host's own, if it is known.
    host: Option<Namespace>,
    /// Whether that was looked for.
    host_sought: bool,
}

impl State {
    fn find_host(&mut self, shared: &Shared) {
        if !std::mem::replace(&mut self.host_sought, true) {
            self.host = shared.host();
        }
    }
}

impl std::fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespaces").finish_non_exhaustive()
    }
}

impl Namespaces {
    /// The namespaces of this host.
    #[must_use]
    pub fn new(identify: Box<dyn Identify>) -> Self {
        Self::of(MOUNTED.map(PathBuf::from).to_vec(), "/proc".into(), identify)
    }

    fn of(mounted: Vec<PathBuf>, proc: PathBuf, identify: Box<dyn Identify>) -> Self {
        let state = State {
            history: History::default(),
            arrivals: Arrivals::new(&mounted),
            read: None,
            host: None,
            host_sought: false,
        };
        let processes = Mutex::new(Processes::new(proc));
        Self(Arc::new(Shared { mounted, identify, state: Mutex::new(state), processes }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.0.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads now which namespaces have names; whether anything has changed.
    pub fn refresh(&self) -> bool {
        let mut state = self.state();
        // Under the lock: what is read later is taken in later.
        let changes = state.arrivals.changes();
        let seen = self.0.seen();
        state.read = Some(Instant::now());
        state.arrivals.take_in(changes, seen.iter().map(|(_, name)| name));
        state.history.observe(&seen)
    }

    /// Reads the names again, unless that was just done: what is mounted is watched anyway.
    pub fn refresh_if_stale(&self) {
        let read = self.state().read;
        if read.is_none_or(|read| read.elapsed() >= STALE) {
            self.refresh();
        }
    }

    /// The name of a namespace; one that has gone keeps the name it had.
    ///
    /// The name it was given on purpose, else `host` for the host's own, else what its processes run in if that is a
    /// container, else the oldest process in it. Names that container runtimes make up say less than that of the container.
    #[must_use]
    pub fn name(&self, namespace: Namespace) -> Option<Foreign> {
        let mut state = self.state();
        // Of what was read just now, only the number is known.
        let is_numbered = namespace.cookie == 0;
        let namespace =
            is_numbered.then(|| state.history.numbered(namespace.inum)).flatten().unwrap_or(namespace);
        let given = state.history.name(namespace);
        if given.as_ref().is_some_and(|name| !is_made_up(name)) {
            return given;
        }
        state.find_host(&self.0);
        if state.host.is_some_and(|host| host.is(namespace)) {
            return Some(Foreign::from(HOST));
        }
        drop(state);
        let described = self.processes().describe(namespace, |path| self.0.identify(path).ok());
        match (given, described) {
            (Some(given), Some(described)) if !described.is_telling => Some(given),
            (given, described) => described.map(|described| described.name).or(given),
        }
    }

    /// The host's own namespace, where it can be seen.
    #[must_use]
    pub fn host(&self) -> Option<Namespace> {
        let mut state = self.state();
        state.find_host(&self.0);
        state.host
    }

    /// The names that a namespace was given, also those it no longer has, and that of its container if none was given on
    /// purpose.
    #[must_use]
    pub fn names(&self, namespace: Namespace) -> Vec<Foreign> {
        let mut names = self.state().history.had(namespace).to_vec();
        if names.iter().all(is_made_up) {
            names.extend(self.processes().container(namespace).cloned());
        }
        names
    }

    /// The namespaces that have a name or have had it, those that have it first, and those of containers of this name.
    #[must_use]
    pub fn bearers(&self, name: &str) -> Vec<Namespace> {
        let mut others: Vec<_> = self.processes().of_container(name).collect();
        others.sort_unstable();
        let state = self.state();
        let mut bearers = state.history.bearers(name);
        others.retain(|namespace| {
            !bearers.contains(namespace) && state.history.had(*namespace).iter().all(is_made_up)
        });
        bearers.extend(others);
        bearers
    }

    /// Whether a namespace was given this name on purpose, or had been.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        !self.state().history.bearers(name).is_empty()
    }

    /// Looks which containers there are, unless that was just done.
    pub fn look_for_containers(&self) {
        self.processes().look_if_rested(|path| self.0.identify(path).ok());
    }

    /// The same at once, if any of these namespaces has neither a name that it was given on purpose nor one that stays.
    pub fn look_into(&self, namespaces: &[Namespace]) {
        let is_given = |namespace| !self.state().history.had(namespace).iter().all(is_made_up);
        if !namespaces.iter().all(|&namespace| is_given(namespace) || self.processes().is_settled(namespace))
        {
            self.processes().look(|path| self.0.identify(path).ok());
        }
    }

    /// Whether a namespace has a name, or a process was seen in it.
    #[must_use]
    pub fn is_known(&self, namespace: Namespace) -> bool {
        !self.state().history.had(namespace).is_empty() || self.processes().knows(namespace)
    }

    /// Whether there is, or was, a container of this name.
    #[must_use]
    pub fn has_container(&self, name: &str) -> bool {
        self.processes().of_container(name).next().is_some()
    }

    /// Whether a namespace has had this name for so short a time that it is not known which.
    #[must_use]
    pub fn has_missed(&self, name: &str) -> bool {
        self.state().arrivals.has_missed(name)
    }

    /// The names that are in use now.
    #[must_use]
    pub fn current(&self) -> Vec<String> {
        self.state().history.current().map(|name| name.text().into_owned()).collect()
    }

    /// The namespace with an inode number, if it has a name or a process.
    #[must_use]
    pub fn numbered(&self, inum: u32) -> Option<Namespace> {
        let by_name = || self.0.seen().into_iter().map(|(namespace, _)| namespace);
        by_name()
            .find(|namespace| namespace.inum == inum)
            .or_else(|| self.processes().numbered(inum, |path| self.0.identify(path).ok()))
    }

    /// Which namespace a file is.
    ///
    /// # Errors
    /// It cannot be opened, or is not a network namespace.
    pub fn identify(&self, path: &Path) -> io::Result<Namespace> {
        self.0.identify(path)
    }

    /// Reads the names whenever something is mounted or unmounted, at least once in each `patience`, in a thread that
    /// ends with the process. `after` runs after each reading, and breaks off.
    ///
    /// # Errors
    /// The kernel does not report mounts, or no thread could be started.
    pub fn watch(
        &self,
        patience: Option<Duration>,
        mut after: impl FnMut(&Self) -> ControlFlow<()> + Send + 'static,
    ) -> io::Result<()> {
        let mounts = File::open(MOUNTS)?;
        let shared = Arc::clone(&self.0);
        let load = move || {
            let lister = shared.identify.lister();
            privileges::give_up_in_thread();
            lister
        };
        // Loading takes a while, and nothing needs the list until a namespace needs a name.
        let loading = thread::Builder::new().name("processes".into()).spawn(load)?;
        self.processes().list_by(loading);
        // From here on changes are reported.
        self.refresh();
        self.state().find_host(&self.0);
        let namespaces = self.clone();
        let timeout = patience.and_then(|patience| PollTimeout::try_from(patience).ok());
        let watch = move || {
            privileges::give_up_in_thread();
            while after(&namespaces).is_continue() {
                let mut polled = [PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)];
                if poll(&mut polled, timeout.unwrap_or(PollTimeout::NONE)).is_err() {
                    thread::sleep(STALE);
                }
                namespaces.refresh();
            }
        };
        thread::Builder::new().name("namespaces".into()).spawn(watch).map(|_| ())
    }
}

/// Whether a name is one that a container runtime mounts a namespace by: `cni-` with a UUID, or Docker's twelve digits.
fn is_made_up(name: &Foreign) -> bool {
    let is_hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    match name.bytes().strip_prefix(b"cni-") {
        Some(uuid) => uuid.len() == 36 && is_hex(uuid),
        None => name.bytes().len() == 12 && is_hex(name.bytes()),
    }
}

impl Shared {
    /// The namespaces that have names.
    fn seen(&self) -> Vec<(Namespace, Foreign)> {
        let entries = self.mounted.iter().flat_map(|directory| fs::read_dir(directory).into_iter().flatten());
        entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let name = path.file_name()?.into();
                Some((self.identify(&path).ok()?, name))
            })
            .collect()
    }

    fn identify(&self, path: &Path) -> io::Result<Namespace> {
        // Do not wait if the file is a named pipe.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !self.identify.is_network(file.as_fd()) {
            return Err(io::Error::other("this is not a network namespace"));
        }
        let inum = u32::try_from(file.metadata()?.ino()).map_err(io::Error::other)?;
        Ok(Namespace { inum, cookie: self.identify.cookie(file.as_fd()) })
    }

    /// The host's own namespace: that of the kernel's own threads, where they can be seen. The second process of all is
    /// the one that starts them.
    fn host(&self) -> Option<Namespace> {
        /// The number of the namespace that all processes are in (`PROC_PID_INIT_INO`).
        const ALL_PROCESSES: u64 = 0xefff_fffc;
        let processes = fs::metadata("/proc/self/ns/pid").ok()?;
        (processes.ino() == ALL_PROCESSES).then(|| self.identify(Path::new("/proc/2/ns/net")).ok()).flatten()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    /// Knows no cookies.
    struct NoCookies;

    /// The namespaces of this host, by their numbers alone.
    pub fn of_this_host() -> Namespaces {
        Namespaces::new(Box::new(NoCookies))
    }

    impl Identify for NoCookies {
        fn is_network(&self, file: BorrowedFd<'_>) -> bool {
            let target = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("a link");
            target.to_string_lossy().starts_with("net:[")
        }

        fn cookie(&self, _namespace: BorrowedFd<'_>) -> u64 {
            0
        }
    }

    fn own() -> Namespace {
        let file = fs::metadata("/proc/self/ns/net").expect("the own namespace");
        Namespace { inum: u32::try_from(file.ino()).expect("a number"), cookie: 0 }
    }

    #[test]
    fn names_that_runtimes_make_up_are_known() {
        for name in ["cni-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "4f5e6d7c8b9a"] {
            assert!(is_made_up(&name.into()), "{name}");
        }
        for name in ["cni-blue", "blue", "4f5e6d7c8b9", "deadbeef", "cni-", "router-one12"] {
            assert!(!is_made_up(&name.into()), "{name}");
        }
    }

    #[test]
    fn a_mounted_name_goes_before_a_process() {
        let nowhere = Namespaces::of(Vec::new(), "/proc".into(), Box::new(NoCookies));
        let described = nowhere.name(own()).expect("this process is in it");
        assert!(described.text().ends_with(']') || described == *"host", "{described}");

        let directory = tempfile::tempdir().expect("a directory");
        let namespaces = Namespaces::of(vec![directory.path().into()], "/proc".into(), Box::new(NoCookies));
        let link = directory.path().join("blue");
        std::os::unix::fs::symlink("/proc/self/ns/net", &link).expect("a link");
        assert!(namespaces.refresh());
        assert_eq!(namespaces.name(own()), Some("blue".into()));
        fs::remove_file(link).expect("the link is there");
        assert!(namespaces.refresh());
        assert_eq!(namespaces.name(own()), Some("blue".into()), "the name it had");
        assert_eq!(namespaces.bearers("blue"), [own()]);
        assert!(namespaces.current().is_empty());
    }
}
