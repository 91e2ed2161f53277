//! One drop with everything that is told of it: the event, with names.

use std::time::SystemTime;

use dropwatch_common::event::known;

use super::{clock::Clock, event::Event, frame::Frame};
use crate::{
    references::trimmed,
    report::{Iface, Names, Netns, Value},
};

/// A drop, named. What it has in common with the rows of a report reads as there.
#[derive(Clone, Debug)]
pub struct Drop<'a> {
    /// When it happened.
    pub time: SystemTime,
    /// Why.
    pub reason: Value,
    /// Where.
    pub location: Value,
    /// On which interface.
    pub iface: Value,
    /// In which network namespace.
    pub netns: Value,
    /// How the kernel got there, if that was asked for.
    pub stack: Option<Value>,
    /// What the probe says about it.
    pub event: Event<'a>,
    /// The packet as an Ethernet frame.
    pub frame: Frame<'a>,
}

impl<'a> Drop<'a> {
    /// Gives names to an event.
    pub fn new(event: Event<'a>, clock: Clock, names: &mut impl Names, with_stack: bool) -> Self {
        let frame = Frame::new(&event);
        let iface = event.ifindex().map(|index| Iface { index, name: event.iface().map(Into::into) });
        Self {
            time: clock.time(event.head.time),
            reason: Value::Reason(event.reason().and_then(|code| names.reason(code))),
            location: Value::Location { location: names.location(event.head.location), source: None },
            iface: Value::Iface(iface),
            netns: Value::Netns(event.netns().map(|inum| Netns { inum, name: names.netns(inum) })),
            stack: with_stack.then(|| stack(&event, names)),
            event,
            frame,
        }
    }
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

    use std::sync::Arc;

    use super::*;
    use crate::{
        reasons::Reason, source_lines::SourceLine, symbols::Location, symbols::Symbol,
        trace::event::tests::record,
    };

    /// Names for a kernel of two functions and one reason.
    pub struct Small;

    impl Names for Small {
        fn location(&mut self, address: u64) -> Location {
            let symbol = |name: &str, start: u64| {
                let (size, module) = (Some(0x100), "kernel".into());
                Some(Symbol { name: name.into(), offset: address - start, size, module })
            };
            let symbol = match address {
                0x1000..0x1100 => symbol("udp_rcv", 0x1000),
                0x2000..0x2100 => symbol("ip_rcv", 0x2000),
                _ => None,
            };
            Location { address, symbol }
        }

        fn netns(&mut self, inum: u32) -> Option<Arc<str>> {
            (inum == 4_026_531_840).then(|| "host".into())
        }

        fn source(&mut self, _location: &Location) -> Option<SourceLine> {
            None
        }

        fn reason(&mut self, code: u32) -> Option<Reason> {
            let name = (code == 3).then(|| "NO_SOCKET".into());
            Some(Reason { code, subsystem: Some("core".into()), name })
        }
    }

    /// The record of a datagram on `lo` that nobody wanted.
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

    #[test]
    fn the_chain_starts_where_the_packet_was_dropped() {
        let record = datagram();
        let drop = Drop::new(Event::parse(&record).unwrap(), clock(), &mut Small, true);
        assert_eq!(drop.stack.unwrap().words(), "udp_rcv+0x10/0x100;ip_rcv+0x20/0x100");
    }

    #[test]
    fn a_chain_that_was_not_read_is_not_an_empty_one() {
        let record = bare_datagram();
        let drop = |with| Drop::new(Event::parse(&record).unwrap(), clock(), &mut Small, with).stack;
        assert!(matches!(drop(true), Some(Value::Stack(None))));
        assert!(drop(false).is_none());
    }
}
