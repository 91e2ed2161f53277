use std::{fs, io};

use dropwatch_testing::{assert_seed, skip};
use proptest::{collection::vec, prelude::*};

use super::{writer::Writer, *};

const BOTH_ORDERS: [bool; 2] = [false, true];

/// A kernel in small: a packet, a device, a tracepoint, two functions, an enum of each kind.
fn kernel(big_endian: bool) -> Writer {
    let mut btf = Writer::new(big_endian);
    let long = btf.int("long unsigned int", 8);
    let int = btf.int("unsigned int", 4);
    let byte = btf.int("unsigned char", 1);
    let short = btf.int("short unsigned int", 2);
    let be16 = btf.typedef("__be16", short);
    let void_ptr = btf.ptr(0);
    let cb = btf.array(byte, int, 48);
    let queue = btf.structure("", 24, &[("next", void_ptr, 0, 0), ("dev", void_ptr, 128, 0)]);
    let node = btf.union("", 24, &[("", queue, 0, 0), ("rbnode", long, 0, 0)]);
    let ns = btf.structure("ns_common", 16, &[("stashed", void_ptr, 0, 0), ("inum", int, 64, 0)]);
    let net = btf.structure("net", 32, &[("passive", int, 0, 0), ("ns", ns, 128, 0)]);
    let net_ptr = btf.ptr(net);
    let device = {
        let possible_net = btf.structure("", 8, &[("net", net_ptr, 0, 0)]);
        btf.typedef("possible_net_t", possible_net)
    };
    let constant = btf.constant(device);
    btf.structure("net_device", 64, &[("ifindex", int, 0, 0), ("nd_net", constant, 64, 0)]);
    btf.structure(
        "sk_buff",
        96,
        &[
            ("", node, 0, 0),
            ("cb", cb, 192, 0),
            ("pkt_type", byte, 576, 3),
            ("wide", int, 581, 12),
            ("protocol", be16, 608, 0),
            ("end", byte, 624, 0),
        ],
    );
    btf.tracepoint("kfree_skb", 4);
    btf.tracepoint("consume_skb", 2);
    let prototype = btf.func_proto(&[]);
    btf.func("kfree_skb_list_reason", prototype);
    btf.enumeration("verdict", false, &[("DROP", 0), ("ACCEPT", 1), ("MASK", 0xffff_0000)]);
    btf.enumeration("signed", true, &[("MINUS", u32::MAX)]);
    btf.enum64("wide", false, &[("HIGH", 1 << 40), ("LOW", 1)]);
    btf
}

/// Offset in bytes, size in bytes, bits.
type Place = (u32, u32, Option<Bitfield>);

fn look_up(btf: &Btf<'_>, aggregate: &str, path: &str) -> Option<Place> {
    btf.field(aggregate, path).map(|found| (found.offset_bytes, found.size, found.bitfield))
}

/// Every query, on whatever was parsed.
fn ask_everything(btf: &Btf<'_>) {
    let _ = btf.enums().map(|found| found.values().count()).sum::<usize>();
    let _ = btf.enum_values("verdict");
    let _ = (btf.tracepoint("kfree_skb"), btf.has_function("kfree_skb_list_reason"));
    for path in ["dev", "cb", "pkt_type", "protocol", "nd_net.net", "ifindex", "no.such", "", "."] {
        let _ = (btf.field("sk_buff", path), btf.field("net_device", path));
    }
    for id in 0..u32::try_from(btf.type_count()).unwrap().min(500) + 2 {
        let _ = btf.size(id);
    }
}

#[test]
fn enums_are_read_in_both_byte_orders() {
    for big_endian in BOTH_ORDERS {
        let bytes = kernel(big_endian).finish();
        let btf = Btf::parse(&bytes).unwrap();
        let verdict = btf.enum_values("verdict").unwrap();
        assert_eq!(verdict, [("DROP", 0), ("ACCEPT", 1), ("MASK", 0xffff_0000)]);
        assert_eq!(btf.enum_values("signed").unwrap(), [("MINUS", -1)]);
        assert_eq!(btf.enum_values("wide").unwrap(), [("HIGH", 1 << 40), ("LOW", 1)]);
        assert_eq!(btf.enum_values("verdic"), None);
        assert_eq!(btf.enum_values("sk_buff"), None, "a struct is no enum");
        assert_eq!(btf.enums().map(|found| found.name()).collect::<Vec<_>>(), ["verdict", "signed", "wide"]);
    }
}

