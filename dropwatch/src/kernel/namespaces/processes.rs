//! Descriptions of namespaces that have no name: the container, or the oldest process in each.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dropwatch_common::socket::ListedProcess;

use super::ListProcesses;
use crate::{
    kernel::owners::{most_telling, until_zero},
    model::{container::Container, foreign::Foreign, namespace::Namespace},
};

/// The least time from one search to the next.
const REST: Duration = Duration::from_millis(100);
/// The pause after a search, in multiples of its duration: searching uses at most a twentieth of a CPU.
const REST_PER_SEARCH: u32 = 19;
/// How long after the first sight of a namespace it may turn out to be a container's: the first process of one enters one thing
/// after the other.
const SETTLING: Duration = Duration::from_secs(2);
/// How many descriptions are kept of namespaces that may have gone.
const KEPT: usize = 4096;

/// Descriptions by namespace. All processes are looked through when one is missing, but not all the time.
pub struct Processes {
    proc: PathBuf,
    known: HashMap<Namespace, Described>,
    /// When the next search may begin.
    rested: Option<Instant>,
    loading: Option<JoinHandle<Option<Box<dyn ListProcesses>>>>,
    /// What lists processes in place of `/proc`.
    lister: Option<Box<dyn ListProcesses>>,
}

/// What a namespace is called by what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: Foreign,
    /// Whether the name says more than one that a container runtime has generated.
    pub is_telling: bool,
    /// Until when it may turn out to be a container's.
    changes_until: Option<Instant>,
}

impl Processes {
    pub fn new(proc: PathBuf) -> Self {
        Self { proc, known: HashMap::new(), rested: None, loading: None, lister: None }
    }

    /// Lists processes by what is being loaded.
    pub fn list_by(&mut self, loading: JoinHandle<Option<Box<dyn ListProcesses>>>) {
        self.loading = Some(loading);
    }

    /// What is in a namespace, or was when that was looked for.
    pub fn describe(
        &mut self,
        namespace: Namespace,
        identify: impl Fn(&Path) -> Option<Namespace>,
    ) -> Option<Described> {
        if !self.is_settled(namespace) {
            self.look_if_rested(identify);
        }
        self.known.get(&namespace).cloned()
    }

    /// Looks through all processes, unless that was just done.
    pub fn look_if_rested(&mut self, identify: impl Fn(&Path) -> Option<Namespace>) {
        if self.rested.is_none_or(|rested| rested <= Instant::now()) {
            self.look(identify);
        }
    }

    /// Looks through all processes.
    pub fn look(&mut self, identify: impl Fn(&Path) -> Option<Namespace>) {
        let begin = Instant::now();
        match self.list() {
            Some(listed) => self.take_in(&listed, begin),
            None => self.search(identify),
        }
        self.rested = Some(Instant::now() + REST.max(begin.elapsed() * REST_PER_SEARCH));
    }

    /// Whether a process has been seen in a namespace.
    pub fn knows(&self, namespace: Namespace) -> bool {
        self.known.contains_key(&namespace)
    }

    /// Whether a process has been seen in a namespace, and what it is called by stays.
    pub fn is_settled(&self, namespace: Namespace) -> bool {
        self.known.get(&namespace).is_some_and(|described| described.changes_until.is_none())
    }

    /// The name of the container that a namespace is of, if it is one's.
    pub fn container(&self, namespace: Namespace) -> Option<&Foreign> {
        self.known.get(&namespace).filter(|described| described.is_telling).map(|described| &described.name)
    }

    /// The namespaces of containers of this name.
    pub fn of_container(&self, name: &str) -> impl Iterator<Item = Namespace> {
        let is_it = move |described: &Described| described.is_telling && described.name == *name;
        self.known.iter().filter(move |(_, described)| is_it(described)).map(|(namespace, _)| *namespace)
    }

    /// The namespace with an inode number, if a process is in it.
    pub fn numbered(&self, inum: u32, identify: impl Fn(&Path) -> Option<Namespace>) -> Option<Namespace> {
        self.pids().into_iter().find_map(|pid| {
            let path = self.proc.join(pid.to_string()).join("ns/net");
            let file = fs::metadata(&path).ok()?;
            (file.ino() == u64::from(inum)).then(|| identify(&path)).flatten()
        })
    }

