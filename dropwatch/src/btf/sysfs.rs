//! Where the running kernel shows its type information.

use std::{fs, io, path::Path};

/// The directory with a file for the kernel and, since Linux 5.11, one for each loaded module.
///
/// There if the kernel was built with `CONFIG_DEBUG_INFO_BTF` (modules: `CONFIG_DEBUG_INFO_BTF_MODULES`).
/// Anyone may read it.
pub const DIRECTORY: &str = "/sys/kernel/btf";

/// The file of the kernel itself.
pub const VMLINUX: &str = "vmlinux";

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
