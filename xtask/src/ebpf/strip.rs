//! Takes out of the BPF object what nothing reads.
//!
//! DWARF is nine tenths of the linker's output, and `.BTF.ext`, which says which line of source each instruction is from, is
//! two thirds of the rest: a start would spend milliseconds on it. The loader needs `.BTF` for the definitions of maps,
//! the symbols (of maps and globals) and the relocations, all of which stay.

use anyhow::{Context, Result, ensure};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// What a BPF object cannot be loaded without; a stripped one that lacks it is refused at once.
const NEEDED: [&str; 4] = [".BTF", ".symtab", "license", "maps"];

/// The object without what says where its code is from.
pub fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("the linker's output is no ELF file")?;
    for section in &mut elf.sections {
        section.delete = is_about_sources(&section.name.to_string());
    }
    name_sections(&mut elf);
    let mut stripped = Vec::new();
    elf.write(&mut stripped).context("cannot write the stripped object")?;
    check(&stripped)?;
    Ok(stripped)
}

/// LLVM puts the names of sections and of symbols into one table; the writer needs two.
fn name_sections(elf: &mut Builder<'_>) {
    if elf.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        return;
    }
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
}

/// DWARF's sections, BTF's lines, and the relocations of them.
fn is_about_sources(section: &str) -> bool {
    let section = section.strip_prefix(".rel").unwrap_or(section);
    section.starts_with(".debug_") || section == ".BTF.ext"
}

fn check(object: &[u8]) -> Result<()> {
    let elf = Builder::read(object).context("the stripped object is no ELF file")?;
    for needed in NEEDED {
        let found = elf.sections.iter().any(|section| section.name.to_string() == needed);
        ensure!(
            found,
            "the BPF object has no section {needed}: built without `-C link-arg=--btf`, or stripped too far"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BTF's types and the program's relocations have similar names, and stay.
    #[test]
    fn sections_about_sources_are_recognised_by_name() {
        for gone in [".debug_info", ".rel.debug_info", ".debug_line", ".BTF.ext", ".rel.BTF.ext"] {
            assert!(is_about_sources(gone), "{gone}");
        }
        for kept in [".BTF", ".rel.BTF", ".relraw_tp/kfree_skb", ".rodata", "maps"] {
            assert!(!is_about_sources(kept), "{kept}");
        }
    }

    /// The committed object is the result of this very function: it strips to itself, so nothing is lost.
    #[test]
    fn stripping_again_changes_nothing() {
        let object = include_bytes!("../../../dropwatch/bpf/dropwatch.bpf.o");
        assert_eq!(strip(object).unwrap(), object);
    }

    /// An object without the loader's sections must not get as far as the repository.
    #[test]
    fn an_object_without_maps_is_refused() {
        let object = include_bytes!("../../../dropwatch/bpf/dropwatch.bpf.o");
        let mut elf = Builder::read(&object[..]).unwrap();
        for section in &mut elf.sections {
            section.delete =
                [&b"maps"[..], b".relraw_tp/kfree_skb", b".rel.BTF"].contains(&section.name.as_slice());
        }
        let mut crippled = Vec::new();
        elf.write(&mut crippled).unwrap();
        assert!(strip(&crippled).unwrap_err().to_string().contains("no section maps"));
    }
}
