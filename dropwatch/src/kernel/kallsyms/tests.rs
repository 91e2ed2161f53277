use std::collections::BTreeMap;

use dropwatch_testing::skip;
use proptest::prelude::*;

use super::*;

fn index(text: &str) -> Index {
    Index::read(text.as_bytes()).unwrap()
}

/// What `address` is in, as `name+offset/size [module]`.
fn name(index: &Index, address: u64) -> Option<String> {
    let symbol = index.lookup(address)?;
    let size = symbol.size.map(|size| format!("/{size:#x}")).unwrap_or_default();
    Some(format!("{}+{:#x}{size} [{}]", symbol.name, address - symbol.start, symbol.module))
}

const TABLE: &str = "\
0000000000000000 A fixed_percpu_data
0000000000001000 A cpu_hw_events
ffffffff81000200 t middle.isra.0
ffffffff81000100 T first
ffffffff81000000 T _stext
ffffffff81000300 T last.cold
ffffffff81000340 T _etext
ffffffff81400000 D __start_rodata
ffffffff82000000 T _sinittext
ffffffff82000010 t init_one
ffffffff82000020 T _einittext
ffffffffc0200000 t gre_rcv\t[ip_gre]
ffffffffc0200080 t gre_exit\t[ip_gre]
ffffffffc0201000 d gre_data\t[ip_gre]
ffffffffc0300000 t gre_rcv\t[gre]
ffffffffc0400000 t bpf_prog_6deef7357e7b4530_sd\t[bpf]
ffffffffc0400040 t bpf_prog_6deef7357e7b4531_sd\t[bpf]
";

#[test]
fn a_function_ends_where_the_next_symbol_starts() {
    let table = index(TABLE);
    let name = |address| name(&table, address);
    assert_eq!(name(0xffff_ffff_8100_0100).unwrap(), "first+0x0/0x100 [kernel]");
    assert_eq!(name(0xffff_ffff_8100_01ff).unwrap(), "first+0xff/0x100 [kernel]");
    assert_eq!(name(0xffff_ffff_8100_0200).unwrap(), "middle.isra.0+0x0/0x100 [kernel]");
    assert_eq!(name(0xffff_ffff_8100_033f).unwrap(), "last.cold+0x3f/0x40 [kernel]");
    assert_eq!(name(0xffff_ffff_8200_001f).unwrap(), "init_one+0xf/0x10 [kernel]");
}

#[test]
fn an_address_beyond_any_symbol_stays_an_address() {
    let table = index(TABLE);
    for address in [
        0,
        0x1000,
        0x7fff_0000_1234,
        0xffff_ffff_80ff_ffff,
        0xffff_ffff_8100_0340,
        0xffff_ffff_8140_0000,
        0xffff_ffff_8200_0020,
        0xffff_ffff_c020_1000,
        0xffff_ffff_c030_0000 + UNSIZED_REACH,
        0xffff_ffff_c040_0040 + BPF_REACH,
        u64::MAX,
    ] {
        assert_eq!(name(&table, address), None, "{address:#x}");
    }
}

#[test]
fn the_last_function_of_a_module_has_no_size() {
    let table = index(TABLE);
    let name = |address| name(&table, address).unwrap();
    assert_eq!(name(0xffff_ffff_c020_0010), "gre_rcv+0x10/0x80 [ip_gre]");
    assert_eq!(name(0xffff_ffff_c020_0090), "gre_exit+0x10 [ip_gre]");
    assert_eq!(name(0xffff_ffff_c030_0fff), "gre_rcv+0xfff [gre]");
}

#[test]
fn a_function_does_not_reach_into_another_module() {
    let table = index("ffffffffc0200000 t a\t[one]\nffffffffc0202000 t b\t[two]\nffffffffc0202800 T c\n");
    assert_eq!(name(&table, 0xffff_ffff_c020_0fff).unwrap(), "a+0xfff [one]");
    assert_eq!(name(&table, 0xffff_ffff_c020_1000), None);
    assert_eq!(name(&table, 0xffff_ffff_c020_27ff).unwrap(), "b+0x7ff [two]");
}

#[test]
fn a_bpf_program_has_no_size() {
    let table = index(TABLE);
    assert_eq!(name(&table, 0xffff_ffff_c040_0030).unwrap(), "bpf_prog_6deef7357e7b4530_sd+0x30 [bpf]");
    assert_eq!(name(&table, 0xffff_ffff_c040_1050).unwrap(), "bpf_prog_6deef7357e7b4531_sd+0x1010 [bpf]");
}

