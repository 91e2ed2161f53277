//! Filters, decided in the kernel, on real frames.

use dropwatch::internals::{Filter, Host, KernelBtf, of_this_host};
use dropwatch_common::{
    packet,
    program::{self, Facts, Input, Ranges},
};
use dropwatch_testing::packets::{Random, Sample};

use crate::{
    Test,
    support::{
        frames::{self, ACK, Packet, RST, SYN, Tcp},
        inject::{
            tc::{shoot, shot},
            wire::{Wire, eventually},
        },
        is_guest, kernel,
        net::{CLOSED, Net},
        udp_receiver,
        watch::Watch,
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("filter::frames_of_all_kinds_are_decided_as_here", frames_of_all_kinds),
    ("filter::one_flow_among_many", one_flow),
    ("filter::a_namespace_is_the_only_one_counted", namespaces),
    ("filter::an_interface_by_its_name", interface),
    ("filter::a_function_and_a_reason", function_and_reason),
    ("filter::not_is_all_the_others", complement),
    ("filter::a_long_expression_is_loaded", long),
    ("filter::two_hundred_ports", ports),
    ("filter::flags_of_tcp_and_types_of_icmp", flags),
    ("filter::a_tag_beside_the_frame_and_one_in_it", tags),
    ("filter::hardware_addresses_of_frames_and_of_none", hardware),
    ("filter::a_printed_location_is_a_filter", pasted),
    ("filter::many_comparisons_of_bytes_are_loaded", bytes),
];

/// Sets of a filter without names.
struct NoSets;

impl Ranges for NoSets {
    fn contains(&self, _set: u32, _value: u64) -> bool {
        false
    }
}

/// Expressions that match some of the packets and not the others.
const EXPRESSIONS: [&str; 20] = [
    "ip[8] & 1 = 0 and ip6[7] != 64 or tcp[4:2] > 20000",
    "udp[4:2] > 100 or ip6[40] & 0xf < 9",
    "tcp[((tcp[12] & 0xf0) >> 2):2] % 7 = 3 or udp[0:2] / 100 = 80",
    "icmp6[icmp6type] < 128 or icmp[icmptype] >= 8 or ip[6:2] & 0x1fff != 0",
    "len > 60 and len - 20 <= ip[2:2] + 40 or -ip6[6] = 0 - 17",
    "ip multicast or ip6 multicast or arp[6:2] = 1",
    "ether src 02:00:00:00:00:02 and not ether[12:4] = 0x08004500 and ether[19] & 3 = 1",
    "port domain or tcp port http or ip proto vrrp",
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
        link: [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2],
        known: program::known::LENGTH | program::known::LINK,
        ..Facts::default()
    };
    let input = Input { facts: &facts, bytes: &sample.bytes[..], ranges: &NoSets };
    program::decide(filter.insns(), &input)
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
    let kernel = KernelBtf::default();
    let host = Host::new(&kernel, &of_this_host(&kernel));
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
    // An emulated machine needs seconds to start each.
    let chunks = if is_guest() { 1 } else { EXPRESSIONS.len() };
    for expressions in EXPRESSIONS.chunks(4).take(chunks) {
        let started: Vec<_> = expressions
            .iter()
            .map(|expression| {
                let filter = Filter::parse(expression, &host).expect("an expression");
                let watch = watch(&format!("netns {} and ({expression})", wire.b.inum()));
                (expression, filter, watch)
            })
            .collect();
        let all = shot(&wire, "vb") + FRAMES as u64;
        frames::send_all(&wire.a, "va", sent.iter().map(Vec::as_slice));
        eventually("all frames are shot", || shot(&wire, "vb") == all);
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
    let packet = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], CLOSED).bytes();
    wire.deliver_copies(frames::IPV4, &packet, 37);
    let reports = watch.stop();
    assert_eq!(reports.all_at(udp_receiver()), 37, "{reports:?}");
}

