//! IP of both versions, and what stands above it.

use std::net::IpAddr;

use super::{Fragment, Short, View, Words, icmp, icmpv6, or_cut, others, tcp, udp};

/// Protocols above IP.
pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const IPIP: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const IPV6: u8 = 41;
pub const GRE: u8 = 47;
pub const ESP: u8 = 50;
pub const AH: u8 = 51;
pub const ICMPV6: u8 = 58;
pub const OSPF: u8 = 89;
pub const PIM: u8 = 103;
pub const VRRP: u8 = 112;
pub const SCTP: u8 = 132;
/// Extension headers of IPv6.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NOTHING: u8 = 59;
const OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;

/// Who speaks to whom, as far as the words above IP need it.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub from: IpAddr,
    pub to: IpAddr,
    /// Whether the addresses have been said, because something stands between them and the ports.
    pub said: bool,
}

impl Ends {
    /// Says both ends with their ports, if both are known; else just the addresses.
    pub fn say_ports(self, ports: Option<(u16, u16)>, words: &mut Words) {
        let Self { from, to, said } = self;
        if let (Some((source, destination)), Some(facts)) = (ports, words.facts()) {
            (facts.source_port, facts.destination_port) = (Some(source), Some(destination));
        }
        match ports {
            Some((source, destination)) if said => words.say(format_args!("{source} > {destination}: ")),
            Some((source, destination)) => words.say(format_args!("{from}.{source} > {to}.{destination}: ")),
            None if said => {}
            None => words.say(format_args!("{from} > {to}:")),
        }
    }
}

/// IPv4.
pub fn v4(packet: View<'_>, words: &mut Words) {
    words.say(format_args!("IP "));
    or_cut("ip", words, |words| header_v4(packet, words));
}

fn header_v4(packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    let first = packet.u8(0)?;
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 {
        words.say(format_args!("version {}, not 4, length {}", first >> 4, packet.length()));
        return Ok(());
    }
    if header < V4_HEADER {
        words.say(format_args!("bad-hlen {header}"));
        return Ok(());
    }
    let (id, fragment) = (packet.u16(4)?, packet.u16(6)?);
    let (protocol, from, to) = (packet.u8(9)?, packet.ipv4(12)?, packet.ipv4(16)?);
    // What the hardware is to cut up has no length yet.
    let length = match usize::from(packet.u16(2)?) {
        0 => packet.length(),
        length => length,
    };
    if packet.length() < length {
        words.say(format_args!("truncated-ip - {} bytes missing! ", length - packet.length()));
    }
    if length < header {
        words.say(format_args!("bad-len {length}"));
        return Ok(());
    }
    let offset = u32::from(fragment & 0x1fff) * 8;
    let part = Fragment { id: id.into(), offset, more: fragment & 0x2000 != 0 };
    if let Some(facts) = words.facts() {
        facts.ipproto = Some(protocol);
        (facts.source, facts.destination) = (Some(from.into()), Some(to.into()));
        facts.fragment = (offset > 0 || part.more).then_some(part);
    }
    let payload = packet.limited(length).from(header);
    if offset == 0 {
        above(protocol, payload, Ends { from: from.into(), to: to.into(), said: false }, words);
    } else {
        words.say(format_args!("{from} > {to}: ip-proto-{protocol}"));
    }
    if offset > 0 || part.more {
        let more = if part.more { "+" } else { "" };
        words.say(format_args!(" (frag {id}:{}@{offset}{more})", length - header));
    }
    Ok(())
}

/// IPv6.
pub fn v6(packet: View<'_>, words: &mut Words) {
    words.say(format_args!("IP6 "));
    or_cut("ip6", words, |words| header_v6(packet, words));
}

fn header_v6(packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    let version = packet.u8(0)? >> 4;
    if version != 6 {
        words.say(format_args!("version {version}, not 6, length {}", packet.length()));
        return Ok(());
    }
    let (next, from, to) = (packet.u8(6)?, packet.ipv6(8)?, packet.ipv6(24)?);
    // A jumbogram, or what the hardware is to cut up, has no length here.
    let length = match usize::from(packet.u16(4)?) {
        0 => packet.length().saturating_sub(V6_HEADER),
        length => length,
    };
    let there = packet.length().saturating_sub(V6_HEADER);
    if there < length {
        words.say(format_args!("truncated-ip6 - {} bytes missing!", length - there));
    }
    if let Some(facts) = words.facts() {
        facts.ipproto = Some(next);
        (facts.source, facts.destination) = (Some(from.into()), Some(to.into()));
    }
    let ends = Ends { from: from.into(), to: to.into(), said: false };
    extensions(next, packet.from(V6_HEADER).limited(length), ends, words)
}

