//! An interface as netlink describes it: what `ip -d link` shows.

use std::io;

use crate::{
    evidence::netlink::{Netlink, attribute, attributes, put, text, u32_at},
    model::foreign::Foreign,
};

/// `RTM_GETLINK`.
const GET: u16 = 18;
/// `struct ifinfomsg`.
const HEADER: usize = 16;
const INDEX: usize = 4;
const FLAGS: usize = 8;
/// Attributes, `IFLA_…`.
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const QUEUE: u16 = 13;
const LINKINFO: u16 = 18;
const LINK_NETNSID: u16 = 37;
const XDP: u16 = 43;
const TARGET_NETNSID: u16 = 46;
/// In the information about a kind, `IFLA_INFO_…`.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
/// Of XDP programs, `IFLA_XDP_…`: how they are attached, and one of each way.
const XDP_ATTACHED: u16 = 2;
const XDP_PROG_ID: u16 = 4;
const XDP_PROGRAMS: [(u16, &str); 3] = [(5, "driver"), (6, "generic"), (7, "hardware")];
/// What `IFLA_XDP_ATTACHED` counts as, from one on.
const XDP_MODES: [&str; 3] = ["driver", "generic", "hardware"];
/// Of a port of a bridge, `IFLA_BRPORT_…`.
const PORT_STATE: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const PORT_UNICAST_FLOOD: u16 = 9;
const PORT_MULTICAST_FLOOD: u16 = 27;
const PORT_BROADCAST_FLOOD: u16 = 30;
const PORT_ISOLATED: u16 = 33;
const PORT_LOCKED: u16 = 39;
/// `IFLA_BR_VLAN_FILTERING`.
const BRIDGE_VLAN_FILTERING: u16 = 7;
/// Of a VXLAN, `IFLA_VXLAN_…`.
const VXLAN_ID: u16 = 1;
const VXLAN_PORT: u16 = 15;
const VXLAN_METADATA: u16 = 25;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: Foreign,
    /// `IFF_…`.
    pub flags: u32,
    /// Largest packet it sends.
    pub mtu: u32,
    /// How many packets may wait to be sent.
    pub queue: u32,
    /// Its hardware address.
    pub address: Vec<u8>,
    /// Which software it is; none for a card.
    pub kind: Option<Foreign>,
    /// What it is a port of.
    pub master: Option<u32>,
    /// What it is on top of, or the peer of; with the other namespace, by this one's number for it.
    pub link: Option<(u32, Option<u32>)>,
    /// XDP programs by number, and how each is attached.
    pub xdp: Vec<(u32, &'static str)>,
    /// What it is as the port of a bridge.
    pub port: Option<Port>,
    /// Whether it is a bridge that filters VLANs.
    pub filters_vlans: bool,
    /// What it is as a VXLAN.
    pub vxlan: Option<Vxlan>,
}

/// The port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// `BR_STATE_…`.
    pub state: u8,
    /// Whether it sends what it received.
    pub is_hairpin: bool,
    /// Whether it is kept from other isolated ports.
    pub is_isolated: bool,
    /// Whether it accepts only hosts that were let in.
    pub is_locked: bool,
    /// Whether packets to unknown hosts, to groups and to all leave by it.
    pub floods: [bool; 3],
}

/// A VXLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Its network.
    pub id: u32,
    /// The port it receives on.
    pub port: u16,
    /// Whether it is of every network.
    pub is_of_all: bool,
}

impl Device {
    /// The one with this number.
    ///
    /// # Errors
    /// There is none, or the kernel does not say.
    pub fn get(netlink: &Netlink, index: u32) -> io::Result<Self> {
        Self::ask(netlink, index, None)
    }

    /// The other end of a pair, wherever it is.
    ///
    /// # Errors
    /// It has none that can be seen.
    pub fn peer(&self, netlink: &Netlink) -> io::Result<Self> {
        let (index, namespace) = self.link.ok_or(io::ErrorKind::NotFound)?;
        Self::ask(netlink, index, namespace)
    }

