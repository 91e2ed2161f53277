//! Interfaces and what they count, as `ip -s -s link` shows it.

use std::io;

use super::numbers::Numbers;
use crate::{
    evidence::netlink::{Netlink, attribute, text, u32_at, u64_at},
    model::foreign::Foreign,
};

/// `RTM_GETLINK`.
const GET: u16 = 18;
/// `struct ifinfomsg`.
const HEADER: usize = 16;
const INDEX: usize = 4;
/// Attributes, `IFLA_…`.
const NAME: u16 = 3;
const LINKINFO: u16 = 18;
const INFO_KIND: u16 = 1;
const STATS64: u16 = 23;
const XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;

/// Of `struct rtnl_link_stats64`, by position: those that count losses, as sysfs calls them.
const COUNTERS: [(usize, &str); 16] = [
    (4, "rx_errors"),
    (5, "tx_errors"),
    (6, "rx_dropped"),
    (7, "tx_dropped"),
    (10, "rx_length_errors"),
    (11, "rx_over_errors"),
    (12, "rx_crc_errors"),
    (13, "rx_frame_errors"),
    (14, "rx_fifo_errors"),
    (15, "rx_missed_errors"),
    (16, "tx_aborted_errors"),
    (17, "tx_carrier_errors"),
    (18, "tx_fifo_errors"),
    (19, "tx_heartbeat_errors"),
    (20, "tx_window_errors"),
    (9, "collisions"),
];

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: Foreign,
    /// Which software it is; none for a card.
    pub kind: Option<Foreign>,
    /// Whether an XDP program is attached.
    pub has_xdp: bool,
    /// What it counts of losses.
    pub numbers: Numbers,
    /// The sum of all that it counts: if that has not moved, nothing has.
    pub sum: u64,
}

impl Link {
    /// Kinds that are cards all the same, with drivers that register one.
    const CARDS: [&str; 2] = ["hv_netvsc", "ipoib"];

    /// Whether it stands for hardware, or for what the hypervisor shows as such.
    pub fn is_card(&self) -> bool {
        self.kind.as_ref().is_none_or(|kind| Self::CARDS.iter().any(|&card| *kind == *card))
    }

    /// Whether it is of a kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_ref().is_some_and(|own| *own == *kind)
    }
}

/// The interfaces of the socket's namespace.
///
/// # Errors
/// They could not be read whole.
pub fn read(netlink: &Netlink) -> io::Result<Vec<Link>> {
    Ok(netlink.dump(GET, &[0; HEADER])?.iter().filter_map(|message| parse(message)).collect())
}

pub(super) fn parse(message: &[u8]) -> Option<Link> {
    let stats = attribute(message, HEADER, STATS64)?;
    let numbers = COUNTERS.iter().filter_map(|&(place, name)| Some((name, u64_at(stats, place * 8)?)));
    let kind = attribute(message, HEADER, LINKINFO).and_then(|info| attribute(info, 0, INFO_KIND));
    let xdp = attribute(message, HEADER, XDP).and_then(|xdp| attribute(xdp, 0, XDP_ATTACHED));
    Some(Link {
        index: u32_at(message, INDEX)?,
        name: text(attribute(message, HEADER, NAME)?).into(),
        kind: kind.map(|kind| text(kind).into()),
        has_xdp: xdp.is_some_and(|attached| attached.first().is_some_and(|&mode| mode != 0)),
        numbers: numbers.map(|(name, number)| (name.into(), number)).collect(),
        sum: stats.as_chunks().0.iter().copied().map(u64::from_ne_bytes).fold(0, u64::wrapping_add),
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::SockProtocol;

    use super::*;

    fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).expect("short");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn counters_are_where_the_kernel_puts_them() {
        let numbers: Vec<u8> = (0..25_u64).flat_map(|place| (place * 100).to_ne_bytes()).collect();
        let mut header = vec![0; HEADER];
        header[INDEX..INDEX + 4].copy_from_slice(&7_u32.to_ne_bytes());
        let kind = nested(LINKINFO, &nested(INFO_KIND, b"veth\0"));
        let xdp = nested(XDP, &nested(XDP_ATTACHED, &[1]));
        let message = [header, nested(NAME, b"eth0\0"), nested(STATS64, &numbers), kind, xdp].concat();
        let link = parse(&message).expect("a link");
        assert_eq!((link.index, link.name.text().as_ref(), link.has_xdp), (7, "eth0", true));
        assert!(link.is("veth") && !link.is_card());
        let number = |name: &str| link.numbers[name];
        assert_eq!((number("rx_missed_errors"), number("rx_crc_errors")), (1500, 1200));
        assert_eq!((number("rx_dropped"), number("tx_carrier_errors")), (600, 1700));
        assert_eq!(link.sum, 30_000);
        assert_eq!(parse(&message[..20]), None);
    }

    #[test]
    fn the_loopback_is_no_software_device() {
        let netlink = Netlink::open(SockProtocol::NetlinkRoute).expect("a socket");
        let links = read(&netlink).expect("links");
        assert!(links.iter().any(|link| link.name == *"lo" && link.is_card()), "{links:?}");
    }
}
