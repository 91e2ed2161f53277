//! Puts together what a guest has for a disk: an archive with programs, their libraries, modules and an init.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::command;

/// The host's programs that scenarios use, if they are here. The first ones have to be.
const PROGRAMS: [&str; 16] = [
    "sh",
    "ip",
    "tc",
    "nft",
    "iptables-legacy",
    "modprobe",
    "iptables",
    "iptables-legacy-save",
    "ip6tables-legacy",
    "ethtool",
    "ss",
    "tcpdump",
    "bpftool",
    "unshare",
    "nsenter",
    "tmux",
];

/// How many of [`PROGRAMS`] no guest can do without.
const REQUIRED: usize = 6;

/// Plugins that these programs load by name, and their tables.
const PLUGINS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/xtables",
    "/usr/lib/tc",
    "/usr/lib/x86_64-linux-gnu/tc",
    "/etc/iproute2",
    "/usr/lib/locale/C.utf8",
];

/// All of another system that may be a library or a plugin.
const LIBRARIES: [&str; 3] = ["lib", "usr/lib", "etc/iproute2"];

/// Conversions between sets of characters, which are large and not used.
const UNUSED: &str = "gconv";

/// One file in the guest.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    /// Copied from the host.
    Copy(PathBuf),
    /// Written here, and executable.
    Script(String),
    Link(&'static str),
    Device(u32, u32),
}

/// The guest's files by path, without a leading slash.
#[derive(Debug, Default)]
pub struct Rootfs {
    // Sorted: a directory comes before what is in it.
    entries: BTreeMap<PathBuf, Entry>,
}

impl Rootfs {
    /// Everything but the kernel's modules and the program to run, from this machine.
    pub fn of_host() -> Result<Self> {
        let mut rootfs = Self::bare();
        rootfs.host_program("busybox")?;
        for (index, name) in PROGRAMS.iter().enumerate() {
            match rootfs.host_program(name) {
                Err(error) if index < REQUIRED => return Err(error),
                _ => {}
            }
        }
        for directory in PLUGINS {
            rootfs.tree(Path::new(directory), Path::new(directory))?;
        }
        Ok(rootfs)
    }

    /// The same from the packages of another processor, unpacked below `root`: with all of their libraries, since which
    /// of these a program needs is for its own loader to say.
    pub fn of_root(root: &Path) -> Result<Self> {
        let mut rootfs = Self::bare();
        for (index, name) in ["busybox"].iter().chain(&PROGRAMS).enumerate() {
            match in_root(root, name) {
                Some(file) => rootfs.add(&Path::new("usr/bin").join(name), Entry::Copy(file)),
                None if index <= REQUIRED => bail!("the packages in {} have no {name}", root.display()),
                None => {}
            }
        }
        for directory in LIBRARIES {
            rootfs.tree(&root.join(directory), &Path::new("/").join(directory))?;
        }
        Ok(rootfs)
    }

    /// Directories and links alone.
    fn bare() -> Self {
        let mut rootfs = Self::default();
        for (link, target) in [
            ("bin", "usr/bin"),
            ("sbin", "usr/bin"),
            ("usr/sbin", "bin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
        ] {
            rootfs.add(Path::new(link), Entry::Link(target));
        }
        for directory in ["usr/bin", "usr/lib", "usr/lib64"] {
            rootfs.add(Path::new(directory), Entry::Directory);
        }
        // The kernel's first process writes to this one, before anything could be mounted on /dev.
        rootfs.add(Path::new("dev/console"), Entry::Device(5, 1));
        rootfs
    }

    /// Adds a program of the host, with the libraries it needs.
    fn host_program(&mut self, name: &str) -> Result<()> {
        let file = command::find(name).with_context(|| format!("no {name} here to take into the guest"))?;
        self.program(name, &file);
        Ok(())
    }

    /// Adds a program as /bin/NAME, with the libraries it needs.
    pub fn program(&mut self, name: &str, file: &Path) {
        self.add(&Path::new("usr/bin").join(name), Entry::Copy(file.to_path_buf()));
        // A static program has none, which ldd calls a failure.
        let libraries = command::output(Command::new("ldd").arg(file)).unwrap_or_default();
        for library in libraries_of(&libraries) {
            self.add(&in_guest(library), Entry::Copy(library.to_path_buf()));
        }
    }

    /// Adds a script as /NAME.
    pub fn script(&mut self, name: &str, text: String) {
        self.add(Path::new(name), Entry::Script(text));
    }

    /// Adds all files below a directory of the host, if it exists, with the libraries that plugins need.
    pub fn tree(&mut self, directory: &Path, at: &Path) -> Result<()> {
        let Ok(files) = fs::read_dir(directory) else { return Ok(()) };
        for file in files {
            let file = file.with_context(|| format!("cannot read {}", directory.display()))?.path();
            let at = at.join(file.file_name().unwrap_or_default());
            // Links are followed: what is copied is what they stand for.
            if file.is_dir() && !file.ends_with(UNUSED) {
                self.tree(&file, &at)?;
            } else if file.is_file() {
                self.add(&in_guest(&at), Entry::Copy(file));
            }
        }
        Ok(())
    }

    /// Adds an entry and the directories above it.
    fn add(&mut self, path: &Path, entry: Entry) {
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.entries.entry(parent.to_path_buf()).or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_path_buf(), entry);
    }

