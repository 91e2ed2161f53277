//! The parser: what it says about a fault, that it never panics, and that a printed expression reads as itself.

use proptest::prelude::*;

use super::{super::tree::Expr, filter, packets::Random, try_filter};

fn tree(text: &str) -> Expr {
    filter(text).expression().clone()
}

/// What is printed for an expression.
fn canonical(text: &str) -> String {
    filter(text).to_string()
}

#[test]
fn expressions_print_as_they_are_meant() {
    for (text, printed) in [
        ("port 80 or 443", "port 80 or port 443"),
        ("tcp src or dst port 80", "tcp port 80"),
        ("dst and src net 10.1", "src and dst net 10.1.0.0/16"),
        (
            "src 10.0.0.1 or 10.0.0.2 and dst host ::1",
            "(src host 10.0.0.1 or src host 10.0.0.2) and dst host ::1",
        ),
        ("net 10", "net 10.0.0.0/8"),
        ("net 0", "host 0.0.0.0"),
        ("host 10", "host 0.0.0.10"),
        ("host 10.1", "net 10.1.0.0/16"),
        ("net 10.0.0.1 mask 255.0.0.255", "net 10.0.0.1 mask 255.0.0.255"),
        ("net 2001:DB8::/32", "net 2001:db8::/32"),
        ("portrange 443-80 or 22", "portrange 80-443 or port 22"),
        ("ip proto \\udp or ospf", "ip proto 17 or ip proto 89"),
        ("ip proto udp", "ip proto 17"),
        ("proto 6 or ip6 proto 58", "tcp or icmp6"),
        ("ether proto 0x800 or \\arp or 0x88cc", "ip or arp or ether proto 0x88cc"),
        ("gre or ospf", "ip proto 47 or ip proto 89"),
        ("!tcp&&!!udp||not(less 10)", "(not tcp and not not udp) or not less 10"),
        ("port (80 or 443) and not (22 and 23)", "(port 80 or port 443) and not (port 22 and port 23)"),
        ("ifname eth0 or \\tcp or \"not\"", "iface eth0 or iface \"tcp\" or iface \"not\""),
        (
            "location gre_rcv [ip_gre] or tcp_v4_rcv+0xaa",
            "location gre_rcv[ip_gre] or location tcp_v4_rcv+0xaa",
        ),
        ("netns self or '/run/netns/blue'", "netns self or netns /run/netns/blue"),
        ("reason NO_SOCKET or core:12", "reason NO_SOCKET or reason core:12"),
        (
            "dst host 192.168.2.120 and tcp dst port 8100 and not reason NO_SOCKET",
            "dst host 192.168.2.120 and tcp dst port 8100 and not reason NO_SOCKET",
        ),
    ] {
        assert_eq!(canonical(text), printed, "{text}");
        assert_eq!(filter(printed).expression(), filter(text).expression(), "{text}");
    }
}

/// A parenthesis neither hides what was said before it nor changes it.
#[test]
fn a_bare_value_repeats_what_is_before_it() {
    assert_eq!(canonical("port 80 or (tcp) or 443"), "port 80 or tcp or port 443");
    assert_eq!(
        canonical("host 10.0.0.1 and (port 80) or 10.0.0.2"),
        "(host 10.0.0.1 and port 80) or host 10.0.0.2"
    );
    assert_eq!(canonical("udp port 80 or not 443"), "udp port 80 or not udp port 443");
    assert!(try_filter("port 80 or tcp or 443").is_err());
    assert!(try_filter("(port 80) or 443").is_err());
    assert!(try_filter("less 80 or 443").is_err());
}

