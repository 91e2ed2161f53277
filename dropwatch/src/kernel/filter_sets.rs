//! The values that the names of an expression mean now: addresses of functions, numbers of reasons.

use dropwatch_common::probe::{RANGES_PER_SET, Range, RangeSet};

use crate::{
    filter::Set,
    kernel::{kallsyms::Index, reasons::Reasons},
};

/// How far a function without a known size may reach.
const UNSIZED: u64 = 0x1000;

/// More values than the kernel has room for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' matches {found} functions, but a filter has room for {RANGES_PER_SET}: add the module")]
pub struct TooMany {
    name: String,
    found: usize,
}

/// The values of a set now; none if no function has that name.
///
/// `reasons` are those that are known by now, if any were read since the expression was.
///
/// # Errors
/// They are too many.
pub fn ranges(set: &Set, index: &Index, reasons: Option<&Reasons>) -> Result<RangeSet, TooMany> {
    let ranges: Vec<_> = match set {
        // These do not change with symbols.
        Set::Netns(_) => Vec::new(),
        Set::Location(place) => index
            .find_where(|name, module| place.means(name, module))
            .filter_map(|symbol| match place.offset {
                Some(offset) if symbol.size.is_some_and(|size| offset > size) => None,
                Some(offset) => Some(Range { start: symbol.start + offset, length: 1 }),
                None => Some(Range { start: symbol.start, length: symbol.size.unwrap_or(UNSIZED) }),
            })
            .collect(),
        Set::Reason { name, codes } => {
            let now = reasons.map(|reasons| reasons.find(name)).filter(|codes| !codes.is_empty());
            let codes = now.unwrap_or_else(|| codes.clone());
            codes.into_iter().map(|code| Range { start: code.into(), length: 1 }).collect()
        }
    };
    let mut values = RangeSet::default();
    if ranges.len() > values.0.len() {
        return Err(TooMany { name: set.name(), found: ranges.len() });
    }
    values.0[..ranges.len()].copy_from_slice(&ranges);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::symbol_spec::SymbolSpec;

    const KALLSYMS: &str = "\
ffffffff81000000 T ip_rcv
ffffffff81000100 t drop_it.constprop.0
ffffffff81000180 t drop_it.part.0
ffffffff81000200 T ip_forward
ffffffffc0000000 t gre_rcv\t[gre]
ffffffffc0000080 t gre_end\t[gre]
ffffffffc0010000 t gre_rcv\t[ip_gre]
ffffffffc0010040 t ipgre_end\t[ip_gre]
";

    fn found(place: &str) -> Vec<(u64, u64)> {
        let index = Index::read(KALLSYMS.as_bytes()).expect("a table");
        let set = Set::Location(SymbolSpec::parse(place).expect("a place"));
        let ranges = ranges(&set, &index, None).expect("room");
        ranges
            .0
            .iter()
            .take_while(|range| range.length > 0)
            .map(|range| (range.start, range.length))
            .collect()
    }

    #[test]
    fn a_function_is_every_address_in_it() {
        assert_eq!(found("ip_rcv"), [(0xffff_ffff_8100_0000, 0x100)]);
        assert_eq!(found("ip_rcv+0x1f"), [(0xffff_ffff_8100_001f, 1)]);
        assert_eq!(found("ip_rcv+0x101"), [], "beyond its end");
        assert_eq!(found("ip"), []);
    }

    #[test]
    fn a_name_can_be_of_several_functions() {
        let drop_it = [(0xffff_ffff_8100_0100, 0x80), (0xffff_ffff_8100_0180, 0x80)];
        assert_eq!(found("drop_it"), drop_it, "the parts of one in the source");
        assert_eq!(found("gre_rcv"), [(0xffff_ffff_c000_0000, 0x80), (0xffff_ffff_c001_0000, 0x40)]);
        assert_eq!(found("gre_rcv[ip_gre]"), [(0xffff_ffff_c001_0000, 0x40)]);
        assert_eq!(found("gre_rcv[nf]"), []);
    }

    #[test]
    fn too_many_are_refused() {
        let lines: Vec<_> = (0..17).map(|i| format!("ffffffffc00{i:02x}000 t init\t[module{i}]\n")).collect();
        let table = lines.concat();
        let index = Index::read(table.as_bytes()).expect("a table");
        let set = Set::Location(SymbolSpec::parse("init").expect("a place"));
        let error = ranges(&set, &index, None).expect_err("no room");
        assert_eq!(error, TooMany { name: "init".into(), found: 17 });
    }

    #[test]
    fn a_reason_means_what_it_meant_until_more_is_known() {
        let set = Set::Reason { name: "NO_SUCH_REASON".into(), codes: vec![12, 70] };
        let ranges = ranges(&set, &Index::default(), Some(&Reasons::default())).expect("room");
        assert_eq!(
            ranges.0[..3].iter().map(|range| (range.start, range.length)).collect::<Vec<_>>(),
            [(12, 1), (70, 1), (0, 0)]
        );
    }
}
