//! Hostile input for everything that dropwatch reads.
//!
//! A target takes any bytes and panics if what it tries does not hold for them. `cargo test` tries the inputs in
//! `corpus/TARGET`, and changes of each; `cargo xtask fuzz` has libFuzzer look for inputs that reach further.

mod targets;

use std::{fs, path::Path};

pub use targets::TARGETS;

/// Something to try.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its inputs' directory.
    pub name: &'static str,
    /// Tries an input.
    pub run: fn(&[u8]),
}

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The inputs of a target in the repository, in the order of their names.
///
/// # Panics
///
/// If there are none, or one cannot be read.
#[must_use]
pub fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect("a directory that can be read").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    files.iter().map(|file| fs::read(file).expect("a file that can be read")).collect()
}