    /// Writes the archive.
    pub fn write(&self, to: &File) -> Result<()> {
        let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, to));
        for (path, entry) in &self.entries {
            write_entry(&mut archive, &path.to_string_lossy(), entry)
                .with_context(|| format!("cannot put {} into the guest's file system", path.display()))?;
        }
        archive.finish().context("cannot write the guest's file system")?;
        Ok(())
    }
}

fn write_entry(archive: &mut Archive<impl Write>, name: &str, entry: &Entry) -> Result<()> {
    match entry {
        Entry::Directory => archive.directory(name)?,
        Entry::Link(target) => archive.link(name, target)?,
        Entry::Device(major, minor) => archive.character_device(name, (*major, *minor))?,
        Entry::Script(text) => archive.file(name, 0o755, text.len() as u64, text.as_bytes())?,
        Entry::Copy(from) => {
            let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
            let meta = file.metadata()?;
            archive.file(name, meta.permissions().mode(), meta.len(), file)?;
        }
    }
    Ok(())
}

/// A program of another system, whose links are meant from its own root.
fn in_root(root: &Path, name: &str) -> Option<PathBuf> {
    let directories = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|directory| root.join(directory));
    let mut file =
        directories.iter().map(|dir| dir.join(name)).find(|file| file.symlink_metadata().is_ok())?;
    while let Ok(target) = fs::read_link(&file) {
        file = match target.strip_prefix("/") {
            Ok(target) => root.join(target),
            Err(_) => file.parent()?.join(target),
        };
    }
    file.is_file().then_some(file)
}

/// The libraries in ldd's output, the loader included: `libc.so.6 => /lib/…/libc.so.6 (0x…)`.
fn libraries_of(ldd: &str) -> impl Iterator<Item = &Path> {
    ldd.lines().filter_map(|line| line.split_whitespace().rfind(|word| word.starts_with('/'))).map(Path::new)
}

/// Where a file of the host is in the guest, in which /bin, /sbin and /lib are links to what is below /usr.
fn in_guest(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    let in_usr = ["lib", "lib64", "bin", "sbin"].iter().any(|top| path.starts_with(top));
    if in_usr { Path::new("usr").join(path) } else { path.to_path_buf() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loader is named without an arrow, and the kernel's own page is no file.
    #[test]
    fn libraries_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f8a)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f8b)\n\tlibgone.so => not found\n";
        let libraries: Vec<_> = libraries_of(ldd).collect();
        assert_eq!(
            libraries,
            [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
    }

    /// A file may come by its old or its new path: it must not land in a directory that is a link.
    #[test]
    fn paths_are_merged_into_usr() {
        assert_eq!(in_guest(Path::new("/lib/x/libc.so.6")), Path::new("usr/lib/x/libc.so.6"));
        assert_eq!(in_guest(Path::new("/usr/lib/x/libc.so.6")), Path::new("usr/lib/x/libc.so.6"));
        assert_eq!(in_guest(Path::new("/etc/iproute2/group")), Path::new("etc/iproute2/group"));
    }

    /// The kernel unpacks in order: whatever is added first, a directory precedes its files.
    #[test]
    fn directories_precede_their_files() {
        let mut rootfs = Rootfs::default();
        rootfs.add(Path::new("usr/lib/modules/6/x.ko"), Entry::Device(1, 1));
        rootfs.add(Path::new("usr/bin"), Entry::Directory);
        let names: Vec<_> = rootfs.entries.keys().map(|path| path.display().to_string()).collect();
        assert_eq!(
            names,
            ["usr", "usr/bin", "usr/lib", "usr/lib/modules", "usr/lib/modules/6", "usr/lib/modules/6/x.ko"]
        );
    }
}
