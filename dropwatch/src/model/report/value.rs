//! What a row of a report stands for, in words and in order.

use std::{
    cmp::Ordering,
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use dropwatch_common::{
    chain::DeviceName,
    row::{RowKey, known},
};
use serde::Serialize;

use super::{Names, class};
use crate::{
    escape::word,
    model::{
        class::Class,
        container::Container,
        foreign::Foreign,
        keys::Key,
        location::{KERNEL, Location, SourceLine},
        namespace::Namespace,
        protocols,
        reason::Reason,
        references::References,
        socket::{Ownership, Socket},
    },
};

/// The value of a key.
#[derive(Clone, Debug)]
pub enum Value {
    /// An address, with the function it lies in if that is known.
    Location {
        /// The address.
        location: Location,
        /// The line of the kernel's source, where its debug information is installed.
        source: Option<SourceLine>,
    },
    /// The function of an address, if that is known.
    Function(Option<Function>),
    /// The kernel's reason; none on kernels that give none.
    Reason(Option<Reason>),
    /// What such drops are worth.
    Class(Class),
    /// An interface.
    Iface(Option<Iface>),
    /// A network namespace.
    Netns(Option<Netns>),
    /// An ethertype.
    Protocol(Option<u16>),
    /// A protocol above IP.
    IpProto(Option<u8>),
    /// The source or the destination.
    Address(Option<IpAddr>),
    /// Of the source or of the destination.
    Port(Option<u16>),
    /// A CPU's number.
    Cpu(u32),
    /// A socket: large, and in few of the rows of a report.
    Socket(Option<Box<Socket>>),
    /// A process.
    Process(Ownership),
    /// A container, a service or a cgroup.
    Container {
        /// Which one.
        container: Option<Container>,
        /// Whether that there is none is certain.
        is_known: bool,
    },
    /// A call chain, innermost frame first, starting at the drop.
    Stack(Option<Vec<Location>>),
}

/// A function of the kernel or of a module.
///
/// Displayed as `tcp_v4_rcv`, and as `gre_rcv[ip_gre]` where it is in a module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Function {
    /// Its name.
    pub symbol: Foreign,
    /// The module it is in, [`KERNEL`] for the kernel proper.
    pub module: Foreign,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (symbol, module) = (self.symbol.word(), self.module.word());
        if self.module == *KERNEL { f.write_str(&symbol) } else { write!(f, "{symbol}[{module}]") }
    }
}

/// An interface, by its number in its namespace and the name it had. The kernel counts those of each namespace apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Iface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: Option<Foreign>,
    /// Alternative names that it had, of those that rules name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub altnames: Vec<Foreign>,
    /// The namespace it is in, unless that is shown beside it.
    #[serde(skip)]
    pub netns: Option<Netns>,
}

impl Iface {
    /// Its name, or its number if it has none, and the alternative names by which a rule means it.
    #[must_use]
    pub fn words(&self) -> String {
        let name = self.name.as_ref().map_or_else(|| format!("#{}", self.index), ToString::to_string);
        if self.altnames.is_empty() {
            return name;
        }
        let altnames: Vec<_> = self.altnames.iter().map(ToString::to_string).collect();
        format!("{name}({})", altnames.join(","))
    }

    /// Whether it has a name, its own or an alternative one that a rule names.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name.iter().chain(&self.altnames).any(|known| *known == *name)
    }
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Netns {
    /// Which one it is.
    #[serde(flatten)]
    pub namespace: Namespace,
    /// Its mount point's name, or a process that is in it.
    pub name: Option<Foreign>,
    /// The names it was given on purpose, also those it no longer has.
    #[serde(skip)]
    pub names: Vec<Foreign>,
}

impl Netns {
    /// `4026532300(blue)`: its number, and its name if it has one.
    #[must_use]
    pub fn words(&self) -> String {
        let inum = self.namespace.inum;
        self.name.as_ref().map_or_else(|| inum.to_string(), |name| format!("{inum}({name})"))
    }

    /// The namespace of a row, with its names.
    fn of(row: &RowKey, names: &mut impl Names) -> Self {
        let namespace = Namespace { inum: row.netns, cookie: row.cookie };
        Self { namespace, name: names.netns(namespace), names: names.netns_names(namespace) }
    }
}

/// Whether interfaces are shown with their namespaces: two of these rows would look the same without.
///
/// Where the namespace is a key, it is there already.
#[must_use]
pub fn needs_namespaces<'a>(by: &[Key], rows: impl Iterator<Item = &'a [Value]>) -> bool {
    if !by.contains(&Key::Iface) || by.contains(&Key::Netns) {
        return false;
    }
    let mut seen = HashSet::new();
    rows.map(|values| values.iter().map(Value::words).collect::<Vec<_>>()).any(|words| !seen.insert(words))
}

