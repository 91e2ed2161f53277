//! Filters, decided in the kernel, on real frames.

use std::{thread, time::Duration};

use dropwatch::{
    check::rule::Vocabulary,
    filter::{Filter, Resolver},
};
use dropwatch_common::{
    packet,
    rules::{self, Facts, Ranges},
};

use crate::{
    Test,
    support::{
        frames::{self, Packet},
        inject::{tc::shoot, wire::Wire},
        is_guest,
        net::{CLOSED, Net},
        packets::{Random, Sample},
        udp_receiver,
        watch::Watch,
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("frames_of_all_kinds_are_decided_as_here", frames_of_all_kinds),
    ("one_flow_among_many", one_flow),
    ("a_namespace_is_the_only_one_counted", namespaces),
    ("an_interface_by_its_name", interface),
    ("a_function_and_a_reason", function_and_reason),
    ("not_is_all_the_others", complement),
    ("a_long_expression_is_loaded", long),
];

/// What needs nothing of a host.
struct NoNames;

impl Vocabulary for NoNames {
    fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
        Err(name.to_owned())
    }
}

impl Resolver for NoNames {
    fn netns(&self, name: &str) -> Result<u32, String> {
        Err(name.to_owned())
    }
}

impl Ranges for NoNames {
    fn contains(&self, _set: u32, _value: u64) -> bool {
        false
    }
}

/// Expressions that match some of the packets and not the others.
const EXPRESSIONS: [&str; 12] = [
    "ip",
    "ip6 and not tcp",
    "arp or host 10.1.2.3",
    "src net 10.0.0.0/8 and dst portrange 50-500",
    "tcp port 80 or 443 or 8100",
    "udp and not (dst port 53 or src port 53)",
    "ip6 host 2001:db8::1 or ip6 net fe80::/10",
    "port 22 or sctp",
    "less 50 or icmp6 or igmp",
    "greater 40 and ip proto 47",
    "not ip and not ip6",
    "dst host 192.168.2.120 and (tcp dst port 8100 or udp) or gre or ospf",
];

/// Whether a packet passes, by the code that the kernel runs as well.
fn passes(filter: &Filter, sample: &Sample) -> bool {
    let facts = Facts {
        packet: packet::parse(&sample.bytes[..], sample.ethertype),
        length: sample.bytes.len().try_into().expect("a length"),
        known: rules::known::LENGTH,
        ..Facts::default()
    };
    rules::decide(filter.rules(), &facts, &NoNames)
}

fn drops(watch: Watch) -> u64 {
    let reports = watch.stop();
    reports.reports.iter().map(|report| report["drops"].as_u64().expect("drops")).sum()
}

fn watch(filter: &str) -> Watch {
    Watch::start(&["-o", "json", "-i", "1h", "-f", filter])
}

fn frames_of_all_kinds() {
    const FRAMES: usize = 400;
    let wire = Wire::new();
    shoot(&wire, "vb", "ingress");
    let mut random = Random::new(7);
    // A driver pads or refuses what is no packet at all.
    let samples: Vec<_> = std::iter::repeat_with(|| Sample::any(&mut random))
        .filter(|sample| (1..1400).contains(&sample.bytes.len()))
        .take(FRAMES)
        .collect();
    let to = wire.b.hardware_address("vb");
    let sent: Vec<_> = samples.iter().map(|sample| sample.frame(to)).collect();
    // Each takes an emulated machine seconds to start.
    let chunks = if is_guest() { 1 } else { EXPRESSIONS.len() };
    for expressions in EXPRESSIONS.chunks(4).take(chunks) {
        let started: Vec<_> = expressions
            .iter()
            .map(|expression| {
                let filter = Filter::parse(expression, &NoNames).expect("an expression");
                let watch = watch(&format!("netns {} and ({expression})", wire.b.inum()));
                (expression, filter, watch)
            })
            .collect();
        frames::send_all(&wire.a, "va", sent.iter().map(Vec::as_slice));
        thread::sleep(Duration::from_millis(100));
        for (expression, filter, watch) in started {
            let expected = samples.iter().filter(|sample| passes(&filter, sample)).count() as u64;
            assert!(expected > 0 && expected < FRAMES as u64, "{expression} tells nothing apart");
            assert_eq!(drops(watch), expected, "{expression}");
        }
    }
}

fn one_flow() {
    let net = Net::quiet();
    let one = watch(&format!("src host 127.0.0.1 and udp dst port 8100 and netns {}", net.inum()));
    net.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for port in 8000..8200 {
            while socket.send_to(b"x", ("127.0.0.1", port)).is_err() {}
        }
        for _ in 0..41 {
            while socket.send_to(b"x", ("127.0.0.1", 8100)).is_err() {}
        }
    });
    assert_eq!(drops(one), 42);
}

fn namespaces() {
    let (one, other) = (Net::quiet(), Net::quiet());
    let watch = watch(&format!("netns {}", one.inum()));
    other.drop_datagrams(17);
    one.drop_datagrams(29);
    other.drop_datagrams(17);
    assert_eq!(drops(watch), 29);
}

fn interface() {
    let wire = Wire::new();
    let watch = watch("iface vb");
    wire.b.drop_datagrams(13);
    let to = wire.b.hardware_address("vb");
    let packet = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], CLOSED).bytes();
    frames::send(&wire.a, "va", to, frames::IPV4, &packet, 37);
    thread::sleep(Duration::from_millis(100));
    let reports = watch.stop();
    assert_eq!(reports.all_at(udp_receiver()), 37, "{reports:?}");
}

fn function_and_reason() {
    let wire = Wire::new();
    let here = watch(&format!("location {} and netns {}", udp_receiver(), wire.b.inum()));
    let elsewhere = watch(&format!("not location {} and netns {}", udp_receiver(), wire.b.inum()));
    let reason = crate::support::inject::needs::kernel_has_reason("NO_SOCKET")
        .then(|| watch(&format!("reason NO_SOCKET and netns {}", wire.b.inum())));
    wire.b.drop_datagrams(19);
    let to = wire.b.hardware_address("vb");
    frames::send(&wire.a, "va", to, 0x88b5, &[0; 46], 23);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(drops(here), 19);
    assert_eq!(drops(elsewhere), 23);
    if let Some(reason) = reason {
        assert_eq!(drops(reason), 19);
    }
}

fn complement() {
    let net = Net::quiet();
    let inum = net.inum();
    let (all, some, others) = (
        watch(&format!("netns {inum}")),
        watch(&format!("netns {inum} and udp port 9")),
        watch(&format!("netns {inum} and not udp port 9")),
    );
    net.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..7 {
            for port in [CLOSED, 10, 11] {
                while socket.send_to(b"x", ("127.0.0.1", port)).is_err() {}
            }
        }
    });
    assert_eq!((drops(all), drops(some), drops(others)), (21, 7, 14));
}

/// As many rules as there may be, of the kind that takes most, with every key.
fn long() {
    let net = Net::quiet();
    let nets: Vec<_> = (1..60).map(|part| format!("not ip src net 11.{part}.0.0/16")).collect();
    let filter = format!("netns {} and {}", net.inum(), nets.join(" and "));
    let keys = "location,reason,iface,netns,protocol,ipproto,saddr,daddr,sport,dport,cpu,stack";
    let watch = Watch::start(&["-o", "json", "-i", "1h", "-f", &filter, "-b", keys]);
    net.drop_datagrams(31);
    assert_eq!(drops(watch), 31);
}
