//! The packet as an Ethernet frame, which is what a capture file holds and what tools read.

use std::borrow::Cow;

use dropwatch_common::event::known;

use super::event::Event;

/// The bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
const ETHERNET_LENGTH: u32 = 14;
/// Where its ethertype stands, and a VLAN tag would.
const ETHERTYPE_AT: usize = 12;
/// Below it, what stands in an ethertype's place is a length, or the kernel's own number for a protocol.
pub const FIRST_ETHERTYPE: u16 = 0x600;
/// Kinds of devices with Ethernet's link header: Ethernet itself and the loopback.
const ETHERNET_DEVICES: [u16; 2] = [1, 772];

/// Where a frame's link header comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is the packet's own.
    Own,
    /// The packet has none: one is made up, with addresses of zeros.
    MadeUp,
    /// The packet's own is of another kind, this `ARPHRD_…`: one is made up in its place.
    Replaced(u16),
}

/// A packet as an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// As many of its bytes as are known.
    pub bytes: Cow<'a, [u8]>,
    /// How many it had.
    pub length: u32,
    /// Where its first bytes come from.
    pub link: Link,
}

impl<'a> Frame<'a> {
    /// The event's packet, with a link header if it has none, and with the VLAN tag the kernel took out of it.
    #[must_use]
    pub fn new(event: &Event<'a>) -> Self {
        let mut frame = Self::linked(event);
        if let Some((protocol, tci)) = event.vlan()
            && frame.bytes.len() >= ETHERTYPE_AT
        {
            let tag = protocol.to_be_bytes().into_iter().chain(tci.to_be_bytes());
            frame.bytes.to_mut().splice(ETHERTYPE_AT..ETHERTYPE_AT, tag);
            frame.length = frame.length.saturating_add(4);
        }
        frame
    }

    fn linked(event: &Event<'a>) -> Self {
        let link = link(event);
        if link == Link::Own {
            return Self { bytes: event.bytes.into(), length: event.head.frame_length, link };
        }
        let packet = event.bytes.get(event.head.link_length as usize..).unwrap_or_default();
        let mut bytes = vec![0; ETHERTYPE_AT];
        bytes.extend(event.head.protocol.to_be_bytes());
        bytes.extend(packet);
        let length = event.head.frame_length - event.head.link_length;
        Self { bytes: bytes.into(), length: length.saturating_add(ETHERNET_LENGTH), link }
    }

    /// Whether it is one that a network could carry. What local sockets send each other (`AF_UNIX`, netlink, vsock) has
    /// neither a link header nor an ethertype.
    #[must_use]
    pub fn is_of_a_network(&self) -> bool {
        let ethertype = self.bytes.get(ETHERTYPE_AT..ETHERNET).and_then(<[u8]>::first_chunk);
        self.link == Link::Own || ethertype.is_some_and(|&bytes| u16::from_be_bytes(bytes) >= FIRST_ETHERTYPE)
    }

    /// The same frame with no more than `snaplen` of its bytes.
    #[must_use]
    pub fn snapped(&self, snaplen: u32) -> &[u8] {
        &self.bytes[..self.bytes.len().min(snaplen as usize)]
    }
}

/// Where the frame's link header is to come from.
fn link(event: &Event<'_>) -> Link {
    let head = &event.head;
    if head.link_length == 0 {
        return Link::MadeUp;
    }
    let device_is_ethernet = if event.knows(known::DEVICE_NAME) {
        ETHERNET_DEVICES.contains(&head.link_type)
    } else {
        // Without a device, only the bytes in front of the packet show it.
        event.bytes.get(ETHERTYPE_AT..ETHERNET) == Some(&head.protocol.to_be_bytes()[..])
    };
    if device_is_ethernet && head.link_length as usize >= ETHERNET {
        Link::Own
    } else {
        Link::Replaced(head.link_type)
    }
}

#[cfg(test)]
mod tests {
    use dropwatch_common::event::{DropEvent, known};

    use super::*;
    use crate::trace::event::tests::record;

