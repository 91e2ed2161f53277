//! TCP.

use std::fmt::Write as _;

use super::{Short, Summary, TcpFacts, View, layers::Ends};

const HEADER: usize = 20;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
/// The letters of the flags, from the lowest bit up.
const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

/// The ports, flags, numbers and options.
pub fn tcp(segment: View<'_>, ends: Ends, summary: &mut Summary) -> Result<(), Short> {
    let (Ok(source), Ok(destination)) = (segment.u16(0), segment.u16(2)) else {
        ends.say_ports(None, summary);
        return Err(Short);
    };
    ends.say_ports(Some((source, destination)), summary);
    let (seq, ack) = (segment.u32(4)?, segment.u32(8)?);
    let (offset, bits) = (segment.u8(12)?, segment.u8(13)?);
    let (win, urgent) = (segment.u16(14)?, segment.u16(18)?);
    let header = usize::from(offset >> 4) * 4;
    let flags = flags(bits, offset & 1 != 0);
    if let Some(facts) = summary.facts() {
        let ack = (bits & ACK != 0).then_some(ack);
        facts.tcp = Some(TcpFacts { flags: flags.clone(), seq, ack, win });
    }
    if header < HEADER {
        summary.say(format_args!(" tcp {} ", segment.length().saturating_sub(header)));
        summary.say(format_args!("[bad hdr length {header} - too short, < {HEADER}]"));
        return Ok(());
    }
    if summary.style.quick {
        quick(segment.length(), header, summary);
        return Ok(());
    }
    summary.say(format_args!("Flags [{}]", if flags.is_empty() { "none" } else { &flags }));
    let Some(length) = segment.length().checked_sub(header) else {
        summary.say(format_args!(" [bad hdr length {header} - too long, > {}]", segment.length()));
        return Ok(());
    };
    if length > 0 || bits & (SYN | FIN | RST) != 0 {
        summary.say(format_args!(", seq {seq}"));
        if length > 0 {
            summary.say(format_args!(":{}", seq.wrapping_add(u32::try_from(length).unwrap_or(0))));
        }
    }
    if bits & ACK != 0 {
        summary.say(format_args!(", ack {ack}"));
    }
    summary.say(format_args!(", win {win}"));
    if bits & URG != 0 {
        summary.say(format_args!(", urg {urgent}"));
    }
    if header > HEADER {
        summary.say(format_args!(", options ["));
        options(segment.from(HEADER).limited(header - HEADER), summary)?;
        summary.say(format_args!("]"));
    }
    summary.say(format_args!(", length {length}"));
    Ok(())
}

/// What `-q` leaves: how much it carries.
fn quick(length: usize, header: usize, summary: &mut Summary) {
    summary.say(format_args!("tcp {}", length.saturating_sub(header)));
    if header > length {
        summary.say(format_args!(" [bad hdr length {header} - too long, > {length}]"));
    }
}

/// The flags as tcpdump prints them; the ninth stands in the byte before.
fn flags(bits: u8, accurate: bool) -> String {
    let set = LETTERS.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    set.map(|(_, letter)| *letter).chain(accurate.then_some('e')).collect()
}

fn options(mut rest: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let mut comma = "";
    while rest.length() > 0 {
        let kind = rest.u8(0)?;
        summary.say(format_args!("{comma}"));
        comma = ",";
        match kind {
            0 => {
                summary.say(format_args!("eol"));
                return Ok(());
            }
            1 => {
                summary.say(format_args!("nop"));
                rest = rest.from(1);
                continue;
            }
            _ => {}
        }
        let length = usize::from(rest.u8(1)?);
        if length < 2 || length > rest.length() {
            summary.say(format_args!("[bad opt]"));
            return Ok(());
        }
        option(kind, rest.limited(length).from(2), summary)?;
        rest = rest.from(length);
    }
    Ok(())
}

/// An option that has a value.
fn option(kind: u8, value: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    match (kind, value.length()) {
        (2, 2) => summary.say(format_args!("mss {}", value.u16(0)?)),
        (3, 1) => summary.say(format_args!("wscale {}", value.u8(0)?)),
        (4, 0) => summary.say(format_args!("sackOK")),
        (5, length) if length % 8 == 0 => {
            summary.say(format_args!("sack {} ", length / 8));
            for at in (0..length).step_by(8) {
                summary.say(format_args!("{{{}:{}}}", value.u32(at)?, value.u32(at + 4)?));
            }
        }
        (8, 8) => summary.say(format_args!("TS val {} ecr {}", value.u32(0)?, value.u32(4)?)),
        (34, 0) => summary.say(format_args!("tfo cookiereq")),
        (34, length @ 4..=16) => summary.say(format_args!("tfo cookie {}", hex(value, length)?)),
        (_, length) => {
            summary.say(format_args!("{}", name(kind)));
            if length > 0 {
                summary.say(format_args!(" 0x{}", hex(value, length)?));
            }
        }
    }
    Ok(())
}

fn name(kind: u8) -> String {
    match kind {
        2 => "mss".into(),
        3 => "wscale".into(),
        4 => "sackOK".into(),
        5 => "sack".into(),
        8 => "TS".into(),
        19 => "md5".into(),
        28 => "uto".into(),
        29 => "tcp-ao".into(),
        30 => "mptcp".into(),
        34 => "tfo".into(),
        _ => format!("unknown-{kind}"),
    }
}

fn hex(value: View<'_>, length: usize) -> Result<String, Short> {
    let mut hex = String::new();
    for byte in value.slice(0, length)? {
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}
