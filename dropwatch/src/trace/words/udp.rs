//! UDP.

use super::{Short, View, Words, ip::Ends};

const HEADER: usize = 8;

/// The ports and the length of what it carries.
pub fn udp(datagram: View<'_>, ends: Ends, words: &mut Words) -> Result<(), Short> {
    let (Ok(source), Ok(destination)) = (datagram.u16(0), datagram.u16(2)) else {
        ends.say_ports(None, words);
        return Err(Short);
    };
    ends.say_ports(Some((source, destination)), words);
    let says = usize::from(datagram.u16(4)?);
    let there = datagram.length().saturating_sub(HEADER);
    if says == 0 && there > usize::from(u16::MAX) {
        words.say(format_args!("UDP, length {there}"));
    } else if says < HEADER {
        words.say(format_args!("truncated-udplength {says}"));
    } else if says - HEADER > there {
        words.say(format_args!("UDP, bad length {} > {there}", says - HEADER));
    } else {
        words.say(format_args!("UDP, length {}", says - HEADER));
    }
    Ok(())
}
