//! A record of the ring buffer, checked.

use dropwatch_common::{
    event::{DropEvent, SLOTS, known},
    sample::SocketView,
};

use crate::{
    model::{foreign::Foreign, namespace::Namespace},
    sys,
};

/// A record that is not what the probe writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than what it says it holds.
    #[error("the record has {has} bytes and needs {needs}")]
    Short {
        /// Its length.
        has: usize,
        /// The bytes that its head announces.
        needs: usize,
    },
    /// A number no probe writes.
    #[error("the record's {0} is invalid")]
    Senseless(&'static str),
}

/// One drop: the head of its record, its socket, its call chain, and the bytes captured of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What the probe says about it.
    pub head: DropEvent,
    /// The packet's socket, if it was requested.
    view: &'a [u8],
    /// Room for the call chain, eight bytes an address.
    stack: &'a [u8],
    /// The packet's first bytes, from the link header if there is one.
    pub bytes: &'a [u8],
}

impl<'a> Event<'a> {
    /// Reads a record; what follows it is padding of the ring buffer and ignored.
    ///
    /// # Errors
    /// A record that is cut short, or whose numbers contradict each other.
    pub fn parse(record: &'a [u8]) -> Result<Self, Error> {
        let short = |needs| Error::Short { has: record.len(), needs };
        let (head, rest) =
            record.split_at_checked(size_of::<DropEvent>()).ok_or(short(size_of::<DropEvent>()))?;
        let head = read_head(head).ok_or(short(size_of::<DropEvent>()))?;
        let (slots, captured) = (usize::from(head.slots), head.captured as usize);
        if slots > SLOTS || head.frames > head.slots {
            return Err(Error::Senseless("call chain"));
        }
        if head.captured > head.frame_length || head.link_length > head.frame_length {
            return Err(Error::Senseless("length"));
        }
        let view = if head.known & known::SOCKET == 0 { 0 } else { size_of::<SocketView>() };
        let needs = size_of::<DropEvent>().saturating_add(view + slots * 8).saturating_add(captured);
        let (view, rest) = rest.split_at_checked(view).ok_or(short(needs))?;
        let (stack, rest) = rest.split_at_checked(slots * 8).ok_or(short(needs))?;
        let bytes = rest.get(..captured).ok_or(short(needs))?;
        Ok(Self { head, view, stack, bytes })
    }

    /// The socket that the packet belongs to, if that was requested and there is one.
    #[must_use]
    pub fn socket(&self) -> Option<SocketView> {
        sys::values_of::<SocketView>(self.view).pop().filter(|view| view.key.address != 0)
    }

    /// The addresses of the call chain, innermost first.
    pub fn stack(&self) -> impl Iterator<Item = u64> + 'a {
        self.stack
            .chunks_exact(8)
            .take(self.head.frames.into())
            .filter_map(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)))
    }

    /// Whether the probe knows what a bit of [`known`] stands for.
    #[must_use]
    pub fn knows(&self, what: u32) -> bool {
        self.head.known & what != 0
    }

    /// The device's name; none if it is not known.
    #[must_use]
    pub fn iface(&self) -> Option<Foreign> {
        self.knows(known::DEVICE_NAME)
            .then(|| self.head.iface.split(|byte| *byte == 0).next().unwrap_or_default().into())
    }

    /// The device's number, if the kernel knows the device.
    #[must_use]
    pub fn ifindex(&self) -> Option<u32> {
        self.knows(known::DEVICE).then_some(self.head.ifindex)
    }

    /// The network namespace, if the kernel knows it.
    #[must_use]
    pub fn netns(&self) -> Option<Namespace> {
        let DropEvent { netns: inum, cookie, .. } = self.head;
        self.knows(known::NETNS).then_some(Namespace { inum, cookie })
    }

    /// The kernel's number for the reason, if it gives reasons.
    #[must_use]
    pub fn reason(&self) -> Option<u32> {
        self.knows(known::REASON).then_some(self.head.reason)
    }

    /// The VLAN tag that stands beside the frame: its ethertype and the tag itself.
    #[must_use]
    pub fn vlan(&self) -> Option<(u16, u16)> {
        self.knows(known::VLAN).then_some((self.head.vlan_protocol, self.head.vlan_tci))
    }
}

