//! What libpcap cannot judge: our own terms, and intended differences.

use dropwatch_common::{
    packet::{self, known, transport},
    program::{self, Facts, Insn, need},
};

use super::{
    Filter, Host, Set, facts, filter,
    machine::{Decider, Packet},
    packets::{Random, Sample},
    passes,
};

const IPV6: u16 = 0x86dd;

/// An IPv6 packet: its next header and what follows the addresses.
fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    bytes.extend([0xfd; 32]);
    bytes.extend(rest);
    bytes
}

/// Ports 1000 and 80.
const PORTS: [u8; 4] = [0x03, 0xe8, 0, 80];

fn passes_ipv6(expression: &str, next: u8, rest: &[&[u8]]) -> bool {
    passes(&filter(expression), &facts(IPV6, &ipv6(next, &rest.concat())))
}

/// Behind every kind of extension header, and behind several.
#[test]
fn ports_are_found_behind_extension_headers() {
    let chains: [(u8, &[&[u8]]); 7] = [
        (0, &[&[6, 0, 0, 0, 0, 0, 0, 0]]),
        (43, &[&[6, 1], &[0; 14]]),
        (60, &[&[6, 0, 0, 0, 0, 0, 0, 0]]),
        (51, &[&[6, 1], &[0; 10]]),
        (44, &[&[6, 9, 0, 1, 0, 0, 0, 0]]),
        (44, &[&[6, 9, 0, 6, 0, 0, 0, 0]]),
        (0, &[&[60, 0], &[0; 6], &[44, 0], &[0; 6], &[6, 0], &[0; 6]]),
    ];
    for (next, chain) in chains {
        let headers = chain.concat();
        assert!(passes_ipv6("tcp dst port 80", next, &[&headers, &PORTS]), "{next}: {chain:?}");
        assert!(!passes_ipv6("udp port 80", next, &[&headers, &PORTS]), "{next}: {chain:?}");
        let shown = packet::parse(&ipv6(next, &[&headers[..], &PORTS].concat())[..], IPV6);
        assert_eq!((shown.ipproto, shown.sport, shown.dport), (6, 1000, 80));
        assert_eq!(shown.known, known::SADDR | known::DADDR | known::IPPROTO | known::SPORT | known::DPORT);
    }
}

/// A later fragment has a protocol and no ports; neither has one an end to look for.
#[test]
fn a_later_fragment_of_ipv6_has_no_ports() {
    let later = [17, 0, 0, 8, 0, 0, 0, 0];
    assert!(!passes_ipv6("port 80", 44, &[&later, &PORTS]));
    assert!(passes_ipv6("not port 80", 44, &[&later, &PORTS]));
    let shown = packet::parse(&ipv6(44, &later)[..], IPV6);
    assert_eq!((shown.ipproto, shown.transport), (17, 0));
    assert_eq!(shown.known & (known::IPPROTO | known::SPORT | known::DPORT), known::IPPROTO);
}

/// As with every field beyond the bytes, `not` does not make it pass.
#[test]
fn a_chain_that_is_cut_is_refused() {
    let options = [17, 1, 0, 0, 0, 0, 0, 0];
    for expression in ["port 80", "not port 80"] {
        assert!(!passes_ipv6(expression, 0, &[&options]), "{expression}");
        assert!(!passes_ipv6(expression, 0, &[&options[..2]]), "{expression}");
    }
    assert!(passes_ipv6("not ip6 proto 17", 0, &[&options]));
    assert!(passes_ipv6("src port 1000 or port 80", 17, &[&PORTS[..3]]), "only the second port is cut");
}

/// Eight headers are followed, and a ninth is the end of it.
#[test]
fn a_chain_has_an_end() {
    let chain = |length: usize| {
        let mut headers = [60, 0, 0, 0, 0, 0, 0, 0].repeat(length);
        headers[(length - 1) * 8] = 17;
        headers
    };
    assert!(passes_ipv6("udp port 80", 60, &[&chain(8), &PORTS]));
    assert!(!passes_ipv6("udp port 80", 60, &[&chain(9), &PORTS]));
    assert!(passes_ipv6("not udp port 80", 60, &[&chain(9), &PORTS]));
    let shown = packet::parse(&ipv6(60, &[&chain(9)[..], &PORTS].concat())[..], IPV6);
    assert_eq!(shown.known, known::SADDR | known::DADDR);
}