/// `enum verdict;` is written as an enum without values, and may come before the enum itself.
#[test]
fn a_forward_declaration_does_not_hide_the_enum() {
    let mut writer = Writer::new(false);
    writer.enumeration("verdict", false, &[]);
    let bytes = writer.finish();
    assert_eq!(Btf::parse(&bytes).unwrap().enum_values("verdict"), None);
    writer.enumeration("verdict", false, &[("DROP", 0)]);
    let bytes = writer.finish();
    assert_eq!(Btf::parse(&bytes).unwrap().enum_values("verdict").unwrap(), [("DROP", 0)]);
}

#[test]
fn arguments_of_tracepoints_are_counted_without_the_private_one() {
    for big_endian in BOTH_ORDERS {
        let bytes = kernel(big_endian).finish();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.tracepoint("kfree_skb").map(|found| found.arguments), Some(4));
        assert_eq!(btf.tracepoint("consume_skb").map(|found| found.arguments), Some(2));
        assert_eq!(btf.tracepoint("kfree"), None);
    }
}

#[test]
fn functions_are_found_by_their_whole_name() {
    let bytes = kernel(false).finish();
    let btf = Btf::parse(&bytes).unwrap();
    assert!(btf.has_function("kfree_skb_list_reason"));
    assert!(!btf.has_function("kfree_skb_list"));
    assert!(!btf.has_function("verdict"), "an enum is no function");
}

#[test]
fn fields_are_found_inside_anonymous_members_and_along_paths() {
    for big_endian in BOTH_ORDERS {
        let bytes = kernel(big_endian).finish();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(look_up(&btf, "sk_buff", "dev"), Some((16, 8, None)));
        assert_eq!(look_up(&btf, "sk_buff", "rbnode"), Some((0, 8, None)));
        assert_eq!(look_up(&btf, "sk_buff", "cb"), Some((24, 48, None)));
        assert_eq!(look_up(&btf, "sk_buff", "protocol"), Some((76, 2, None)));
        assert_eq!(look_up(&btf, "net_device", "nd_net.net"), Some((8, 8, None)));
        assert_eq!(look_up(&btf, "net_device", "nd_net"), Some((8, 8, None)));
        assert_eq!(look_up(&btf, "net", "ns.inum"), Some((24, 4, None)));
    }
}

/// Offsets of anonymous members, and of those inside them, add up.
#[test]
fn anonymous_members_shift_what_they_hold() {
    let mut writer = Writer::new(false);
    let int = writer.int("int", 4);
    let inner = writer.union("", 8, &[("first", int, 0, 0), ("bits", int, 3, 5)]);
    let middle = writer.structure("", 16, &[("before", int, 0, 0), ("", inner, 64, 0)]);
    writer.structure("outer", 32, &[("before_all", int, 0, 0), ("", middle, 128, 0)]);
    let bytes = writer.finish();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(look_up(&btf, "outer", "before"), Some((16, 4, None)));
    assert_eq!(look_up(&btf, "outer", "first"), Some((24, 4, None)));
    assert_eq!(look_up(&btf, "outer", "bits"), Some((24, 1, Some(Bitfield { bit_offset: 195, bits: 5 }))));
}

#[test]
fn paths_that_lead_nowhere_are_none() {
    let bytes = kernel(false).finish();
    let btf = Btf::parse(&bytes).unwrap();
    for path in ["", ".", "dev.", "dev.ifindex", "cb.0", "nosuch", "de", "devx", "protocol.x", "pkt_type.x"] {
        assert_eq!(look_up(&btf, "sk_buff", path), None, "{path}");
    }
    assert_eq!(look_up(&btf, "no_such", "dev"), None);
    assert_eq!(look_up(&btf, "verdict", "DROP"), None);
}

#[test]
fn bitfields_say_which_bits_and_which_bytes() {
    let bytes = kernel(false).finish();
    let btf = Btf::parse(&bytes).unwrap();
    let bits = |bit_offset, bits| Some(Bitfield { bit_offset, bits });
    assert_eq!(look_up(&btf, "sk_buff", "pkt_type"), Some((72, 1, bits(576, 3))));
    // Bits 581 to 592: from the sixth bit of byte 72 to the first bit of byte 74.
    assert_eq!(look_up(&btf, "sk_buff", "wide"), Some((72, 3, bits(581, 12))));
    assert_eq!(look_up(&btf, "sk_buff", "end"), Some((78, 1, None)), "not a bit-field beside them");
}

