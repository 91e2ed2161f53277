use std::{fs, path::PathBuf};

use dropwatch_testing::skip;
use proptest::prelude::*;

use super::{
    format::symbols,
    load::{Places, Refreshed},
    *,
};
use crate::kernel::btf::{self, KernelBtf, LoadError, writer::Writer};

/// The type information of a kernel whose reasons have these names, numbered from 0.
fn kernel(core: &[&str], subsystems: &[&str]) -> Writer {
    let mut writer = Writer::new(cfg!(target_endian = "big"));
    let core: Vec<_> = core.iter().zip(0..).map(|(name, value)| (*name, value)).collect();
    if subsystems.is_empty() {
        writer.enumeration("skb_drop_reason", false, &core);
    } else {
        let mask = ("SKB_DROP_REASON_SUBSYS_MASK", 0xffff_0000);
        writer.enumeration("skb_drop_reason", false, &[core, vec![mask]].concat());
        let subsystems: Vec<_> = subsystems.iter().zip(0..).map(|(name, value)| (*name, value)).collect();
        writer.enumeration("skb_drop_reason_subsys", false, &subsystems);
    }
    writer
}

fn like_5_15() -> Writer {
    let names = ["NOT_SPECIFIED", "NO_SOCKET", "PKT_TOO_SMALL", "TCP_CSUM", "SOCKET_FILTER", "UDP_CSUM"];
    let names = [&names[..], &["NETFILTER_DROP", "OTHERHOST", "MAX"]].concat();
    let names: Vec<_> = names.iter().map(|name| format!("SKB_DROP_REASON_{name}")).collect();
    kernel(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

fn like_6_1() -> Writer {
    let names = ["SKB_NOT_DROPPED_YET", "SKB_DROP_REASON_NOT_SPECIFIED", "SKB_DROP_REASON_NO_SOCKET"];
    kernel(&[&names[..], &["SKB_DROP_REASON_MAX"]].concat(), &[])
}

fn like_6_18() -> Writer {
    let core = [
        "SKB_NOT_DROPPED_YET",
        "SKB_CONSUMED",
        "SKB_DROP_REASON_NOT_SPECIFIED",
        "SKB_DROP_REASON_NO_SOCKET",
        "SKB_DROP_REASON_SKB_CSUM",
        "SKB_DROP_REASON_MAX",
    ];
    let subsystems = ["CORE", "MAC80211_UNUSABLE", "OPENVSWITCH", "NUM"];
    let subsystems = subsystems.map(|name| format!("SKB_DROP_REASON_SUBSYS_{name}"));
    kernel(&core, &subsystems.each_ref().map(String::as_str))
}

fn openvswitch(kernel: &Writer) -> Writer {
    let mut module = kernel.split();
    let values = [
        ("__OVS_DROP_REASON", 0x2_0000),
        ("OVS_DROP_LAST_ACTION", 0x2_0001),
        ("OVS_DROP_ACTION_ERROR", 0x2_0002),
        ("OVS_DROP_MAX", 0x2_0003),
    ];
    module.enumeration("ovs_drop_reason", false, &values);
    // Values no subsystem has, and an enum of another name.
    module.enumeration("strange_drop_reason", false, &[("STRANGE", 0x7_0001), ("SMALL", 3)]);
    module.enumeration("ovs_reason", false, &[("OTHER", 0x2_0009)]);
    module
}

fn mac80211(kernel: &Writer) -> Writer {
    let mut module = kernel.split();
    let values = [
        ("___RX_CONTINUE", 1),
        ("___RX_QUEUED", 0),
        ("___RX_DROP_UNUSABLE", 0x1_0000),
        ("___RX_DROP_U_MIC_FAIL", 0x1_0001),
    ];
    module.enumeration("___mac80211_drop_reason", false, &values);
    let values = values.map(|(name, value)| (name.trim_start_matches('_'), value));
    module.enumeration("mac80211_drop_reason", false, &values);
    module
}

fn reasons_of(kernel: &Writer) -> Reasons {
    Reasons::from_btf(&Btf::parse(kernel.finish()).unwrap())
}

fn shown(reasons: &Reasons, codes: impl IntoIterator<Item = u32>) -> Vec<String> {
    codes.into_iter().map(|code| reasons.get(code).to_string()).collect()
}

/// A directory for a test's files, gone with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dropwatch-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    /// Type information in this directory, and two places for a format.
    fn places(&self) -> Places {
        let formats = ["format", "old-format"].map(|name| self.0.join("absent").join(name));
        Places { btf: self.0.clone(), formats: formats.to_vec() }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const FORMAT: &str = r#"name: kfree_skb
ID: 1234
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;

	field:void * skbaddr;	offset:8;	size:8;	signed:0;
	field:enum skb_drop_reason reason;	offset:28;	size:4;	signed:0;

print fmt: "skbaddr=%p protocol=%u reason: %s", REC->skbaddr, REC->protocol, __print_symbolic(REC->reason, { 1, "NOT_SPECIFIED" }, { 2, "NO_SOCKET" }, { 0x3, "SKB_CSUM" }, { SKB_DROP_REASON_NEW, "NEW" }, { 70, "TUNNEL_TXINFO" }, { 71, "MAX" })
"#;

#[test]
fn a_stable_5_15_starts_at_not_specified() {
    let reasons = reasons_of(&like_5_15());
    assert_eq!(shown(&reasons, [0, 1, 6]), ["NOT_SPECIFIED", "NO_SOCKET", "NETFILTER_DROP"]);
    assert_eq!(shown(&reasons, [8, 9, 0x2_0005]), ["core:8", "core:9", "2:5"]);
    assert_eq!(reasons.len(), 8);
}

/// The same number is another reason, and the other way round.
#[test]
fn numbers_move_between_kernels() {
    let (old, new) = (reasons_of(&like_6_1()), reasons_of(&like_6_18()));
    assert_eq!(shown(&old, 0..4), ["NOT_DROPPED_YET", "NOT_SPECIFIED", "NO_SOCKET", "core:3"]);
    assert_eq!(shown(&new, 0..4), ["NOT_DROPPED_YET", "CONSUMED", "NOT_SPECIFIED", "NO_SOCKET"]);
    assert_eq!((old.find("NO_SOCKET"), new.find("NO_SOCKET")), (vec![2], vec![3]));
}

#[test]
fn bounds_and_masks_are_no_reasons() {
    let reasons = reasons_of(&like_6_18());
    let all: Vec<_> = reasons.iter().map(|reason| reason.to_string()).collect();
    assert_eq!(all, ["NOT_DROPPED_YET", "CONSUMED", "NOT_SPECIFIED", "NO_SOCKET", "SKB_CSUM"]);
    assert_eq!(shown(&reasons, [5, 0xffff_0000]), ["core:5", "65535:0"]);
    assert_eq!(
        shown(&reasons, [0x1_0000, 0x2_0005, 0x3_0005]),
        ["mac80211_unusable:0", "openvswitch:5", "3:5"]
    );
}

#[test]
fn a_reason_says_what_is_known() {
    let reasons = reasons_of(&like_6_18());
    let known = |code| {
        let reason = reasons.get(code);
        (
            reason.code,
            reason.subsystem.as_deref().map(str::to_owned),
            reason.name.as_deref().map(str::to_owned),
        )
    };
    assert_eq!(known(3), (3, Some("core".into()), Some("NO_SOCKET".into())));
    assert_eq!(known(77), (77, Some("core".into()), None));
    assert_eq!(known(0x2_0001), (0x2_0001, Some("openvswitch".into()), None));
    assert_eq!(known(0x9_0001), (0x9_0001, None, None));
    assert_eq!(Reasons::unknown().get(77).to_string(), "core:77");
    assert_eq!(format!("{:>12}|{:<8}|", reasons.get(3), reasons.get(77)), "   NO_SOCKET|core:77 |");
}

#[test]
fn modules_name_their_subsystem() {
    let kernel = like_6_18();
    let (base, ovs, wifi) = (kernel.finish(), openvswitch(&kernel).finish(), mac80211(&kernel).finish());
    let base = Btf::parse(&base).unwrap();
    let mut reasons = Reasons::from_btf(&base);
    let core = reasons.len();
    assert!(reasons.is_missing_subsystem(0x2_0001));
    assert_eq!(reasons.add_module(&Btf::parse_split(&ovs, &base).unwrap()), 2);
    assert!(!reasons.is_missing_subsystem(0x2_0009), "its names are known, and this is none");
    assert!(reasons.is_missing_subsystem(0x1_0001));
    reasons.add_module(&Btf::parse_split(&wifi, &base).unwrap());
    assert_eq!(shown(&reasons, [0x2_0001, 0x2_0002]), ["OVS_DROP_LAST_ACTION", "OVS_DROP_ACTION_ERROR"]);
    assert_eq!(shown(&reasons, [0x1_0000, 0x1_0001]), ["RX_DROP_UNUSABLE", "RX_DROP_U_MIC_FAIL"]);
    assert_eq!(shown(&reasons, [0, 1, 3]), ["NOT_DROPPED_YET", "CONSUMED", "NO_SOCKET"], "the core's own");
    assert_eq!(shown(&reasons, [0x2_0000, 0x2_0003]), ["openvswitch:0", "openvswitch:3"], "start and end");
    assert_eq!(reasons.len(), core + 4);
}

#[test]
fn a_subsystem_may_be_built_in() {
    let mut kernel = like_6_18();
    let values =
        [("QDISC_DROP_UNSPEC", 0), ("__QDISC_DROP_REASON", 0x2_0000), ("QDISC_DROP_GENERIC", 0x2_0001)];
    kernel.enumeration("qdisc_drop_reason", false, &values);
    let reasons = reasons_of(&kernel);
    assert_eq!(
        shown(&reasons, [0, 0x2_0000, 0x2_0001]),
        ["NOT_DROPPED_YET", "openvswitch:0", "QDISC_DROP_GENERIC"]
    );
}

/// Before Linux 6.4 an enum that ends in `drop_reason` is another matter.
#[test]
fn without_subsystems_modules_add_nothing() {
    let kernel = like_6_1();
    let (base, module) = (kernel.finish(), openvswitch(&kernel).finish());
    let base = Btf::parse(&base).unwrap();
    let mut reasons = Reasons::from_btf(&base);
    assert_eq!(reasons.add_module(&Btf::parse_split(&module, &base).unwrap()), 0);
    assert_eq!(reasons.get(0x2_0001).to_string(), "2:1");
}

#[test]
fn reasons_are_found_as_users_write_them() {
    let kernel = like_6_18();
    let (base, module) = (kernel.finish(), openvswitch(&kernel).finish());
    let base = Btf::parse(&base).unwrap();
    let mut reasons = Reasons::from_btf(&base);
    reasons.add_module(&Btf::parse_split(&module, &base).unwrap());
    for text in
        ["NO_SOCKET", "no_socket", "SKB_DROP_REASON_NO_SOCKET", "skb_drop_reason_no_socket", "core:3", "3"]
    {
        assert_eq!(reasons.find(text), [3], "{text}");
    }
    assert_eq!(reasons.find("131073"), [0x2_0001], "the subsystem is in the number");
    assert!(reasons.can_be(3) && reasons.can_be(0x2_0001) && reasons.can_be(0x9_0001));
    assert!(!reasons.can_be(60_000) && !reasons.can_be(0x2_f001));
    for (text, code) in [("ovs_drop_last_action", 0x2_0001), ("OpenVSwitch:7", 0x2_0007), ("9:1", 0x9_0001)] {
        assert_eq!(reasons.find(text), [code], "{text}");
    }
    let none =
        ["", ":", "NO_SOCKE", "core:", "core:65536", "ovs:1", "65536:1", "SKB_DROP_REASON_", "-1:1", "é:1"];
    for text in none {
        assert_eq!(reasons.find(text), [0; 0], "{text}");
    }
    assert_eq!(reasons.find("SKB_DROP_REASON_OVS_DROP_LAST_ACTION"), [0; 0], "a prefix of the core's only");
}

proptest! {
    /// What a reason is displayed as finds it again.
    #[test]
    fn find_reads_what_display_writes(code: u32) {
        let reasons = reasons_of(&like_6_18());
        for code in [code, code % 8, code & 0x3_000f] {
            prop_assert_eq!(reasons.find(&reasons.get(code).to_string()), [code]);
        }
    }
}

#[test]
fn the_format_names_the_core() {
    let reasons = Reasons::from_format(FORMAT).unwrap();
    assert_eq!(shown(&reasons, [1, 2, 3, 70]), ["NOT_SPECIFIED", "NO_SOCKET", "SKB_CSUM", "TUNNEL_TXINFO"]);
    assert_eq!(shown(&reasons, [0, 71, 0x2_0001]), ["core:0", "core:71", "2:1"]);
    assert_eq!(reasons.len(), 4, "an expression is no number, MAX no reason");
}

#[test]
fn a_format_without_reasons_is_none() {
    let print = r#"print fmt: "%s", __print_symbolic(REC->protocol, { 8, "IP" })"#;
    for text in ["", "print fmt: \"skbaddr=%p protocol=%u location=%p\", REC->skbaddr", print] {
        assert!(Reasons::from_format(text).is_none(), "{text}");
    }
}

#[test]
fn only_the_list_of_the_field_is_read() {
    let text = r#"__print_symbolic(REC->kind, { 1, "NO" }), __print_symbolic(REC->reasons, { 2, "NO" }),
        __print_symbolic(REC->reason, { 3, "YES" }), __print_symbolic(REC->kind, { 4, "NO" })"#;
    assert_eq!(symbols(text, "reason").collect::<Vec<_>>(), [(3, "YES")]);
}

#[test]
fn a_broken_list_is_read_as_far_as_it_goes() {
    for (text, expected) in [
        (r#"{ 1, "A" }, { 2, "B""#, vec![(1, "A")]),
        (r#"{ 1, "A" }, nonsense { 2, "B" }"#, vec![(1, "A")]),
        (
            r#"{ 1 }, { , "X" }, { 2, "B }, { 3, " }, { 4294967296, "D" }, { -1, "E" }, { 5, "F" }"#,
            vec![(5, "F")],
        ),
        ("{", vec![]),
        ("}{", vec![]),
    ] {
        let text = format!("__print_symbolic(REC->reason, {text}");
        assert_eq!(symbols(&text, "reason").collect::<Vec<_>>(), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn arbitrary_formats_never_panic(text in ".*", list in "[-{},\"x0-9A-Z é]*") {
        let _ = Reasons::from_format(&text);
        let _ = Reasons::from_format(&format!("__print_symbolic(REC->reason,{list}"));
    }

    #[test]
    fn arbitrary_words_find_something_or_nothing(text in ".*") {
        let _ = reasons_of(&like_6_18()).find(&text);
    }
}

fn load(places: &Places) -> Loaded {
    Reasons::load_from(&KernelBtf::at(&places.btf), places)
}

#[test]
fn the_kernel_and_its_modules_are_read() {
    let (directory, kernel) = (Directory::new("load"), like_6_18());
    directory.write("vmlinux", kernel.finish());
    directory.write("openvswitch", openvswitch(&kernel).finish());
    directory.write("broken", b"not BTF");
    let Loaded { mut reasons, source, warnings } = load(&directory.places());
    assert_eq!(source, Source::Btf);
    assert_eq!(
        shown(&reasons, [3, 0x2_0001, 0x1_0001]),
        ["NO_SOCKET", "OVS_DROP_LAST_ACTION", "mac80211_unusable:1"]
    );
    assert_eq!(warnings.len(), 1);
    assert!(matches!(&*warnings[0], LoadError::Parse { cause: btf::Error::Truncated { .. }, path }
        if path.ends_with("broken")));

    // Nothing new: nothing is read, not even the kernel.
    fs::rename(directory.0.join("vmlinux"), directory.0.with_extension("aside")).unwrap();
    let Refreshed { added, warnings } = reasons.refresh_from(&directory.places());
    assert_eq!((added, warnings.len()), (0, 0));

    fs::rename(directory.0.with_extension("aside"), directory.0.join("vmlinux")).unwrap();
    directory.write("mac80211", mac80211(&kernel).finish());
    let Refreshed { added, warnings } = reasons.refresh_from(&directory.places());
    assert_eq!(
        (added, warnings.len()),
        (4, 0),
        "two names, each in two enums; the broken one is not read again"
    );
    assert_eq!(reasons.get(0x1_0001).to_string(), "RX_DROP_U_MIC_FAIL");
}

/// Unloaded, rebuilt with other numbers, loaded again.
#[test]
fn a_module_that_comes_back_is_read_again() {
    let (directory, kernel) = (Directory::new("again"), like_6_18());
    directory.write("vmlinux", kernel.finish());
    directory.write("openvswitch", openvswitch(&kernel).finish());
    let mut reasons = load(&directory.places()).reasons;
    fs::remove_file(directory.0.join("openvswitch")).unwrap();
    assert_eq!(reasons.refresh_from(&directory.places()).added, 0);
    assert_eq!(reasons.get(0x2_0001).to_string(), "OVS_DROP_LAST_ACTION", "still known of drops seen before");
    let mut module = kernel.split();
    module.enumeration("ovs_drop_reason", false, &[("OVS_DROP_NEW", 0x2_0001)]);
    directory.write("openvswitch", module.finish());
    assert_eq!(reasons.refresh_from(&directory.places()).added, 1);
    assert_eq!(reasons.get(0x2_0001).to_string(), "OVS_DROP_NEW");
}

#[test]
fn without_type_information_the_format_is_read() {
    let directory = Directory::new("format");
    directory.write("text", FORMAT);
    let mut places = directory.places();
    places.formats[1] = directory.0.join("text");
    let Loaded { reasons, source, warnings } = load(&places);
    assert_eq!(source, Source::Format);
    assert_eq!(reasons.get(2).to_string(), "NO_SOCKET");
    assert_eq!(warnings.len(), 2, "no type information, and no tracefs in the better place");
    let warning = warnings[0].to_string();
    assert!(warning.starts_with("cannot read ") && warning.contains("/vmlinux: "), "{warning}");
}

#[test]
fn without_any_source_reasons_are_numbers() {
    let directory = Directory::new("nothing");
    let Loaded { mut reasons, source, warnings } = load(&directory.places());
    assert_eq!((source, warnings.len()), (Source::Nothing, 3));
    assert_eq!(reasons.get(3).to_string(), "core:3");
    assert_eq!(reasons.refresh_from(&directory.places()).added, 0);
}

/// As Linux 5.10: its type information has no reasons, which is no fault.
#[test]
fn a_kernel_without_reasons_is_no_warning() {
    let directory = Directory::new("without");
    directory.write("vmlinux", Writer::new(cfg!(target_endian = "big")).finish());
    let Loaded { reasons, source, warnings } = load(&directory.places());
    assert_eq!((source, warnings.len()), (Source::Nothing, 0));
    assert!(reasons.is_empty());
}

#[test]
fn loading_can_be_left_to_a_thread() {
    fn is_send<T: Send + 'static>() {}
    is_send::<Loaded>();
    is_send::<Refreshed>();
}

#[test]
fn the_running_kernel_names_its_reasons() {
    let Ok(types) = btf::read_vmlinux() else { return skip("this kernel has no type information") };
    let Loaded { reasons, source, warnings } = Reasons::load(&KernelBtf::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    // Older kernels have no reasons: their type information has the enum's name nowhere.
    if memchr::memmem::find(&types, b"\0skb_drop_reason\0").is_none() {
        assert_eq!(source, Source::Nothing);
        return;
    }
    assert_eq!(source, Source::Btf);
    let [no_socket] = reasons.find("NO_SOCKET")[..] else { panic!("one NO_SOCKET") };
    assert_eq!(reasons.get(no_socket).to_string(), "NO_SOCKET");
    assert_eq!(reasons.find("NOT_SPECIFIED").len(), 1);
    assert_eq!(reasons.find("MAX"), [0; 0]);
    let mut names: Vec<_> = reasons.iter().map(|reason| (reason.subsystem, reason.name)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "no name twice");
    // The list that tracefs prints is made from the same enum.
    let format = fs::read_to_string("/sys/kernel/tracing/events/skb/kfree_skb/format");
    if let Some(printed) = format.ok().as_deref().and_then(Reasons::from_format) {
        for reason in printed.iter() {
            assert_eq!(reasons.get(reason.code), reason);
        }
    }
}
