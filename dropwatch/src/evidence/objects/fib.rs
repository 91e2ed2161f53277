//! The kernel's answers about routes: `ip route get`.

use std::{io, net::IpAddr};

use crate::evidence::netlink::{Netlink, attribute, put, u32_at};

/// `RTM_GETROUTE`, `RTM_GETRULE`.
const GET_ROUTE: u16 = 26;
const GET_RULE: u16 = 34;
/// `struct rtmsg`, and `struct fib_rule_hdr`, which has the same size.
const HEADER: usize = 12;
const FAMILY: usize = 0;
const DESTINATION_LENGTH: usize = 1;
const SOURCE_LENGTH: usize = 2;
const TOS: usize = 3;
const TABLE: usize = 4;
const TYPE: usize = 7;
const FLAGS: usize = 8;
/// `RTM_F_FIB_MATCH`: the route that fits, and not only where it leads.
const FIB_MATCH: u32 = 0x2000;
/// Attributes, `RTA_…` and `FRA_…`.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const IIF: u16 = 3;
const OIF: u16 = 4;
const GATEWAY: u16 = 5;
const METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const MARK: u16 = 16;
const VIA: u16 = 18;
const RULE_IIF: u16 = 3;
const RULE_PRIORITY: u16 = 6;
const RULE_MARK: u16 = 10;
const RULE_MASK: u16 = 16;
/// `RTAX_MTU`.
const METRIC_MTU: u16 = 2;
/// `FIB_RULE_INVERT`.
const INVERT: u32 = 2;
/// What a rule does, `FR_ACT_…`, starts with this where it refuses.
const FIRST_REFUSAL: u8 = 6;
const REFUSALS: [&str; 3] = ["blackhole", "unreachable", "prohibit"];

/// The packet that is routed.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Where the packet goes.
    pub to: IpAddr,
    /// Where it came from: number and name of the interface, and the source address.
    pub received: Option<(u32, &'a [u8], IpAddr)>,
    /// Its mark.
    pub mark: u32,
    /// Its type of service, without what signals congestion.
    pub tos: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `RTN_…`.
    pub kind: u8,
    /// Which table it is in.
    pub table: u32,
    /// Where it leads to: the first address, and how many bits of it count.
    pub prefix: (IpAddr, u8),
    /// The interface it leads to.
    pub oif: Option<u32>,
    /// The next router.
    pub gateway: Option<IpAddr>,
    /// The MTU that it sets, or that a router has told.
    pub mtu: Option<u32>,
}

/// A route that refuses, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Blackhole,
    Unreachable,
    Prohibit,
}

impl Refusal {
    fn number(self) -> u8 {
        match self {
            Self::Blackhole => libc::RTN_BLACKHOLE,
            Self::Unreachable => libc::RTN_UNREACHABLE,
            Self::Prohibit => libc::RTN_PROHIBIT,
        }
    }

    /// As `ip route` calls it.
    pub fn word(self) -> &'static str {
        REFUSALS[usize::from(self.number() - libc::RTN_BLACKHOLE)]
    }

    /// The one that the kernel answers with an error.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::EINVAL => Some(Self::Blackhole),
            libc::EHOSTUNREACH => Some(Self::Unreachable),
            libc::EACCES => Some(Self::Prohibit),
            _ => None,
        }
    }
}

/// A rule that refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rules are tried by rising numbers.
    pub priority: u32,
    /// `blackhole`, `unreachable` or `prohibit`.
    pub action: &'static str,
}

impl Route {
    /// Where a packet goes: with what a router has told of the way, but without the route's prefix.
    ///
    /// # Errors
    /// What the kernel answers: that there is no route, or one that refuses.
    pub fn to(netlink: &Netlink, flow: Flow<'_>) -> io::Result<Self> {
        ask(netlink, flow, 0)
    }

    /// The route in the table that answers for a packet.
    ///
    /// # Errors
    /// As above.
    pub fn matching(netlink: &Netlink, flow: Flow<'_>) -> io::Result<Self> {
        ask(netlink, flow, FIB_MATCH)
    }

    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let family = i32::from(*message.first()?);
        let number = |kind| attribute(message, HEADER, kind).and_then(|value| u32_at(value, 0));
        let address = |kind| attribute(message, HEADER, kind).and_then(address_in);
        let any = if family == libc::AF_INET { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let metrics = attribute(message, HEADER, METRICS);
        let via = attribute(message, HEADER, VIA).and_then(|via| address_in(via.get(2..)?));
        Some(Self {
            kind: *message.get(TYPE)?,
            table: number(RTA_TABLE).unwrap_or_else(|| message[TABLE].into()),
            prefix: (address(DESTINATION).unwrap_or(any), message[DESTINATION_LENGTH]),
            oif: number(OIF),
            gateway: address(GATEWAY).or(via),
            mtu: metrics.and_then(|metrics| u32_at(attribute(metrics, 0, METRIC_MTU)?, 0)),
        })
    }

