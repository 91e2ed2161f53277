//! Where return probes of other tracers have functions return to, by the symbol table.

use std::cmp::min;

use dropwatch_common::trampoline::{PIECES, Piece, Trampolines, is};

use crate::{
    kernel::kallsyms::{Index, Symbol},
    model::location::{ReturnProbe, return_probe},
};

/// The functions that pass the address they return to as the location of a drop.
const FREE: [&str; 5] =
    ["kfree_skb", "kfree_skb_reason", "sk_skb_reason_drop", "kfree_skb_list", "kfree_skb_list_reason"];

const FREEING: u32 = bit(is::FREEING);
const RETURN: u32 = bit(is::RETURN);
const PROGRAM: u32 = bit(is::PROGRAM);

#[expect(clippy::cast_possible_truncation, reason = "one of the lowest bits")]
const fn bit(bit: u64) -> u32 {
    bit as u32
}

/// The size of a page, and of the largest trampoline.
const PAGE: u64 = 4096;

/// What is known of them now. If there are more than the kernel has room for, the locations that the others hide stay
/// hidden.
#[must_use]
pub fn find(index: &Index) -> Trampolines {
    let mut all = Trampolines::default();
    let mut found: Vec<_> = index
        .find_where(|name, _| return_probe(name).is_some() || is_freeing(name))
        .map(|symbol| piece(&symbol))
        .collect();
    // What belongs to the kernel itself goes first: it is little, and the rest means nothing without it.
    found.sort_by_key(|piece| piece.kind == PROGRAM);
    if found.len() > PIECES {
        log::info!(
            "{} trampolines and functions that free packets, of which {PIECES} are known",
            found.len()
        );
    }
    all.pieces.iter_mut().zip(found).for_each(|(place, piece)| *place = piece);
    all.pieces.sort_unstable();
    let trampolines = all.pieces.into_iter().filter(|piece| piece.length > 0 && piece.kind != FREEING);
    for Piece { start, length, .. } in trampolines {
        all.mark(start);
        all.mark(start + u64::from(length) - 1);
    }
    all
}

/// By the name in the source, which a compiler that splits a function adds to.
fn is_freeing(name: &str) -> bool {
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    FREE.contains(&name)
}

fn piece(symbol: &Symbol<'_>) -> Piece {
    let size = symbol.size.unwrap_or(PAGE);
    // The symbol after a trampoline may be far away.
    let (kind, length) = match return_probe(symbol.name) {
        Some(ReturnProbe::Kernel) => (RETURN, min(size, PAGE)),
        Some(ReturnProbe::Program) => (PROGRAM, min(size, PAGE)),
        None => (FREEING, size),
    };
    Piece { start: symbol.start, length: u32::try_from(length).unwrap_or(u32::MAX), kind }
}

#[cfg(test)]
mod tests {
    use dropwatch_common::trampoline::reaches;

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
        let is_there = |address| all.may_contain(address) && all.contain(address, reaches);
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
            all().pieces.iter().filter(|piece| piece.kind == FREEING).map(|it| it.start).collect();
        assert_eq!(starts, [0xffff_ffff_8180_0000, 0xffff_ffff_8180_0080, 0xffff_ffff_8190_0000]);
    }

    #[test]
    fn more_than_there_is_room_for_leave_the_first_ones() {
        let line = |n| format!("ffffffffc0{n:03x}000 t bpf_trampoline_{n}\t[bpf]\n");
        let mut text: String = (0..80).map(line).collect();
        // What frees packets comes first, wherever it is.
        text.push_str("ffffffffc1000000 T sk_skb_reason_drop\n");
        let all = find(&Index::read(text.as_bytes()).expect("a table"));
        let contains = |address| all.contain(address, reaches);
        assert!(contains(0xffff_ffff_c003_e000) && !contains(0xffff_ffff_c003_f000));
        assert!(all.pieces.iter().any(|piece| piece.kind == FREEING));
    }
}
