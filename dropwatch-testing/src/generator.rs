//! Frames of every kind that has words, at random.
#![expect(clippy::cast_possible_truncation, reason = "packets made here are small")]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::{collection::vec, option, prelude::*, sample::select};

/// An Ethernet frame.
pub fn frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => ipv4().prop_map(|packet| (0x0800_u16, packet)),
        4 => ipv6().prop_map(|packet| (0x86dd, packet)),
        1 => arp().prop_map(|packet| (0x0806, packet)),
        1 => vec(any::<u8>(), 0..60).prop_map(|packet| (0x88b5, packet)),
    ];
    (any::<[u8; 12]>(), vec(any::<u16>(), 0..3), payload).prop_map(
        |(addresses, tags, (ethertype, payload))| {
            let mut frame = addresses.to_vec();
            for tag in tags {
                frame.extend([0x81, 0x00]);
                frame.extend(tag.to_be_bytes());
            }
            frame.extend(ethertype.to_be_bytes());
            frame.extend(payload);
            frame
        },
    )
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn arp() -> impl Strategy<Value = Vec<u8>> {
    (
        1_u16..=2,
        any::<[u8; 6]>(),
        any::<[u8; 4]>(),
        prop_oneof![Just([0; 6]), any::<[u8; 6]>()],
        any::<[u8; 4]>(),
    )
        .prop_map(|(operation, mac, ip, target_mac, target)| {
            let mut packet = words(&[1, 0x0800, 0x0604, operation]);
            packet.extend(mac.into_iter().chain(ip).chain(target_mac).chain(target));
            packet
        })
}

/// Ports that no dissector claims.
fn port() -> impl Strategy<Value = u16> {
    41_000_u16..42_000
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..80)
}

fn udp() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (port(), port(), data()).prop_map(|(from, to, data)| {
        let mut datagram = words(&[from, to, 8 + data.len() as u16, 0]);
        datagram.extend(data);
        (17, datagram)
    })
}

fn tcp_option() -> impl Strategy<Value = Vec<u8>> {
    let with = |kind: u8, value: Vec<u8>| [vec![kind, 2 + value.len() as u8], value].concat();
    prop_oneof![
        Just(vec![1]),
        any::<[u8; 2]>().prop_map(move |value| with(2, value.to_vec())),
        any::<u8>().prop_map(move |value| with(3, vec![value])),
        Just(vec![4, 2]),
        any::<[u8; 8]>().prop_map(move |value| with(5, value.to_vec())),
        any::<[u8; 8]>().prop_map(move |value| with(8, value.to_vec())),
        Just(vec![34, 2]),
        any::<[u8; 6]>().prop_map(move |value| with(34, value.to_vec())),
        any::<[u8; 3]>().prop_map(move |value| with(99, value.to_vec())),
    ]
}

fn tcp() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>());
    (port(), port(), numbers, any::<u8>(), vec(tcp_option(), 0..4), data()).prop_map(
        |(from, to, (seq, ack, win, urgent), flags, options, data)| {
            let mut options = options.concat();
            options.truncate(40);
            options.resize(options.len().next_multiple_of(4), 1);
            let mut segment = words(&[from, to]);
            segment.extend(seq.to_be_bytes().into_iter().chain(ack.to_be_bytes()));
            segment.extend([(((20 + options.len()) / 4) << 4) as u8, flags]);
            segment.extend(words(&[win, 0, urgent]));
            segment.extend(options);
            segment.extend(data);
            (6, segment)
        },
    )
}

fn icmp() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let about = (any::<[u8; 4]>(), any::<[u8; 4]>(), prop_oneof![udp(), tcp()])
        .prop_map(|(from, to, (protocol, payload))| header_v4(from, to, protocol, 0, &payload));
    let kinds = select(vec![
        (0, 0),
        (8, 0),
        (3, 0),
        (3, 1),
        (3, 2),
        (3, 3),
        (3, 4),
        (3, 10),
        (3, 13),
        (4, 0),
        (5, 1),
        (10, 0),
        (11, 0),
        (11, 1),
        (12, 0),
        (13, 0),
        (17, 0),
        (42, 0),
    ]);
    (kinds, any::<[u8; 4]>(), about)
        .prop_map(|((kind, code), rest, about)| (1, [&[kind, code, 0, 0][..], &rest, &about].concat()))
}

fn igmp() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let group = (225_u8..=239, any::<[u8; 3]>());
    (select(vec![0x12, 0x16, 0x17]), group)
        .prop_map(|(kind, (first, rest))| (2, [&[kind, 0, 0, 0, first][..], &rest].concat()))
}

fn ospf() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (1_u8..=5, any::<[u8; 8]>()).prop_map(|(kind, rest)| {
        let mut packet = vec![2, kind, 0, 44];
        packet.extend(rest);
        packet.resize(44, 0);
        (89, packet)
    })
}

fn sctp() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (port(), port(), any::<u32>()).prop_map(|(from, to, tag)| {
        let mut packet = words(&[from, to]);
        packet.extend(tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend([11, 0, 0, 4]);
        (132, packet)
    })
}

