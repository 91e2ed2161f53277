//! Where things are in the repository.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The root of the repository this program was started from.
pub fn root() -> PathBuf {
    // `cargo run` says where the package is now; the place where it was compiled is the second best guess.
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

/// Whether there are tests that drop packets: the program of that name in `dropwatch/Cargo.toml`.
pub fn has_live_tests() -> bool {
    root().join("tests/live.rs").exists()
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The directory of `cargo install`ed programs and of the registry.
pub fn cargo_home() -> PathBuf {
    let home = || env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

/// A path as the user would type it from the root of the repository.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
