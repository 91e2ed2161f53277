//! Names of network namespaces: where one is mounted, or a process that is in it.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where `ip netns` and container runtimes mount namespaces.
const MOUNTED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Names by inode number, looked for when one is needed that is not known.
#[derive(Debug)]
pub struct Namespaces {
    mounted: Vec<PathBuf>,
    proc: PathBuf,
    known: HashMap<u32, Arc<str>>,
    /// Whether there has been a search since the last report.
    searched: bool,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::of(MOUNTED.map(PathBuf::from).to_vec(), "/proc".into())
    }
}

impl Namespaces {
    fn of(mounted: Vec<PathBuf>, proc: PathBuf) -> Self {
        Self { mounted, proc, known: HashMap::new(), searched: false }
    }

    /// From here on a search may bring something new.
    pub fn start_report(&mut self) {
        self.searched = false;
    }

    /// The name of a namespace; one that has gone keeps the name it had.
    pub fn name(&mut self, inum: u32) -> Option<Arc<str>> {
        if !self.known.contains_key(&inum) && !self.searched {
            self.searched = true;
            self.search();
        }
        self.known.get(&inum).cloned()
    }

    /// Of several names the one that was given on purpose, then that of the oldest process.
    fn search(&mut self) {
        for directory in &self.mounted {
            for path in entries(directory) {
                if let (Some(inum), Some(name)) = (inum(&path), path.file_name()) {
                    self.known.insert(inum, name.to_string_lossy().into());
                }
            }
        }
        let mut processes: Vec<u32> = entries(&self.proc)
            .filter_map(|path| path.file_name().and_then(|name| name.to_str()?.parse().ok()))
            .collect();
        processes.sort_unstable();
        for pid in processes {
            let process = self.proc.join(pid.to_string());
            let Some(inum) = inum(&process.join("ns/net")) else { continue };
            // Threads of the kernel, which run no file, say nothing about what a namespace is for.
            if self.known.contains_key(&inum) || fs::read_link(process.join("exe")).is_err() {
                continue;
            }
            if let Ok(command) = fs::read_to_string(process.join("comm")) {
                self.known.insert(inum, format!("{}[{pid}]", command.trim_end()).into());
            }
        }
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// The inode number of a namespace's file.
fn inum(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().and_then(|file| u32::try_from(file.ino()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_name_goes_before_a_process() {
        let mut namespaces = Namespaces::default();
        let own = inum(Path::new("/proc/self/ns/net")).expect("our namespace");
        let by_process = namespaces.name(own).expect("somebody is in it: we are");
        assert!(by_process.ends_with(']') || Path::new("/run/netns").join(&*by_process).exists());

        let directory = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("/proc/self/ns/net", directory.path().join("blue")).expect("a link");
        let mut namespaces = Namespaces::of(vec![directory.path().into()], "/proc".into());
        assert_eq!(namespaces.name(own).as_deref(), Some("blue"));
    }

    #[test]
    fn what_is_not_found_is_looked_for_once_a_report() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut namespaces = Namespaces::of(vec![directory.path().into()], directory.path().into());
        let own = inum(Path::new("/proc/self/ns/net")).expect("our namespace");
        assert_eq!(namespaces.name(own), None);
        std::os::unix::fs::symlink("/proc/self/ns/net", directory.path().join("late")).expect("a link");
        assert_eq!(namespaces.name(own), None, "it is the same report");
        namespaces.start_report();
        assert_eq!(namespaces.name(own).as_deref(), Some("late"));
    }
}