/// The most extension headers that are followed.
const MAX_EXTENSIONS: usize = 16;

/// The headers between that of IPv6 and what it carries.
fn extensions(mut next: u8, mut rest: View<'_>, mut ends: Ends, words: &mut Words) -> Result<(), Short> {
    for _ in 0..MAX_EXTENSIONS {
        let name = match next {
            HOP_BY_HOP => "HBH",
            OPTIONS => "DSTOPT",
            ROUTING => "srcrt",
            MOBILITY => "mobility",
            FRAGMENT => "frag",
            _ => break,
        };
        say_addresses(&mut ends, words);
        let after = rest.u8(0)?;
        if let Some(facts) = words.facts() {
            facts.ipproto = Some(after);
        }
        if next == FRAGMENT {
            if !part(rest, words)? {
                return Ok(());
            }
            rest = rest.from(8);
        } else {
            let length = (usize::from(rest.u8(1)?) + 1) * 8;
            match next {
                ROUTING => words.say(format_args!("srcrt (len={}, type={}) ", rest.u8(1)?, rest.u8(2)?)),
                _ => words.say(format_args!("{name} ")),
            }
            rest = rest.from(length);
        }
        next = after;
    }
    if next == NOTHING {
        say_addresses(&mut ends, words);
        words.say(format_args!("no next header"));
        return Ok(());
    }
    above(next, rest, ends, words);
    Ok(())
}

fn say_addresses(ends: &mut Ends, words: &mut Words) {
    if !ends.said {
        words.say(format_args!("{} > {}: ", ends.from, ends.to));
        ends.said = true;
    }
}

/// A fragment's header; whether what follows it is the start of the packet.
fn part(header: View<'_>, words: &mut Words) -> Result<bool, Short> {
    let (offset, id) = (header.u16(2)?, header.u32(4)?);
    let part = Fragment { id, offset: u32::from(offset & 0xfff8), more: offset & 1 != 0 };
    if let Some(facts) = words.facts() {
        facts.fragment = Some(part);
    }
    words.say(format_args!("frag ({}|{})", part.offset, header.length().saturating_sub(8)));
    if part.offset == 0 {
        words.say(format_args!(" "));
    }
    Ok(part.offset == 0)
}

/// What IP carries.
fn above(protocol: u8, payload: View<'_>, mut ends: Ends, words: &mut Words) {
    match protocol {
        TCP => return or_cut("tcp", words, |words| tcp::tcp(payload, ends, words)),
        UDP => return or_cut("udp", words, |words| udp::udp(payload, ends, words)),
        SCTP => return or_cut("sctp", words, |words| others::sctp(payload, ends, words)),
        _ => say_addresses(&mut ends, words),
    }
    match protocol {
        ICMP => or_cut("icmp", words, |words| icmp::icmp(payload, words)),
        ICMPV6 => or_cut("icmp6", words, |words| icmpv6::icmpv6(payload, words)),
        IGMP => or_cut("igmp", words, |words| others::igmp(payload, words)),
        GRE => or_cut("gre", words, |words| others::gre(payload, words)),
        OSPF => or_cut("ospf", words, |words| others::ospf(payload, words)),
        ESP => or_cut("esp", words, |words| others::esp(payload, words)),
        AH => or_cut("ah", words, |words| ah(payload, ends, words)),
        PIM => or_cut("pim", words, |words| others::pim(payload, words)),
        VRRP => or_cut("vrrp", words, |words| others::vrrp(payload, words)),
        IPIP => words.inside(|words| v4(payload, words)),
        IPV6 => words.inside(|words| v6(payload, words)),
        _ => words.say(format_args!(" ip-proto-{protocol} {}", payload.length())),
    }
}

/// The authentication header, in front of what it vouches for.
fn ah(packet: View<'_>, ends: Ends, words: &mut Words) -> Result<(), Short> {
    let (next, length) = (packet.u8(0)?, (usize::from(packet.u8(1)?) + 2) * 4);
    let (spi, sequence) = (packet.u32(4)?, packet.u32(8)?);
    words.say(format_args!("AH(spi=0x{spi:08x},seq=0x{sequence:x}): "));
    words.inside(|words| above(next, packet.from(length), ends, words));
    Ok(())
}
