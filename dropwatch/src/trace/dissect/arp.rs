//! ARP.

use super::{Short, Summary, View, layers::ethertype::RARP};

/// The words of ARP between Ethernet and IPv4; of other pairs, only which.
pub fn arp(ethertype: u16, packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    summary.name(if ethertype == RARP { "RARP, " } else { "ARP, " });
    let (hardware, protocol) = (packet.u16(0)?, packet.u16(2)?);
    let lengths = (packet.u8(4)?, packet.u8(5)?);
    let operation = packet.u16(6)?;
    if (hardware, protocol, lengths) == (1, 0x0800, (6, 4)) {
        between(operation, packet, summary)?;
    } else {
        summary.say(format_args!("hardware {hardware} (len {}), protocol 0x{protocol:04x} ", lengths.0));
        summary.say(format_args!("(len {}), operation {operation}", lengths.1));
    }
    summary.say(format_args!(", length {}", packet.length()));
    Ok(())
}

fn between(operation: u16, packet: View<'_>, summary: &mut Summary) -> Result<(), Short> {
    let (sender_mac, sender) = (packet.mac(8)?, packet.ipv4(14)?);
    let (target_mac, target) = (packet.mac(18)?, packet.ipv4(24)?);
    if let Some(facts) = summary.facts() {
        facts.source = Some(sender.into());
        facts.destination = Some(target.into());
    }
    match operation {
        1 => {
            summary.say(format_args!("Request who-has {target}"));
            if packet.array::<6>(18)? != [0; 6] {
                summary.say(format_args!(" ({target_mac})"));
            }
            summary.say(format_args!(" tell {sender}"));
        }
        2 => summary.say(format_args!("Reply {sender} is-at {sender_mac}")),
        3 => summary.say(format_args!("Reverse Request who-is {target_mac} tell {sender_mac}")),
        4 => summary.say(format_args!("Reverse Reply {target_mac} at {target}")),
        _ => summary.say(format_args!("Unknown ({operation})")),
    }
    Ok(())
}