/// A fault of each kind, as a user sees it.
#[test]
fn faults_are_shown() {
    let faults = [
        "",
        "   ",
        "prot 80",
        "tcp port http",
        "host example.org",
        "80",
        "port 80 or tcp or 443",
        "tcp port 80 and",
        "port",
        "port 65536",
        "port 1-9",
        "portrange 1-",
        "port 0x",
        "port 09",
        "host 10.0.0.256",
        "host 10.0.0.0/8",
        "net 10.0.0.1/8",
        "net 10.0.0.0/33",
        "net 10.0.0.0 mask 255.0.0.x",
        "net 10.0.0.1 mask 255.0.0.0",
        "net 2001:db8::/129",
        "host ::1::2",
        "ether host 02:00:00:00:00:01",
        "host 02:00:00:00:00:01",
        "tcp host 10.0.0.1",
        "ip6 host 10.0.0.1",
        "ip host ::1",
        "icmp port 80",
        "tcp proto 6",
        "ip proto 256",
        "ip proto \\updp",
        "ether proto 6",
        "ip6 proto host",
        "(tcp or udp",
        "tcp or udp)",
        "tcp udp",
        "tcp & udp",
        "iface a-name-with-sixteen",
        "iface \"eth0",
        "iface tcp",
        "reason NO_SOKET",
        "netns green",
        "location +0x1f",
        "location tcp_v4_rcv+12",
        "tcp[13] & 2 != 0",
        "vlan 5",
        "mask 255.0.0.0",
        "src proto 6",
        "less",
        "less many",
        "tcp and \u{1b}[31m port 80",
        "iface größe-日本 und so",
        "iface 日本 or 日本 80",
        "port 80 or\n\tport 80000",
    ];
    let shown: Vec<_> = faults
        .iter()
        .map(|text| {
            try_filter(text).map_or_else(|error| error.to_string(), |filter| format!("fine: {filter}"))
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n\n"));
}

#[test]
fn what_is_too_large_is_refused() {
    let ports = |count| format!("dst port {}", vec!["80"; count].join(" or "));
    assert_eq!(filter(&ports(64)).rules().len(), 64);
    let error = try_filter(&ports(65)).expect_err("one too many");
    assert!(error.problem().contains("room for 64 tests"), "{error}");
    assert_eq!(error.span(), ports(65).len() - 2..ports(65).len());
    assert!(try_filter(&format!("port 80 and {}", ports(63))).is_err(), "two rules for both ends");
}

#[test]
fn what_is_too_deep_is_refused() {
    let deep = |open: &str, count: usize, close: &str| {
        try_filter(&format!("{}tcp{}", open.repeat(count), close.repeat(count)))
    };
    assert!(deep("(", 64, ")").is_ok() && deep("!", 64, "").is_ok());
    for (open, close) in [("(", ")"), ("not ", ""), ("!(", ")"), ("(", "")] {
        let error = deep(open, 100_000, close).expect_err("too deep");
        assert!(error.problem().contains("nested more than 64"), "{error}");
    }
    assert!(try_filter(&format!("port {}80", "(".repeat(100_000))).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        if let Err(error) = try_filter(&text) {
            let span = error.span();
            prop_assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
            prop_assert_eq!(error.to_string().lines().count(), 3);
        }
    }

    /// Words in any order: now and then an expression, and then one that prints.
    #[test]
    fn words_in_any_order_do_not_either(words in prop::collection::vec(word(), 0..12)) {
        let text = words.join(" ");
        if let Ok(filter) = try_filter(&text) {
            prop_assert_eq!(filter.expression(), &tree(&filter.to_string()));
        }
    }

    #[test]
    fn a_printed_expression_reads_as_itself(seed in any::<u64>()) {
        let text = super::expressions::any(&mut Random::new(seed)).ours;
        let once = filter(&text);
        prop_assert_eq!(&tree(&once.to_string()), once.expression());
    }

    /// Names of any kind.
    #[test]
    fn a_printed_name_reads_as_itself(name in "[^\"]{1,15}", kind in "iface|location") {
        if let Ok(once) = try_filter(&format!("{kind} \"{name}\"")) {
            prop_assert_eq!(&tree(&once.to_string()), once.expression());
        }
    }
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "tcp",
        "udp",
        "ip",
        "ip6",
        "arp",
        "gre",
        "ether",
        "host",
        "net",
        "port",
        "portrange",
        "proto",
        "src",
        "dst",
        "and",
        "or",
        "not",
        "!",
        "(",
        ")",
        "&&",
        "||",
        "10.0.0.1",
        "10.1",
        "10",
        "::1",
        "fe80::/16",
        "/",
        "8",
        "mask",
        "255.0.0.0",
        "80",
        "1-9",
        "\\udp",
        "less",
        "greater",
        "reason",
        "NO_SOCKET",
        "iface",
        "eth0",
        "netns",
        "self",
        "location",
        "gre_rcv",
        "[ip_gre]",
        "gre_rcv+0x1f",
        "\"tcp\"",
        "''",
        "\\",
        "[",
        "]",
    ])
}
