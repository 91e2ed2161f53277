//! Rules as they are written, and the rows that count for them.

use proptest::prelude::*;

use super::*;
use crate::fakes::Host;
use crate::model::{
    class::Class,
    container::Container,
    location::{Location, Symbol},
    namespace::Namespace,
    reason::Reason,
    report::{Function, Iface, Netns},
    socket::{Ownership, Process},
};

/// The keys of [`row`].
pub(crate) const BY: [Key; 3] = [Key::Location, Key::Reason, Key::Function];

pub(crate) fn rule(bound: Bound, text: &str) -> Rule {
    Rule::parse(bound, text, &Host).expect("a rule")
}

fn problem(text: &str) -> String {
    Rule::parse(Bound::Max, text, &Host).expect_err("no rule").problem
}

pub(crate) fn row(symbol: &str, module: &str, reason: u32, count: u64) -> Row {
    let function = Function { symbol: symbol.into(), module: module.into() };
    let symbol = Symbol { name: symbol.into(), offset: 0x1f, size: Some(0x100), module: module.into() };
    let location = Location { address: 0xffff_ffff_8100_001f, symbol: Some(symbol) };
    let reason = Reason { code: reason, subsystem: Some("core".into()), name: None };
    let values = vec![
        Value::Location { location, source: None },
        Value::Reason(Some(reason)),
        Value::Function(Some(function)),
    ];
    Row { total: Some(count), class: Some(Class::Lost), ..Row::counting(count, values) }
}

#[test]
fn a_number_alone_is_about_every_drop() {
    let rule = rule(Bound::Max, "0");
    assert_eq!((rule.drops, rule.conditions.len()), (0, 0));
    assert_eq!(rule.counts(&BY, &row("tcp_v4_rcv", "kernel", 3, 1)), Some(true));
}

#[test]
fn conditions_are_all_met_or_it_does_not_count() {
    let rule = rule(Bound::Expect, "reason=NO_SOCKET,location=__udp4_lib_rcv:5");
    assert_eq!(rule.drops, 5);
    assert_eq!(rule.counts(&BY, &row("__udp4_lib_rcv", "kernel", 3, 1)), Some(true));
    assert_eq!(rule.counts(&BY, &row("__udp4_lib_rcv", "kernel", 12, 1)), Some(false));
    assert_eq!(rule.counts(&BY, &row("tcp_v4_rcv", "kernel", 3, 1)), Some(false));
}

#[test]
fn a_location_is_a_function_or_a_place_in_one() {
    let here = row("gre_rcv", "ip_gre", 3, 1);
    for (text, counts) in [
        ("location=gre_rcv:0", true),
        ("location=gre_rcv[ip_gre]:0", true),
        ("location=gre_rcv [ip_gre]:0", true),
        ("location=gre_rcv[gre]:0", false),
        ("location=gre_rcv+0x1f:0", true),
        ("location=gre_rcv+0x1f[ip_gre]:0", true),
        ("location=gre_rcv+0x20:0", false),
        ("location=gre:0", false),
        ("location=gre_rcv+0x1f/0x100 [ip_gre]:0", true),
        ("location=gre_rcv+0x20/0x100 [ip_gre]:0", false),
        ("location=0xffffffff8100001f:0", true),
        ("location=0xffffffff81000020:0", false),
    ] {
        assert_eq!(rule(Bound::Max, text).counts(&BY, &here), Some(counts), "{text}");
    }
}

#[test]
fn a_function_is_a_key_of_its_own() {
    let here = row("gre_rcv", "ip_gre", 3, 1);
    for (text, counts) in [
        ("function=gre_rcv:0", true),
        ("function=gre_rcv[ip_gre]:0", true),
        ("function=gre_rcv[gre]:0", false),
        ("function=gre:0", false),
    ] {
        assert_eq!(rule(Bound::Max, text).counts(&BY, &here), Some(counts), "{text}");
    }
    assert!(problem("function=gre_rcv+0x1f:0").contains("location=gre_rcv+0x1f"));
}

