//! What the kernel reports about a process's descriptors.

use std::{fs, path::Path, str::FromStr};

use anyhow::{Context, Result};

/// The text about each descriptor; one that was closed meanwhile has none.
pub fn texts(fdinfo: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(fdinfo).with_context(|| format!("cannot read {}", fdinfo.display()))?;
    entries.map(|entry| Ok(fs::read_to_string(entry?.path()).unwrap_or_default())).collect()
}

/// What follows `name:`, if there is such a line.
pub fn field<T: FromStr>(text: &str, name: &str) -> Option<T> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that begin alike are other fields.
    #[test]
    fn fields_are_read_whole() {
        let text = "prog_type:\t17\nprog_id:\t41\nprog_ids:\t7\n";
        assert_eq!(field(text, "prog_id"), Some(41));
        assert_eq!(field::<u32>(text, "prog"), None);
    }
}
