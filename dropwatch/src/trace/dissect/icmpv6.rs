//! ICMP for IPv6, neighbour discovery included.

use super::{
    Short, Summary, View,
    layers::ip_protocol::{TCP, UDP},
};

/// The message, and the address it is about.
pub fn icmpv6(message: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    summary.say(format_args!("ICMP6, "));
    let (kind, code) = (message.u8(0)?, message.u8(1)?);
    if let Some(facts) = summary.facts() {
        facts.icmp = Some((kind, code));
    }
    match name(kind) {
        Some(name) => summary.say(format_args!("{name}")),
        None => summary.say(format_args!("unknown icmp6 type ({kind})")),
    }
    match kind {
        1 => unreachable(code, message, summary)?,
        2 => summary.say(format_args!(", mtu {}", message.u32(4)?)),
        3 => match code {
            0 => summary.say(format_args!(" in-transit for {}", message.ipv6(8 + 24)?)),
            1 => summary.say(format_args!(" (reassembly)")),
            _ => summary.say(format_args!(", unknown code ({code})")),
        },
        4 => match code {
            0 => summary.say(format_args!(", erroneous - octet {}", message.u32(4)?)),
            1 => summary.say(format_args!(", next header - octet {}", message.u32(4)?)),
            2 => summary.say(format_args!(", option - octet {}", message.u32(4)?)),
            _ => summary.say(format_args!(", code-#{code}")),
        },
        128 | 129 => summary.say(format_args!(", id {}, seq {}", message.u16(4)?, message.u16(6)?)),
        130..=132 if message.length() == 24 => {
            summary.say(format_args!("max resp delay: {} addr: {}", message.u16(4)?, message.ipv6(8)?));
        }
        135 => summary.say(format_args!(", who has {}", message.ipv6(8)?)),
        136 => summary.say(format_args!(", tgt is {}", message.ipv6(8)?)),
        137 => summary.say(format_args!(", {} to {}", message.ipv6(24)?, message.ipv6(8)?)),
        143 => summary.say(format_args!(", {} group record(s)", message.u16(6)?)),
        _ => {}
    }
    summary.say(format_args!(", length {}", message.length()));
    Ok(())
}

fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        1 => "destination unreachable",
        2 => "packet too big",
        3 => "time exceeded",
        4 => "parameter problem",
        128 => "echo request",
        129 => "echo reply",
        130 => "multicast listener query",
        131 => "multicast listener report",
        132 => "multicast listener done",
        133 => "router solicitation",
        134 => "router advertisement",
        135 => "neighbor solicitation",
        136 => "neighbor advertisement",
        137 => "redirect",
        138 => "router renumbering",
        143 => "multicast listener report v2",
        _ => return None,
    })
}

/// What could not be reached, by the packet that comes back in the message.
fn unreachable(code: u8, message: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    match code {
        0 => summary.say(format_args!(", unreachable route")),
        1 => summary.say(format_args!(", unreachable prohibited")),
        2 => summary.say(format_args!(", beyond scope")),
        3 => summary.say(format_args!(", unreachable address")),
        4 => summary.say(format_args!(", unreachable port")),
        _ => summary.say(format_args!(", unknown unreach code ({code})")),
    }
    let packet = message.from(8);
    let to = packet.ipv6(24)?;
    summary.say(format_args!("{} {to}", if code == 4 { "," } else { "" }));
    if code == 4 {
        let (protocol, port) = (packet.u8(6)?, packet.u16(42)?);
        match protocol {
            TCP => summary.say(format_args!(" tcp port {port}")),
            UDP => summary.say(format_args!(" udp port {port}")),
            _ => summary.say(format_args!(" protocol {protocol} port {port}")),
        }
    }
    Ok(())
}
