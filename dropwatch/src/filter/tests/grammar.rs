//! The parser: what it says about a fault, that it never panics, and that a printed expression reads as itself.

use proptest::prelude::*;

use dropwatch_common::program;

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
        ("location nft_do_chain+0x5ad/0x610 [kernel]", "location nft_do_chain+0x5ad/0x610[kernel]"),
        ("location \"nft_do_chain+0x5ad/0x610 [nf_tables]\"", "location nft_do_chain+0x5ad/0x610[nf_tables]"),
        ("location 0xffffffff81f62ffd", "location 0xffffffff81f62ffd"),
        ("reason 3 or '3'", "reason 3 or reason 3"),
        ("tcp[tcpflags]&(tcp-syn|tcp-ack)!=0", "tcp[13] & (2 | 16) != 0"),
        ("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", "tcp[(tcp[12] & 240) >> 2:4] = 1195725856"),
        ("(len + 1) * 2 == 7 or -5 > - len", "(len + 1) * 2 = 7 or -5 > -len"),
        ("ip[0] + 1 % 2 + 3 = icmptype", "ip[0] + (1 % (2 + 3)) = 0"),
        ("ip[2:2] - 20 - 8 & 0xf <= 5", "((ip[2:2] - 20) - 8) & 15 <= 5"),
        ("not (tcp[0] = 1) and (udp[4:2]) >= length", "not tcp[0] = 1 and udp[4:2] >= len"),
        ("portrange 1-9 or 5-9 or 5 = tcp[0]", "portrange 1-9 or portrange 5-9 or 5 = tcp[0]"),
        ("vlan or vlan 0xa", "vlan or vlan 10"),
        (
            "link src or dst 2:0:0:A:0:1 or ether host 0200.0000.0001",
            "ether host 02:00:00:0a:00:01 or ether host 02:00:00:00:00:01",
        ),
        ("broadcast and ether multicast", "ether dst host ff:ff:ff:ff:ff:ff and ether multicast"),
        ("ip multicast or ip6 multicast", "ip[16] >= 224 or ip6[24] = 255"),
        ("port http or ssh or udp port domain", "tcp port 80 or tcp port 22 or udp port 53"),
        ("portrange ftp-ssh or ftp-data", "tcp portrange 21-22 or tcp port 20"),
        ("ip proto vrrp or \\ipv6-icmp", "vrrp or ip proto 58"),
        (
            "ether proto lldp or aarp or \\vlan",
            "ether proto 0x88cc or ether proto 0x80f3 or ether proto 0x8100",
        ),
        ("netns host or host 1.2.3.4", "netns \"host\" or host 1.2.3.4"),
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

/// A fault of each kind.
const FAULTS: &[&str] = &[
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
    "tcp[13] & 2",
    "tcp[13] & 2 != ",
    "tcp[13 & 2 != 0",
    "tcp[tcpflag] = 2",
    "tcp[0:3] = 2",
    "tcp[] = 2",
    "tcp[0] / 0 = 2",
    "tcp[0] << 32 = 2",
    "ah[0] = 1",
    "len",
    "len = = 5",
    "(tcp[0] + 1 = 5",
    "tcp[0] = 09",
    "tcp[0] = 4294967296",
    "udp and 5 = ",
    "vlan 5000",
    "vlan many",
    "ether host 10.0.0.1",
    "ether host 2:0:0:0:0",
    "ether port 80",
    "ether",
    "ip broadcast",
    "arp multicast",
    "tcp dst prt 8100",
    "src hsot 10.0.0.1",
    "tcp prt 80",
    "udp adn tcp",
    "udp port http",
    "port htpt",
    "portrange http-many",
    "location 0xzz",
    "location nft_do_chain+0x5ad/610",
    "mpls",
    "mask 255.0.0.0",
    "src proto 6",
    "less",
    "less many",
    "tcp and \u{1b}[31m port 80",
    "iface größe-日本 und so",
    "iface 日本 or 日本 80",
    "port 80 or\n\tport 80000",
];

/// As a user sees them.
#[test]
fn faults_are_shown() {
    let shown: Vec<_> = FAULTS
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
    let most = program::MAX_INSNS;
    assert_eq!(filter(&ports(most)).insns().len(), most);
    let error = try_filter(&ports(most + 1)).expect_err("one too many");
    assert!(error.problem().contains("room for 1024 tests"), "{error}");
    assert_eq!(error.span(), ports(most + 1).len() - 2..ports(most + 1).len());
    assert!(try_filter(&format!("port 80 and {}", ports(most - 1))).is_err(), "two for both ends");
    let bytes = |count| vec!["udp[0] & 1 = 1"; count].join(" or ");
    assert_eq!(filter(&bytes(most)).insns().len(), most);
    assert!(try_filter(&format!("{} or ip multicast", bytes(most))).is_err());
    // What is more than bytes and a constant is tested for its header, read, calculated and compared.
    assert!(try_filter(&format!("tcp[13] + 2 != 0 and {}", ports(most - 4))).is_ok());
    assert!(try_filter(&format!("tcp[13] + 2 != 0 and {}", ports(most - 3))).is_err());
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
        "tcp[13]",
        "[0:2]",
        "len",
        "vlan",
        "broadcast",
        "multicast",
        "2:0:0:0:0:1",
        "http",
        "tcp-syn",
        "=",
        "!=",
        "<<",
        "-",
        "%",
        "&",
        "0x10",
        "5",
    ])
}