    fn ask(netlink: &Netlink, index: u32, namespace: Option<u32>) -> io::Result<Self> {
        let mut request = vec![0; HEADER];
        request[INDEX..INDEX + 4].copy_from_slice(&index.to_ne_bytes());
        if let Some(namespace) = namespace {
            put(&mut request, TARGET_NETNSID, &namespace.to_ne_bytes());
        }
        let found = netlink.ask(GET, &request)?;
        Self::parse(&found).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// All of the namespace.
    ///
    /// # Errors
    /// They could not be read whole.
    pub fn all(netlink: &Netlink) -> io::Result<Vec<Self>> {
        Ok(netlink.dump(GET, &[0; HEADER])?.iter().filter_map(|message| Self::parse(message)).collect())
    }

    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let mut device = Self {
            index: u32_at(message, INDEX)?,
            flags: u32_at(message, FLAGS)?,
            name: text(attribute(message, HEADER, NAME)?).into(),
            ..Self::default()
        };
        let mut namespace = None;
        for (kind, value) in attributes(message, HEADER) {
            match kind {
                ADDRESS => device.address = value.to_vec(),
                MTU => device.mtu = u32_at(value, 0)?,
                LINK => device.link = u32_at(value, 0).filter(|&index| index != 0).map(|index| (index, None)),
                LINK_NETNSID => namespace = u32_at(value, 0),
                MASTER => device.master = u32_at(value, 0),
                QUEUE => device.queue = u32_at(value, 0)?,
                XDP => device.xdp = xdp(value),
                LINKINFO => device.describe(value),
                _ => {}
            }
        }
        device.link = device.link.map(|(index, _)| (index, namespace));
        Some(device)
    }

    fn describe(&mut self, info: &[u8]) {
        let words = |kind| attribute(info, 0, kind).map(text);
        let data = attribute(info, 0, INFO_DATA).unwrap_or_default();
        self.kind = words(INFO_KIND).map(Foreign::from);
        match words(INFO_KIND) {
            Some(b"vxlan") => self.vxlan = vxlan(data),
            Some(b"bridge") => self.filters_vlans = flag(data, BRIDGE_VLAN_FILTERING),
            _ => {}
        }
        if words(INFO_SLAVE_KIND) == Some(b"bridge") {
            self.port = attribute(info, 0, INFO_SLAVE_DATA).and_then(port);
        }
    }

    /// Whether it has been set up.
    pub fn is_up(&self) -> bool {
        self.has(libc::IFF_UP)
    }

    /// Whether there is a link on its other side.
    pub fn has_carrier(&self) -> bool {
        self.has(libc::IFF_LOWER_UP)
    }

    fn has(&self, flag: libc::c_int) -> bool {
        self.flags & flag.cast_unsigned() != 0
    }

    /// Whether it is of a kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_ref().is_some_and(|own| *own == *kind)
    }
}

fn flag(nested: &[u8], kind: u16) -> bool {
    attribute(nested, 0, kind).is_some_and(|value| value.first().is_some_and(|&byte| byte != 0))
}

fn xdp(nested: &[u8]) -> Vec<(u32, &'static str)> {
    let number = |kind| attribute(nested, 0, kind).and_then(|value| u32_at(value, 0));
    let by_mode = XDP_PROGRAMS.iter().filter_map(|&(kind, mode)| Some((number(kind)?, mode)));
    let mut programs: Vec<_> = by_mode.collect();
    if programs.is_empty() {
        // Older kernels give the only one without its mode.
        let attached = attribute(nested, 0, XDP_ATTACHED).and_then(|value| value.first().copied());
        let mode = attached.and_then(|mode| XDP_MODES.get(usize::from(mode).checked_sub(1)?).copied());
        programs.extend(number(XDP_PROG_ID).zip(mode));
    }
    programs
}

fn port(nested: &[u8]) -> Option<Port> {
    let floods = |kind| attribute(nested, 0, kind).is_none() || flag(nested, kind);
    Some(Port {
        state: *attribute(nested, 0, PORT_STATE)?.first()?,
        is_hairpin: flag(nested, PORT_HAIRPIN),
        is_isolated: flag(nested, PORT_ISOLATED),
        is_locked: flag(nested, PORT_LOCKED),
        floods: [PORT_UNICAST_FLOOD, PORT_MULTICAST_FLOOD, PORT_BROADCAST_FLOOD].map(floods),
    })
}

fn vxlan(nested: &[u8]) -> Option<Vxlan> {
    let port = attribute(nested, 0, VXLAN_PORT)?.first_chunk()?;
    Some(Vxlan {
        id: u32_at(attribute(nested, 0, VXLAN_ID)?, 0)?,
        port: u16::from_be_bytes(*port),
        is_of_all: flag(nested, VXLAN_METADATA),
    })
}

/// A hardware address as it is written.
pub fn hardware(address: &[u8]) -> String {
    address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
