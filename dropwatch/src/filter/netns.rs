//! Network namespaces by name: the numbers of this host.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use crate::spelling;

/// Where `ip netns` mounts them.
const NAMED: &str = "/run/netns";

/// The own one.
const OWN: &str = "/proc/self/ns/net";

/// The number of the namespace that is `self`, or is mounted under a name, or is at a path.
///
/// # Errors
/// There is none: why, and the nearest name.
pub fn number(name: &str) -> Result<u32, String> {
    match name {
        "self" => at(Path::new(OWN)).map_err(|error| format!("{OWN}: {error}")),
        path if path.contains('/') => at(Path::new(path)).map_err(|error| format!("{path}: {error}")),
        "" | "." | ".." => Err("a network namespace has a name".to_owned()),
        name => at(&Path::new(NAMED).join(name)).map_err(|error| unknown(name, &error)),
    }
}

fn at(path: &Path) -> io::Result<u32> {
    let found = fs::metadata(path)?;
    // Namespaces are files of one file system; a file of another has a number that means something else.
    if found.dev() != fs::metadata(OWN)?.dev() {
        return Err(io::Error::other("this is not a network namespace"));
    }
    u32::try_from(found.ino()).map_err(io::Error::other)
}

fn unknown(name: &str, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return format!("{NAMED}/{name}: {error}");
    }
    let known: Vec<_> = fs::read_dir(NAMED)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let hint = spelling::hint(name, known.iter().map(String::as_str));
    format!("there is no network namespace '{name}'{hint}")
}