#[test]
fn a_function_is_known_by_its_name_in_the_source() {
    let clone = row("ip_rcv_finish_core.constprop.0", "kernel", 3, 1);
    assert_eq!(rule(Bound::Max, "location=ip_rcv_finish_core:0").counts(&BY, &clone), Some(true));
    assert_eq!(rule(Bound::Max, "location=ip_rcv_finish_core.constprop.0:0").counts(&BY, &clone), Some(true));
    assert_eq!(rule(Bound::Max, "location=ip_rcv_finish_core.part.0:0").counts(&BY, &clone), Some(false));
    assert_eq!(rule(Bound::Max, "location=ip_rcv_finish:0").counts(&BY, &clone), Some(false));
}

#[test]
fn every_key_has_its_own_values() {
    let by =
        [Key::Saddr, Key::Daddr, Key::Dport, Key::IpProto, Key::Protocol, Key::Iface, Key::Netns, Key::Cpu];
    let address = |text: &str| Value::Address(Some(text.parse().expect("an address")));
    let values = vec![
        address("10.0.0.1"),
        address("2001:db8::1"),
        Value::Port(Some(53)),
        Value::IpProto(Some(17)),
        Value::Protocol(Some(0x88b5)),
        Value::Iface(Some(Iface {
            index: 2,
            name: Some("eth0".into()),
            altnames: vec!["port-1-of-the-upper-switch".into()],
            netns: None,
        })),
        Value::Netns(Some(Netns {
            namespace: Namespace { inum: 4_026_531_840, cookie: 1 },
            name: Some("d".into()),
            names: vec!["former".into(), "d".into()],
        })),
        Value::Cpu(1),
    ];
    let row = Row::counting(1, values);
    for (text, counts) in [
        ("saddr=10.0.0.1:0", true),
        ("daddr=10.0.0.1:0", false),
        ("daddr=2001:db8:0::1:0", true),
        ("dport=53,ipproto=udp:0", true),
        ("ipproto=17:0", true),
        ("ipproto=6:0", false),
        ("protocol=0x88B5:0", true),
        ("protocol=ipv4:0", false),
        ("iface=eth0,netns=self:0", true),
        ("iface=eth:0", false),
        ("netns=4026531840:0", true),
        ("netns=d:0", true),
        ("netns=former:0", true),
        ("netns=e:0", false),
        ("cpu=1:0", true),
        ("cpu=0:0", false),
        ("sport=53:0", false),
    ] {
        assert_eq!(rule(Bound::Max, text).counts(&by, &row), Some(counts), "{text}");
    }
}

#[test]
fn a_place_without_a_name_may_be_the_one() {
    let mut row = row("gre_rcv", "ip_gre", 3, 1);
    let location = Location { address: 0xffff_ffff_8100_001f, symbol: None };
    row.values[0] = Value::Location { location, source: None };
    for (text, counts) in [
        ("location=gre_rcv:0", None),
        ("reason=NETFILTER_DROP,location=gre_rcv:0", Some(false)),
        ("location=0xffffffff8100001f:0", Some(true)),
        ("reason=NO_SOCKET:0", Some(true)),
    ] {
        assert_eq!(rule(Bound::Max, text).counts(&BY, &row), counts, "{text}");
    }
}

/// What another tracer's return probe shows may be any function, but not one that it is not.
#[test]
fn a_place_hidden_by_a_return_probe_may_be_the_one() {
    for name in
        ["arch_rethook_trampoline", "return_to_handler", "kretprobe_trampoline", "bpf_trampoline_6442541422"]
    {
        let row = row(name, "kernel", 3, 1);
        for (text, counts) in [
            ("location=gre_rcv:0".to_owned(), None),
            ("location=0xffffffff81000020:0".to_owned(), None),
            (format!("location={name}:0"), Some(true)),
            ("reason=NETFILTER_DROP,location=gre_rcv:0".to_owned(), Some(false)),
            ("reason=NO_SOCKET:0".to_owned(), Some(true)),
        ] {
            assert_eq!(rule(Bound::Max, &text).counts(&BY, &row), counts, "{name}: {text}");
        }
    }
    let by = [Key::Function];
    let hidden = Function { symbol: "return_to_handler".into(), module: "kernel".into() };
    let row = Row { values: vec![Value::Function(Some(hidden))], ..row("gre_rcv", "ip_gre", 3, 1) };
    assert_eq!(rule(Bound::Max, "function=gre_rcv:0").counts(&by, &row), None);
}