/// From the network header on, whatever was before it.
#[test]
fn lengths_are_ours() {
    let passes = |expression, length| passes(&filter(expression), &facts(0x88cc, &vec![0; length]));
    assert!(passes("less 60", 60) && !passes("less 60", 61));
    assert!(passes("greater 60", 60) && !passes("greater 60", 59));
    assert!(!super::passes(&filter("greater 0"), &Facts::default()), "the length is not known");
}

/// What a report would invent: a header that contradicts itself.
#[test]
fn a_report_believes_no_garbage() {
    let mut bytes = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 3, 232, 0, 80];
    let healthy = packet::parse(&bytes[..], 0x0800);
    assert_eq!(healthy.known, known::SADDR | known::DADDR | known::IPPROTO | known::SPORT | known::DPORT);
    assert_eq!((healthy.sport, healthy.dport, healthy.transport), (1000, 80, transport::UDP));
    assert_eq!(packet::parse(&bytes[..22], 0x0800).known & known::DPORT, 0, "cut");
    bytes[0] = 0x44;
    assert_eq!(packet::parse(&bytes[..], 0x0800).known & (known::SPORT | known::DPORT), 0);
    bytes[0] = 0x65;
    let garbage = packet::parse(&bytes[..], 0x0800);
    assert_eq!(garbage.known, 0);
    assert!(passes(&filter("udp dst port 80"), &facts(0x0800, &bytes)), "libpcap looks at no version");
    assert_eq!(packet::parse(&[0; 64][..], 0x0806).known, 0, "ARP has no IP addresses");
}

/// DCCP and UDP-Lite have ports to show and none to filter by.
#[test]
fn other_transports_show_their_ports() {
    for protocol in [33, 136] {
        let shown = packet::parse(&ipv6(protocol, &PORTS)[..], IPV6);
        assert_eq!((shown.sport, shown.dport), (1000, 80));
        assert!(!passes_ipv6("port 80", protocol, &[&PORTS]));
    }
}

/// A drop that matches each of our own words.
fn drop_of_ours() -> Facts {
    let mut iface = [0; 16];
    iface[..4].copy_from_slice(b"eth0");
    Facts {
        location: 0x1010,
        iface,
        length: 60,
        netns: 4_026_532_100,
        cookie: 4_026_532_100,
        reason: 70,
        known: program::known::LENGTH
            | program::known::NETNS
            | program::known::IFACE
            | program::known::REASON,
        ..Facts::default()
    }
}

#[test]
fn our_own_words_mean_what_they_say() {
    let ours = drop_of_ours();
    for (expression, expected) in [
        ("iface eth0", true),
        ("ifname eth0", true),
        ("iface eth", false),
        ("iface eth00", false),
        ("iface lo or eth0", true),
        ("iface (lo or not eth0)", false),
        ("netns blue", true),
        ("netns 4026532100", true),
        ("netns \"/run/netns/blue\"", true),
        ("netns self", false),
        ("reason NETFILTER_DROP", true),
        ("reason NO_SOCKET", false),
        ("reason NO_SOCKET or NETFILTER_DROP", true),
        ("not reason NO_SOCKET and iface eth0 and netns blue", true),
        ("location tcp_v4_rcv", true),
        ("location tcp_v4_rcv [kernel] and iface eth0", true),
        ("port 80", false),
        ("not ip", true),
    ] {
        assert_eq!(passes(&filter(expression), &ours), expected, "{expression}");
    }
}

#[test]
fn an_interface_is_meant_by_each_of_its_names() {
    const LONG: &str = "port-1-of-the-upper-switch";
    // The kernel looks the names up, and says by bits which of them it has found.
    let passes_called = |expression: &str, names: &[&str]| {
        let filter = filter(expression);
        let bits = filter.interfaces().iter().enumerate();
        let found = bits.filter(|(_, name)| names.contains(&name.as_str()));
        let names = found.fold(0, |bits, (place, _)| bits | 1 << place);
        passes(&filter, &Facts { names, ..drop_of_ours() })
    };
    let long = format!("iface {LONG}");
    for (expression, names, expected) in [
        ("iface eth1", &[][..], false),
        ("iface eth1", &["eth1"], true),
        ("iface eth0", &["eth1"], true),
        ("iface eth0 and iface eth1", &[], false),
        ("iface eth0 and iface eth1", &["eth1"], true),
        ("not iface eth1", &["eth1"], false),
        (&long, &[LONG], true),
        (&long, &[], false),
        ("iface eth1 and iface eth2", &["eth1"], false),
        ("iface eth1 and iface eth2", &["eth1", "eth2"], true),
        // It is no name by its first 15 bytes.
        ("iface eth0-and-more-than-that", &[], false),
    ] {
        assert_eq!(passes_called(expression, names), expected, "{expression} {names:?}");
    }
}