fn function_and_reason() {
    let wire = Wire::new();
    let here = watch(&format!("location {} and netns {}", udp_receiver(), wire.b.inum()));
    let elsewhere = watch(&format!("not location {} and netns {}", udp_receiver(), wire.b.inum()));
    let reason = kernel::has_reason("NO_SOCKET")
        .then(|| watch(&format!("reason NO_SOCKET and netns {}", wire.b.inum())));
    wire.b.drop_datagrams(19);
    wire.deliver_copies(0x88b5, &[0; 46], 23);
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

/// As many tests as there may be, of the kind that needs most, with every key.
fn long() {
    let net = Net::quiet();
    let nets: Vec<_> =
        (0..1023).map(|part| format!("not ip src net 11.{}.{}.0/24", part / 256, part % 256)).collect();
    let filter = format!("netns {} and {}", net.inum(), nets.join(" and "));
    let keys = "location,reason,iface,netns,protocol,ipproto,saddr,daddr,sport,dport,cpu,stack";
    let watch = Watch::start(&["-o", "json", "-i", "1h", "-f", &filter, "-b", keys]);
    net.drop_datagrams(31);
    assert_eq!(drops(watch), 31);
}

/// As many comparisons of bytes as there may be, with every key.
fn bytes() {
    let net = Net::quiet();
    let of_one = |at: usize| format!("(udp[0:2] != {at} or ether[6] & 1 = {})", at % 2);
    let calculated =
        |at: usize| format!("(udp[udp[{at}] & 7] % 3 > ether[ip[{at}] & 7:4] or len - 20 > {at})");
    let every: Vec<_> = (0..400).map(of_one).chain((0..8).map(calculated)).collect();
    let filter = format!("netns {} and {}", net.inum(), every.join(" and "));
    let any: Vec<_> = (0..500).map(|at| format!("udp[{at}] & 1 = 2 or ip6[{at}:2] = 1")).collect();
    let filters = [filter, format!("netns {} and tcp and ({})", net.inum(), any.join(" or "))];
    let keys = "location,reason,iface,netns,protocol,ipproto,saddr,daddr,sport,dport,cpu,stack";
    let [all, none] =
        filters.map(|filter| Watch::start(&["-o", "json", "-i", "1h", "-f", &filter, "-b", keys]));
    net.drop_datagrams(37);
    assert_eq!((drops(all), drops(none)), (37, 0));
}

/// Sends copies of a frame, and waits until all of them are dropped.
fn shoot_copies(wire: &Wire, to: [u8; 6], ethertype: u16, packet: &[u8], count: u64) {
    let all = shot(wire, "vb") + count;
    frames::send(&wire.a, "va", to, ethertype, packet, count);
    eventually("all frames are shot", || shot(wire, "vb") == all);
}

fn ports() {
    let net = Net::quiet();
    let list: Vec<_> = (8001..8201).map(|port| port.to_string()).collect();
    let watch = watch(&format!("netns {} and (port {})", net.inum(), list.join(" or ")));
    net.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for port in [8000, 8001, 8100, 8200, 8201] {
            while socket.send_to(b"x", ("127.0.0.1", port)).is_err() {}
        }
    });
    assert_eq!(drops(watch), 3);
}

fn flags() {
    const FROM: [u8; 4] = [10, 98, 0, 7];
    const TO: [u8; 4] = [10, 99, 0, 2];
    let wire = Wire::new();
    shoot(&wire, "vb", "ingress");
    let here = |filter: &str| watch(&format!("netns {} and {filter}", wire.b.inum()));
    let with_both = here("tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn|tcp-ack");
    let with_any = here("tcp[tcpflags] & (tcp-syn|tcp-ack) != 0");
    let with_none = here("tcp[13] & 18 == 0");
    let echo = here("icmp[icmptype] = icmp-echo");
    let hops = here("ip[8] < 5");
    let from_port = here("udp[0:2] = 40000 and udp[4:2] > 8 + udp[8]");
    let tcp = |flags| Packet::tcp(FROM, TO, Tcp { flags, ..Tcp::default() });
    let deliver = |packet: &Packet, count| shoot_copies(&wire, wire.to, frames::IPV4, &packet.bytes(), count);
    deliver(&tcp(SYN), 3);
    deliver(&tcp(SYN | ACK), 5);
    deliver(&tcp(ACK), 7);
    deliver(&tcp(RST), 11);
    // The flags of a later fragment would be data.
    deliver(&Packet { fragment: 100, ..tcp(SYN | ACK) }, 13);
    deliver(&Packet::icmp(FROM, TO, 8, &[0; 4]), 17);
    deliver(&Packet::icmp(FROM, TO, 0, &[0; 4]), 19);
    deliver(&Packet { hops: 4, ..Packet::udp_with(FROM, TO, 9, &[1, 0, 0]) }, 23);
    deliver(&Packet::udp_with(FROM, TO, 9, &[3, 0, 0]), 29);
    assert_eq!((drops(with_both), drops(with_any), drops(with_none)), (5, 15, 11));
    assert_eq!((drops(echo), drops(hops), drops(from_port)), (17, 23, 23));
}