#[test]
fn a_process_and_a_container_have_several_names() {
    let process = Process { pid: 812, comm: "nginx".into(), others: 1 };
    let id = "4f5e6d7c".repeat(8);
    let container = Container::of(&format!("/docker/{id}").as_str().into(), Some(&"web".into()));
    let by = [Key::Process, Key::Container];
    let row = |owner, container, is_known| Row {
        values: vec![Value::Process(owner), Value::Container { container, is_known }],
        ..row("ip_rcv", "kernel", 3, 1)
    };
    let known = row(Ownership::Process(process), Some(container), true);
    for (text, counts) in [
        ("process=nginx:1", true),
        ("process=812:1", true),
        ("process=nginx[812]:1", true),
        ("process=81:1", false),
        ("process=ngin:1", false),
        ("container=web:1", true),
        ("container=4f5e6d7c4f5e:1", true),
        ("container=4f5e:1", false),
        (&*format!("container=/docker/{id}:1"), true),
        ("container=/docker:1", false),
        ("process=nginx,container=web:1", true),
        ("process=nginx,container=db:1", false),
    ] {
        assert_eq!(rule(Bound::Expect, text).counts(&by, &known), Some(counts), "{text}");
    }
    for (row, counts) in [
        (row(Ownership::Unknown, None, false), None),
        (row(Ownership::Nobody, None, true), Some(false)),
        (row(Ownership::Kernel, None, true), Some(false)),
    ] {
        assert_eq!(rule(Bound::Expect, "process=nginx:1").counts(&by, &row), counts);
        assert_eq!(rule(Bound::Expect, "container=web:1").counts(&by, &row), counts);
    }
    assert!(problem("socket=53:0").contains("known keys"), "it has parts that are keys");
}

#[test]
fn the_last_colon_is_before_the_number() {
    assert_eq!(rule(Bound::Max, "reason=core:12:7").drops, 7);
}

#[test]
fn what_is_mistyped_is_refused() {
    assert!(problem("reason=NO_SOCKET").contains("a colon and a number"));
    assert!(problem("").contains("not a number"));
    assert!(problem("-1").contains("not a number"));
    assert!(problem("reason=NO_SOCKET:many").contains("'many'"));
    assert!(problem("reson=NO_SOCKET:0").contains("did you mean 'reason'"));
    assert!(problem("stack=ip_rcv:0").contains("known keys: location, function, reason"));
    assert!(problem("ipproto=uddp:0").contains("did you mean 'udp'"));
    assert!(problem("protocol=ipv5:0").contains("did you mean 'ipv"));
    assert!(problem("saddr=10.0.0.0/8:0").contains("not an address"));
    assert!(problem("dport=65536:0").contains("not a port"));
    assert!(problem("netns=green:0").contains("'green'"));
    assert!(problem("reason=NO_SUCH:0").contains("NO_SUCH"));
    assert!(problem("reason:0").contains("KEY=VALUE"));
    assert!(problem("reason=:0").contains("no value"));
    assert!(problem("location=gre_rcv+12:0").contains("offset"));
    assert!(problem("location=[gre]:0").contains("SYMBOL"));
    assert!(problem("location=nft_do_chian:0").contains("no function 'nft_do_chian'"));
    assert!(problem("cpu=4:0").contains("no CPU 4"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        let _ = Rule::parse(Bound::Max, &text, &Host);
    }

    #[test]
    fn text_near_a_rule_does_not_either(text in "(reason|location|x)?=?[A-Z_]{0,9}[+,\\[\\]]?(0x)?[0-9]{0,3}:?[0-9]{0,25}") {
        let _ = Rule::parse(Bound::Expect, &text, &Host);
    }
}
