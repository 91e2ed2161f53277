//! One drop with everything that is printed about it: the event, with names.

use std::time::SystemTime;

use dropwatch_common::{event::known, kind};

use super::{event::Event, frame::Frame};
use crate::model::{
    class::{Class, Destination},
    references::trimmed,
    report::{Iface, Names, Netns, Value},
    socket::{Ownership, Socket},
};
use crate::probe::clock::Clock;

/// A drop, named. What it has in common with the rows of a report reads as there.
#[derive(Clone, Debug)]
pub struct DroppedPacket<'a> {
    /// When it happened.
    pub time: SystemTime,
    /// Why.
    pub reason: Value,
    /// What such a drop of this packet is worth; lost, if that is not known.
    pub class: Class,
    /// Where.
    pub location: Value,
    /// On which interface.
    pub iface: Value,
    /// In which network namespace.
    pub netns: Value,
    /// Whose it was, if requested.
    pub owner: Option<Owner>,
    /// The call chain, if requested.
    pub stack: Option<Value>,
    /// What the probe says about it.
    pub event: Event<'a>,
    /// The packet as an Ethernet frame.
    pub frame: Frame<'a>,
}

/// The socket that a packet belongs to, and whose that is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The socket.
    pub socket: Value,
    /// The process that has it open.
    pub process: Value,
    /// What that runs in.
    pub container: Value,
}

impl Owner {
    fn new(event: &Event<'_>, names: &mut impl Names) -> Self {
        let socket = event.socket().map(|view| Socket { key: view.key, seen: view.seen });
        let process = socket.as_ref().map_or(Ownership::Unknown, |socket| names.owner(socket));
        let container = socket.as_ref().and_then(|socket| names.container(socket));
        Self {
            socket: Value::Socket(socket.map(Box::new)),
            process: Value::Process(process),
            container: Value::Container { container, is_known: false },
        }
    }

    /// What there is, by name.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, &Value); 3] {
        [("socket", &self.socket), ("process", &self.process), ("container", &self.container)]
    }
}

impl<'a> DroppedPacket<'a> {
    /// Gives names to an event.
    pub fn new(event: Event<'a>, clock: Clock, names: &mut impl Names, with_stack: bool) -> Self {
        let frame = Frame::new(&event);
        let location = names.location(event.head.location);
        let class = names.class(event.head.location, event.head.reason, destination(&event));
        let iface = event.ifindex().map(|index| Iface {
            index,
            name: event.iface(),
            altnames: Vec::new(),
            netns: None,
        });
        Self {
            time: clock.time(event.head.time),
            class: class.unwrap_or(Class::Lost),
            reason: Value::Reason(event.reason().and_then(|code| names.reason(code))),
            location: Value::Location { source: names.source(&location), location },
            iface: Value::Iface(iface),
            netns: Value::Netns(event.netns().map(|namespace| Netns {
                namespace,
                name: names.netns(namespace),
                names: Vec::new(),
            })),
            owner: event.knows(known::SOCKET).then(|| Owner::new(&event, names)),
            stack: with_stack.then(|| stack(&event, names)),
            event,
            frame,
        }
    }
}

/// Whom the packet was for, as the probe that counts decides it: one that is sent to one hardware address is for a host.
pub(super) fn destination(event: &Event<'_>) -> Destination {
    let header = event.head.link_length as usize;
    let (link, packet) = event.bytes.split_at_checked(header).unwrap_or((&[], event.bytes));
    let link = match link.first_chunk::<6>() {
        None => kind::link::HOST,
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => kind::link::BROADCAST,
        Some([first, ..]) if first & 1 != 0 => kind::link::MULTICAST,
        Some(_) if kind::is_empty_segment(event.head.protocol, packet) => return Destination::EmptySegment,
        Some(_) => return Destination::Unicast,
    };
    Destination::of_kind(kind::of(link, event.head.protocol, packet))
}

/// The call chain from the location on: what comes before it is the kernel on its way to the probe.
fn stack(event: &Event<'_>, names: &mut impl Names) -> Value {
    if event.knows(known::STACK_FAILED) {
        return Value::Stack(None);
    }
    let frames: Vec<_> = event.stack().collect();
    let frames = trimmed(&frames, event.head.location);
    Value::Stack(Some(frames.iter().map(|&address| names.frame(address)).collect()))
}