/// Without the flag, the type says which bits: five of them, two bits into the byte.
#[test]
fn old_bitfields_are_read_from_their_integer() {
    let mut writer = Writer::new(false);
    let int = writer.old_bitfield_int("unsigned char", 1, 2, 5);
    writer.structure("old", 4, &[("five", int, 8, 0)]);
    let bytes = writer.finish();
    let btf = Btf::parse(&bytes).unwrap();
    let bits = Some(Bitfield { bit_offset: 10, bits: 5 });
    assert_eq!(look_up(&btf, "old", "five"), Some((1, 1, bits)));
}

#[test]
fn pointers_are_as_large_as_long() {
    let mut writer = Writer::new(false);
    writer.int("long unsigned int", 4);
    let pointer = writer.ptr(0);
    let index = writer.int("int", 4);
    let matrix = writer.array(pointer, index, 3);
    let matrix = writer.array(matrix, index, 5);
    writer.structure("holder", 60, &[("matrix", matrix, 0, 0)]);
    let bytes = writer.finish();
    assert_eq!(look_up(&Btf::parse(&bytes).unwrap(), "holder", "matrix"), Some((0, 60, None)));
}

#[test]
fn a_module_continues_its_kernel() {
    for big_endian in BOTH_ORDERS {
        let base = kernel(big_endian);
        let mut module = base.split();
        module.enumeration("ovs_drop_reason", false, &[("OVS_DROP_LAST_ACTION", 0x2_0001)]);
        // Types 2 and 5 are the kernel's; so is the name at 1, "long unsigned int".
        module.structure("datapath", 8, &[("flags", 2, 0, 0), ("proto", 5, 32, 0)]);
        module.raw(1, 6, 1, false, 4, &[module.clone().string("VALUE") - 7, 3]);
        let (base, module) = (base.finish(), module.finish());
        let base = Btf::parse(&base).unwrap();
        let split = Btf::parse_split(&module, &base).unwrap();
        assert_eq!(split.enum_values("ovs_drop_reason").unwrap(), [("OVS_DROP_LAST_ACTION", 0x2_0001)]);
        assert_eq!(look_up(&split, "datapath", "proto"), Some((4, 2, None)));
        assert_eq!(look_up(&split, "sk_buff", "dev"), Some((16, 8, None)), "asked of the kernel");
        let names: Vec<_> = split.enums().map(|found| found.name()).collect();
        assert_eq!(names, ["ovs_drop_reason", "long unsigned int"], "the module's own only");
        assert_eq!(split.type_count(), base.type_count() + 3);
        assert_eq!(base.enum_values("ovs_drop_reason"), None);
    }
}

#[test]
fn a_module_of_another_byte_order_is_refused() {
    let (base, module) = (kernel(false).finish(), Writer::new(true).finish());
    let base = Btf::parse(&base).unwrap();
    assert_eq!(Btf::parse_split(&module, &base).unwrap_err(), Error::ByteOrder);
}

#[test]
fn what_is_not_type_information_is_refused() {
    let truncated = |part, end, len| Error::Truncated { part, end, len };
    assert_eq!(Btf::parse(b"").unwrap_err(), truncated("the header", 24, 0));
    assert_eq!(Btf::parse(&[0x7f; 64]).unwrap_err(), Error::Magic([0x7f, 0x7f]));
    let mut bytes = kernel(false).finish();
    bytes[2] = 2;
    assert_eq!(Btf::parse(&bytes).unwrap_err(), Error::Version(2));
}

/// Any truncation is noticed: the strings come last and the header has their length.
#[test]
fn every_truncation_is_an_error() {
    let bytes = kernel(false).finish();
    for len in 0..bytes.len() {
        assert!(matches!(Btf::parse(&bytes[..len]), Err(Error::Truncated { .. })), "cut to {len}");
    }
}

#[test]
fn sections_that_reach_past_4_gib_do_not_wrap() {
    for word in [4, 8, 12, 16, 20] {
        let mut bytes = kernel(false).finish();
        bytes[word..word + 4].copy_from_slice(&[0xff; 4]);
        assert!(matches!(Btf::parse(&bytes), Err(Error::Truncated { .. })), "word at {word}");
    }
}

#[test]
fn a_longer_header_is_skipped() {
    let mut bytes = kernel(false).finish();
    bytes[4] = 32;
    bytes.splice(24..24, [0xaa; 8]);
    assert_eq!(Btf::parse(&bytes).unwrap().tracepoint("kfree_skb").map(|found| found.arguments), Some(4));
}