impl Value {
    /// The value in words; `-` for what is not known.
    #[must_use]
    pub fn words(&self) -> String {
        let words = match self {
            Self::Location { location, .. } => Some(location.to_string()),
            Self::Function(function) => function.as_ref().map(ToString::to_string),
            Self::Reason(reason) => reason.as_ref().map(ToString::to_string),
            Self::Class(class) => Some(class.to_string()),
            Self::Iface(iface) => iface.as_ref().map(Iface::words),
            Self::Netns(netns) => netns.as_ref().map(Netns::words),
            Self::Protocol(number) => number.map(|number| protocols::ethertype(number).into_owned()),
            Self::IpProto(number) => number.map(|number| protocols::ip_protocol(number).into_owned()),
            Self::Address(address) => address.map(|address| address.to_string()),
            Self::Port(port) => port.map(|port| port.to_string()),
            Self::Cpu(cpu) => Some(cpu.to_string()),
            Self::Socket(socket) => socket.as_ref().map(|socket| socket.words()),
            Self::Process(owner) => owner.words(),
            Self::Container { container, .. } => {
                container.as_ref().map(|container| container.name.to_string())
            }
            Self::Stack(frames) => {
                frames.as_ref().map(|frames| frames.iter().map(frame).collect::<Vec<_>>().join(";"))
            }
        };
        words.unwrap_or_else(|| "-".to_owned())
    }

    /// The namespace of an interface.
    #[must_use]
    pub fn interface_namespace(&self) -> Option<&Netns> {
        match self {
            Self::Iface(Some(iface)) => iface.netns.as_ref(),
            _ => None,
        }
    }

    /// The value as one word of a line.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Socket(Some(socket)) => socket.word(),
            value => word(&value.words()).into_owned(),
        }
    }

    /// What is true of this value and of another one that reads the same: that there is none is certain only if it is of
    /// both.
    pub(super) fn doubt_with(&mut self, other: &Self) {
        match (self, other) {
            (Self::Process(owner @ Ownership::Nobody), Self::Process(Ownership::Unknown)) => {
                *owner = Ownership::Unknown;
            }
            (Self::Container { is_known, .. }, Self::Container { is_known: other, .. }) => *is_known &= other,
            _ => {}
        }
    }

    /// What stays the same of a value from one report to the next.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Socket(Some(socket)) => format!("{} #{}", socket.name(), socket.seen.number),
            value => value.words(),
        }
    }

    /// Orders two values of one key by name, those that have none by number; what is not known comes first.
    pub(super) fn cmp_name(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Location { location, .. }, Self::Location { location: other, .. }) => {
                place(location).cmp(&place(other))
            }
            (Self::Function(function), Self::Function(other)) => function.cmp(other),
            (Self::Reason(reason), Self::Reason(other)) => {
                let name = |reason: &Option<Reason>| reason.as_ref().map(|it| (it.name.clone(), it.code));
                name(reason).cmp(&name(other))
            }
            (Self::Class(class), Self::Class(other)) => class.cmp(other),
            (Self::Iface(iface), Self::Iface(other)) => {
                let namespace = |it: &Iface| it.netns.as_ref().map(|it| it.namespace);
                let name = |iface: &Option<Iface>| {
                    iface.as_ref().map(|it| (it.name.clone(), it.index, it.altnames.clone(), namespace(it)))
                };
                name(iface).cmp(&name(other))
            }
            (Self::Netns(netns), Self::Netns(other)) => {
                let number = |netns: &Option<Netns>| netns.as_ref().map(|it| it.namespace);
                number(netns).cmp(&number(other))
            }
            (Self::Protocol(number), Self::Protocol(other)) => {
                number.map(protocols::ethertype).cmp(&other.map(protocols::ethertype))
            }
            (Self::IpProto(number), Self::IpProto(other)) => {
                number.map(protocols::ip_protocol).cmp(&other.map(protocols::ip_protocol))
            }
            (Self::Address(address), Self::Address(other)) => address.cmp(other),
            (Self::Port(port), Self::Port(other)) => port.cmp(other),
            (Self::Cpu(cpu), Self::Cpu(other)) => cpu.cmp(other),
            (Self::Socket(Some(socket)), Self::Socket(Some(other))) => socket.cmp_name(other),
            (Self::Socket(socket), Self::Socket(other)) => socket.is_some().cmp(&other.is_some()),
            (Self::Process(owner), Self::Process(other)) => owner.rank().cmp(&other.rank()),
            (Self::Container { container, .. }, Self::Container { container: other, .. }) => {
                let name = |container: &Option<Container>| {
                    container.as_ref().map(|it| (it.name.clone(), it.cgroup.clone()))
                };
                name(container).cmp(&name(other))
            }
            (Self::Stack(Some(frames)), Self::Stack(Some(other))) => {
                frames.iter().map(place).cmp(other.iter().map(place))
            }
            // A chain that is not known beside one that is.
            _ => matches!(self, Self::Stack(Some(_))).cmp(&matches!(other, Self::Stack(Some(_)))),
        }
    }

    /// How many bits [`number`](Self::number) may have.
    const NUMBER_BITS: u32 = 33;

    /// A number that is in order as values are by [`cmp_name`](Self::cmp_name), and whether it is all of the value: values that
    /// differ may have the same one where it is not.
    fn number(&self) -> (u64, bool) {
        match self {
            Self::Port(port) => (port.map_or(0, |port| u64::from(port) + 1), true),
            Self::Cpu(cpu) => (u64::from(*cpu), true),
            Self::Address(None) => (0, true),
            Self::Address(Some(IpAddr::V4(address))) => (u64::from(address.to_bits()) + 1, true),
            Self::Address(Some(IpAddr::V6(_))) => ((1 << Self::NUMBER_BITS) - 1, false),
            _ => (0, false),
        }
    }

    /// What a drop says of itself, with names: its interface, its namespace and its flow.
    pub fn of_drop(key: &RowKey, names: &mut impl Names) -> Vec<(Key, Self)> {
        const KEYS: [Key; 7] =
            [Key::Iface, Key::Netns, Key::IpProto, Key::Saddr, Key::Daddr, Key::Sport, Key::Dport];
        let references = References::default();
        KEYS.into_iter().map(|part| (part, Self::new(part, key, &references, names))).collect()
    }

    /// What a key says of a row, with names.
    pub(super) fn new(key: Key, row: &RowKey, references: &References, names: &mut impl Names) -> Self {
        let when = |bit: u32| row.known & bit != 0;
        match key {
            Key::Location => {
                let location = names.location(row.location);
                Self::Location { source: names.source(&location), location }
            }
            Key::Function => Self::Function(
                names
                    .location(row.location)
                    .symbol
                    .map(|symbol| Function { symbol: symbol.name, module: symbol.module }),
            ),
            Key::Reason => Self::Reason(names.reason(row.reason)),
            Key::Class => Self::Class(class(row, names).unwrap_or(Class::Lost)),
            Key::Iface => Self::Iface(when(known::IFACE).then(|| Iface {
                index: row.ifindex,
                name: device_name(&row.iface),
                altnames: names.interfaces(row.names),
                netns: (row.netns != 0).then(|| Netns::of(row, names)),
            })),
            Key::Netns => Self::Netns(when(known::NETNS).then(|| Netns::of(row, names))),
            Key::Protocol => Self::Protocol(when(known::PROTOCOL).then_some(row.protocol)),
            Key::IpProto => Self::IpProto(when(known::IPPROTO).then_some(row.ipproto)),
            Key::Saddr => Self::Address(address(row.saddr, row.known)),
            Key::Daddr => Self::Address(address(row.daddr, row.known)),
            Key::Sport => Self::Port(when(known::PORTS).then_some(row.sport)),
            Key::Dport => Self::Port(when(known::PORTS).then_some(row.dport)),
            Key::Cpu => Self::Cpu(row.cpu),
            Key::Socket => Self::Socket(references.socket(row).cloned().map(Box::new)),
            Key::Process => Self::Process(match references.socket(row) {
                Some(socket) => names.owner(socket),
                None if references.has_none(row) => Ownership::Nobody,
                None => Ownership::Unknown,
            }),
            Key::Container => {
                let socket = references.socket(row);
                let container = socket.and_then(|socket| names.container(socket));
                let is_known = match socket {
                    Some(socket) => container.is_some() || socket.has_no_container(),
                    None => references.has_none(row),
                };
                Self::Container { container, is_known }
            }
            Key::Stack => Self::Stack(when(known::STACK).then(|| {
                let frames = references.chains.get(&row.stack);
                let frames = frames.into_iter().flat_map(|frames| frames.iter());
                frames.map(|&frame| names.frame(frame)).collect()
            })),
        }
    }
}