#[test]
fn a_filter_names_so_many_interfaces() {
    let names = |count: usize| (0..count).map(|number| format!("iface n{number}")).collect::<Vec<_>>();
    let twice = [names(64), names(64)].concat().join(" or ");
    assert_eq!(filter(&twice).interfaces().len(), 64);
    let error = Filter::parse(&names(65).join(" or "), &Host).expect_err("too many");
    assert!(error.to_string().contains("room for 64 names of interfaces"), "{error}");
}

/// Not even `not` knows it: the test is simply false.
#[test]
fn what_the_kernel_does_not_know_is_false() {
    let unknown = Facts { known: 0, ..drop_of_ours() };
    for expression in ["iface eth0", "netns blue", "reason NETFILTER_DROP", "less 100"] {
        assert!(!passes(&filter(expression), &unknown), "{expression}");
        assert!(passes(&filter(&format!("not {expression}")), &unknown), "{expression}");
    }
}

#[test]
fn equal_sets_are_one() {
    let both = filter("location gre_rcv[ip_gre] or reason NO_SOCKET or location gre_rcv[ip_gre]");
    assert_eq!(both.sets().len(), 2);
    assert!(matches!(&both.sets()[0], Set::Location(place) if place.module.as_deref() == Some("ip_gre")));
    assert!(matches!(&both.sets()[1], Set::Reason { codes, .. } if codes == &[3]));
}

#[test]
fn only_what_is_asked_is_needed() {
    for (expression, needs) in [
        ("ip or ip6", need::ETHERTYPE),
        ("ip[8] = 1", need::ETHERTYPE | need::BYTES),
        ("tcp[13] = 2", need::ETHERTYPE | need::PROTOCOL | need::BYTES),
        ("tcp or icmp6", need::PROTOCOL),
        ("host 10.0.0.1", need::ADDRESSES),
        ("tcp dst port 80", need::PORTS),
        ("less 100", need::LENGTH),
        ("netns self", need::NETNS),
        ("iface lo", need::IFACE),
        ("location tcp_v4_rcv", need::LOCATION),
        ("not reason NO_SOCKET", need::REASON),
        ("port 80 and iface lo", need::PORTS | need::IFACE),
    ] {
        assert_eq!(filter(expression).needs(), needs, "{expression}");
    }
}

/// Every jump leads forward, into the table or out of it: what the kernel's loop relies on.
#[test]
fn jumps_lead_forward() {
    let mut random = Random::new(7);
    for _ in 0..500 {
        let filter = filter(&super::expressions::any(&mut random).ours);
        let length = u32::try_from(filter.insns().len()).expect("few");
        for (at, insn) in (0..).zip(filter.insns()) {
            let targets = [insn.targets & 0xffff, insn.targets >> 16];
            let leads_on = |target| target > at && target < length || target >= u32::from(program::REJECT);
            assert!(targets.into_iter().all(leads_on), "{filter}: {insn:?}");
        }
    }
}

/// A global of zeros, which was never filled in, filters nothing.
#[test]
fn no_instructions_let_everything_pass() {
    let nothing: [Insn; 0] = [];
    let decide = |insns: &[Insn]| {
        let decider = Decider::new(insns, program::Cases::default(), Vec::new());
        decider.decide(&Facts::default(), &Packet::whole(&[]))
    };
    assert_eq!((decide(&[Insn::default()]), decide(&nothing)), (1, 0));
}

/// Any bytes at all.
#[test]
fn no_packet_makes_it_panic() {
    let mut random = Random::new(3);
    for _ in 0..20_000 {
        let sample = Sample::any(&mut random);
        let packet = packet::parse(&sample.bytes[..], sample.ethertype);
        assert_eq!(packet.ethertype, sample.ethertype);
    }
}
