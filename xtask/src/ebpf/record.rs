//! The record beside the committed object: what made it, and from what.

use std::fmt;

use anyhow::{Context, Result, bail};

/// What is known of a built object. Two objects with equal `compiler`, `linker` and `sources` are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `rustc --version` with its commit and the version of LLVM.
    pub compiler: String,
    /// The version of bpf-linker and of the LLVM in it.
    pub linker: String,
    /// The digest of the sources.
    pub sources: String,
    /// The digest of the object.
    pub object: String,
    /// The size of the object in bytes, for readers of the history.
    pub bytes: usize,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compiler, linker, sources, object, bytes } = self;
        writeln!(f, "# Written by `cargo xtask ebpf` and checked by `cargo xtask ebpf --check`.")?;
        writeln!(f, "compiler = \"{compiler}\"\nlinker = \"{linker}\"")?;
        writeln!(f, "sources-sha256 = \"{sources}\"\nobject-sha256 = \"{object}\"\nobject-bytes = {bytes}")
    }
}

impl Record {
    /// Reads what [`Display`](fmt::Display) writes: one `key = value` a line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut record = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) =
                line.split_once(" = ").with_context(|| format!("not `key = value`: {line}"))?;
            let value = value.trim_matches('"');
            match key {
                "compiler" => record.compiler = value.into(),
                "linker" => record.linker = value.into(),
                "sources-sha256" => record.sources = value.into(),
                "object-sha256" => record.object = value.into(),
                "object-bytes" => {
                    record.bytes = value.parse().with_context(|| format!("no number of bytes: {value}"))?;
                }
                _ => bail!("unknown key {key}"),
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is what is read.
    #[test]
    fn a_record_survives_the_file() {
        let record = Record {
            compiler: "rustc 1.96.0 (ac68faa20 2026-05-25), LLVM 22.1.8".into(),
            linker: "bpf-linker 0.13.0, LLVM 22.1.8".into(),
            sources: "ab".into(),
            object: "cd".into(),
            bytes: 8592,
        };
        assert_eq!(Record::parse(&record.to_string()).unwrap(), record);
    }

    /// A damaged record must not pass for one that says nothing.
    #[test]
    fn a_damaged_record_is_an_error() {
        assert!(Record::parse("<<<<<<< ours\n").is_err());
        assert!(Record::parse("linkre = \"x\"\n").is_err());
        assert!(Record::parse("object-bytes = \"many\"\n").is_err());
    }
}