#[cfg(test)]
pub(crate) mod tests {
    use dropwatch_common::event::DropEvent;

    use super::*;
    use crate::{fakes::Kernel, trace::event::tests::record};

    /// The record of a datagram on `lo` without a socket.
    pub fn datagram() -> Vec<u8> {
        record(head(), &[0x9_0000, 0x1010, 0x2020], &FRAME)
    }

    /// The same on a kernel that knows little.
    pub fn bare_datagram() -> Vec<u8> {
        let length = FRAME_LENGTH - 14;
        let little = DropEvent {
            known: known::STACK_FAILED,
            link_length: 0,
            frame_length: length,
            captured: length,
            ..head()
        };
        record(little, &[0x9_0000, 0x1010, 0x2020], &FRAME[14..])
    }

    /// At which time both are dropped: two seconds and five nanoseconds into the epoch.
    pub fn clock() -> Clock {
        Clock::at(std::time::Duration::ZERO, std::time::Duration::from_secs(2))
    }

    const FRAME_LENGTH: u32 = 43;
    const FRAME: [u8; 43] = [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00, 0x45, 0, 0, 29, 0, 1, 0x40, 0, 64, 17, 0, 0, 127, 0,
        0, 1, 127, 0, 0, 1, 0x9c, 0x40, 0, 9, 0, 9, 0, 0, b'x',
    ];

    fn head() -> DropEvent {
        let mut iface = [0; 16];
        iface[..2].copy_from_slice(b"lo");
        DropEvent {
            time: 5,
            location: 0x1010,
            cookie: 1,
            reason: 3,
            netns: 4_026_531_840,
            ifindex: 1,
            cpu: 1,
            length: FRAME_LENGTH - 14,
            frame_length: FRAME_LENGTH,
            captured: FRAME_LENGTH,
            slots: 3,
            frames: 3,
            link_length: 14,
            known: known::DEVICE | known::DEVICE_NAME | known::NETNS | known::REASON,
            link_type: 772,
            protocol: 0x0800,
            vlan_protocol: 0,
            vlan_tci: 0,
            iface,
        }
    }

    /// A switch sends LLDP to all, an application sends to a group of its own, and some programs send what is neither.
    #[test]
    fn a_packet_has_a_kind_of_destination() {
        let to = |address: [u8; 6], protocol: u16, daddr: [u8; 4]| {
            let mut frame = FRAME;
            frame[..6].copy_from_slice(&address);
            frame[30..34].copy_from_slice(&daddr);
            let record = record(DropEvent { protocol, ..head() }, &[0; 3], &frame);
            destination(&Event::parse(&record).unwrap())
        };
        let group = [1, 0, 0x5e, 1, 2, 3];
        assert_eq!(to(group, 0x0800, [239, 1, 2, 3]), Destination::Group);
        assert_eq!(to(group, 0x0800, [224, 0, 0, 251]), Destination::LinkGroup);
        assert_eq!(to(group, 0x88cc, [0; 4]), Destination::NotIp);
        assert_eq!(to([0xff; 6], 0x0800, [10, 0, 0, 255]), Destination::Broadcast);
        assert_eq!(to([2, 0, 0, 0, 0, 1], 0x88b5, [0; 4]), Destination::Unicast);
        let record = bare_datagram();
        assert_eq!(
            destination(&Event::parse(&record).unwrap()),
            Destination::Unicast,
            "by its address alone"
        );
    }

    #[test]
    fn the_chain_starts_where_the_packet_was_dropped() {
        let record = datagram();
        let drop = DroppedPacket::new(Event::parse(&record).unwrap(), clock(), &mut Kernel::small(), true);
        assert_eq!(drop.stack.unwrap().words(), "udp_rcv+0x10/0x100;ip_rcv+0x20/0x100");
    }

    #[test]
    fn a_chain_that_was_not_read_is_not_an_empty_one() {
        let record = bare_datagram();
        let drop = |with| {
            DroppedPacket::new(Event::parse(&record).unwrap(), clock(), &mut Kernel::small(), with).stack
        };
        assert!(matches!(drop(true), Some(Value::Stack(None))));
        assert!(drop(false).is_none());
    }
}