#[test]
fn a_hole_between_sections_is_no_function() {
    let table = index(
        "ffffffff81001a87 T entry\nffffffff81104100 T srso_alias_safe_ret\nffffffff81104200 T _etext\n",
    );
    assert_eq!(name(&table, 0xffff_ffff_8100_1a90).unwrap(), "entry+0x9 [kernel]");
    assert_eq!(name(&table, 0xffff_ffff_8100_3000), None);
}

#[test]
fn the_end_of_a_section_is_no_function() {
    let table = index("ff00 T a\nff10 T __entry_text_end\nff40 T b\nff50 T _etext\n");
    assert_eq!(name(&table, 0xff0f).unwrap(), "a+0xf/0x10 [kernel]");
    assert_eq!(name(&table, 0xff10), None);
    assert_eq!(name(&table, 0xff40).unwrap(), "b+0x0/0x10 [kernel]");
}

#[test]
fn the_name_a_person_looks_for_is_preferred() {
    let names = [
        "T alpha",
        "T beta",
        "T _alpha",
        "T __pi_alpha",
        "t alias",
        "t __se_alias",
        "W weak",
        "T _text",
        "T __irqentry_text_start",
        "T __start_text",
        "T __pfx_alpha",
    ];
    for preferred in 0..names.len() {
        let lines: Vec<_> = names[preferred..].iter().rev().map(|name| format!("ff00 {name}\n")).collect();
        let table = index(&(lines.concat() + "ff10 T _etext\n"));
        assert_eq!(table.lookup(0xff08).unwrap().name, &names[preferred][2..], "{:?}", &names[preferred..]);
        assert_eq!(table.find("__pfx_alpha").count(), 1);
    }
}

#[test]
fn padding_precedes_its_function() {
    let table = index("ff00 t __pfx_foo\nff10 t foo\nff20 t __pfx_bar\nff30 T bar\nff38 T _etext\n");
    assert_eq!(name(&table, 0xff0f).unwrap(), "__pfx_foo+0xf/0x10 [kernel]");
    assert_eq!(name(&table, 0xff10).unwrap(), "foo+0x0/0x10 [kernel]");
    assert_eq!(name(&table, 0xff31).unwrap(), "bar+0x1/0x8 [kernel]");
    assert_eq!(table.names.len(), "__pfx_foo\0__pfx_bar\0".len());
}

#[test]
fn labels_inside_functions_are_ignored() {
    let table = index("ff00 t foo\nff04 t $x\nff08 t $d.12\nff0c t .Lloop\nff10 T _etext\n");
    assert_eq!(name(&table, 0xff0e).unwrap(), "foo+0xe/0x10 [kernel]");
}

#[test]
fn a_hidden_table_is_told_from_an_empty_one() {
    assert_eq!(index("").state(), State::Empty);
    assert_eq!(index("no symbols here\n\n").state(), State::Empty);
    let hidden = index("0000000000000000 T _stext\n0000000000000000 t gre_rcv\t[gre]\n");
    assert_eq!(hidden.state(), State::Hidden);
    assert!(hidden.is_empty());
    assert_eq!(index(TABLE).state(), State::Visible);
}

#[test]
fn lines_that_are_no_symbols_are_counted() {
    let huge = "x".repeat(10_000);
    let bad = [
        "",
        "ff00",
        "ff00 T",
        "ff00 T ",
        "ff00 TT foo",
        " T foo",
        "                 U foo",
        "xyz T foo",
        "+f00 T foo",
        "11112222333344445 T foo",
        "ff00 T foo bar",
        "ff00 T foo\t[",
        "ff00 T foo\t[]",
        huge.as_str(),
    ];
    let text = bad.join("\n") + "\nff10 T good\nff20 T _etext";
    let table = index(&text);
    assert_eq!(table.skipped_lines(), bad.len() as u64);
    assert_eq!(table.len(), 1);
    assert_eq!(name(&table, 0xff11).unwrap(), "good+0x1/0x10 [kernel]");
}

#[test]
fn a_name_stays_as_it_is() {
    let table =
        Index::read(&b"ff00 T a\x1b[2J\xffb\nff10 T caf\xc3\xa9\nff20 T \xe2\x80\xaex\t[m\x07]\n"[..])
            .unwrap();
    assert_eq!(table.lookup(0xff00).unwrap().name, "a\x1b[2J\u{fffd}b");
    assert_eq!(table.lookup(0xff10).unwrap().name, "café");
    let last = table.lookup(0xff20).unwrap();
    assert_eq!((last.name, &**last.module), ("\u{202e}x", "m\x07"));
}

