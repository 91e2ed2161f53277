//! Captures read back by a reader that is not ours; that tcpdump reads them is tested with the words.
#![expect(clippy::cast_possible_truncation, reason = "packets made here are small")]

use dropwatch_common::event::{DropEvent, known};
use pcap_file::pcapng::{
    Block as ReadBlock, PcapNgReader,
    blocks::{
        enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
        interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
    },
};
use proptest::{array, prelude::*};

use super::*;
use crate::escape::{
    Escaped,
    tests::{assert_safe, hostile},
};
use crate::fakes::{Hostile, Kernel};
use crate::trace::{
    dropped_packet::tests::{bare_datagram, clock, datagram},
    event::{Event, tests::record},
};

/// A capture in memory that is full at some point.
struct Disk {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for &mut Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.len().min(self.room - self.bytes.len());
        if some == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend(&bytes[..some]);
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for &mut Disk {
    fn truncate(&mut self, length: u64) {
        self.bytes.truncate(usize::try_from(length).unwrap());
    }
}

/// What is in a file.
#[derive(Default)]
struct Read {
    /// The interfaces of sections before the last one.
    ended: Vec<Vec<InterfaceDescriptionBlock<'static>>>,
    interfaces: Vec<InterfaceDescriptionBlock<'static>>,
    packets: Vec<EnhancedPacketBlock<'static>>,
}

fn read(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut reader = PcapNgReader::new(bytes).expect("a section");
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block").into_owned() {
            ReadBlock::InterfaceDescription(interface) => read.interfaces.push(interface),
            ReadBlock::EnhancedPacket(packet) => read.packets.push(packet),
            ReadBlock::SectionHeader(_) => read.ended.push(std::mem::take(&mut read.interfaces)),
            other => panic!("{other:?}"),
        }
    }
    read
}

/// Writes records until one fails, and reads back what is there.
fn written(records: &[Vec<u8>], snaplen: u32, room: usize, with_stack: bool) -> (Read, io::Result<()>) {
    let mut disk = Disk { bytes: Vec::new(), room };
    let mut capture = Capture::new(&mut disk, snaplen).expect("the header fits");
    let result = records
        .iter()
        .try_for_each(|record| {
            capture.write(&DroppedPacket::new(
                Event::parse(record).unwrap(),
                clock(),
                &mut Kernel::small(),
                with_stack,
            ))
        })
        .and_then(|()| capture.flush());
    drop(capture);
    (read(&disk.bytes), result)
}

fn all(records: &[Vec<u8>], snaplen: u32, with_stack: bool) -> Read {
    let (read, result) = written(records, snaplen, usize::MAX, with_stack);
    result.expect("there is room");
    read
}

fn comment<'a>(packet: &'a EnhancedPacketBlock<'_>) -> &'a str {
    match packet.options.as_slice() {
        [EnhancedPacketOption::Comment(comment)] => comment,
        other => panic!("{other:?}"),
    }
}

/// A record on a device of a namespace.
fn on(netns: u32, index: u32, name: &str) -> Vec<u8> {
    let mut iface = [0; 16];
    iface[..name.len()].copy_from_slice(name.as_bytes());
    let head = DropEvent {
        netns,
        ifindex: index,
        iface,
        frame_length: 60,
        length: 46,
        captured: 60,
        link_length: 14,
        link_type: 1,
        known: known::DEVICE | known::DEVICE_NAME | known::NETNS,
        ..DropEvent::default()
    };
    record(head, &[], &[index as u8; 60])
}

