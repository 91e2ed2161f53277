//! UDP.

use super::{Short, Summary, View, layers::Ends};

const HEADER: usize = 8;

/// The ports and the length of what it carries.
pub fn udp(datagram: View<'_>, ends: Ends, summary: &mut Summary) -> Result<(), Short> {
    let (Ok(source), Ok(destination)) = (datagram.u16(0), datagram.u16(2)) else {
        ends.say_ports(None, summary);
        return Err(Short);
    };
    ends.say_ports(Some((source, destination)), summary);
    let says = usize::from(datagram.u16(4)?);
    let there = datagram.length().saturating_sub(HEADER);
    if says == 0 && there > usize::from(u16::MAX) {
        summary.say(format_args!("UDP, length {there}"));
    } else if says < HEADER {
        summary.say(format_args!("truncated-udplength {says}"));
    } else if says - HEADER > there {
        summary.say(format_args!("UDP, bad length {} > {there}", says - HEADER));
    } else {
        summary.say(format_args!("UDP, length {}", says - HEADER));
    }
    Ok(())
}
