//! What an object offers to the loader: the same from every compiler, whatever the code in it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use object::{File, Object as _, ObjectSection as _, ObjectSymbol as _};

/// A program, a map or a constant.
type Item = (String, String, Shape);

/// What has to be the same of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    /// A program's code is its compiler's matter.
    Code,
    /// A map's definition.
    Map(Vec<u8>),
    /// A constant's size: the loader writes its value.
    Constant(u64),
}

/// What an object offers: section, name and shape of each.
fn of(object: &[u8]) -> Result<BTreeSet<Item>> {
    let file = File::parse(object).context("the BPF object is no ELF file")?;
    let mut surface = BTreeSet::new();
    for symbol in file.symbols().filter(|symbol| symbol.is_definition() && symbol.is_global()) {
        let Some(section) = symbol.section_index() else { continue };
        let section = file.section_by_index(section)?;
        let name = section.name()?;
        let shape = match name {
            // Functions that programs call.
            ".text" => continue,
            "maps" => {
                let definition = section.data_range(symbol.address(), symbol.size())?;
                Shape::Map(definition.context("a map without a definition")?.to_vec())
            }
            _ if name.starts_with('.') => Shape::Constant(symbol.size()),
            _ => Shape::Code,
        };
        surface.insert((name.to_owned(), symbol.name()?.to_owned(), shape));
    }
    ensure!(!surface.is_empty(), "the BPF object offers nothing");
    Ok(surface)
}

/// How much both objects offer; fails if it is not the same.
pub fn compare(shown: &str, committed: &[u8], fresh: &[u8]) -> Result<usize> {
    let (committed, fresh) = (of(committed)?, of(fresh)?);
    let different: Vec<_> = committed
        .symmetric_difference(&fresh)
        .map(|(section, name, _)| format!("{name} ({section})"))
        .collect();
    ensure!(
        different.is_empty(),
        "{shown} was not built from these sources: it and a fresh build differ in {}. Build it anew with `cargo xtask \
         ebpf` and commit it with its record",
        different.join(", ")
    );
    Ok(committed.len())
}

#[cfg(test)]
mod tests {
    use object::build::elf::{Builder, SectionData};

    use super::*;

    const OBJECT: &[u8] = include_bytes!("../../../dropwatch/bpf/dropwatch.bpf.o");

    /// The committed object with a change.
    fn changed(change: impl Fn(&mut Builder<'_>)) -> Vec<u8> {
        let mut elf = Builder::read(OBJECT).unwrap();
        change(&mut elf);
        let mut bytes = Vec::new();
        elf.write(&mut bytes).unwrap();
        bytes
    }

    /// Programs, maps and constants are found, each once.
    #[test]
    fn an_object_offers_what_the_loader_asks_for() {
        let offered = of(OBJECT).unwrap();
        for name in ["COUNTS", "count_drop", "HAS_REASON"] {
            assert_eq!(
                offered.iter().filter(|(_, found, _)| found == name).count(),
                1,
                "{name}: {offered:?}"
            );
        }
        assert_eq!(compare("o", OBJECT, OBJECT).unwrap(), offered.len());
    }

    /// An object of other sources has another map, a map of another size, or lacks one.
    #[test]
    fn what_differs_is_named() {
        let renamed = changed(|elf| {
            for symbol in &mut elf.symbols {
                if symbol.name.as_slice() == b"COUNTS" {
                    symbol.name = b"OTHERS"[..].into();
                }
            }
        });
        let error = compare("o", OBJECT, &renamed).unwrap_err().to_string();
        assert!(error.contains("COUNTS (maps)") && error.contains("OTHERS (maps)"), "{error}");
        let larger = changed(|elf| {
            for section in &mut elf.sections {
                if let ("maps", SectionData::Data(data)) = (&*section.name.to_string(), &mut section.data) {
                    // The size of the first map's values.
                    data.to_mut()[8] += 8;
                }
            }
        });
        let error = compare("o", OBJECT, &larger).unwrap_err().to_string();
        assert_eq!(error.matches("(maps)").count(), 2, "one map, as it was and as it is: {error}");
    }
}