    const OWN: [u8; 18] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 7, 8, 9];

    fn head() -> DropEvent {
        DropEvent {
            frame_length: 1018,
            length: 1004,
            captured: 18,
            link_length: 14,
            link_type: 1,
            protocol: 0x0800,
            known: known::DEVICE_NAME,
            ..DropEvent::default()
        }
    }

    fn check(head: DropEvent, bytes: &[u8], expected: (&[u8], u32, Link)) {
        let record = record(head, &[], bytes);
        let event = Event::parse(&record).unwrap();
        let frame = Frame::new(&event);
        assert_eq!((&*frame.bytes, frame.length, frame.link), expected);
    }

    #[test]
    fn an_ethernet_frame_is_as_it_was() {
        check(head(), &OWN, (&OWN, 1018, Link::Own));
        check(DropEvent { known: 0, ..head() }, &OWN, (&OWN, 1018, Link::Own));
    }

    #[test]
    fn a_packet_without_a_link_header_gets_one_of_zeros() {
        let bare = DropEvent { frame_length: 1004, captured: 4, link_length: 0, ..head() };
        let expected = [&[0; 12][..], &[0x08, 0x00, 0x45, 7, 8, 9]].concat();
        check(bare, &OWN[14..], (&expected, 1018, Link::MadeUp));
    }

    #[test]
    fn another_link_header_gives_way_to_one_of_zeros() {
        let expected = [&[0; 12][..], &[0x08, 0x00, 0x45, 7, 8, 9]].concat();
        check(DropEvent { link_type: 778, ..head() }, &OWN, (&expected, 1018, Link::Replaced(778)));
        let short = DropEvent { link_length: 13, ..head() };
        let expected = [&[0; 12][..], &[0x08, 0x00, 0x00, 0x45, 7, 8, 9]].concat();
        check(short, &OWN, (&expected, 1019, Link::Replaced(1)));
        let unknown = DropEvent { known: 0, protocol: 0x86dd, ..head() };
        let expected = [&[0; 12][..], &[0x86, 0xdd, 0x45, 7, 8, 9]].concat();
        check(unknown, &OWN, (&expected, 1018, Link::Replaced(1)));
    }

    #[test]
    fn what_local_sockets_send_is_no_frame() {
        let is_of_a_network = |head, bytes: &[u8]| {
            let record = record(head, &[], bytes);
            Frame::new(&Event::parse(&record).unwrap()).is_of_a_network()
        };
        let bare = DropEvent { frame_length: 1004, captured: 4, link_length: 0, known: 0, ..head() };
        assert!(is_of_a_network(bare, &OWN[14..]));
        assert!(!is_of_a_network(DropEvent { protocol: 0, ..bare }, &OWN[14..]), "AF_UNIX");
        assert!(!is_of_a_network(DropEvent { protocol: 15, ..bare }, &OWN[14..]), "netlink");
        let spanning_tree = DropEvent { protocol: 4, ..head() };
        assert!(is_of_a_network(spanning_tree, &[&OWN[..12], &[0, 38], &OWN[14..]].concat()), "802.3");
    }

    #[test]
    fn a_tag_beside_the_frame_is_put_back_into_it() {
        let tag = DropEvent {
            known: known::DEVICE_NAME | known::VLAN,
            vlan_protocol: 0x8100,
            vlan_tci: 0x2064,
            ..head()
        };
        let expected = [&OWN[..12], &[0x81, 0x00, 0x20, 0x64], &OWN[12..]].concat();
        check(tag, &OWN, (&expected, 1022, Link::Own));
        let bare = DropEvent { frame_length: 1004, captured: 4, link_length: 0, ..tag };
        let expected = [&[0; 12][..], &[0x81, 0x00, 0x20, 0x64, 0x08, 0x00, 0x45, 7, 8, 9]].concat();
        check(bare, &OWN[14..], (&expected, 1022, Link::MadeUp));
        check(DropEvent { captured: 3, ..tag }, &OWN[..3], (&OWN[..3], 1018, Link::Own));
    }
}