/// The head's fields in the order of its declaration, which is that of memory: it has no padding.
fn read_head(bytes: &[u8]) -> Option<DropEvent> {
    let mut fields = Fields { bytes };
    Some(DropEvent {
        time: fields.u64()?,
        location: fields.u64()?,
        cookie: fields.u64()?,
        reason: fields.u32()?,
        netns: fields.u32()?,
        ifindex: fields.u32()?,
        cpu: fields.u32()?,
        length: fields.u32()?,
        frame_length: fields.u32()?,
        captured: fields.u32()?,
        slots: fields.u16()?,
        frames: fields.u16()?,
        link_length: fields.u32()?,
        known: fields.u32()?,
        link_type: fields.u16()?,
        protocol: fields.u16()?,
        vlan_protocol: fields.u16()?,
        vlan_tci: fields.u16()?,
        iface: fields.take()?,
    })
}

/// Takes numbers off the front of bytes.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*field)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::mem::offset_of;

    use dropwatch_testing::assert_seed;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// The record that the probe would write.
    pub fn record(head: DropEvent, stack: &[u64], bytes: &[u8]) -> Vec<u8> {
        let mut record = vec![0; size_of::<DropEvent>()];
        let mut put = |at: usize, field: &[u8]| record[at..at + field.len()].copy_from_slice(field);
        put(offset_of!(DropEvent, time), &head.time.to_ne_bytes());
        put(offset_of!(DropEvent, location), &head.location.to_ne_bytes());
        put(offset_of!(DropEvent, cookie), &head.cookie.to_ne_bytes());
        put(offset_of!(DropEvent, reason), &head.reason.to_ne_bytes());
        put(offset_of!(DropEvent, netns), &head.netns.to_ne_bytes());
        put(offset_of!(DropEvent, ifindex), &head.ifindex.to_ne_bytes());
        put(offset_of!(DropEvent, cpu), &head.cpu.to_ne_bytes());
        put(offset_of!(DropEvent, length), &head.length.to_ne_bytes());
        put(offset_of!(DropEvent, frame_length), &head.frame_length.to_ne_bytes());
        put(offset_of!(DropEvent, captured), &head.captured.to_ne_bytes());
        put(offset_of!(DropEvent, slots), &head.slots.to_ne_bytes());
        put(offset_of!(DropEvent, frames), &head.frames.to_ne_bytes());
        put(offset_of!(DropEvent, link_length), &head.link_length.to_ne_bytes());
        put(offset_of!(DropEvent, known), &head.known.to_ne_bytes());
        put(offset_of!(DropEvent, link_type), &head.link_type.to_ne_bytes());
        put(offset_of!(DropEvent, protocol), &head.protocol.to_ne_bytes());
        put(offset_of!(DropEvent, vlan_protocol), &head.vlan_protocol.to_ne_bytes());
        put(offset_of!(DropEvent, vlan_tci), &head.vlan_tci.to_ne_bytes());
        put(offset_of!(DropEvent, iface), &head.iface);
        record.extend(stack.iter().flat_map(|address| address.to_ne_bytes()));
        record.extend(bytes);
        record
    }

    /// The record of a drop whose socket was requested.
    pub fn of_socket(record: &[u8], view: &SocketView) -> Vec<u8> {
        let (head, rest) = record.split_at(size_of::<DropEvent>());
        let (at, mut head) = (offset_of!(DropEvent, known), head.to_vec());
        let known = read_head(&head).expect("a head").known | known::SOCKET;
        head[at..at + 4].copy_from_slice(&known.to_ne_bytes());
        [&head, sys::bytes_of(view), rest].concat()
    }

    fn head() -> DropEvent {
        let mut iface = [0; 16];
        iface[..4].copy_from_slice(b"eth0");
        DropEvent {
            time: 1,
            location: 2,
            cookie: 12,
            reason: 3,
            netns: 4,
            ifindex: 5,
            cpu: 6,
            length: 7,
            frame_length: 21,
            captured: 20,
            slots: 2,
            frames: 2,
            link_length: 14,
            known: known::DEVICE | known::DEVICE_NAME | known::NETNS,
            link_type: 8,
            protocol: 9,
            vlan_protocol: 10,
            vlan_tci: 11,
            iface,
        }
    }

    #[test]
    fn the_fuzzer_starts_from_what_the_probe_writes() {
        let frame =
            [&[2; 12][..], &[8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]]
                .concat();
        let length = u32::try_from(frame.len()).unwrap();
        let head = DropEvent {
            length: length - 14,
            frame_length: length,
            captured: length,
            link_length: 14,
            link_type: 1,
            slots: 2,
            frames: 2,
            known: known::DEVICE_NAME,
            ..head()
        };
        let record = record(head, &[0xffff_ffff_8100_0040, 0xffff_ffff_8100_0900], &frame);
        assert_eq!(Event::parse(&record).unwrap().stack().count(), 2);
        assert_seed("trace", "record", &record);
    }

    #[test]
    fn every_field_comes_back_from_where_the_probe_puts_it() {
        let bytes: Vec<u8> = (0..20).collect();
        let record = record(head(), &[0xffff_ffff_8100_0000, 17], &bytes);
        let event = Event::parse(&record).expect("a record");
        assert_eq!(event.head, head());
        assert_eq!(event.stack().collect::<Vec<_>>(), [0xffff_ffff_8100_0000, 17]);
        assert_eq!(event.bytes, bytes);
        assert_eq!(event.iface(), Some("eth0".into()));
        assert_eq!(
            (event.netns(), event.reason(), event.vlan()),
            (Some(Namespace { inum: 4, cookie: 12 }), None, None)
        );
    }

    #[test]
    fn a_record_cut_anywhere_is_refused() {
        let view = SocketView::default();
        for record in
            [record(head(), &[1, 2], &[0; 20]), of_socket(&record(head(), &[1, 2], &[0; 20]), &view)]
        {
            for length in 0..record.len() {
                assert!(matches!(Event::parse(&record[..length]), Err(Error::Short { .. })), "{length}");
            }
        }
    }

    #[test]
    fn a_socket_stands_between_the_head_and_the_rest() {
        let mut view = SocketView::default();
        let record = record(head(), &[1, 2], &[3; 20]);
        assert_eq!(Event::parse(&of_socket(&record, &view)).expect("a record").socket(), None);
        (view.key.address, view.seen.tgid, view.file) = (1, 7, 9);
        let with_socket = of_socket(&record, &view);
        let event = Event::parse(&with_socket).expect("a record");
        assert_eq!(event.socket(), Some(view));
        assert_eq!((event.stack().collect(), event.bytes), (vec![1, 2], &[3; 20][..]));
        assert_eq!(Event::parse(&record).expect("a record").socket(), None);
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        let parse = |head| Event::parse(&record(head, &[1, 2], &[0; 20])).map(|_| ());
        assert_eq!(parse(DropEvent { slots: 128, ..head() }), Err(Error::Senseless("call chain")));
        assert_eq!(parse(DropEvent { frames: 3, ..head() }), Err(Error::Senseless("call chain")));
        assert_eq!(parse(DropEvent { captured: 22, ..head() }), Err(Error::Senseless("length")));
        assert_eq!(parse(DropEvent { link_length: 22, ..head() }), Err(Error::Senseless("length")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
            if let Ok(event) = Event::parse(&bytes) {
                prop_assert!(event.bytes.len() <= bytes.len());
                let _ = event.iface();
            }
        }
    }
}
