//! ARP.

use super::{Short, View, Words, link::RARP};

/// The words of ARP between Ethernet and IPv4; of other pairs, only which.
pub fn arp(ethertype: u16, packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    words.say(format_args!("{}, ", if ethertype == RARP { "RARP" } else { "ARP" }));
    let (hardware, protocol) = (packet.u16(0)?, packet.u16(2)?);
    let lengths = (packet.u8(4)?, packet.u8(5)?);
    let operation = packet.u16(6)?;
    if (hardware, protocol, lengths) == (1, 0x0800, (6, 4)) {
        between(operation, packet, words)?;
    } else {
        words.say(format_args!("hardware {hardware} (len {}), protocol 0x{protocol:04x} ", lengths.0));
        words.say(format_args!("(len {}), operation {operation}", lengths.1));
    }
    words.say(format_args!(", length {}", packet.length()));
    Ok(())
}

fn between(operation: u16, packet: View<'_>, words: &mut Words) -> Result<(), Short> {
    let (sender_mac, sender) = (packet.mac(8)?, packet.ipv4(14)?);
    let (target_mac, target) = (packet.mac(18)?, packet.ipv4(24)?);
    if let Some(facts) = words.facts() {
        facts.source = Some(sender.into());
        facts.destination = Some(target.into());
    }
    match operation {
        1 => {
            words.say(format_args!("Request who-has {target}"));
            if packet.array::<6>(18)? != [0; 6] {
                words.say(format_args!(" ({target_mac})"));
            }
            words.say(format_args!(" tell {sender}"));
        }
        2 => words.say(format_args!("Reply {sender} is-at {sender_mac}")),
        3 => words.say(format_args!("Reverse Request who-is {target_mac} tell {sender_mac}")),
        4 => words.say(format_args!("Reverse Reply {target_mac} at {target}")),
        _ => words.say(format_args!("Unknown ({operation})")),
    }
    Ok(())
}