#[test]
fn an_unknown_kind_is_named() {
    // 38 has the five low bits of a union's 6.
    for kind in [0, 20, 31, 38, 127] {
        let mut writer = Writer::new(false);
        writer.int("int", 4);
        writer.raw(0, kind, 0, false, 0, &[]);
        let error = Btf::parse(writer.finish()).unwrap_err();
        assert_eq!(error, Error::UnknownKind { id: 2, kind: u8::try_from(kind).unwrap() });
    }
}

/// A count too large for what follows is an error, not an allocation.
#[test]
fn huge_counts_are_truncations() {
    for kind in [4, 5, 6, 13, 15, 19] {
        let mut writer = Writer::new(false);
        writer.raw(0, kind, 0x00ff_ffff, false, 0, &[]);
        assert!(matches!(Btf::parse(writer.finish()), Err(Error::Truncated { part: "a type", .. })));
    }
}

#[test]
fn cycles_end() {
    let mut writer = Writer::new(false);
    let own = writer.typedef("own", 1);
    let constant = writer.constant(own + 1);
    let index = writer.int("int", 4);
    let array = writer.array(4, index, 1);
    let first = array + 1;
    // Anonymous members of its own type, twice: each visit opens two more.
    let outer = writer.structure("outer", 4, &[("", first, 0, 0), ("", first, 0, 0), ("own", own, 0, 0)]);
    assert_eq!(outer, first);
    writer.structure("holder", 4, &[("array", array, 0, 0), ("constant", constant, 0, 0)]);
    writer.typedef("btf_trace_cycle", own);
    let bytes = writer.finish();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.field("outer", "absent"), None);
    assert_eq!(btf.field("outer", "own"), None, "no size");
    assert_eq!(btf.field("holder", "array"), None);
    assert_eq!(btf.field("holder", "constant"), None);
    assert_eq!(btf.tracepoint("cycle"), None);
}

#[test]
fn sizes_and_offsets_that_overflow_are_none() {
    let mut writer = Writer::new(false);
    let int = writer.int("int", 4);
    let huge = writer.array(int, int, u32::MAX);
    let empty = writer.func_proto(&[]);
    let pointer = writer.ptr(empty);
    writer.typedef("btf_trace_empty", pointer);
    writer.structure("holder", 4, &[("huge", huge, 0, 0), ("wild", 0xffff_fff0, 0, 0), ("void", 0, 0, 0)]);
    let bytes = writer.finish();
    let btf = Btf::parse(&bytes).unwrap();
    for path in ["huge", "wild", "void"] {
        assert_eq!(btf.field("holder", path), None, "{path}");
    }
    assert_eq!(btf.tracepoint("empty"), None, "no private parameter to leave out");
}

