//! A drop as a line of text, for people and logs.

use std::io::{self, Write};

use super::{
    dissect::{Style, Summary},
    dropped_packet::{DroppedPacket, Owner},
};
use crate::{escape::word, model::report::Value};

/// `TIME REASON LOCATION[ source FILE:LINE] iface NAME netns INUM class CLASS[ socket SOCKET process PROCESS container
/// CONTAINER] length BYTES: PACKET`, then the call chain if there is one.
///
/// What is not known is `-`.
///
/// # Errors
/// Those of the writer.
pub fn write(drop: &DroppedPacket<'_>, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let time = humantime::format_rfc3339_nanos(drop.time);
    write!(out, "{time} {} {}", word(&drop.reason.words()), drop.location.words())?;
    if let Value::Location { source: Some(source), .. } = &drop.location {
        write!(out, " source {}", word(&source.to_string()))?;
    }
    write!(out, " iface {}", word(&drop.iface.words()))?;
    write!(out, " netns {}", word(&drop.netns.words()))?;
    write!(out, " class {}", drop.class)?;
    for (name, value) in drop.owner.iter().flat_map(Owner::parts) {
        write!(out, " {name} {}", value.word())?;
    }
    writeln!(out, " length {}: {}", drop.event.head.length, Summary::of(&drop.frame, style).text)?;
    match &drop.stack {
        Some(Value::Stack(Some(frames))) => frames.iter().try_for_each(|frame| writeln!(out, "\t{frame}")),
        Some(_) => writeln!(out, "\t-"),
        None => Ok(()),
    }
}

/// What stands in the stream where drops are missing from it.
///
/// # Errors
/// Those of the writer.
pub fn write_not_shown(drops: u64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "… {drops} drops not shown")
}

#[cfg(test)]
mod tests {
    use dropwatch_common::event::DropEvent;
    use dropwatch_testing::generator;
    use proptest::{array, collection::vec, prelude::*};

    use super::*;
    use crate::{
        escape::tests::{assert_safe, hostile},
        fakes::{Hostile, Kernel},
        model::location::SourceLine,
        trace::{
            dropped_packet::tests::{bare_datagram, clock, datagram},
            event::{Event, tests::record},
            json,
        },
    };

    fn line(record: &[u8], with_stack: bool) -> String {
        let drop =
            DroppedPacket::new(Event::parse(record).unwrap(), clock(), &mut Kernel::small(), with_stack);
        let mut out = Vec::new();
        write(&drop, Style::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_says_when_why_where_and_what() {
        assert_eq!(
            line(&datagram(), false),
            "1970-01-01T00:00:02.000000005Z NO_SOCKET udp_rcv+0x10/0x100 [kernel] iface lo netns 4026531840(host) class lost length 29: \
             IP 127.0.0.1.40000 > 127.0.0.1.9: UDP, length 1\n"
        );
    }

    #[test]
    fn the_line_of_source_follows_the_location() {
        let record = datagram();
        let mut drop =
            DroppedPacket::new(Event::parse(&record).unwrap(), clock(), &mut Kernel::small(), false);
        if let Value::Location { source, .. } = &mut drop.location {
            *source = Some(SourceLine { file: "net/ipv4/my udp.c".into(), line: 2539 });
        }
        let mut out = Vec::new();
        write(&drop, Style::default(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains(" udp_rcv+0x10/0x100 [kernel] source net/ipv4/my\\x20udp.c:2539 iface lo "),
            "{text}"
        );
    }

    #[test]
    fn the_chain_stands_under_its_line() {
        let text = line(&datagram(), true);
        let below: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(below, ["\tudp_rcv+0x10/0x100 [kernel]", "\tip_rcv+0x20/0x100 [kernel]"]);
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        assert_eq!(
            line(&bare_datagram(), true),
            "1970-01-01T00:00:02.000000005Z - udp_rcv+0x10/0x100 [kernel] iface - netns - class lost length 29: \
             IP 127.0.0.1.40000 > 127.0.0.1.9: UDP, length 1\n\t-\n"
        );
    }

    proptest! {
        #[test]
        fn a_hostile_drop_is_one_line(
            names in array::uniform4(hostile()),
            iface in hostile(),
            (link_header, quick) in any::<(bool, bool)>(),
            frame in prop_oneof![generator::frame(), vec(any::<u8>(), 0..200)],
        ) {
            let template = datagram();
            let head = Event::parse(&template).unwrap().head;
            let length = u32::try_from(frame.len()).unwrap();
            let mut head = DropEvent {
                frame_length: length,
                captured: length,
                link_length: length.min(14),
                iface: [0; 16],
                ..head
            };
            let known = iface.len().min(16);
            head.iface[..known].copy_from_slice(&iface[..known]);
            let record = record(head, &[0x1010, 0x2020, 0x2020], &frame);
            let drop = DroppedPacket::new(Event::parse(&record).unwrap(), clock(), &mut Hostile(names), true);
            let style = Style { link_header, quick };
            let (mut text, mut object) = (Vec::new(), Vec::new());
            write(&drop, style, &mut text).unwrap();
            assert_safe(&text, 1 + 3);
            json::write(&drop, style, &mut object).unwrap();
            assert_safe(&object, 1);
            let _: serde_json::Value = serde_json::from_slice(&object).unwrap();
        }
    }
}
