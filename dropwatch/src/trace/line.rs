//! A drop as a line of text, for people and logs.

use std::io::{self, Write};

use super::{drop::Drop, words::Words};
use crate::{render::escaped, report::Value};

/// `TIME REASON LOCATION iface NAME netns INUM length BYTES: PACKET`, then the call chain if there is one.
///
/// What is not known is `-`.
///
/// # Errors
/// Those of the writer.
pub fn write(drop: &Drop<'_>, out: &mut dyn Write) -> io::Result<()> {
    let time = humantime::format_rfc3339_nanos(drop.time);
    write!(out, "{time} {} {}", escaped(&drop.reason.words()), drop.location.words())?;
    write!(out, " iface {}", escaped(&drop.iface.words()))?;
    write!(out, " netns {}", escaped(&drop.netns.words()))?;
    writeln!(out, " length {}: {}", drop.event.head.length, Words::of(&drop.frame).text)?;
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
    use super::*;
    use crate::trace::{
        drop::tests::{Small, bare_datagram, clock, datagram},
        event::Event,
    };

    fn line(record: &[u8], with_stack: bool) -> String {
        let drop = Drop::new(Event::parse(record).unwrap(), clock(), &mut Small, with_stack);
        let mut out = Vec::new();
        write(&drop, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_says_when_why_where_and_what() {
        assert_eq!(
            line(&datagram(), false),
            "1970-01-01T00:00:02.000000005Z NO_SOCKET udp_rcv+0x10/0x100 [kernel] iface lo netns 4026531840(host) length 29: \
             IP 127.0.0.1.40000 > 127.0.0.1.9: UDP, length 1\n"
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
            "1970-01-01T00:00:02.000000005Z - udp_rcv+0x10/0x100 [kernel] iface - netns - length 29: \
             IP 127.0.0.1.40000 > 127.0.0.1.9: UDP, length 1\n\t-\n"
        );
    }
}