/// The start of the values of a row, as a number that is in order as they are by name: of two rows with the same one, names
/// decide.
pub(super) fn head(values: &[Value]) -> u128 {
    let (mut head, mut rest) = (0_u128, u128::BITS);
    for value in values {
        let (number, is_all) = value.number();
        let Some(left) = rest.checked_sub(Value::NUMBER_BITS) else { break };
        rest = left;
        head |= u128::from(number) << rest;
        if !is_all {
            break;
        }
    }
    head
}

/// The name of an interface up to its first zero; none if it could not be read.
pub fn device_name(name: &DeviceName) -> Option<Foreign> {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    (end > 0).then(|| name[..end].into())
}

/// What locations are in order by: those without a name by their addresses, before those with one.
fn place(location: &Location) -> (Option<(&Foreign, u64, &Foreign)>, u64) {
    let name = location.symbol.as_ref().map(|symbol| (&symbol.name, symbol.offset, &symbol.module));
    (name, location.address)
}

/// A frame in words without blanks: `tcp_v4_rcv+0xaa/0x8d0`, `gre_rcv+0x1e/0x80[gre]`.
fn frame(frame: &Location) -> String {
    frame.to_string().replace(" [kernel]", "").replace(' ', "")
}

/// An address of a row's key.
#[must_use]
pub fn address(bytes: [u8; 16], known: u32) -> Option<IpAddr> {
    if known & known::IPV6 != 0 {
        return Some(Ipv6Addr::from(bytes).into());
    }
    let [a, b, c, d, ..] = bytes;
    (known & known::IPV4 != 0).then(|| Ipv4Addr::new(a, b, c, d).into())
}
