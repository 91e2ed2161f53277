//! Where the running kernel shows its type information.

use std::{
    borrow::Cow,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use super::{Btf, Error};
use crate::sys::map_constant;

/// The directory with a file for the kernel and, since Linux 5.11, one for each loaded module.
///
/// There if the kernel was built with `CONFIG_DEBUG_INFO_BTF` (modules: `CONFIG_DEBUG_INFO_BTF_MODULES`).
/// Anyone may read it.
pub const DIRECTORY: &str = "/sys/kernel/btf";

/// The file of the kernel itself.
pub const VMLINUX: &str = "vmlinux";

/// The kernel's type information, read once, at its first use; clones share it.
///
/// Up to 6 MB, until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct KernelBtf(Arc<Kernel>);

#[derive(Debug)]
struct Kernel {
    directory: PathBuf,
    btf: OnceLock<Result<Btf<'static>, Arc<LoadError>>>,
}

impl Default for KernelBtf {
    /// Of the running kernel.
    fn default() -> Self {
        Self::at(DIRECTORY)
    }
}

impl KernelBtf {
    /// Of the kernel that shows its own in a directory.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Kernel { directory: directory.into(), btf: OnceLock::new() }))
    }

    /// The type information.
    ///
    /// # Errors
    /// It is not there, or nothing that can be used: the same error each time.
    pub fn get(&self) -> Result<&Btf<'static>, Arc<LoadError>> {
        let Kernel { directory, btf } = &*self.0;
        btf.get_or_init(|| load(directory).map_err(Arc::new)).as_ref().map_err(Arc::clone)
    }
}

fn load(directory: &Path) -> Result<Btf<'static>, LoadError> {
    let path = || directory.join(VMLINUX);
    let bytes = contents(directory).map_err(|cause| LoadError::Read { path: path(), cause })?;
    Btf::parse(bytes).map_err(|cause| LoadError::Parse { path: path(), cause })
}

/// The kernel's own memory where it shows that (Linux 6.16): a read of a file of this kind gets one page, and a copy of all of
/// them takes longer than what is looked for in them.
fn contents(directory: &Path) -> io::Result<Cow<'static, [u8]>> {
    if directory == Path::new(DIRECTORY)
        && let Ok(bytes) = File::open(directory.join(VMLINUX)).and_then(|file| map_constant(&file))
    {
        return Ok(Cow::Borrowed(bytes));
    }
    read(directory, VMLINUX).map(Cow::Owned)
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system refused.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It holds type information that is broken, or newer than this program.
    #[error("cannot use {}: {cause}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: Error,
    },
}

/// The type information of the running kernel: some 5 MB.
///
/// # Errors
/// Those of the system; not found if the kernel shows none.
pub fn read_vmlinux() -> io::Result<Vec<u8>> {
    read(Path::new(DIRECTORY), VMLINUX)
}

/// The type information of the kernel or of a module.
///
/// # Errors
/// Those of the system; not found if the module is not loaded (any more).
pub fn read(directory: &Path, name: &str) -> io::Result<Vec<u8>> {
    fs::read(directory.join(name))
}

/// The loaded modules that have type information, sorted.
///
/// # Errors
/// Those of the system; not found if the kernel shows no type information.
pub fn modules(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        // Module names are ASCII.
        names.extend(entry?.file_name().into_string().ok().filter(|name| name != VMLINUX));
    }
    names.sort_unstable();
    Ok(names)
}