#[test]
fn every_function_of_a_name_is_found() {
    let table = index(TABLE);
    let found: Vec<_> =
        table.find("gre_rcv").map(|symbol| (symbol.start, symbol.size, &**symbol.module)).collect();
    assert_eq!(found, [(0xffff_ffff_c020_0000, Some(0x80), "ip_gre"), (0xffff_ffff_c030_0000, None, "gre")]);
    assert_eq!(table.find("gre_rc").count() + table.find("re_rcv").count() + table.find("").count(), 0);
    assert_eq!(table.unique("_stext"), Some(0xffff_ffff_8100_0000));
    assert_eq!(table.unique("gre_rcv"), None);
}

#[test]
fn modules_have_ranges() {
    let text = "\
ffffffff81000000 T _stext
ffffffffc0200000 t a\t[one]
ffffffffc0200010 t a_alias\t[one]
ffffffffc0200010 t b\t[one]
ffffffffc0300000 t c\t[two]
ffffffffc0500000 t init\t[one]
";
    let ranges: Vec<_> =
        index(text).modules().into_iter().map(|range| (range.name, range.addresses)).collect();
    let base = 0xffff_ffff_c000_0000_u64;
    assert_eq!(
        ranges,
        [
            ("one".into(), base + 0x20_0000..base + 0x20_1010),
            ("two".into(), base + 0x30_0000..base + 0x30_1000),
            ("one".into(), base + 0x50_0000..base + 0x50_1000),
        ]
    );
}

#[test]
fn a_repeated_table_is_the_same_table() {
    let twice = index(&(TABLE.to_owned() + TABLE));
    assert_eq!(twice.entries.len(), index(TABLE).entries.len());
}

#[test]
fn a_part_answers_as_the_whole() {
    let table = index(TABLE);
    let range = table.modules()[0].addresses.clone();
    let part = table.part(&range);
    for address in range.clone() {
        assert_eq!(name(&part, address), name(&table, address), "{address:#x}");
    }
    assert_eq!(name(&part, range.end), None);
    assert_eq!(part.find("first").count(), 0);
}

/// Lines from a small world, so that addresses and names collide, with garbage among them.
fn hostile_line() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![
        0_u64..64,
        (0_u64..64).prop_map(|n| 0xffff_ffff_8100_0000 + n * 8),
        (0_u64..64).prop_map(|n| u64::MAX - n),
        (0_u64..8).prop_map(|n| 0xffff_ffff_8100_0000 + n * (MAX_FUNCTION / 2)),
        any::<u64>(),
    ];
    let kind = prop_oneof![8 => Just('t'), 4 => Just('T'), 2 => Just('W'), 1 => Just('D'), 1 => Just('A')];
    let name = prop_oneof![
        8 => "[a-c]{1,2}",
        1 => "__pfx_[a-c]",
        1 => Just("_etext".to_owned()),
        1 => Just("$x".to_owned()),
        1 => ".{0,5}",
    ];
    let module = prop_oneof![
        4 => Just(""), 2 => Just("\t[one]"), 2 => Just("\t[two]"), 1 => Just("\t[bpf]"), 1 => Just("\t[")
    ];
    let symbol = (address, kind, name, module).prop_map(|(address, kind, name, module)| {
        format!("{address:016x} {kind} {name}{module}").into_bytes()
    });
    prop_oneof![9 => symbol, 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect()
}

fn probes(lines: &[Vec<u8>]) -> Vec<u64> {
    let starts = lines.iter().filter_map(|line| Some(Line::parse(line)?.address));
    starts
        .flat_map(|start| {
            [-1_i64, 0, 1, 7, 8, 4095, 4096, 70_000].map(|offset| start.wrapping_add_signed(offset))
        })
        .chain([0, u64::MAX])
        .collect()
}

