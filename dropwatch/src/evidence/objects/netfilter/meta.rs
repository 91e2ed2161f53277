//! What is known of a packet beside its bytes, by the numbers of the kernel's keys.

use super::{
    hook::{Family, Hook},
    packet::{Packet, Read},
};

const LENGTH: u32 = 0;
const PROTOCOL: u32 = 1;
const IN_INDEX: u32 = 4;
const OUT_INDEX: u32 = 5;
const IN_NAME: u32 = 6;
const OUT_NAME: u32 = 7;
const FAMILY: u32 = 15;
const TRANSPORT: u32 = 16;
/// The room for an interface's name.
const NAME: usize = 16;

/// The value of a key.
pub fn read(key: u32, packet: &Packet) -> Read {
    match key {
        LENGTH if packet.length > 0 && packet.hook != Some(Hook::Egress) => {
            known(&packet.length.to_ne_bytes())
        }
        PROTOCOL => packet.protocol.map_or(Read::Unknown, |protocol| known(&protocol.to_be_bytes())),
        FAMILY => match packet.family() {
            // A bridge's hooks and a device's have families of their own.
            Some(family @ (Family::Ip | Family::Ip6)) if packet.is_at_ip => known(&[family as u8]),
            _ => Read::Unknown,
        },
        TRANSPORT => packet.ipproto.map_or(Read::Unknown, |number| known(&[number])),
        IN_INDEX => index(interface(packet, Way::In)),
        OUT_INDEX => index(interface(packet, Way::Out)),
        IN_NAME => name(interface(packet, Way::In)),
        OUT_NAME => name(interface(packet, Way::Out)),
        _ => Read::Unknown,
    }
}

fn known(bytes: &[u8]) -> Read {
    Read::Bytes(bytes.iter().copied().map(Some).collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// The interface that a packet came by, or goes by.
#[derive(Clone, Copy)]
enum Interface<'a> {
    Is(&'a (u32, Vec<u8>)),
    /// There is none at this hook.
    None,
    Unknown,
}

fn interface(packet: &Packet, way: Way) -> Interface<'_> {
    use Hook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
    let here = || packet.iface.as_ref().map_or(Interface::Unknown, Interface::Is);
    let routed = || packet.egress.as_ref().map_or(Interface::Unknown, Interface::Is);
    if !packet.is_at_ip {
        return match (packet.hook, way) {
            (Some(Ingress | Prerouting), Way::In) | (Some(Egress), Way::Out) => here(),
            _ => Interface::Unknown,
        };
    }
    match (packet.hook, way) {
        (Some(Prerouting | Input | Forward), Way::In) | (Some(Postrouting), Way::Out) => here(),
        (Some(Output | Forward), Way::Out) => routed(),
        (Some(Prerouting | Input), Way::Out) | (Some(Output), Way::In) => Interface::None,
        _ => Interface::Unknown,
    }
}

fn index(interface: Interface<'_>) -> Read {
    match interface {
        Interface::Is((index, _)) => known(&index.to_ne_bytes()),
        Interface::None => known(&[0; 4]),
        Interface::Unknown => Read::Unknown,
    }
}

fn name(interface: Interface<'_>) -> Read {
    let mut name = match interface {
        Interface::Is((_, name)) => name.clone(),
        Interface::None => Vec::new(),
        Interface::Unknown => return Read::Unknown,
    };
    name.resize(NAME, 0);
    known(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::objects::Question;

    fn packet(hook: Hook) -> Packet {
        let question = Question {
            protocol: Some(0x0800),
            iface: Some((7, "eth0".into())),
            length: 328,
            ..Question::default()
        };
        let mut packet = Packet::of(&question, Some(hook), true);
        packet.egress = Some((8, b"eth1".into()));
        packet
    }

    #[test]
    fn an_interface_is_the_one_in_or_the_one_out() {
        let (seven, eight) = (known(&7_u32.to_ne_bytes()), known(&8_u32.to_ne_bytes()));
        let of = |hook| [IN_INDEX, OUT_INDEX].map(|key| read(key, &packet(hook)));
        assert_eq!(of(Hook::Input), [seven.clone(), known(&[0; 4])]);
        assert_eq!(of(Hook::Forward), [seven, eight.clone()]);
        assert_eq!(of(Hook::Output), [known(&[0; 4]), eight]);
        assert_eq!(read(IN_NAME, &packet(Hook::Input)), known(b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"));
        assert_eq!(read(IN_NAME, &packet(Hook::Postrouting)), Read::Unknown);
    }

    #[test]
    fn what_the_packet_does_not_tell_is_unknown() {
        assert_eq!(read(LENGTH, &packet(Hook::Input)), known(&328_u32.to_ne_bytes()));
        assert_eq!(read(FAMILY, &packet(Hook::Input)), known(&[2]));
        for mark_user_or_time in [3, 10, 31] {
            assert_eq!(read(mark_user_or_time, &packet(Hook::Input)), Read::Unknown);
        }
    }
}