#[test]
fn a_section_describes_no_more_interfaces_than_readers_can_keep() {
    let interfaces = u32::try_from(MAX_INTERFACES).expect("a number") + 2;
    let mut records: Vec<_> = (1..=interfaces).map(|index| on(7, index, &format!("e{index}"))).collect();
    // The first one again, after the section that knew it.
    records.push(on(7, 1, "e1"));
    let read = all(&records, 262_144, false);
    assert_eq!(read.ended.len(), 1);
    assert_eq!((read.ended[0].len(), read.interfaces.len()), (MAX_INTERFACES, 3));
    let numbers: Vec<_> = read.packets.iter().map(|packet| packet.interface_id).collect();
    let expected: Vec<u32> = (0..interfaces - 2).chain(0..3).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn a_packet_comes_back_with_all_that_is_known_of_it() {
    let record = datagram();
    let read = all(std::slice::from_ref(&record), 262_144, true);
    let [packet] = read.packets.as_slice() else { panic!("one packet") };
    assert_eq!(packet.data, Event::parse(&record).unwrap().bytes);
    assert_eq!(packet.original_len, 43);
    // This reader takes every file's unit for nanoseconds; the interface says that it is.
    assert_eq!(packet.timestamp.as_nanos(), 2_000_000_005);
    assert_eq!(
        comment(packet),
        "NO_SOCKET at udp_rcv+0x10/0x100 [kernel]\nudp_rcv+0x10/0x100 [kernel]\nip_rcv+0x20/0x100 [kernel]"
    );
    let [interface] = read.interfaces.as_slice() else { panic!("one interface") };
    assert_eq!((u32::from(interface.linktype), interface.snaplen), (1, 262_144));
    assert_eq!(
        interface.options,
        [
            InterfaceDescriptionOption::IfName("lo".into()),
            InterfaceDescriptionOption::IfDescription("netns 4026531840(host), index 1".into()),
            InterfaceDescriptionOption::IfTsResol(9),
        ]
    );
}

#[test]
fn a_packet_without_a_link_header_says_so() {
    let read = all(&[bare_datagram()], 262_144, false);
    let [packet] = read.packets.as_slice() else { panic!("one packet") };
    let made_up = [&[0; 12][..], &[0x08, 0x00]].concat();
    assert_eq!(&packet.data[..14], made_up);
    assert_eq!((packet.data.len(), packet.original_len), (43, 43));
    assert_eq!(
        comment(packet),
        "- at udp_rcv+0x10/0x100 [kernel]; the packet has no link header: this one is made up"
    );
    assert_eq!(
        read.interfaces[0].options[..2],
        [
            InterfaceDescriptionOption::IfName("unknown".into()),
            InterfaceDescriptionOption::IfDescription("netns -, index -".into()),
        ]
    );
}

#[test]
fn an_interface_is_described_once_for_each_namespace_it_is_in() {
    let records =
        [on(1, 2, "eth0"), on(1, 3, "eth1"), on(2, 2, "eth0"), on(1, 2, "eth0"), on(1, 2, "renamed")];
    let read = all(&records, 262_144, false);
    let numbers: Vec<_> = read.packets.iter().map(|packet| packet.interface_id).collect();
    assert_eq!(numbers, [0, 1, 2, 0, 3]);
    assert_eq!(read.interfaces.len(), 4);
}

#[test]
fn no_packet_is_longer_than_the_file_says() {
    for snaplen in [1, 14, 42, 43, 44] {
        let read = all(&[datagram(), bare_datagram()], snaplen, false);
        assert!(read.interfaces.iter().all(|interface| interface.snaplen == snaplen));
        for packet in &read.packets {
            assert_eq!(packet.data.len(), 43.min(snaplen as usize));
            assert_eq!(packet.original_len, 43);
        }
    }
}

#[test]
fn a_full_disk_keeps_every_packet_before_it() {
    let records: Vec<_> = (0..2000).map(|number| on(1, number, "eth0")).collect();
    let whole = all(&records, 262_144, false).packets;
    let mut least = usize::MAX;
    for room in (200..400_000).step_by(7919) {
        let (read, result) = written(&records, 262_144, room, false);
        match result {
            Ok(()) => assert_eq!(read.packets, whole),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                assert_eq!(read.packets, whole[..read.packets.len()]);
                // Nothing but a block or two is missing of what the disk has room for.
                assert!(
                    read.packets.len() + 2 >= room / 300,
                    "{} packets in {room} bytes",
                    read.packets.len()
                );
                least = least.min(read.packets.len());
            }
        }
    }
    assert!(least < 10, "no disk was full early: {least}");
}

proptest! {
    #[test]
    fn any_record_makes_a_readable_file(bytes in proptest::collection::vec(any::<u8>(), 80..400)) {
        let mut bytes = bytes;
        // Most random lengths contradict each other: small ones do not.
        for at in [33, 34, 35, 37, 38, 39, 41, 42, 43, 44, 45, 46, 47, 49, 50, 51] {
            bytes[at] = 0;
        }
        if let Ok(event) = Event::parse(&bytes) {
            let length = event.bytes.len();
            let read = all(std::slice::from_ref(&bytes), 262_144, true);
            prop_assert_eq!(read.packets.len(), 1);
            prop_assert!(read.packets[0].data.len() <= length + 18);
        }
    }
}

proptest! {
    #[test]
    fn tools_that_print_a_capture_print_no_hostile_name(
        names in array::uniform4(hostile()),
        iface in hostile(),
    ) {
        let template = datagram();
        let event = Event::parse(&template).unwrap();
        let mut head = DropEvent { iface: [0; 16], slots: 0, frames: 0, ..event.head };
        let iface: Vec<u8> = iface.into_iter().take(15).take_while(|byte| *byte != 0).collect();
        head.iface[..iface.len()].copy_from_slice(&iface);
        let record = record(head, &[], event.bytes);
        let mut disk = Disk { bytes: Vec::new(), room: 1 << 20 };
        let mut capture = Capture::new(&mut disk, 262_144).unwrap();
        let shown = DroppedPacket::new(Event::parse(&record).unwrap(), clock(), &mut Hostile(names), true);
        capture.write(&shown).unwrap();
        capture.flush().unwrap();
        drop(capture);
        let read = read(&disk.bytes);
        for option in &read.interfaces[0].options {
            match option {
                InterfaceDescriptionOption::IfName(name) => {
                    prop_assert_eq!(name.as_ref(), Escaped::new(&iface).to_string());
                }
                InterfaceDescriptionOption::IfDescription(text) => assert_safe(text.as_bytes(), 0),
                _ => {}
            }
        }
        for option in &read.packets[0].options {
            let EnhancedPacketOption::Comment(comment) = option else { continue };
            assert_safe(comment.as_bytes(), 0);
        }
    }
}
