//! Whether a place in the code that a rule names can be one in this kernel.

use super::kallsyms::{Index, KERNEL, State, Symbol};
use crate::model::{
    suggestions,
    symbol_spec::{CodePlace, SymbolSpec},
};

/// Refuses a place that no drop of this kernel can be at. A function of a module that is not loaded can be.
///
/// # Errors
/// Why there is no such place, with the nearest names.
pub fn check(place: &CodePlace, index: &Index) -> Result<(), String> {
    visible(index)?;
    match place {
        CodePlace::Address(address) if index.lookup(*address).is_none() => Err(format!(
            "this kernel has no function at {address:#x}: addresses change at every boot, and when modules are \
             loaded"
        )),
        CodePlace::Address(_) => Ok(()),
        CodePlace::Named(place) => check_name(place, index),
    }
}

/// Refuses a table that names no locations.
///
/// # Errors
/// Why it does not, and the cure.
pub fn visible(index: &Index) -> Result<(), String> {
    match index.state() {
        State::Visible => Ok(()),
        State::Hidden => Err("the kernel hides its addresses, so locations have no names: run as root with \
                              kernel.kptr_restrict at 0 or 1"
            .to_owned()),
        State::Empty => Err("the kernel's symbol table is empty, so locations have no names".to_owned()),
    }
}

/// Whether a table has a function that is meant.
#[must_use]
pub fn has(place: &SymbolSpec, index: &Index) -> bool {
    index.find_where(|name, module| place.means(name, module)).any(|symbol| reaches(place, &symbol))
}

fn check_name(place: &SymbolSpec, index: &Index) -> Result<(), String> {
    let found: Vec<_> = index.find_where(|name, module| place.means(name, module)).collect();
    if found.iter().any(|symbol| reaches(place, symbol)) {
        return Ok(());
    }
    match found.as_slice() {
        [] => absent(place, index),
        [symbol, ..] => Err(beyond(place, symbol)),
    }
}

/// Whether the function goes as far as the place is, and is as long as the place says.
fn reaches(place: &SymbolSpec, symbol: &Symbol<'_>) -> bool {
    let Some(size) = symbol.size else { return true };
    place.offset.is_none_or(|offset| offset < size) && place.size.is_none_or(|said| said == size)
}

fn beyond(place: &SymbolSpec, symbol: &Symbol<'_>) -> String {
    let size = symbol.size.unwrap_or_default();
    let function = format!("{} [{}]", symbol.name, symbol.module);
    match place.size {
        Some(said) if said != size => format!(
            "{function} has {size:#x} bytes in this kernel, not {said:#x}: the location is of another build"
        ),
        _ => format!("{function} has {size:#x} bytes, so '{place}' is beyond its end"),
    }
}

/// No function has that name: a mistake, unless it is of a module that is not loaded yet.
fn absent(place: &SymbolSpec, index: &Index) -> Result<(), String> {
    let name = &place.symbol;
    let Some(module) = &place.module else {
        let hint = suggestions::hints(name, names(index, None));
        return Err(format!(
            "this kernel has no function '{name}'{hint} (one of a module that is loaded later is named with its \
             module: {name}[MODULE])"
        ));
    };
    let is_loaded = module == KERNEL || index.find_where(|_, of| of == module).next().is_some();
    if !is_loaded {
        return Ok(());
    }
    if let Some(elsewhere) = index.find_where(|function, _| place.names(function)).next() {
        return Err(format!("'{name}' is in [{}], not in [{module}]", elsewhere.module));
    }
    let hint = suggestions::hints(name, names(index, Some(module)));
    Err(format!("[{module}] has no function '{name}'{hint}"))
}

fn names<'a>(index: &'a Index, module: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    index
        .find_where(move |name, of| !name.starts_with("__pfx_") && module.is_none_or(|module| module == of))
        // As it is called in the source.
        .map(|symbol| symbol.name.split('.').next().unwrap_or(symbol.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "\
ffffffff81000000 T ip_rcv
ffffffff81000100 t nft_do_chain.constprop.0
ffffffff81000200 T nft_do_chain_ipv4
ffffffff81000280 T _etext
ffffffffc0000000 t gre_rcv\t[gre]
ffffffffc0000080 t gre_end\t[gre]
";

    fn index() -> Index {
        Index::read(KALLSYMS.as_bytes()).expect("a table")
    }

    fn checked(place: &str) -> Result<(), String> {
        check(&CodePlace::parse(place).expect("a place"), &index())
    }

    #[test]
    fn what_the_kernel_has_is_accepted() {
        for place in [
            "ip_rcv",
            "ip_rcv[kernel]",
            "ip_rcv+0xff",
            "ip_rcv+0x10/0x100 [kernel]",
            "nft_do_chain",
            "nft_do_chain.constprop.0",
            "gre_rcv [gre]",
            "gre_end+0x800 [gre]",
            "0xffffffff81000010",
        ] {
            assert_eq!(checked(place), Ok(()), "{place}");
        }
    }

    #[test]
    fn a_module_may_be_loaded_later() {
        assert_eq!(checked("nf_ct_frag6_gather[nf_defrag_ipv6]"), Ok(()));
        let spec = SymbolSpec::parse("nf_ct_frag6_gather[nf_defrag_ipv6]").expect("a place");
        assert!(!has(&spec, &index()), "it has not appeared");
        assert!(has(&SymbolSpec::parse("gre_rcv[gre]").expect("a place"), &index()));
    }

    #[test]
    fn what_it_does_not_have_is_refused() {
        for (place, words) in [
            ("nft_do_chian", "did you mean 'nft_do_chain' or 'nft_do_chain_ipv4'"),
            ("ip_recv", "did you mean 'ip_rcv'"),
            ("ip_recv[kernel]", "[kernel] has no function 'ip_recv': did you mean 'ip_rcv'"),
            ("gre_rvc[gre]", "did you mean 'gre_rcv'"),
            ("gre_rcv[kernel]", "'gre_rcv' is in [gre], not in [kernel]"),
            ("ip_rcv[gre]", "'ip_rcv' is in [kernel], not in [gre]"),
            ("ip_rcv+0x100", "beyond its end"),
            ("ip_rcv+0x10/0x108", "not 0x108: the location is of another build"),
            ("0xffffffff90000000", "no function at 0xffffffff90000000"),
            ("0x10", "no function at 0x10"),
        ] {
            let problem = checked(place).expect_err(place);
            assert!(problem.contains(words), "{place}: {problem}");
        }
    }

    #[test]
    fn hidden_addresses_cannot_be_judged() {
        let hidden = Index::read("0000000000000000 T ip_rcv\n".as_bytes()).expect("a table");
        let problem = check(&CodePlace::parse("ip_rcv").expect("a place"), &hidden).expect_err("hidden");
        assert!(problem.contains("kptr_restrict"), "{problem}");
    }
}
