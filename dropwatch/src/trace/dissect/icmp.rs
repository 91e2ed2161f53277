//! ICMP for IPv4.

use super::{
    Short, Summary, View,
    layers::ip_protocol::{TCP, UDP},
};

/// The message, and the packet it is about.
pub fn icmp(message: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let (kind, code) = (message.u8(0)?, message.u8(1)?);
    if let Some(facts) = summary.facts() {
        facts.icmp = Some((kind, code));
    }
    let meaning = match kind {
        0 | 8 => {
            let which = if kind == 8 { "request" } else { "reply" };
            format!("echo {which}, id {}, seq {}", message.u16(4)?, message.u16(6)?)
        }
        3 => unreachable(code, message)?,
        4 => "source quench".into(),
        5 => redirect(code, message)?,
        9 => "router advertisement".into(),
        10 => "router solicitation".into(),
        11 => match code {
            0 => "time exceeded in-transit".into(),
            1 => "ip reassembly time exceeded".into(),
            _ => format!("time exceeded-#{code}"),
        },
        12 if code != 0 => format!("parameter problem - code {code}"),
        12 => format!("parameter problem - octet {}", message.u8(4)?),
        13 => format!("time stamp query id {} seq {}", message.u16(4)?, message.u16(6)?),
        14 => format!("time stamp reply id {} seq {}", message.u16(4)?, message.u16(6)?),
        17 => "address mask request".into(),
        18 => format!("address mask is 0x{:08x}", message.u32(8)?),
        _ => format!("type-#{kind}"),
    };
    summary.say(format_args!("ICMP {meaning}, length {}", message.length()));
    Ok(())
}

/// What could not be reached, by the packet that comes back in the message.
fn unreachable(code: u8, message: View<'_>) -> Result<String, Short> {
    let packet = message.from(8);
    let to = packet.ipv4(16)?;
    Ok(match code {
        0 => format!("net {to} unreachable"),
        1 => format!("host {to} unreachable"),
        2 => format!("{to} protocol {} unreachable", packet.u8(9)?),
        3 => {
            let protocol = packet.u8(9)?;
            let port = packet.u16(usize::from(packet.u8(0)? & 0xf) * 4 + 2)?;
            match protocol {
                TCP => format!("{to} tcp port {port} unreachable"),
                UDP => format!("{to} udp port {port} unreachable"),
                _ => format!("{to} protocol {protocol} port {port} unreachable"),
            }
        }
        4 => match message.u16(6)? {
            0 => format!("{to} unreachable - need to frag"),
            mtu => format!("{to} unreachable - need to frag (mtu {mtu})"),
        },
        5 => format!("{to} unreachable - source route failed"),
        6 => format!("net {to} unreachable - unknown"),
        7 => format!("host {to} unreachable - unknown"),
        8 => format!("{to} unreachable - source host isolated"),
        9 => format!("net {to} unreachable - admin prohibited"),
        10 => format!("host {to} unreachable - admin prohibited"),
        11 => format!("net {to} unreachable - tos prohibited"),
        12 => format!("host {to} unreachable - tos prohibited"),
        13 => format!("host {to} unreachable - admin prohibited filter"),
        14 => format!("host {to} unreachable - host precedence violation"),
        15 => format!("host {to} unreachable - precedence cutoff"),
        _ => format!("#{code} {to} unreachable"),
    })
}

fn redirect(code: u8, message: View<'_>) -> Result<String, Short> {
    let (to, through) = (message.from(8).ipv4(16)?, message.ipv4(4)?);
    Ok(match code {
        0 => format!("redirect {to} to net {through}"),
        1 => format!("redirect {to} to host {through}"),
        2 => format!("redirect-tos {to} to net {through}"),
        3 => format!("redirect-tos {to} to host {through}"),
        _ => format!("redirect-#{code} {to} to net {through}"),
    })
}
