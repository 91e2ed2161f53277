//! Paths of cgroups by their numbers.

use std::{
    collections::HashMap,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Instant,
};

use super::rest_after;
use crate::model::foreign::Foreign;

/// How many paths are kept of cgroups that may have gone.
const KEPT: usize = 1 << 16;

/// The cgroups of the second version's hierarchy. The whole tree is walked when one is missing, but not all the time.
#[derive(Debug)]
pub struct Cgroups {
    /// Where it is mounted, and which cgroup is there.
    mounts: Vec<(PathBuf, Vec<u8>)>,
    known: HashMap<u64, Foreign>,
    rested: Option<Instant>,
}

impl Cgroups {
    /// Those that a process sees, by its `mountinfo`.
    pub fn new(mounts: &[u8]) -> Self {
        Self { mounts: mounts_in(mounts), known: HashMap::new(), rested: None }
    }

    /// The path of a cgroup, also of one that has gone since it was looked for.
    pub fn path(&mut self, number: u64) -> Option<Foreign> {
        let now = Instant::now();
        if !self.known.contains_key(&number) && self.rested.is_none_or(|rested| rested <= now) {
            self.walk();
            self.rested = Some(rest_after(now));
        }
        self.known.get(&number).cloned()
    }

    fn walk(&mut self) {
        if self.known.len() > KEPT {
            self.known.clear();
        }
        let known = &mut self.known;
        for (mount, root) in &self.mounts {
            let mut left = vec![(mount.clone(), root.clone())];
            while let Some((directory, path)) = left.pop() {
                // It may go meanwhile.
                let Ok(metadata) = fs::metadata(&directory) else { continue };
                known.insert(
                    metadata.ino(),
                    Foreign::from(&*if path.is_empty() { b"/".to_vec() } else { path.clone() }),
                );
                left.extend(children(&directory, &path));
            }
        }
    }
}

fn children(directory: &Path, path: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| (entry.path(), [path, b"/", entry.file_name().as_bytes()].concat())).collect()
}

/// Where cgroups of the second version are mounted, and the path of the cgroup there, without the last slash.
fn mounts_in(mountinfo: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    let mount = |line: &[u8]| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let root = if root == b"/" { Vec::new() } else { unescaped(root) };
        (kind == b"cgroup2").then(|| (PathBuf::from(std::ffi::OsStr::from_bytes(&unescaped(point))), root))
    };
    mountinfo.split(|&byte| byte == b'\n').filter_map(mount).collect()
}

/// A field of `mountinfo`, in which blanks are written as `\040`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_whatever_else_there_is() {
        let mountinfo = b"30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro\n\
                          31 30 0:27 /a/b /mnt/with\\040blank rw shared:10 master:1 - cgroup2 cgroup2 rw\n\
                          32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\nshort\n";
        assert_eq!(mounts_in(mountinfo), [("/mnt/with blank".into(), b"/a/b".to_vec())]);
    }

    #[test]
    fn cgroups_are_numbered_by_their_directories() {
        let root = tempfile::tempdir().expect("a directory");
        let inner = root.path().join("system.slice/a.service");
        fs::create_dir_all(&inner).expect("directories");
        let line = format!("1 1 0:1 / {} rw - cgroup2 x rw", root.path().display());
        let mut cgroups = Cgroups::new(line.as_bytes());
        let number = |path: &Path| fs::metadata(path).expect("a directory").ino();
        let inner_number = number(&inner);
        assert_eq!(cgroups.path(inner_number), Some("/system.slice/a.service".into()));
        assert_eq!(cgroups.path(number(root.path())), Some("/".into()));
        fs::remove_dir(&inner).expect("removed");
        assert_eq!(cgroups.path(inner_number), Some("/system.slice/a.service".into()), "kept");
        assert_eq!(cgroups.path(1 << 60), None);
    }
}
