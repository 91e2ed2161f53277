//! Ethernet, VLAN tags, and what stands above them.

use super::{MAX_DEPTH, View, Words, arp, ip, or_cut, others, view::Short};
use crate::trace::frame::ETHERNET;

pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
pub const RARP: u16 = 0x8035;
pub const IPV6: u16 = 0x86dd;
pub const MPLS: [u16; 2] = [0x8847, 0x8848];
pub const PPPOE: [u16; 2] = [0x8863, 0x8864];
/// 802.1Q, 802.1ad, and what came before that.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Below it, what stands in an ethertype's place is a length.
const FIRST_ETHERTYPE: u16 = 0x600;

/// A frame; its addresses are told where they are its own and nothing else is known of it.
pub fn ethernet(frame: View<'_>, is_own: bool, words: &mut Words) -> Result<(), Short> {
    let mut at = ETHERNET - 2;
    let mut ethertype = frame.u16(at)?;
    for _ in 0..MAX_DEPTH {
        if !TAGS.contains(&ethertype) {
            break;
        }
        let tci = frame.u16(at + 2)?;
        tag(tci, words);
        at += 4;
        ethertype = frame.u16(at)?;
    }
    let payload = frame.from(at + 2);
    if ethertype < FIRST_ETHERTYPE && !is_own {
        // What local sockets and the kernel itself send each other has no ethertype.
        words.say(format_args!("protocol 0x{ethertype:04x}, length {}", payload.length()));
        return Ok(());
    }
    if ethertype < FIRST_ETHERTYPE {
        return llc(ethertype, payload, words);
    }
    if let Some(facts) = words.facts() {
        facts.ethertype = Some(ethertype);
    }
    if above(ethertype, payload, words) {
        return Ok(());
    }
    if is_own {
        let (to, from) = (frame.mac(0)?, frame.mac(6)?);
        words.say(format_args!("{from} > {to}, "));
    }
    words.say(format_args!("ethertype Unknown (0x{ethertype:04x}), length {}", frame.length()));
    Ok(())
}

fn tag(tci: u16, words: &mut Words) {
    let vlan = tci & 0xfff;
    if let Some(facts) = words.facts() {
        facts.vlans.push(vlan);
    }
    words.say(format_args!("vlan {vlan}, p {}, ", tci >> 13));
    if tci & 0x1000 != 0 {
        words.say(format_args!("DEI, "));
    }
}

/// Says what an ethertype announces, if it is one we know.
pub fn above(ethertype: u16, payload: View<'_>, words: &mut Words) -> bool {
    match ethertype {
        IPV4 => ip::v4(payload, words),
        IPV6 => ip::v6(payload, words),
        ARP | RARP => or_cut("arp", words, |words| arp::arp(ethertype, payload, words)),
        ethertype if MPLS.contains(&ethertype) => {
            or_cut("mpls", words, |words| others::mpls(payload, words));
        }
        ethertype if PPPOE.contains(&ethertype) => {
            or_cut("pppoe", words, |words| others::pppoe(ethertype, payload, words));
        }
        0x88cc => words.say(format_args!("LLDP, length {}", payload.length())),
        0x888e => words.say(format_args!("EAPOL, length {}", payload.length())),
        0x8809 => words.say(format_args!("802.3 slow protocols, length {}", payload.length())),
        0x88f7 => words.say(format_args!("PTP, length {}", payload.length())),
        _ => return false,
    }
    true
}

/// A frame of 802.3, which has a length where others have an ethertype.
fn llc(length: u16, payload: View<'_>, words: &mut Words) -> Result<(), Short> {
    if length == 0 {
        words.say(format_args!("802.3, length {}", payload.length()));
        return Ok(());
    }
    let (to, from) = (payload.u8(0)?, payload.u8(1)?);
    match (to, from) {
        (0x42, 0x42) => words.say(format_args!("STP, length {length}")),
        (0xaa, 0xaa) => {
            let protocol = payload.u16(6)?;
            words.say(format_args!("SNAP, ethertype 0x{protocol:04x}, length {length}"));
        }
        _ => words.say(format_args!("LLC, dsap 0x{to:02x} > ssap 0x{from:02x}, length {length}")),
    }
    Ok(())
}
