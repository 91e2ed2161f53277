//! Ethernet, VLAN tags, and what stands above them.

use super::{
    MAX_DEPTH, Summary, View, arp, ip,
    layers::ethertype::{ARP, IPV4, IPV6, MPLS, PPPOE, RARP},
    or_truncated, others,
    view::Short,
};
use crate::trace::frame::{ETHERNET, FIRST_ETHERTYPE, Link};

/// 802.1Q, 802.1ad, and what came before that.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// A frame. Its addresses are printed if they are its own, and nothing else is known of it or `-e` is given.
pub fn ethernet(frame: View<'_>, link: Link, summary: &mut Summary) -> Result<(), Short> {
    let mut at = ETHERNET - 2;
    let mut ethertype = frame.u16(at)?;
    let length = match link {
        // A frame of 802.3 says itself how long it is.
        Link::Own if ethertype < FIRST_ETHERTYPE => ethertype.into(),
        Link::Own => frame.length(),
        // What is made up has no length.
        Link::MadeUp | Link::Replaced(_) => frame.length().saturating_sub(ETHERNET),
    };
    let asked = summary.style.link_header;
    if asked {
        addresses(frame, link, summary)?;
        kind(ethertype, link == Link::Own, summary);
        summary.say(format_args!(", length {length}: "));
    }
    for _ in 0..MAX_DEPTH {
        if !TAGS.contains(&ethertype) {
            break;
        }
        let tci = frame.u16(at + 2)?;
        tag(tci, summary);
        at += 4;
        ethertype = frame.u16(at)?;
        if asked {
            kind(ethertype, link == Link::Own, summary);
            summary.say(format_args!(", "));
        }
    }
    let payload = frame.from(at + 2);
    if ethertype < FIRST_ETHERTYPE && link != Link::Own {
        // What local sockets and the kernel itself send each other has no ethertype.
        if !asked {
            summary.say(format_args!("protocol 0x{ethertype:04x}, length {}", payload.length()));
        }
        return Ok(());
    }
    if ethertype < FIRST_ETHERTYPE {
        return llc(ethertype, payload, summary);
    }
    if let Some(facts) = summary.facts() {
        facts.ethertype = Some(ethertype);
    }
    if above(ethertype, payload, summary) || asked {
        return Ok(());
    }
    if link == Link::Own {
        addresses(frame, link, summary)?;
    }
    kind(ethertype, true, summary);
    summary.say(format_args!(", length {}", frame.length()));
    Ok(())
}

/// Where the frame came from and where it was to go, as far as it had a link header.
fn addresses(frame: View<'_>, link: Link, summary: &mut Summary) -> Result<(), Short> {
    match link {
        Link::Own => {
            let (to, from) = (frame.mac(0)?, frame.mac(6)?);
            summary.say(format_args!("{from} > {to}, "));
        }
        Link::MadeUp => summary.say(format_args!("no link header, ")),
        Link::Replaced(kind) => summary.say(format_args!("link type {kind}, ")),
    }
    Ok(())
}

/// What a frame holds, in tcpdump's words.
fn kind(ethertype: u16, is_ethernet: bool, summary: &mut Summary) {
    let quick = summary.style.quick;
    match name(ethertype) {
        _ if ethertype < FIRST_ETHERTYPE && is_ethernet => summary.say(format_args!("802.3")),
        _ if ethertype < FIRST_ETHERTYPE => summary.say(format_args!("protocol 0x{ethertype:04x}")),
        Some(name) if quick => summary.say(format_args!("{name}")),
        Some(name) => summary.say(format_args!("ethertype {name} (0x{ethertype:04x})")),
        None if quick => summary.say(format_args!("Unknown Ethertype (0x{ethertype:04x})")),
        None => summary.say(format_args!("ethertype Unknown (0x{ethertype:04x})")),
    }
}

/// What tcpdump calls an ethertype.
pub fn name(ethertype: u16) -> Option<&'static str> {
    Some(match ethertype {
        IPV4 => "IPv4",
        IPV6 => "IPv6",
        ARP => "ARP",
        RARP => "Reverse ARP",
        0x8100 => "802.1Q",
        0x88a8 => "802.1Q-QinQ",
        0x9100 => "802.1Q-9100",
        0x8847 => "MPLS unicast",
        0x8848 => "MPLS multicast",
        0x8863 => "PPPoE D",
        0x8864 => "PPPoE S",
        0x6558 => "TEB",
        0x88f7 => "PTP",
        0x8809 => "Slow Protocols",
        0x88cc => "LLDP",
        0x888e => "EAPOL",
        _ => return None,
    })
}

fn tag(tci: u16, summary: &mut Summary) {
    let vlan = tci & 0xfff;
    if let Some(facts) = summary.facts() {
        facts.vlans.push(vlan);
    }
    summary.say(format_args!("vlan {vlan}, p {}, ", tci >> 13));
    if tci & 0x1000 != 0 {
        summary.say(format_args!("DEI, "));
    }
}

/// Says what an ethertype announces, if it is one we know.
pub fn above(ethertype: u16, payload: View<'_>, summary: &mut Summary) -> bool {
    match ethertype {
        IPV4 => ip::v4(payload, summary),
        IPV6 => ip::v6(payload, summary),
        ARP | RARP => or_truncated("arp", summary, |summary| arp::arp(ethertype, payload, summary)),
        ethertype if MPLS.contains(&ethertype) => {
            or_truncated("mpls", summary, |summary| others::mpls(payload, summary));
        }
        ethertype if PPPOE.contains(&ethertype) => {
            or_truncated("pppoe", summary, |summary| others::pppoe(ethertype, payload, summary));
        }
        0x88cc => summary.say(format_args!("LLDP, length {}", payload.length())),
        0x888e => summary.say(format_args!("EAPOL, length {}", payload.length())),
        0x8809 => summary.say(format_args!("802.3 slow protocols, length {}", payload.length())),
        0x88f7 => summary.say(format_args!("PTP, length {}", payload.length())),
        _ => return false,
    }
    true
}

/// A frame of 802.3, which has a length where others have an ethertype.
fn llc(length: u16, payload: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    if length == 0 {
        summary.say(format_args!("802.3, length {}", payload.length()));
        return Ok(());
    }
    let (to, from) = (payload.u8(0)?, payload.u8(1)?);
    match (to, from) {
        (0x42, 0x42) => summary.say(format_args!("STP, length {length}")),
        (0xaa, 0xaa) => {
            let protocol = payload.u16(6)?;
            summary.say(format_args!("SNAP, ethertype 0x{protocol:04x}, length {length}"));
        }
        _ => summary.say(format_args!("LLC, dsap 0x{to:02x} > ssap 0x{from:02x}, length {length}")),
    }
    Ok(())
}