/// A name past the end, one without an end and one that is not UTF-8 are no names; what is beside them stays.
#[test]
fn bad_names_are_no_names() {
    let mut writer = Writer::new(false);
    let latin = writer.string_bytes(b"caf\xe9");
    writer.raw(latin, 6, 1, false, 4, &[latin, 1]);
    writer.raw(u32::MAX, 6, 1, false, 4, &[u32::MAX, 1]);
    let name = writer.string("good");
    writer.raw(name, 6, 2, false, 4, &[latin, 1, name, 2]);
    let mut bytes = writer.finish();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.enums().map(|found| found.name()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(btf.enum_values("good").unwrap(), [("good", 2)]);
    // Without the last NUL, the name does not end.
    *bytes.last_mut().unwrap() = b'x';
    assert_eq!(Btf::parse(&bytes).unwrap().enums().count(), 0);
}

/// Of this machine's kind and of the other, with a module: the kernel's length, little endian, and both.
#[test]
fn the_fuzzer_starts_from_what_is_valid() {
    for (name, big_endian) in [("little_endian", false), ("big_endian", true)] {
        let mut kernel = kernel(big_endian);
        kernel.enumeration("skb_drop_reason", false, &[("SKB_DROP_REASON_NO_SOCKET", 3)]);
        let mut module = kernel.split();
        module.enumeration("ovs_drop_reason", false, &[("OVS_DROP_LAST_ACTION", 0x2_0001)]);
        let (kernel, module) = (kernel.finish(), module.finish());
        let length = u16::try_from(kernel.len()).unwrap();
        assert_seed("btf", name, &[&length.to_le_bytes()[..], &kernel, &module].concat());
        let kernel = Btf::parse(kernel).unwrap();
        assert!(kernel.field("sk_buff", "cb").is_some());
        assert!(Btf::parse_split(module, &kernel).unwrap().enum_values("ovs_drop_reason").is_some());
    }
}

/// Offsets differ from build to build, so only what holds for all of them is tested.
#[test]
fn the_running_kernel_answers() {
    let Ok(bytes) = read_vmlinux() else { return skip("this kernel has no type information") };
    let btf = Btf::parse(&bytes).unwrap();
    assert!(btf.type_count() > 10_000);
    let arguments = btf.tracepoint("kfree_skb").unwrap().arguments;
    assert!((2..=4).contains(&arguments), "{arguments} arguments");
    assert!(btf.has_function("schedule"));
    let len = btf.field("sk_buff", "len").unwrap();
    assert_eq!((len.size, len.bitfield), (4, None));
    let (head, data) = (btf.field("sk_buff", "head").unwrap(), btf.field("sk_buff", "data").unwrap());
    assert_eq!(data.offset_bytes, head.offset_bytes + 8);
    assert_eq!(btf.field("sk_buff", "pkt_type").unwrap().bitfield.unwrap().bits, 3);
    assert_eq!(btf.field("sk_buff", "cb").unwrap().size, 48);
    assert_eq!(btf.field("net_device", "name").unwrap().size, 16);
    for (aggregate, path) in [("net_device", "nd_net.net"), ("sock", "__sk_common.skc_net.net")] {
        assert_eq!(btf.field(aggregate, path).unwrap().size, 8, "{aggregate} {path}");
    }
    assert_eq!(btf.field("net", "ns.inum").unwrap().size, 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Bytes next to zero, to 0x80 and to 0xff are where words could carry.
    #[test]
    fn names_begin_alike_up_to_their_end(
        name in vec(prop_oneof![Just(0_u8), Just(1), Just(0x7f), Just(0x80), Just(0x81), Just(0xff), any::<u8>()], 0..12),
    ) {
        let mut expected = [0; 8];
        let bytes = name.iter().take_while(|byte| **byte != 0);
        expected.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        prop_assert_eq!(beginning(&name), u64::from_le_bytes(expected));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..2048)) {
        if let Ok(btf) = Btf::parse(&bytes) {
            ask_everything(&btf);
        }
    }

    /// Behind a good header: types and strings made of noise.
    #[test]
    fn arbitrary_types_never_panic(
        big_endian: bool,
        types in vec(
            (any::<u32>(), 1_u32..20, 0_u32..4, any::<bool>(), 0_u32..40, vec(0_u32..60, 0..12)),
            0..40,
        ),
    ) {
        let mut writer = kernel(big_endian);
        for (name, kind, count, flag, last, tail) in types {
            writer.raw(name % 512, kind, count, flag, last, &tail);
        }
        if let Ok(btf) = Btf::parse(writer.finish()) {
            ask_everything(&btf);
        }
    }

    #[test]
    fn mutated_kernels_never_panic(
        big_endian: bool,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
    ) {
        let good = kernel(big_endian);
        let module = { let mut module = good.split(); module.typedef("alias", 3); module.finish() };
        let good = good.finish();
        let mut bad = good.clone();
        for (index, value) in changes {
            // Past the header: a changed header is almost always refused at once.
            let at = 24 + index.index(bad.len() - 24);
            bad[at] = value;
        }
        if let Ok(base) = Btf::parse(&bad) {
            ask_everything(&base);
            if let Ok(split) = Btf::parse_split(&module, &base) {
                ask_everything(&split);
            }
        }
        let base = Btf::parse(&good).unwrap();
        if let Ok(split) = Btf::parse_split(&bad, &base) {
            ask_everything(&split);
        }
    }
}

#[test]
fn the_kernel_is_read_once_for_all_who_ask() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = KernelBtf::at(directory.path());
    let file = directory.path().join(VMLINUX);
    fs::write(&file, self::kernel(false).finish()).unwrap();
    let other = kernel.clone();
    assert!(kernel.get().is_ok());
    fs::remove_file(file).unwrap();
    assert!(std::ptr::eq(other.get().unwrap(), kernel.get().unwrap()));
    let missing = KernelBtf::at(directory.path()).get().unwrap_err();
    assert!(matches!(&*missing, LoadError::Read { cause, .. } if cause.kind() == io::ErrorKind::NotFound));
}
