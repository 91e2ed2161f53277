//! Where distributions, debuginfod and developers put debug information, and which package brings it.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    fs::{self, File},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use object::{
    LittleEndian, ReadCache,
    elf::{ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID},
    read::elf::{FileHeader as _, SectionHeader as _},
};

use crate::{kernel::kallsyms::saved::note_named, model::foreign::Foreign};

/// Where packages of distributions put debug information.
const PACKAGES: &str = "/usr/lib/debug";
/// Where modules are, on systems with and without a merged `/usr`.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// Finds files with debug information of the running kernel and its modules.
#[derive(Clone, Debug)]
pub struct DebugFiles {
    /// As `uname -r` has it.
    release: String,
    /// The root of the file system.
    root: PathBuf,
    /// Directories laid out as `/usr/lib/debug` is, the first one first.
    packages: Vec<PathBuf>,
    /// Directories laid out as debuginfod's cache is.
    caches: Vec<PathBuf>,
    /// Whether a directory was given.
    pub(super) was_given: bool,
}

impl DebugFiles {
    /// Looks in `first`, if given, and then where this system has such files.
    #[must_use]
    pub fn new(first: Option<&Path>) -> Option<Self> {
        let release = nix::sys::utsname::uname().ok()?.release().to_str()?.to_owned();
        let mut packages: Vec<_> = first.map(Path::to_owned).into_iter().collect();
        packages.push(PACKAGES.into());
        let mut caches: Vec<_> = first.map(Path::to_owned).into_iter().collect();
        caches.extend(debuginfod_caches());
        Some(Self { release, root: "/".into(), packages, caches, was_given: first.is_some() })
    }

    /// Those of the system below `root` that runs `release`.
    #[cfg(test)]
    #[must_use]
    pub fn in_root(root: &Path, release: &str) -> Self {
        let packages = vec![root.join("usr/lib/debug")];
        let caches = vec![root.join("root/.cache/debuginfod_client")];
        Self { release: release.to_owned(), root: root.into(), packages, caches, was_given: false }
    }

    /// The build id of the running kernel.
    #[must_use]
    pub fn kernel_build_id(&self) -> Option<Vec<u8>> {
        notes_build_id(&self.root.join("sys/kernel/notes"))
    }

    /// The build id of a module that is loaded.
    #[must_use]
    pub fn module_build_id(&self, name: &Foreign) -> Option<Vec<u8>> {
        // The name comes from the kernel's symbol table, or from a file.
        if name.bytes().contains(&b'/') {
            return None;
        }
        notes_build_id(
            &self
                .root
                .join("sys/module")
                .join(OsStr::from_bytes(name.bytes()))
                .join("notes/.note.gnu.build-id"),
        )
    }

    /// Where the kernel's own file may be.
    #[must_use]
    pub fn of_kernel(&self, build_id: &[u8]) -> Vec<PathBuf> {
        let release = &self.release;
        let mut paths = self.by_build_id(build_id);
        for package in &self.packages {
            paths.extend([package.join(format!("boot/vmlinux-{release}")), package.join("vmlinux")]);
            paths.push(package.join(format!("vmlinux-{release}")));
            paths.extend(MODULES.map(|modules| package.join(modules).join(release).join("vmlinux")));
        }
        paths.extend(with_debug_suffix(&paths[self.packages.len() + self.caches.len()..]));
        paths.push(self.root.join(format!("boot/vmlinux-{release}")));
        for modules in MODULES {
            let directory = self.root.join(modules).join(release);
            paths.extend([directory.join("build/vmlinux"), directory.join("vmlinux")]);
        }
        paths
    }

    /// Where the file of a module may be.
    #[must_use]
    pub fn of_module(&self, name: &Foreign, build_id: &[u8]) -> Vec<PathBuf> {
        let mut paths = self.by_build_id(build_id);
        let Some(inside) = self.module_path(name) else { return paths };
        let mut named = Vec::new();
        for package in &self.packages {
            named.extend(MODULES.map(|modules| package.join(modules).join(&self.release).join(&inside)));
            named.extend(inside.file_name().map(|file| package.join(file)));
        }
        paths.extend(with_debug_suffix(&named));
        paths.append(&mut named);
        paths.extend(MODULES.map(|modules| self.root.join(modules).join(&self.release).join(&inside)));
        paths
    }