proptest! {
    /// Any bytes are a table, if an empty one.
    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, address: u64) {
        let table = Index::read(bytes.as_slice()).unwrap();
        let _ = (table.lookup(address), table.modules(), table.find("a").count());
    }

    /// An address is in the function it resolves to, and in no other function that starts before it.
    #[test]
    fn an_address_lies_in_its_function(lines in prop::collection::vec(hostile_line(), 0..60)) {
        let text = joined(&lines);
        let table = Index::read(text.as_slice()).unwrap();
        for address in probes(&lines) {
            let Some(symbol) = table.lookup(address) else { continue };
            let limit = match symbol.size {
                Some(size) => size,
                None if &**symbol.module == "bpf" => BPF_REACH,
                None => UNSIZED_REACH,
            };
            prop_assert!(symbol.start <= address && address - symbol.start < limit);
            prop_assert!(!table.entries.iter().any(|e| symbol.start < e.address && e.address <= address));
            prop_assert!(table.find(symbol.name).any(|found| found == symbol));
        }
    }

    /// The order of the lines does not matter, and neither do lines cut off at the end.
    #[test]
    fn order_does_not_matter(
        (lines, shuffled) in prop::collection::vec(hostile_line(), 0..40)
            .prop_flat_map(|lines| (Just(lines.clone()), Just(lines).prop_shuffle()))
    ) {
        // A line break inside garbage would make other lines of it.
        let is_line = |line: &&Vec<u8>| !line.contains(&b'\n');
        let lines: Vec<_> = lines.iter().filter(is_line).cloned().collect();
        let shuffled: Vec<_> = shuffled.iter().filter(is_line).cloned().collect();
        let (a, b) = (joined(&lines), joined(&shuffled));
        let (a, b) = (Index::read(a.as_slice()).unwrap(), Index::read(b.as_slice()).unwrap());
        for address in probes(&lines) {
            prop_assert_eq!(a.lookup(address), b.lookup(address));
        }
        prop_assert_eq!(a.skipped_lines(), b.skipped_lines());
    }

    /// A moved table gives the moved answers.
    #[test]
    fn a_slide_moves_every_answer(
        starts in prop::collection::btree_map(0_u64..10_000, "[a-d]{1,3}", 1..50), slide in 0_u64..1 << 40
    ) {
        let base = 0xffff_0000_0000_0000;
        let lines: Vec<_> =
            starts.iter().map(|(start, name)| format!("{:x} T {name}\n", base + start)).collect();
        let table = index(&lines.concat());
        let moved = table.clone().shifted(slide);
        for address in base..base + 15_000 {
            let expected = table.lookup(address);
            let expected = expected.map(|symbol| Symbol { start: symbol.start + slide, ..symbol });
            prop_assert_eq!(moved.lookup(address + slide), expected);
        }
    }

    /// A truncated table is a table.
    #[test]
    fn truncation_is_harmless(cut in 0..TABLE.len()) {
        let table = index(&TABLE[..cut]);
        prop_assert!(table.skipped_lines() <= 1);
    }
}

/// The running kernel's table, read in the simplest way: every text symbol by address.
fn naive() -> Option<BTreeMap<u64, Vec<String>>> {
    let text = std::fs::read_to_string("/proc/kallsyms").ok()?;
    let mut symbols: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let address = u64::from_str_radix(fields[0], 16).ok()?;
        let module = fields.get(3).map_or("kernel", |module| module.trim_matches(['[', ']']));
        if "tTwW".contains(fields[1]) {
            symbols.entry(address).or_default().push(format!("{} {module}", fields[2]));
        }
    }
    (symbols.len() > 1000).then_some(symbols)
}

/// Agrees with an independent reading of the running kernel's table, where that is visible.
#[test]
fn the_running_kernels_functions_are_named() {
    let Some(symbols) = naive() else { return skip("/proc/kallsyms is hidden") };
    let file = std::fs::File::open("/proc/kallsyms").unwrap();
    let table = Index::read(io::BufReader::new(file)).unwrap();
    assert_eq!(table.skipped_lines(), 0);

    let mut resolved = 0;
    let steps: Vec<_> = symbols.iter().zip(symbols.keys().skip(1)).collect();
    for &((&start, names), &next) in steps.iter().step_by(steps.len() / 1000) {
        let is_limit = names.iter().any(|name| name.contains("_text_end ") || name.contains("etext "));
        if next - start > UNSIZED_REACH || is_limit {
            continue;
        }
        for address in [start, start + (next - start) / 2, next - 1] {
            let symbol = table.lookup(address).unwrap();
            assert!(names.contains(&format!("{} {}", symbol.name, symbol.module)), "{symbol:?} {names:?}");
            assert_eq!((symbol.start, symbol.size.unwrap_or(next - start)), (start, next - start));
        }
        resolved += 1;
    }
    assert!(resolved >= 900, "{resolved}");
}

/// A pipe that never ends is refused after a bounded time, in bounded memory.
#[test]
fn a_table_without_an_end_is_refused() {
    let is_refused = |table: &str, max_symbols, max_bytes| {
        let read = Index::read_bounded(table.as_bytes(), max_symbols, max_bytes);
        read.is_err_and(|error| error.kind() == io::ErrorKind::FileTooLarge)
    };
    let lines = |count| "ffffffff81000000 T tcp_v4_rcv\n".repeat(count);
    assert!(!is_refused(&lines(10), 10, 1000));
    assert!(is_refused(&lines(11), 9, 1000), "too many symbols");
    assert!(is_refused(&lines(100), 1000, 1000), "too many bytes");
    assert!(is_refused(&"x".repeat(9000), 10, 8000), "one line that does not end");

    let endless = io::BufReader::new(io::repeat(b'x'));
    let error = Index::read(endless).unwrap_err();
    assert!(error.to_string().contains("longer than any kernel's"), "{error}");
}