fn esp() -> impl Strategy<Value = (u8, Vec<u8>)> {
    vec(any::<u8>(), 40).prop_map(|packet| (50, packet))
}

fn gre() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let inner = (any::<[u8; 4]>(), any::<[u8; 4]>(), udp())
        .prop_map(|(from, to, (protocol, payload))| header_v4(from, to, protocol, 0, &payload));
    (option::of(any::<[u8; 4]>()), inner).prop_map(|(key, inner)| {
        let flags = if key.is_some() { 0x20 } else { 0 };
        (47, [&[flags, 0, 0x08, 0x00][..], key.as_ref().map_or(&[], |key| &key[..]), &inner].concat())
    })
}

fn tunnel() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (any::<[u8; 4]>(), any::<[u8; 4]>(), tcp())
        .prop_map(|(from, to, (protocol, payload))| (4, header_v4(from, to, protocol, 0, &payload)))
}

fn unknown() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (200_u8..=253, data())
}

fn ipv4() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        3 => udp(), 3 => tcp(), 2 => icmp(), 1 => igmp(), 1 => ospf(), 1 => sctp(), 1 => esp(), 1 => gre(),
        1 => tunnel(), 1 => unknown(),
    ];
    let fragment = prop_oneof![6 => Just(0_u16), 1 => Just(0x4000), 1 => Just(0x2000), 1 => 1_u16..0x2100];
    (any::<[u8; 4]>(), any::<[u8; 4]>(), fragment, payload).prop_map(
        |(from, to, fragment, (protocol, payload))| header_v4(from, to, protocol, fragment, &payload),
    )
}

fn header_v4(from: [u8; 4], to: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(words(&[20 + payload.len() as u16, 0x1234, fragment]));
    packet.extend([64, protocol, 0, 0]);
    packet.extend(Ipv4Addr::from(from).octets());
    packet.extend(Ipv4Addr::from(to).octets());
    packet.extend(payload);
    packet
}

fn icmpv6() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let about = (any::<[u8; 16]>(), any::<[u8; 16]>(), prop_oneof![udp(), tcp()])
        .prop_map(|(from, to, (protocol, payload))| header_v6(from, to, protocol, &payload));
    let errors = (select(vec![(1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (3, 0)]), any::<[u8; 4]>(), about)
        .prop_map(|((kind, code), rest, about)| (58, [&[kind, code, 0, 0][..], &rest, &about].concat()));
    let echoes = (128_u8..=129, any::<[u8; 4]>(), data())
        .prop_map(|(kind, rest, data)| (58, [&[kind, 0, 0, 0][..], &rest, &data].concat()));
    let neighbours = (135_u8..=136, address_v6())
        .prop_map(|(kind, target)| (58, [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target].concat()));
    let others = select(vec![
        (58, vec![133, 0, 0, 0, 0, 0, 0, 0]),
        (58, vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        (58, vec![143, 0, 0, 0, 0, 0, 0, 0]),
    ]);
    prop_oneof![2 => errors, 2 => echoes, 2 => neighbours, 1 => others]
}

/// Addresses that begin like those in use: what looks like an embedded IPv4 address has two notations.
fn address_v6() -> impl Strategy<Value = [u8; 16]> {
    (select(vec![[0x20, 0x01], [0xfe, 0x80], [0xff, 0x02]]), any::<[u8; 14]>(), 0_usize..14).prop_map(
        |(first, mut rest, zeros)| {
            rest[..zeros].fill(0);
            let mut address = [0; 16];
            address[..2].copy_from_slice(&first);
            address[2..].copy_from_slice(&rest);
            address
        },
    )
}

fn header_v6(from: [u8; 16], to: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(words(&[payload.len() as u16]));
    packet.extend([next, 64]);
    packet.extend(Ipv6Addr::from(from).octets());
    packet.extend(Ipv6Addr::from(to).octets());
    packet.extend(payload);
    packet
}

fn ipv6() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![3 => udp(), 3 => tcp(), 3 => icmpv6(), 1 => sctp(), 1 => unknown()];
    let extension = select(vec![0_u8, 60, 44, 59]);
    (address_v6(), address_v6(), payload, option::weighted(0.3, (extension, any::<u32>()))).prop_map(
        |(from, to, (protocol, payload), extension)| match extension {
            None => header_v6(from, to, protocol, &payload),
            Some((59, _)) => header_v6(from, to, 59, &[]),
            Some((44, id)) => {
                let fragment = ((id % 3) as u16 * 8) | 1;
                let header = [vec![protocol, 0], words(&[fragment]), id.to_be_bytes().to_vec()].concat();
                header_v6(from, to, 44, &[header, payload].concat())
            }
            Some((extension, _)) => {
                let header = vec![protocol, 0, 1, 4, 0, 0, 0, 0];
                header_v6(from, to, extension, &[header, payload].concat())
            }
        },
    )
}
