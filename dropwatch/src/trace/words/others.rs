//! What is told in one phrase: tunnels, routing protocols, SCTP.

use super::{Short, View, Words, ip, ip::Ends, link};

/// The version, the key if there is one, and what it carries.
pub fn gre(packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    let (flags, protocol) = (packet.u16(0)?, packet.u16(2)?);
    words.say(format_args!("GREv{}", flags & 7));
    if flags & 7 != 0 {
        words.say(format_args!(", length {}", packet.length()));
        return Ok(());
    }
    let mut at = 4;
    if flags & 0xc000 != 0 {
        // The checksum, with the offset of a routing that nobody uses.
        at += 4;
    }
    if flags & 0x2000 != 0 {
        words.say(format_args!(", key=0x{:x}", packet.u32(at)?));
        at += 4;
    }
    if flags & 0x1000 != 0 {
        words.say(format_args!(", seq {}", packet.u32(at)?));
        at += 4;
    }
    words.say(format_args!(", length {}: ", packet.length()));
    let payload = packet.from(at);
    words.inside(|words| match protocol {
        0x6558 => {
            if link::ethernet(payload, true, words) == Err(Short) {
                words.cut("ether");
            }
        }
        _ if link::above(protocol, payload, words) => {}
        _ => words.say(format_args!("gre-proto-0x{protocol:x}")),
    });
    Ok(())
}

/// The labels, and what the last one covers.
pub fn mpls(packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    words.say(format_args!("MPLS"));
    let mut at = 0;
    loop {
        let label = packet.u32(at)?;
        let bottom = label & 0x100 != 0;
        words.say(format_args!("{} (label {}, ", if at > 0 { "," } else { "" }, label >> 12));
        words.say(format_args!("tc {}, ", label >> 9 & 7));
        words.say(format_args!("{}ttl {})", if bottom { "[S], " } else { "" }, label & 0xff));
        at += 4;
        if bottom {
            break;
        }
    }
    let payload = packet.from(at);
    words.say(format_args!(", "));
    words.inside(|words| match payload.u8(0).map(|first| first >> 4) {
        Ok(4) => ip::v4(payload, words),
        Ok(6) => ip::v6(payload, words),
        _ => words.say(format_args!("length {}", payload.length())),
    });
    Ok(())
}

/// The session, and what it carries.
pub fn pppoe(ethertype: u16, packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    let (code, session) = (packet.u8(1)?, packet.u16(2)?);
    if ethertype == link::PPPOE[0] {
        words.say(format_args!("PPPoE D, code 0x{code:02x}, length {}", packet.length()));
        return Ok(());
    }
    words.say(format_args!("PPPoE  [ses 0x{session:x}] "));
    let (protocol, payload) = (packet.u16(6)?, packet.from(8));
    words.inside(|words| match protocol {
        0x0021 => ip::v4(payload, words),
        0x0057 => ip::v6(payload, words),
        _ => words.say(format_args!("ppp-proto-0x{protocol:04x}, length {}", payload.length())),
    });
    Ok(())
}

/// The version and the kind of message.
pub fn ospf(packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    let (version, kind) = (packet.u8(0)?, packet.u8(1)?);
    words.say(format_args!("OSPFv{version}, "));
    match kind {
        1 => words.say(format_args!("Hello")),
        2 => words.say(format_args!("Database Description")),
        3 => words.say(format_args!("LS-Request")),
        4 => words.say(format_args!("LS-Update")),
        5 => words.say(format_args!("LS-Ack")),
        _ => words.say(format_args!("unknown packet type ({kind})")),
    }
    words.say(format_args!(", length {}", packet.length()));
    Ok(())
}

/// The kind of message, and the group it is about.
pub fn igmp(message: View<'_>, words: &mut Words) -> Result<(), Short> {
    let kind = message.u8(0)?;
    match kind {
        0x11 if message.length() >= 12 => words.say(format_args!("igmp query v3")),
        0x11 => {
            let version = if message.u8(1)? == 0 { 1 } else { 2 };
            words.say(format_args!("igmp query v{version}"));
            let group = message.ipv4(4)?;
            if !group.is_unspecified() {
                words.say(format_args!(" [gaddr {group}]"));
            }
        }
        0x12 => words.say(format_args!("igmp v1 report {}", message.ipv4(4)?)),
        0x16 => words.say(format_args!("igmp v2 report {}", message.ipv4(4)?)),
        0x17 => words.say(format_args!("igmp leave {}", message.ipv4(4)?)),
        0x22 => words.say(format_args!("igmp v3 report, {} group record(s)", message.u16(6)?)),
        _ => words.say(format_args!("igmp-{kind}")),
    }
    Ok(())
}

/// The ports and the kinds of the chunks.
pub fn sctp(packet: View<'_>, ends: Ends, words: &mut Words) -> Result<(), Short> {
    let (Ok(source), Ok(destination)) = (packet.u16(0), packet.u16(2)) else {
        ends.say_ports(None, words);
        return Err(Short);
    };
    Ends { said: false, ..ends }.say_ports(Some((source, destination)), words);
    words.say(format_args!("sctp"));
    let (mut rest, mut number) = (packet.from(12), 0);
    while rest.length() >= 4 && number < MAX_CHUNKS {
        number += 1;
        let (kind, length) = (rest.u8(0)?, usize::from(rest.u16(2)?));
        match chunk(kind) {
            Some(name) => words.say(format_args!(" ({number}) [{name}]")),
            None => words.say(format_args!(" ({number}) [Unknown chunk type: 0x{kind:x}]")),
        }
        rest = rest.from(length.max(4).next_multiple_of(4));
    }
    Ok(())
}

/// The most chunks that are told.
const MAX_CHUNKS: usize = 16;

fn chunk(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0 => "DATA",
        1 => "INIT",
        2 => "INIT ACK",
        3 => "SACK",
        4 => "HB REQ",
        5 => "HB ACK",
        6 => "ABORT",
        7 => "SHUTDOWN",
        8 => "SHUTDOWN ACK",
        9 => "OP ERR",
        10 => "COOKIE ECHO",
        11 => "COOKIE ACK",
        14 => "SHUTDOWN COMPLETE",
        _ => return None,
    })
}

/// Which association, and which packet of it.
pub fn esp(packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    let (spi, sequence) = (packet.u32(0)?, packet.u32(4)?);
    words.say(format_args!("ESP(spi=0x{spi:08x},seq=0x{sequence:x}), length {}", packet.length()));
    Ok(())
}

/// The version.
pub fn pim(packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    words.say(format_args!("PIMv{}, length {}", packet.u8(0)? >> 4, packet.length()));
    Ok(())
}

/// The version and the router that speaks.
pub fn vrrp(packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    let (first, router, priority) = (packet.u8(0)?, packet.u8(1)?, packet.u8(2)?);
    words.say(format_args!("VRRPv{}, Advertisement, vrid {router}, prio {priority}", first >> 4));
    words.say(format_args!(", length {}", packet.length()));
    Ok(())
}
