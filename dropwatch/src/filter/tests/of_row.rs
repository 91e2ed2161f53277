//! What is said of a row, against what is dropped.

use dropwatch_common::{
    packet::{self, family},
    program::{self, Facts},
    row::{RowKey, known},
};

use super::{
    Filter, Host, facts,
    packets::{Random, Sample},
    passes,
};
use crate::{
    fakes::Kernel,
    filter::of_row::{self, For},
    model::{
        identity::Identity,
        interval::{Count, Interval},
        keys::{Key, counted, project},
        report::{Report, Row, View},
    },
};

/// What a row can stand for, as far as a drop alone says it.
const KEYS: [Key; 11] = [
    Key::Location,
    Key::Function,
    Key::Reason,
    Key::Iface,
    Key::Netns,
    Key::Protocol,
    Key::IpProto,
    Key::Saddr,
    Key::Daddr,
    Key::Sport,
    Key::Dport,
];
/// Those that a filter tells apart exactly.
const EXACT: [Key; 5] = [Key::Location, Key::Reason, Key::Netns, Key::Saddr, Key::Daddr];

/// A drop as a filter sees it, and as a probe counts it.
fn drop_of(random: &mut Random) -> (Facts, RowKey) {
    let Sample { ethertype, bytes } = Sample::any(random);
    let of_packet = facts(ethertype, &bytes);
    let mut iface = [0; 16];
    iface[..4].copy_from_slice(random.pick(&[b"eth0", b"eth1"]));
    let (netns, cookie) = random.pick(&[(4_026_531_840, 1), (4_026_532_100, 0)]);
    let (location, reason) = (random.pick(&[0x1010, 0x1020, 0x9010]), random.pick(&[3, 12]));
    let facts = Facts {
        location,
        reason,
        netns,
        cookie,
        iface,
        known: of_packet.known | program::known::NETNS | program::known::IFACE | program::known::REASON,
        ..of_packet
    };
    let key = RowKey { location, reason, netns, cookie, iface, ifindex: 2, ..of(&facts.packet) };
    (facts, RowKey { known: key.known | known::NETNS | known::IFACE, ..key })
}

/// What a probe counts of a packet.
fn of(packet: &packet::Packet) -> RowKey {
    let knows = |bits: u8| packet.known & bits == bits;
    let addresses = if packet.family == family::IPV4 { known::IPV4 } else { known::IPV6 };
    let bits = [
        (packet.ethertype != 0, known::PROTOCOL),
        (knows(packet::known::IPPROTO), known::IPPROTO),
        (knows(packet::known::SADDR | packet::known::DADDR), addresses),
        (knows(packet::known::SPORT | packet::known::DPORT), known::PORTS),
    ];
    RowKey {
        saddr: packet.saddr,
        daddr: packet.daddr,
        sport: packet.sport,
        dport: packet.dport,
        ipproto: packet.ipproto,
        protocol: packet.ethertype,
        known: bits.iter().filter(|(is_known, _)| *is_known).fold(0, |known, (_, bit)| known | bit),
        ..RowKey::default()
    }
}

/// The row of one drop.
fn row(key: &RowKey, by: &[Key]) -> Row {
    let count = Count { key: project(key, &counted(by)), count: 1, total: None, peak: None };
    Report::new(Interval::of(vec![count]), by, View::default(), &mut Kernel::small()).rows.remove(0)
}

/// Whether a drop is the row's, by what is shown of it.
fn is(identity: &Identity, key: &RowKey) -> bool {
    let shown = row(key, &[Key::Function]).values.remove(0);
    identity.is(key, None, |_| Some(&shown))
}

#[test]
fn no_drop_of_a_row_is_left_out_and_what_can_be_said_is_said() {
    let mut random = Random::new(16);
    let mut own = 0;
    for _ in 0..300 {
        let (_, key) = drop_of(&mut random);
        let by: Vec<_> = KEYS.into_iter().filter(|_| random.chance(35)).collect();
        let row = row(&key, &by);
        let identity = Identity::new(&by, &row);
        assert!(is(&identity, &key), "{by:?}: a row's own drop");
        let Some(expression) = of_row::expression(None, &by, &row, For::Kernel) else { continue };
        let exact = by.iter().all(|key| EXACT.contains(key)) && key.known & (known::IPV4 | known::IPV6) != 0;
        let filter = Filter::of(expression).expect("a small filter");
        for _ in 0..60 {
            let (facts, mut other) = drop_of(&mut random);
            let facts = if random.chance(50) {
                // The same but for the place and the packet, or it would hardly ever match.
                (other.reason, other.netns, other.cookie, other.iface) =
                    (key.reason, key.netns, key.cookie, key.iface);
                Facts { reason: key.reason, netns: key.netns, cookie: key.cookie, iface: key.iface, ..facts }
            } else {
                facts
            };
            let (is_own, passes) = (is(&identity, &other), passes(&filter, &facts));
            assert!(passes || !is_own, "{by:?}: '{filter}' leaves out {facts:?}");
            if exact && other.known & (known::IPV4 | known::IPV6) != 0 {
                assert_eq!(passes, is_own, "{by:?}: '{filter}' {facts:?}");
            }
            own += usize::from(is_own);
        }
    }
    assert!(own > 500, "{own} drops were the row's");
}

/// What is printed can be pasted back, and means the same.
#[test]
fn both_expressions_can_be_read_again() {
    let mut random = Random::new(17);
    for _ in 0..2000 {
        let (_, key) = drop_of(&mut random);
        let by: Vec<_> = KEYS.into_iter().filter(|_| random.chance(40)).collect();
        let row = row(&key, &by);
        let user = random.pick(&["tcp or udp", "not netns blue", "class lost", "iface lo and port 53"]);
        let user = Filter::parse(user, &Host).expect("a filter");
        for reader in [For::Kernel, For::People] {
            let Some(expression) = of_row::expression(Some(user.expression()), &by, &row, reader) else {
                continue;
            };
            let text = expression.to_string();
            let again = Filter::parse(&text, &Host).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(again.to_string(), text);
            // A reason's name means every number that has it.
            if key.reason == 3 {
                assert_eq!(*again.expression(), expression, "{text}");
            }
        }
    }
}

#[test]
fn people_are_told_what_they_would_write() {
    let key = RowKey { location: 0x1010, reason: 3, dport: 53, ipproto: 17, ..RowKey::default() };
    let key = RowKey { known: known::PORTS | known::IPPROTO, ..key };
    let say =
        |by: &[Key], reader| of_row::expression(None, by, &row(&key, by), reader).map(|it| it.to_string());
    let by = [Key::Location, Key::Reason, Key::Dport];
    assert_eq!(
        say(&by, For::People).as_deref(),
        Some("location udp_rcv+0x10 and reason NO_SOCKET and dst port 53")
    );
    assert_eq!(
        say(&by, For::Kernel).as_deref(),
        Some("location 0x1010 and reason NO_SOCKET and (dst port 53 or not (tcp or udp or sctp))")
    );
    assert_eq!(
        say(&[Key::IpProto, Key::Dport], For::Kernel).as_deref(),
        Some("(ip6 or udp) and udp dst port 53")
    );
    assert_eq!(say(&[Key::Saddr], For::People), None, "nothing is known of it");
    assert_eq!(say(&[Key::Cpu, Key::Stack], For::People), None, "a filter has no words for them");
}