    fn list(&mut self) -> Option<Vec<ListedProcess>> {
        if let Some(loading) = self.loading.take() {
            self.lister = loading.join().ok().flatten();
        }
        let listed = self.lister.as_ref()?.list();
        listed.inspect_err(|error| log::warn!("cannot list processes: {error}")).ok()
    }

    /// Describes the namespaces of these processes that are not called after a container yet.
    fn take_in(&mut self, listed: &[ListedProcess], now: Instant) {
        if self.known.len() > KEPT {
            self.known.clear();
        }
        let hostname = fs::read(self.proc.join("sys/kernel/hostname")).unwrap_or_default();
        let mut oldest: HashMap<Namespace, &ListedProcess> = HashMap::new();
        for process in listed {
            let first =
                oldest.entry(Namespace { inum: process.netns, cookie: process.cookie }).or_insert(process);
            if (process.started, process.tgid) < (first.started, first.tgid) {
                *first = process;
            }
        }
        // Of one without processes, no more will be known.
        let gone = self.known.iter_mut().filter(|(namespace, _)| !oldest.contains_key(namespace));
        gone.for_each(|(_, described)| described.changes_until = None);
        for (namespace, process) in oldest {
            if self.container(namespace).is_none() {
                let mut described = self.describe_by(process, listed, hostname.trim_ascii_end());
                let until =
                    self.known.get(&namespace).map_or(Some(now + SETTLING), |known| known.changes_until);
                described.changes_until = until.filter(|until| !described.is_telling && now < *until);
                self.known.insert(namespace, described);
            }
        }
    }

    /// The container that a process is in, the host name that it sees, the unit that has the namespace for itself, or the
    /// process.
    fn describe_by(&self, process: &ListedProcess, listed: &[ListedProcess], hostname: &[u8]) -> Described {
        let pid = process.tgid.to_string();
        let own_name = until_zero(&process.nodename);
        let own_name = Some(own_name).filter(|name| !name.bytes().is_empty() && name.bytes() != hostname);
        let cgroups = fs::read(self.proc.join(&pid).join("cgroup")).unwrap_or_default();
        let container = most_telling(&cgroups).map(|path| Container::of(&path, own_name.as_ref()));
        let is_alone = || {
            let mut others = listed.iter().filter(|other| other.cgroup == process.cgroup);
            others.all(|other| (other.netns, other.cookie) == (process.netns, process.cookie))
        };
        let telling = match container {
            Some(container) if container.is_container() => Some(container.name),
            Some(container) if own_name.is_none() && container.runtime.is_some() && is_alone() => {
                Some(container.name)
            }
            _ => own_name,
        };
        match telling {
            Some(name) => Described { name, is_telling: true, changes_until: None },
            None => Described {
                name: described(until_zero(&process.comm).bytes(), process.tgid),
                is_telling: false,
                changes_until: None,
            },
        }
    }

    fn search(&mut self, identify: impl Fn(&Path) -> Option<Namespace>) {
        if self.known.len() > KEPT {
            self.known.clear();
        }
        let mut seen = HashSet::new();
        for pid in self.pids() {
            let process = self.proc.join(pid.to_string());
            let path = process.join("ns/net");
            let Ok(file) = fs::metadata(&path) else { continue };
            // Threads of the kernel, which run no file, say nothing about what a namespace is for.
            if seen.contains(&file.ino()) || fs::read_link(process.join("exe")).is_err() {
                continue;
            }
            seen.insert(file.ino());
            if let (Some(namespace), Ok(command)) = (identify(&path), fs::read(process.join("comm"))) {
                // A process may have any name; the kernel ends it with a line break.
                let command = command.strip_suffix(b"\n").unwrap_or(&command);
                let name = described(command, pid);
                let describe = || Described { name, is_telling: false, changes_until: None };
                self.known.entry(namespace).or_insert_with(describe);
            }
        }
    }

    /// The lowest first.
    fn pids(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let mut pids: Vec<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        pids
    }
}

