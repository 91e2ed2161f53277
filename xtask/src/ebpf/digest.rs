//! Digests that tie the committed object to the sources it was built from.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Everything the object is made from, beside the compiler and what the lock file pins.
const SOURCES: [&str; 5] = [
    "dropwatch-common/Cargo.toml",
    "dropwatch-common/src",
    "dropwatch-ebpf/Cargo.lock",
    "dropwatch-ebpf/Cargo.toml",
    "dropwatch-ebpf/src",
];

/// The SHA-256 of some bytes, in hexadecimal.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// One digest over the names and contents of all sources of the BPF object below `root`.
pub fn of_sources(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut all = Sha256::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        // One line for each file, as sha256sum prints it: moving a byte from one file to the next shows.
        all.update(format!("{}  {}\n", of_bytes(&bytes), name.display()));
    }
    Ok(hex(&all.finalize()))
}

/// Adds `path`, or the files below it if it is a directory.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let reading = || format!("cannot read {}", path.display());
    if !fs::metadata(path).with_context(reading)?.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(reading)? {
        collect(&entry.with_context(reading)?.path(), files)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for source in SOURCES {
            let file = dir.path().join(source);
            let file = if source.ends_with("src") { file.join("main.rs") } else { file };
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, source).unwrap();
        }
        dir
    }

    /// The well-known digest of the empty string.
    #[test]
    fn digests_are_sha256() {
        assert!(of_bytes(b"").starts_with("e3b0c44298fc1c149afbf4c8996fb924"));
    }

    /// The same files elsewhere have the same digest; a changed, added or renamed file has another.
    #[test]
    fn sources_are_told_apart_by_name_and_content_only() {
        let (one, other) = (sources(), sources());
        let digest = of_sources(one.path()).unwrap();
        assert_eq!(digest, of_sources(other.path()).unwrap());
        let main = other.path().join("dropwatch-ebpf/src/main.rs");
        fs::rename(&main, main.with_file_name("count.rs")).unwrap();
        assert_ne!(digest, of_sources(other.path()).unwrap());
        fs::rename(main.with_file_name("count.rs"), &main).unwrap();
        assert_eq!(digest, of_sources(other.path()).unwrap());
        fs::write(main.with_file_name("new.rs"), "").unwrap();
        assert_ne!(digest, of_sources(other.path()).unwrap());
    }

    /// A source that is gone is an error that names it, not another digest.
    #[test]
    fn a_missing_source_is_named() {
        let dir = sources();
        fs::remove_file(dir.path().join("dropwatch-ebpf/Cargo.lock")).unwrap();
        assert!(of_sources(dir.path()).unwrap_err().to_string().contains("dropwatch-ebpf/Cargo.lock"));
    }
}