    /// Whether it is for an address.
    fn covers(&self, to: IpAddr) -> bool {
        covers(self.prefix, to)
    }
}

fn ask(netlink: &Netlink, flow: Flow<'_>, flags: u32) -> io::Result<Route> {
    let mut request = header(flow.to);
    request[DESTINATION_LENGTH] = bits(flow.to);
    request[TOS] = flow.tos;
    request[FLAGS..FLAGS + 4].copy_from_slice(&flags.to_ne_bytes());
    put_address(&mut request, DESTINATION, flow.to);
    if let Some((iif, _, from)) = flow.received {
        request[SOURCE_LENGTH] = bits(from);
        put_address(&mut request, SOURCE, from);
        put(&mut request, IIF, &iif.to_ne_bytes());
    }
    if flow.mark != 0 {
        put(&mut request, MARK, &flow.mark.to_ne_bytes());
    }
    let answer = netlink.ask(GET_ROUTE, &request)?;
    Route::parse(&answer).ok_or(io::ErrorKind::InvalidData.into())
}

/// Routes that refuse packets to an address in a way, those with the longest prefix.
///
/// # Errors
/// They could not be read whole.
pub fn refusing(netlink: &Netlink, to: IpAddr, how: Refusal) -> io::Result<Vec<Route>> {
    let mut request = header(to);
    request[TYPE] = how.number();
    let listed = netlink.strictly().dump(GET_ROUTE, &request)?;
    let fitting = listed.iter().filter_map(|message| Route::parse(message));
    let fitting: Vec<_> = fitting.filter(|route| route.kind == how.number() && route.covers(to)).collect();
    let longest = fitting.iter().map(|route| route.prefix.1).max();
    Ok(fitting.into_iter().filter(|route| Some(route.prefix.1) == longest).collect())
}

/// Rules that refuse such packets.
///
/// # Errors
/// They could not be read whole.
pub fn refusing_rules(netlink: &Netlink, flow: Flow<'_>, from: Option<IpAddr>) -> io::Result<Vec<Rule>> {
    let listed = netlink.dump(GET_RULE, &header(flow.to))?;
    Ok(listed.iter().filter_map(|message| rule(message, flow, from)).collect())
}

/// A rule, if it refuses and fits.
pub(super) fn rule(message: &[u8], flow: Flow<'_>, from: Option<IpAddr>) -> Option<Rule> {
    let action = message.get(TYPE)?.checked_sub(FIRST_REFUSAL)?;
    let action = *REFUSALS.get(usize::from(action))?;
    let number = |kind| attribute(message, HEADER, kind).and_then(|value| u32_at(value, 0));
    let fits = |kind, length: usize, address: Option<IpAddr>| match attribute(message, HEADER, kind) {
        Some(prefix) => {
            address_in(prefix).zip(address).is_some_and(|(prefix, to)| covers((prefix, message[length]), to))
        }
        None => true,
    };
    let iif = attribute(message, HEADER, RULE_IIF).map(crate::evidence::netlink::text);
    let mask = number(RULE_MASK).unwrap_or(u32::MAX);
    let fits_all = fits(DESTINATION, DESTINATION_LENGTH, Some(flow.to))
        && fits(SOURCE, SOURCE_LENGTH, from)
        && iif.is_none_or(|iif| flow.received.is_some_and(|(_, name, _)| name == iif))
        && number(RULE_MARK).is_none_or(|mark| flow.mark & mask == mark);
    let is_inverted = u32_at(message, FLAGS)? & INVERT != 0;
    let priority = number(RULE_PRIORITY).unwrap_or_default();
    (fits_all != is_inverted).then_some(Rule { priority, action })
}

fn header(of: IpAddr) -> Vec<u8> {
    let mut request = vec![0; HEADER];
    let family = if of.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    request[FAMILY] = u8::try_from(family).unwrap_or_default();
    request
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Puts an address behind a request.
pub fn put_address(request: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => put(request, kind, &address.octets()),
        IpAddr::V6(address) => put(request, kind, &address.octets()),
    }
}

/// An address of either family.
fn address_in(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Whether an address is in a network.
pub fn covers((network, length): (IpAddr, u8), address: IpAddr) -> bool {
    let wide = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let differs = (wide(network) ^ wide(address)).leading_zeros();
    network.is_ipv4() == address.is_ipv4() && differs >= u32::from(length)
}
