//! Protocols described in one phrase: tunnels, routing protocols, SCTP.

use super::{
    Short, Summary, View, ip,
    layers::{Ends, ethertype::PPPOE},
    link,
};
use crate::trace::frame::Link;

/// The version, the key if there is one, and what it carries.
pub fn gre(packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let (flags, protocol) = (packet.u16(0)?, packet.u16(2)?);
    summary.say(format_args!("GREv{}", flags & 7));
    if flags & 7 != 0 {
        summary.say(format_args!(", length {}", packet.length()));
        return Ok(());
    }
    let mut at = 4;
    if flags & 0xc000 != 0 {
        // The checksum, with the offset of the obsolete routing field.
        at += 4;
    }
    if flags & 0x2000 != 0 {
        summary.say(format_args!(", key=0x{:x}", packet.u32(at)?));
        at += 4;
    }
    if flags & 0x1000 != 0 {
        summary.say(format_args!(", seq {}", packet.u32(at)?));
        at += 4;
    }
    if summary.style.link_header {
        let name = link::name(protocol).unwrap_or("unknown");
        summary.say(format_args!(", proto {name} (0x{protocol:04x})"));
    }
    summary.say(format_args!(", length {}: ", packet.length()));
    let payload = packet.from(at);
    summary.inside(|summary| match protocol {
        0x6558 => {
            if link::ethernet(payload, Link::Own, summary) == Err(Short) {
                summary.truncated("ether");
            }
        }
        _ if link::above(protocol, payload, summary) => {}
        _ => summary.say(format_args!("gre-proto-0x{protocol:x}")),
    });
    Ok(())
}

/// The labels, and what the last one covers.
pub fn mpls(packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    summary.say(format_args!("MPLS"));
    let mut at = 0;
    loop {
        let label = packet.u32(at)?;
        let bottom = label & 0x100 != 0;
        summary.say(format_args!("{} (label {}, ", if at > 0 { "," } else { "" }, label >> 12));
        summary.say(format_args!("tc {}, ", label >> 9 & 7));
        summary.say(format_args!("{}ttl {})", if bottom { "[S], " } else { "" }, label & 0xff));
        at += 4;
        if bottom {
            break;
        }
    }
    let payload = packet.from(at);
    summary.say(format_args!(", "));
    summary.inside(|summary| match payload.u8(0).map(|first| first >> 4) {
        Ok(4) => ip::v4(payload, summary),
        Ok(6) => ip::v6(payload, summary),
        _ => summary.say(format_args!("length {}", payload.length())),
    });
    Ok(())
}

/// The session, and what it carries.
pub fn pppoe(ethertype: u16, packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let (code, session) = (packet.u8(1)?, packet.u16(2)?);
    if ethertype == PPPOE[0] {
        summary.say(format_args!("PPPoE D, code 0x{code:02x}, length {}", packet.length()));
        return Ok(());
    }
    summary.say(format_args!("PPPoE  [ses 0x{session:x}] "));
    let (protocol, payload) = (packet.u16(6)?, packet.from(8));
    summary.inside(|summary| match protocol {
        0x0021 => ip::v4(payload, summary),
        0x0057 => ip::v6(payload, summary),
        _ => summary.say(format_args!("ppp-proto-0x{protocol:04x}, length {}", payload.length())),
    });
    Ok(())
}

/// The version and the kind of message.
pub fn ospf(packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let (version, kind) = (packet.u8(0)?, packet.u8(1)?);
    summary.say(format_args!("OSPFv{version}, "));
    match kind {
        1 => summary.say(format_args!("Hello")),
        2 => summary.say(format_args!("Database Description")),
        3 => summary.say(format_args!("LS-Request")),
        4 => summary.say(format_args!("LS-Update")),
        5 => summary.say(format_args!("LS-Ack")),
        _ => summary.say(format_args!("unknown packet type ({kind})")),
    }
    summary.say(format_args!(", length {}", packet.length()));
    Ok(())
}

/// The kind of message, and the group it is about.
pub fn igmp(message: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    if summary.style.quick {
        summary.say(format_args!("igmp"));
        return Ok(());
    }
    let kind = message.u8(0)?;
    match kind {
        0x11 if message.length() >= 12 => summary.say(format_args!("igmp query v3")),
        0x11 => {
            let version = if message.u8(1)? == 0 { 1 } else { 2 };
            summary.say(format_args!("igmp query v{version}"));
            let group = message.ipv4(4)?;
            if !group.is_unspecified() {
                summary.say(format_args!(" [gaddr {group}]"));
            }
        }
        0x12 => summary.say(format_args!("igmp v1 report {}", message.ipv4(4)?)),
        0x16 => summary.say(format_args!("igmp v2 report {}", message.ipv4(4)?)),
        0x17 => summary.say(format_args!("igmp leave {}", message.ipv4(4)?)),
        0x22 => summary.say(format_args!("igmp v3 report, {} group record(s)", message.u16(6)?)),
        _ => summary.say(format_args!("igmp-{kind}")),
    }
    Ok(())
}

/// The ports and the kinds of the chunks.
pub fn sctp(packet: View<'_>, ends: Ends, summary: &mut Summary) -> Result<(), Short> {
    let (Ok(source), Ok(destination)) = (packet.u16(0), packet.u16(2)) else {
        ends.say_ports(None, summary);
        return Err(Short);
    };
    Ends { said: false, ..ends }.say_ports(Some((source, destination)), summary);
    summary.say(format_args!("sctp"));
    let (mut rest, mut number) = (packet.from(12), 0);
    while rest.length() >= 4 && number < MAX_CHUNKS {
        number += 1;
        let (kind, length) = (rest.u8(0)?, usize::from(rest.u16(2)?));
        match chunk(kind) {
            Some(name) => summary.say(format_args!(" ({number}) [{name}]")),
            None => summary.say(format_args!(" ({number}) [Unknown chunk type: 0x{kind:x}]")),
        }
        rest = rest.from(length.max(4).next_multiple_of(4));
    }
    Ok(())
}

/// The most chunks that are printed.
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
pub fn esp(packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let (spi, sequence) = (packet.u32(0)?, packet.u32(4)?);
    summary.say(format_args!("ESP(spi=0x{spi:08x},seq=0x{sequence:x}), length {}", packet.length()));
    Ok(())
}

/// The version.
pub fn pim(packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    summary.say(format_args!("PIMv{}, length {}", packet.u8(0)? >> 4, packet.length()));
    Ok(())
}

/// The version and the router that speaks.
pub fn vrrp(packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let (first, router, priority) = (packet.u8(0)?, packet.u8(1)?, packet.u8(2)?);
    summary.say(format_args!("VRRPv{}, Advertisement, vrid {router}, prio {priority}", first >> 4));
    summary.say(format_args!(", length {}", packet.length()));
    Ok(())
}
