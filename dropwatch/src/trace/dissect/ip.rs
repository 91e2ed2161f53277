//! IP of both versions, and what stands above it.

use dropwatch_common::packet::protocol::{
    DESTINATION as OPTIONS, FRAGMENT, HOP_BY_HOP, MOBILITY, NONE as NOTHING, ROUTING,
};

use super::{
    Fragment, Short, Summary, View, icmp, icmpv6,
    layers::{
        Ends,
        ip_protocol::{AH, ESP, GRE, ICMP, ICMPV6, IGMP, IPIP, IPV6, OSPF, PIM, SCTP, TCP, UDP, VRRP},
    },
    or_truncated, others, tcp, udp,
};

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;

/// IPv4.
pub fn v4(packet: View<'_>, summary: &mut Summary) {
    summary.name("IP ");
    or_truncated("ip", summary, |summary| header_v4(packet, summary));
}

fn header_v4(packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let first = packet.u8(0)?;
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 {
        summary.say(format_args!("version {}, not 4, length {}", first >> 4, packet.length()));
        return Ok(());
    }
    if header < V4_HEADER {
        summary.say(format_args!("bad-hlen {header}"));
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
        summary.say(format_args!("truncated-ip - {} bytes missing! ", length - packet.length()));
    }
    if length < header {
        summary.say(format_args!("bad-len {length}"));
        return Ok(());
    }
    let offset = u32::from(fragment & 0x1fff) * 8;
    let part = Fragment { id: id.into(), offset, more: fragment & 0x2000 != 0 };
    if let Some(facts) = summary.facts() {
        facts.ipproto = Some(protocol);
        (facts.source, facts.destination) = (Some(from.into()), Some(to.into()));
        facts.fragment = (offset > 0 || part.more).then_some(part);
    }
    let payload = packet.limited(length).from(header);
    if offset == 0 {
        above(protocol, payload, Ends { from: from.into(), to: to.into(), said: false }, summary);
    } else {
        summary.say(format_args!("{from} > {to}: ip-proto-{protocol}"));
    }
    if offset > 0 || part.more {
        let more = if part.more { "+" } else { "" };
        summary.say(format_args!(" (frag {id}:{}@{offset}{more})", length - header));
    }
    Ok(())
}

/// IPv6.
pub fn v6(packet: View<'_>, summary: &mut Summary) {
    summary.name("IP6 ");
    or_truncated("ip6", summary, |summary| header_v6(packet, summary));
}

fn header_v6(packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let version = packet.u8(0)? >> 4;
    if version != 6 {
        summary.say(format_args!("version {version}, not 6, length {}", packet.length()));
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
        summary.say(format_args!("truncated-ip6 - {} bytes missing!", length - there));
    }
    if let Some(facts) = summary.facts() {
        facts.ipproto = Some(next);
        (facts.source, facts.destination) = (Some(from.into()), Some(to.into()));
    }
    let ends = Ends { from: from.into(), to: to.into(), said: false };
    extensions(next, packet.from(V6_HEADER).limited(length), ends, summary)
}

/// The most extension headers that are followed.
const MAX_EXTENSIONS: usize = 16;

/// The headers between that of IPv6 and what it carries.
fn extensions(mut next: u8, mut rest: View<'_>, mut ends: Ends, summary: &mut Summary) -> Result<(), Short> {
    for _ in 0..MAX_EXTENSIONS {
        let name = match next {
            HOP_BY_HOP => "HBH",
            OPTIONS => "DSTOPT",
            ROUTING => "srcrt",
            MOBILITY => "mobility",
            FRAGMENT => "frag",
            _ => break,
        };
        say_addresses(&mut ends, summary);
        let after = rest.u8(0)?;
        if let Some(facts) = summary.facts() {
            facts.ipproto = Some(after);
        }
        if next == FRAGMENT {
            if !part(rest, summary)? {
                return Ok(());
            }
            rest = rest.from(8);
        } else {
            let length = (usize::from(rest.u8(1)?) + 1) * 8;
            match next {
                ROUTING => summary.say(format_args!("srcrt (len={}, type={}) ", rest.u8(1)?, rest.u8(2)?)),
                _ => summary.say(format_args!("{name} ")),
            }
            rest = rest.from(length);
        }
        next = after;
    }
    if next == NOTHING {
        say_addresses(&mut ends, summary);
        summary.say(format_args!("no next header"));
        return Ok(());
    }
    above(next, rest, ends, summary);
    Ok(())
}

fn say_addresses(ends: &mut Ends, summary: &mut Summary) {
    if !ends.said {
        summary.say(format_args!("{} > {}: ", ends.from, ends.to));
        ends.said = true;
    }
}

/// A fragment's header; whether what follows it is the start of the packet.
fn part(header: View<'_>, summary: &mut Summary) -> Result<bool, Short> {
    let (offset, id) = (header.u16(2)?, header.u32(4)?);
    let part = Fragment { id, offset: u32::from(offset & 0xfff8), more: offset & 1 != 0 };
    if let Some(facts) = summary.facts() {
        facts.fragment = Some(part);
    }
    summary.say(format_args!("frag ({}|{})", part.offset, header.length().saturating_sub(8)));
    if part.offset == 0 {
        summary.say(format_args!(" "));
    }
    Ok(part.offset == 0)
}

/// What IP carries.
fn above(protocol: u8, payload: View<'_>, mut ends: Ends, summary: &mut Summary) {
    match protocol {
        TCP => return or_truncated("tcp", summary, |summary| tcp::tcp(payload, ends, summary)),
        UDP => return or_truncated("udp", summary, |summary| udp::udp(payload, ends, summary)),
        SCTP => return or_truncated("sctp", summary, |summary| others::sctp(payload, ends, summary)),
        _ => say_addresses(&mut ends, summary),
    }
    match protocol {
        ICMP => or_truncated("icmp", summary, |summary| icmp::icmp(payload, summary)),
        ICMPV6 => or_truncated("icmp6", summary, |summary| icmpv6::icmpv6(payload, summary)),
        IGMP => or_truncated("igmp", summary, |summary| others::igmp(payload, summary)),
        GRE => or_truncated("gre", summary, |summary| others::gre(payload, summary)),
        OSPF => or_truncated("ospf", summary, |summary| others::ospf(payload, summary)),
        ESP => or_truncated("esp", summary, |summary| others::esp(payload, summary)),
        AH => or_truncated("ah", summary, |summary| ah(payload, ends, summary)),
        PIM => or_truncated("pim", summary, |summary| others::pim(payload, summary)),
        VRRP => or_truncated("vrrp", summary, |summary| others::vrrp(payload, summary)),
        IPIP => summary.inside(|summary| v4(payload, summary)),
        IPV6 => summary.inside(|summary| v6(payload, summary)),
        _ => summary.say(format_args!(" ip-proto-{protocol} {}", payload.length())),
    }
}

/// The authentication header, in front of what it vouches for.
fn ah(packet: View<'_>, ends: Ends, summary: &mut Summary) -> Result<(), Short> {
    let (next, length) = (packet.u8(0)?, (usize::from(packet.u8(1)?) + 2) * 4);
    let (spi, sequence) = (packet.u32(4)?, packet.u32(8)?);
    summary.say(format_args!("AH(spi=0x{spi:08x},seq=0x{sequence:x}): "));
    summary.inside(|summary| above(next, packet.from(length), ends, summary));
    Ok(())
}