    /// Where a file may be by its build id alone.
    fn by_build_id(&self, build_id: &[u8]) -> Vec<PathBuf> {
        let hex = hex(build_id);
        let (first, rest) = hex.split_at_checked(2).unwrap_or((&hex, ""));
        let packages = self.packages.iter().map(|it| it.join(format!(".build-id/{first}/{rest}.debug")));
        packages.chain(self.caches.iter().map(|cache| cache.join(&hex).join("debuginfo"))).collect()
    }

    /// A module's path below the directory of its release, without the suffix of a compressed file.
    fn module_path(&self, name: &Foreign) -> Option<PathBuf> {
        let list = MODULES.iter().find_map(|modules| {
            let directory = self.root.join(modules).join(&self.release);
            fs::read_to_string(directory.join("modules.dep")).ok()
        })?;
        list.lines().filter_map(|line| line.split_once(':')).find_map(|(path, _)| {
            let (stem, _) = path.rsplit_once(".ko")?;
            let file = stem.rsplit('/').next()?;
            // In a file's name it may be either.
            (file.replace('-', "_").as_bytes() == name.bytes()).then(|| format!("{stem}.ko").into())
        })
    }

    /// What would bring the running kernel's debug information, in words.
    #[must_use]
    pub fn cure(&self) -> String {
        let os_release = fs::read_to_string(self.root.join("etc/os-release")).unwrap_or_default();
        let fetch = self.kernel_build_id().map(|id| format!("`debuginfod-find debuginfo {}`", hex(&id)));
        match (package(&os_release, &self.release), fetch) {
            (Some(package), Some(fetch)) => format!("{package} brings it, or {fetch}"),
            (Some(package), None) => format!("{package} brings it"),
            (None, Some(fetch)) => format!("{fetch} brings it where the distribution has a debuginfod"),
            (None, None) => "the distribution's package of debug information brings it".to_owned(),
        }
    }
}

/// How the package with the kernel's debug information is installed, on the distributions that are known.
fn package(os_release: &str, release: &str) -> Option<String> {
    let value = |key| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches(['"', '\'']))
    };
    let like = value("ID_LIKE").unwrap_or_default().split(' ');
    value("ID").into_iter().chain(like).find_map(|distribution| match distribution {
        "debian" => Some(format!("`apt install linux-image-{release}-dbg`")),
        "ubuntu" => Some(format!(
            "`apt install linux-image-{release}-dbgsym` (from Ubuntu's archive of debug symbols)"
        )),
        "fedora" | "rhel" | "centos" => Some(format!("`dnf debuginfo-install kernel-core-{release}`")),
        _ => None,
    })
}

/// Where debuginfod's client keeps what it has fetched.
fn debuginfod_caches() -> Vec<PathBuf> {
    let of = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = of("HOME");
    let below = |directory: &str| home.as_ref().map(|home| home.join(directory));
    let cache = of("XDG_CACHE_HOME").or_else(|| below(".cache"));
    let caches = [
        of("DEBUGINFOD_CACHE_PATH"),
        cache.map(|cache| cache.join("debuginfod_client")),
        below(".debuginfod_client_cache"),
    ];
    caches.into_iter().flatten().collect()
}

/// The same paths with the suffix of a file that holds nothing but debug information.
fn with_debug_suffix(paths: &[PathBuf]) -> Vec<PathBuf> {
    let suffixed = |path: &PathBuf| {
        let mut path = path.clone().into_os_string();
        path.push(".debug");
        path.into()
    };
    paths.iter().map(suffixed).collect()
}

/// The build id in notes as the kernel shows them.
fn notes_build_id(path: &Path) -> Option<Vec<u8>> {
    let notes = fs::read(path).ok()?;
    note_named(&notes, b"GNU", Some(u64::from(NT_GNU_BUILD_ID))).map(<[u8]>::to_vec)
}

/// The build id of an ELF file: the note of that type that is named GNU. Xen has notes of the same type in every
/// kernel for x86, in front of it.
pub(super) fn build_id_of(path: &Path) -> Option<Vec<u8>> {
    let data = ReadCache::new(File::open(path).ok()?);
    let header = FileHeader64::<LittleEndian>::parse(&data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, &data).ok()?;
    sections.iter().find_map(|section| {
        let mut notes = section.notes(endian, &data).ok()??;
        while let Some(note) = notes.next().ok()? {
            if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec());
            }
        }
        None
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