/// `nginx[123]`
fn described(command: &[u8], pid: u32) -> Foreign {
    [command, format!("[{pid}]").as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn what_is_not_found_is_not_looked_for_all_the_time() {
        let searches = Cell::new(0);
        let nobody = Namespace { inum: 1, cookie: 1 };
        let identify = |_: &Path| {
            searches.set(searches.get() + 1);
            None
        };
        let mut processes = Processes::new("/proc".into());
        let start = Instant::now();
        assert_eq!(processes.describe(nobody, identify), None);
        let once = searches.get();
        assert!(once > 0, "this process is in a namespace");
        while start.elapsed() < REST / 2 {
            assert_eq!(processes.describe(nobody, identify), None);
        }
        assert_eq!(searches.get(), once);
        processes.rested = None;
        assert_eq!(processes.describe(nobody, identify), None);
        assert!(searches.get() > once);
    }

    #[test]
    fn a_namespace_is_called_what_its_processes_run_in() {
        let proc = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(proc.path().join("sys/kernel")).expect("a directory");
        fs::write(proc.path().join("sys/kernel/hostname"), "host\n").expect("a name");
        let docker = format!("/docker/{}", "4f5e6d7c".repeat(8));
        let mut listed = Vec::new();
        let mut process = |netns, pid: u32, cgroup: u64, path: &str, nodename: &str| {
            let directory = proc.path().join(pid.to_string());
            fs::create_dir_all(&directory).expect("a directory");
            fs::write(directory.join("cgroup"), format!("0::{path}\n")).expect("a file");
            let padded = |text: &str, at| text.as_bytes().get(at).copied().unwrap_or(0);
            listed.push(ListedProcess {
                cookie: 9,
                cgroup,
                started: pid.into(),
                netns,
                tgid: pid,
                comm: std::array::from_fn(|at| padded("comm", at)),
                nodename: std::array::from_fn(|at| padded(nodename, at)),
            });
        };
        process(1, 12, 20, &docker, "host");
        process(1, 11, 21, &docker, "web-7d9f");
        process(2, 13, 22, &docker, "host");
        process(3, 14, 23, "/system.slice/a.service", "host");
        process(4, 15, 24, "/system.slice/b.service", "host");
        process(5, 16, 24, "/system.slice/b.service", "host");
        process(6, 17, 25, "/user.slice", "inner");
        process(7, 18, 25, "/user.slice", "host");
        let mut processes = Processes::new(proc.path().into());
        processes.take_in(&listed, Instant::now());
        let name = |inum| {
            let described = processes.known[&Namespace { inum, cookie: 9 }].clone();
            (described.name.text().into_owned(), described.is_telling)
        };
        let names: Vec<_> = (1..=7).map(name).collect();
        let expected = [
            ("web-7d9f", true),
            ("4f5e6d7c4f5e", true),
            ("a.service", true),
            // The unit has processes in two of them.
            ("comm[15]", false),
            ("comm[16]", false),
            ("inner", true),
            ("comm[18]", false),
        ];
        assert_eq!(names, expected.map(|(name, is_telling)| (name.to_owned(), is_telling)));
    }

    /// The first process of a container is in its namespace before it is in its cgroup.
    #[test]
    fn a_young_process_may_still_enter_a_container() {
        let proc = tempfile::tempdir().expect("a directory");
        fs::create_dir(proc.path().join("7")).expect("a directory");
        let enter =
            |path: &str| fs::write(proc.path().join("7/cgroup"), format!("0::{path}\n")).expect("a file");
        let listed = [ListedProcess { netns: 1, tgid: 7, ..Zeroable::zeroed() }];
        let (namespace, now) = (Namespace { inum: 1, cookie: 0 }, Instant::now());
        let young = || {
            let mut processes = Processes::new(proc.path().into());
            enter("/user.slice");
            processes.take_in(&listed, now);
            assert!(processes.knows(namespace) && !processes.is_settled(namespace));
            processes
        };
        let mut old = young();
        old.take_in(&listed, now + SETTLING);
        assert!(old.is_settled(namespace));
        let mut ended = young();
        ended.take_in(&[], now);
        assert!(ended.is_settled(namespace));
        let mut entered = young();
        enter(&format!("/docker/{}", "4f5e6d7c".repeat(8)));
        entered.take_in(&listed, now);
        assert!(entered.is_settled(namespace));
        assert_eq!(entered.container(namespace), Some(&"4f5e6d7c4f5e".into()));
    }
}
