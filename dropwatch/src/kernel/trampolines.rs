//! Where return probes of other tracers have functions return to, by the symbol table.

use std::cmp::min;

use dropwatch_common::{probe::Range, trampoline::Trampolines};

use crate::{
    kernel::kallsyms::{Index, Symbol},
    model::location::{ReturnProbe, return_probe},
};

/// The functions that pass the address they return to as the location of a drop.
const FREEING: [&str; 5] =
    ["kfree_skb", "kfree_skb_reason", "sk_skb_reason_drop", "kfree_skb_list", "kfree_skb_list_reason"];

/// The size of a page, and of the largest trampoline.
const PAGE: u64 = 4096;

/// What is known of them now. If there are more than the kernel has room for, the locations that the others hide stay
/// hidden.
#[must_use]
pub fn find(index: &Index) -> Trampolines {
    let mut all = Trampolines::default();
    let (mut returns, mut programs, mut freeing) = (Vec::new(), Vec::new(), Vec::new());
    for symbol in index.find_where(|name, _| return_probe(name).is_some() || is_freeing(name)) {
        match return_probe(symbol.name) {
            Some(ReturnProbe::Kernel) => returns.push(range(&symbol)),
            Some(ReturnProbe::Program) => programs.push(range(&symbol)),
            None => freeing.push(Range { length: symbol.size.unwrap_or(PAGE), ..range(&symbol) }),
        }
    }
    fill(&mut all.returns, &returns);
    fill(&mut all.programs, &programs);
    fill(&mut all.freeing, &freeing);
    let marked: Vec<_> = all.returns.iter().chain(&all.programs).copied().collect();
    for Range { start, length } in marked.into_iter().filter(|range| range.length > 0) {
        all.mark(start);
        all.mark(start + length - 1);
    }
    all
}

/// By the name in the source, which a compiler that splits a function adds to.
fn is_freeing(name: &str) -> bool {
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    FREEING.contains(&name)
}

/// The symbol after a trampoline may be far away.
fn range(symbol: &Symbol<'_>) -> Range {
    Range { start: symbol.start, length: min(symbol.size.unwrap_or(PAGE), PAGE) }
}

fn fill(places: &mut [Range], found: &[Range]) {
    if found.len() > places.len() {
        log::info!("{} trampolines of other tracers, of which {} are known", found.len(), places.len());
    }
    places.iter_mut().zip(found).for_each(|(place, range)| *place = *range);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "\
ffffffff81000000 T arch_rethook_trampoline
ffffffff81000040 T arch_rethook_trampoline_callback
ffffffff81001ff0 T return_to_handler
ffffffff81002030 T ip_rcv
ffffffff81800000 T sk_skb_reason_drop
ffffffff81800080 T kfree_skb_list_reason
ffffffff81800200 T kfree_skb_partial
ffffffff81900000 t sk_skb_reason_drop.cold
ffffffff81900020 T tcp_v4_rcv
ffffffffc0200000 t bpf_trampoline_6442541422\t[bpf]
ffffffffc0300000 t bpf_prog_0123456789abcdef_f\t[bpf]
";

    fn all() -> Trampolines {
        find(&Index::read(KALLSYMS.as_bytes()).expect("a table"))
    }

    #[test]
    fn trampolines_are_known_by_their_names() {
        let all = all();
        let is_there = |address| all.may_contain(address) && all.contain(address, |&range| range);
        for address in [0x8100_0000, 0x8100_1ff0, 0x8100_2010, 0xc020_0060] {
            assert!(is_there(0xffff_ffff_0000_0000 + address), "{address:x}");
        }
        for address in [0x8100_0040, 0x8100_2030, 0x8180_0010, 0xc020_1000, 0xc030_0000] {
            assert!(!is_there(0xffff_ffff_0000_0000 + address), "{address:x}");
        }
        assert_eq!(find(&Index::default()), Trampolines::default());
    }

    #[test]
    fn parts_of_a_function_that_frees_packets_are_known() {
        let starts: Vec<_> =
            all().freeing.iter().take_while(|range| range.length > 0).map(|it| it.start).collect();
        assert_eq!(starts, [0xffff_ffff_8180_0000, 0xffff_ffff_8180_0080, 0xffff_ffff_8190_0000]);
    }

    #[test]
    fn more_than_there_is_room_for_leave_the_first_ones() {
        let line = |n| format!("ffffffffc0{n:03x}000 t bpf_trampoline_{n}\t[bpf]\n");
        let text: String = (0..40).map(line).collect();
        let all = find(&Index::read(text.as_bytes()).expect("a table"));
        let contains = |address| all.contain(address, |&range| range);
        assert!(contains(0xffff_ffff_c001_f000) && !contains(0xffff_ffff_c002_0000));
    }
}
