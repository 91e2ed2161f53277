//! The neighbour's state.

use std::{fs, net::IpAddr, path::Path};

use super::{
    Question,
    device::{Device, hardware},
    fib::{Flow, Route, put_address},
    route_netlink,
};
use crate::{
    evidence::{
        netlink::{Netlink, attribute},
        places::Inside,
    },
    model::{
        evidence::{Certainty, Evidence, Kind},
        plural::counted,
    },
};

/// `RTM_GETNEIGH`.
const GET: u16 = 30;
/// `struct ndmsg`.
const HEADER: usize = 12;
const INDEX: usize = 4;
const STATE: usize = 8;
/// Attributes, `NDA_…`.
const DESTINATION: u16 = 1;
const LLADDR: u16 = 2;
/// `NUD_…`, and how `ip neighbour` writes them.
const STATES: [(u16, &str); 8] = [
    (0x01, "INCOMPLETE"),
    (0x02, "REACHABLE"),
    (0x04, "STALE"),
    (0x08, "DELAY"),
    (0x10, "PROBE"),
    (0x20, "FAILED"),
    (0x40, "NOARP"),
    (0x80, "PERMANENT"),
];
/// Those of a neighbour that has not answered: `NUD_INCOMPLETE`, `NUD_FAILED`.
const SILENT: u16 = 0x01 | 0x20;

/// What there is to say of it.
pub fn find(question: &Question, inside: Inside<'_>) -> Vec<Evidence> {
    if question.is_for("NEIGH_CREATEFAIL") {
        return table(question, inside.directory).into_iter().collect();
    }
    // A frame for another host says nothing of this host's neighbours.
    if question.is_for("OTHERHOST") {
        return Vec::new();
    }
    next_hop(question, inside).into_iter().collect()
}

fn next_hop(question: &Question, inside: Inside<'_>) -> Option<Evidence> {
    let netlink = route_netlink(inside)?;
    let to = question.daddr.filter(|to| !to.is_multicast())?;
    let flow = Flow { to, received: None, mark: question.mark, tos: 0 };
    let way = Route::to(&netlink, flow).ok();
    let index = way.as_ref().and_then(|way| way.oif).or(question.egress)?;
    let hop = way.and_then(|way| way.gateway).unwrap_or(to);
    let device = Device::get(&netlink, index).ok()?;
    let found = get(&netlink, hop, index);
    let (state, address) = match &found {
        Some(neighbour) => (word(neighbour.state), Some(neighbour.address.clone())),
        None => ("gone", None),
    };
    let is_silent = found.as_ref().is_none_or(|neighbour| neighbour.state & SILENT != 0);
    let address = address.filter(|address| !address.is_empty()).map(|address| hardware(&address));
    let protocol = if hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let is = match (&found, &address) {
        (None, _) => "has no neighbour entry now".to_owned(),
        (Some(_), Some(address)) if !is_silent => format!("is {state} at {address} now"),
        (Some(_), _) if is_silent => format!("is {state} now: it has not answered {protocol}"),
        (Some(_), _) => format!("is {state} now"),
    };
    let whose = if hop == to { String::new() } else { format!(", the next hop to {to},") };
    let text = format!("{hop} on {}{whose} {is}", device.name);
    let source = format!("ip neighbour get {hop} dev {}", device.name);
    let evidence = Evidence::new(Kind::Neighbour, Certainty::Certain, text, source);
    let evidence = evidence.with("neighbour", hop).with("device", &device.name).with("to", to);
    Some(evidence.with("state", found.map(|_| state)).with("address", address))
}

struct Neighbour {
    state: u16,
    address: Vec<u8>,
}

fn get(netlink: &Netlink, hop: IpAddr, index: u32) -> Option<Neighbour> {
    let family = if hop.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = vec![0; HEADER];
    request[0] = u8::try_from(family).ok()?;
    request[INDEX..INDEX + 4].copy_from_slice(&index.to_ne_bytes());
    put_address(&mut request, DESTINATION, hop);
    let answer = netlink.ask(GET, &request).ok()?;
    let state = u16::from_ne_bytes(*answer.get(STATE..)?.first_chunk()?);
    Some(Neighbour { state, address: attribute(&answer, HEADER, LLADDR).unwrap_or_default().to_vec() })
}

fn word(state: u16) -> &'static str {
    STATES.iter().find(|(bit, _)| state & bit != 0).map_or("NONE", |(_, word)| word)
}

/// How many neighbours the kernel knows, which it does for all namespaces together.
fn table(question: &Question, directory: &Path) -> Option<Evidence> {
    let is_ipv6 = question.daddr.is_some_and(|to| to.is_ipv6());
    let (file, family) = if is_ipv6 { ("ndisc_cache", "ipv6") } else { ("arp_cache", "ipv4") };
    let entries = entries(&fs::read_to_string(directory.join("stat").join(file)).ok()?)?;
    let limit = fs::read_to_string(format!("/proc/sys/net/{family}/neigh/default/gc_thresh3")).ok()?;
    let limit: u64 = limit.trim().parse().ok()?;
    let text = format!("the table of neighbours has {} now, of at most {limit}", counted(entries, "entry"));
    let text = text.replace("entrys", "entries");
    // The limit is on those that may be forgotten, and the host's, whose setting is in its own namespace.
    let source = format!("/proc/net/stat/{file}");
    let found = Evidence::new(Kind::Neighbour, Certainty::Certain, text, source);
    Some(found.with("entries", entries).with("limit", limit))
}

/// The first column of the first processor.
fn entries(text: &str) -> Option<u64> {
    u64::from_str_radix(text.lines().nth(1)?.split_whitespace().next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_of_ip() {
        assert_eq!([0x20, 0x01, 0x80, 0].map(word), ["FAILED", "INCOMPLETE", "PERMANENT", "NONE"]);
        assert_eq!(entries("entries  allocs\n0000001f  00000003\n0000001f 00000000\n"), Some(31));
    }
}