/// The kernel takes the outer tag out of a frame that it receives.
fn tags() {
    let wire = Wire::new();
    shoot(&wire, "vb", "ingress");
    let here = |filter: &str| watch(&format!("netns {} and {filter}", wire.b.inum()));
    let (five, ten, both, any, none) = (
        here("vlan 5"),
        here("vlan 10"),
        here("vlan 10 and vlan 5"),
        here("vlan and udp port 9"),
        here("not vlan and udp port 9"),
    );
    let packet = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], CLOSED).bytes();
    let tagged = |control: [u8; 2], ethertype: u16, inside: &[u8]| {
        let [high, low] = ethertype.to_be_bytes();
        [&[control[0], control[1], high, low], inside].concat()
    };
    let once = tagged([0xe0, 5], frames::IPV4, &packet);
    let twice = tagged([0, 10], frames::VLAN, &once);
    shoot_copies(&wire, wire.to, frames::VLAN, &once, 7);
    shoot_copies(&wire, wire.to, frames::VLAN, &twice, 11);
    shoot_copies(&wire, wire.to, frames::IPV4, &packet, 13);
    assert_eq!((drops(five), drops(ten), drops(both)), (18, 11, 11));
    assert_eq!((drops(any), drops(none)), (18, 13));
}

/// What has no Ethernet header matches no test of one.
fn hardware() {
    let wire = Wire::new();
    shoot(&wire, "vb", "ingress");
    let here = |filter: &str| watch(&format!("netns {} and {filter}", wire.b.inum()));
    let own = wire.to.map(|byte| format!("{byte:02x}")).join(":");
    let (to_it, to_all, to_groups, by_bytes) = (
        here(&format!("ether dst {own} and udp port 9")),
        here("broadcast"),
        here("ether multicast"),
        here("ether[0] & 1 != 0 and ether[12:2] = 0x800"),
    );
    let without = here("udp port 9 and (ether[0] >= 0 or ether multicast)");
    let packet = Packet::udp([10, 98, 0, 7], [10, 99, 0, 2], CLOSED).bytes();
    for (to, count) in [(wire.to, 3), ([0xff; 6], 5), ([1, 0, 0x5e, 0, 0, 1], 7)] {
        shoot_copies(&wire, to, frames::IPV4, &packet, count);
    }
    assert_eq!((drops(to_it), drops(to_all)), (3, 5));
    assert_eq!((drops(to_groups), drops(by_bytes)), (12, 12));
    assert_eq!(drops(without), 15);
}

/// As it stands in a report, and by its address alone.
fn pasted() {
    let net = Net::quiet();
    let first = watch(&format!("netns {}", net.inum()));
    net.drop_datagrams(3);
    let reports = first.stop();
    let location = &reports.rows().next().expect("a row")["location"];
    let text = |key: &str| location[key].as_str().expect("text").to_owned();
    let number = |key: &str| location[key].as_u64().expect("a number");
    assert_eq!(text("symbol"), udp_receiver());
    let printed =
        format!("{}+{:#x}/{:#x} [{}]", text("symbol"), number("offset"), number("size"), text("module"));
    let here = |place: &str| watch(&format!("location {place} and netns {}", net.inum()));
    let (plain, quoted, address) = (here(&printed), here(&format!("'{printed}'")), here(&text("address")));
    let elsewhere = watch(&format!("netns {} and not location {}", net.inum(), text("address")));
    net.drop_datagrams(17);
    assert_eq!((drops(plain), drops(quoted), drops(address), drops(elsewhere)), (17, 17, 17, 0));
}
