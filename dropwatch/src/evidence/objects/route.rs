//! The route or rule that answers for the packet.

use std::{fs, io, net::IpAddr, path::Path};

use super::{
    Question, base,
    device::Device,
    fib::{self, Flow, Refusal, Route},
    route_netlink,
};
use crate::{
    evidence::{netlink::Netlink, places::Inside},
    model::{
        evidence::{Certainty, Evidence, Kind},
        foreign::Foreign,
    },
};

/// Functions below which a packet has been received, and those below which it is sent by this host.
const RECEIVES: &[&str] = &[
    "ip_rcv",
    "ip_list_rcv",
    "ip_sublist_rcv",
    "ip_rcv_finish",
    "ip_rcv_finish_core",
    "ip_forward",
    "ip_error",
    "ip_local_deliver",
    "ipv6_rcv",
    "ipv6_list_rcv",
    "ip6_sublist_rcv",
    "ip6_rcv_finish",
    "ip6_forward",
    "ip6_input",
    "ip6_mc_input",
    "ip6_pkt_discard",
    "ip6_pkt_prohibit",
    "__netif_receive_skb_core",
    "__netif_receive_skb_one_core",
    "__netif_receive_skb_list_core",
];
const SENDS: &[&str] = &[
    "ip_local_out",
    "__ip_local_out",
    "ip_queue_xmit",
    "__ip_queue_xmit",
    "ip_send_skb",
    "ip_push_pending_frames",
    "ip_build_and_send_pkt",
    "ip6_local_out",
    "ip6_xmit",
    "ip6_send_skb",
    "ip6_pkt_discard_out",
    "ip6_pkt_prohibit_out",
    "dst_discard_out",
];
/// Tables with names.
const TABLES: [(u32, &str); 3] = [(253, "default"), (254, "main"), (255, "local")];
/// `RTN_LOCAL`: an address of this host.
const LOCAL: u8 = libc::RTN_LOCAL;

/// What there is to say of it.
pub fn find(question: &Question, inside: Inside<'_>) -> Vec<Evidence> {
    look(question, inside).unwrap_or_default()
}

fn look(question: &Question, inside: Inside<'_>) -> Option<Vec<Evidence>> {
    let to = question.daddr?;
    if to.is_multicast() {
        return Some(group(question, inside.directory, to).into_iter().collect());
    }
    let netlink = route_netlink(inside)?;
    let asked = Asked { question, netlink: &netlink, to };
    let found = match question.reason.as_deref() {
        Some("IP_RPFILTER") => asked.back(question.saddr?),
        Some("IP_LOCAL_SOURCE" | "IP_INVALID_SOURCE") => asked.source(question.saddr?),
        Some("PKT_TOO_BIG") => asked.way_out(Of::Size),
        Some("IP_INHDR") => asked.way_out(Of::Loop),
        None | Some("NOT_SPECIFIED") if question.is_in(&["ip_forward", "ip6_forward"]) => {
            asked.not_forwarded()
        }
        None | Some("NOT_SPECIFIED") if question.is_in(&["ip_rcv_finish_core", "ip_rcv_finish"]) => {
            asked.not_accepted(question.saddr?)
        }
        _ if question.is_in(&["ip_fragment", "ip_do_fragment", "ip6_fragment"]) => asked.way_out(Of::Size),
        _ => return Some(asked.verdict()),
    };
    Some(found.into_iter().collect())
}

/// Whether the packet was received; if not, this host sent it, or that is not known.
pub fn is_received(question: &Question) -> bool {
    let functions = question.function.iter().chain(&question.callers).map(|function| base(function));
    let mut ends = functions.filter_map(|function| match () {
        () if RECEIVES.contains(&function) => Some(true),
        () if SENDS.contains(&function) => Some(false),
        () => None,
    });
    ends.next().unwrap_or(false)
}

/// What is asked about a way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Whether the packet fits.
    Size,
    /// Whether it goes back to where it came from.
    Loop,
}

/// A packet to an address, and whom to ask about it.
struct Asked<'a> {
    question: &'a Question,
    netlink: &'a Netlink,
    to: IpAddr,
}

impl Asked<'_> {
    fn flow(&self, to: IpAddr) -> Flow<'static> {
        let version = self.question.packet.first().map_or(0, |byte| byte >> 4);
        let tos = if version == 4 { self.question.packet.get(1).copied().unwrap_or(0) & 0x1c } else { 0 };
        Flow { to, received: None, mark: self.question.mark, tos }
    }

    /// As it was received by an interface.
    fn received(&self) -> Option<Flow<'_>> {
        let (index, name) = self.question.iface.as_ref().filter(|_| is_received(self.question))?;
        let from = self.question.saddr?;
        Some(Flow { received: Some((*index, name.bytes(), from)), ..self.flow(self.to) })
    }

    fn device(&self, index: Option<u32>) -> Option<Device> {
        Device::get(self.netlink, index?).ok()
    }

    fn iface(&self) -> String {
        self.question.iface.as_ref().map_or_else(|| "-".to_owned(), |(_, name)| name.to_string())
    }

    /// What the kernel answers for the packet, and if it refuses, which route or rule says so.
    fn verdict(&self) -> Vec<Evidence> {
        let flow = self.received().unwrap_or_else(|| self.flow(self.to));
        let error = match Route::matching(self.netlink, flow) {
            Ok(route) => return vec![self.leads(&route)],
            Err(error) => error,
        };
        // Without forwarding, everything is unreachable that was received for others.
        let sent = Route::matching(self.netlink, self.flow(self.to));
        if let (Some(_), Ok(route)) = (flow.received, &sent) {
            return vec![self.would_lead(route)];
        }
        let error = sent.err().unwrap_or(error);
        let mut found: Vec<_> = Refusal::of(&error).into_iter().flat_map(|how| self.refusing(how)).collect();
        if found.is_empty() {
            let rules = fib::refusing_rules(self.netlink, flow, self.question.saddr).unwrap_or_default();
            found.extend(rules.first().map(|rule| self.rule(rule)));
        }
        if found.is_empty() && says_no_route(&error) {
            found.push(self.nowhere());
        }
        found
    }

    fn nowhere(&self) -> Evidence {
        let text = if self.question.is_for("IP_INADDRERRORS") {
            format!("{} is no address of this host, nor is there a route to it now", self.to)
        } else {
            format!("no route to {} now", self.to)
        };
        self.evidence(text, Certainty::Certain).with("type", "none")
    }

    fn refusing(&self, how: Refusal) -> Vec<Evidence> {
        let routes = fib::refusing(self.netlink, self.to, how).unwrap_or_default();
        // In several tables, it depends on rules which of them it was.
        let certainty = if routes.len() == 1 { Certainty::Certain } else { Certainty::Possible };
        let tell = |route: &Route| {
            let (prefix, table) = (prefix(route), table(route.table));
            let text = format!("{} {prefix} in table {table} answers for {} now", how.word(), self.to);
            let found = self.evidence(text, certainty).with("type", how.word());
            found.with("prefix", prefix).with("table", table)
        };
        routes.iter().map(tell).collect()
    }

    fn rule(&self, rule: &fib::Rule) -> Evidence {
        let text = format!("rule {} ({}) answers for {} now", rule.priority, rule.action, self.to);
        let source = if self.to.is_ipv4() { "ip rule show" } else { "ip -6 rule show" };
        let found = Evidence::new(Kind::Route, Certainty::Possible, text, source);
        found.with("type", rule.action).with("priority", rule.priority)
    }

    /// Where the packet goes.
    fn leads(&self, route: &Route) -> Evidence {
        let text = format!("{} is {} now", self.to, self.words(route));
        self.tell(self.evidence(text, Certainty::Certain), route)
    }

    fn would_lead(&self, route: &Route) -> Evidence {
        let iface = self.iface();
        let text = if route.kind == LOCAL {
            format!("{} is an address of this host now, but is refused when {iface} receives it", self.to)
        } else {
            let words = self.words(route);
            format!(
                "{} is no address of this host; it is {words} now, but {iface} does not forward it",
                self.to
            )
        };
        self.tell(self.evidence(text, Certainty::Certain), route)
    }

    /// The way back to where a packet is from.
    fn back(&self, from: IpAddr) -> Option<Evidence> {
        let iface = self.iface();
        let own = self.question.iface.as_ref().map(|(index, _)| *index);
        let source = source_of(from);
        let (text, route) = match Route::matching(self.netlink, self.flow(from)) {
            Ok(route) if route.oif == own => return None,
            Ok(route) => (format!("{from} is {} now, not by {iface}", self.words(&route)), Some(route)),
            Err(error) if says_no_route(&error) || Refusal::of(&error).is_some() => {
                (format!("no route back to {from} now, by {iface} or any other interface"), None)
            }
            Err(_) => return None,
        };
        let found = Evidence::new(Kind::Route, Certainty::Certain, text, source).with("from", from);
        Some(match &route {
            Some(route) => self.tell(found, route),
            None => found.with("type", "none"),
        })
    }

    /// That the packet has an address of this host as its source.
    fn source(&self, from: IpAddr) -> Option<Evidence> {
        let route = Route::matching(self.netlink, self.flow(from)).ok()?;
        if route.kind != LOCAL {
            return None;
        }
        let device = self.device(route.oif);
        let place = device.map_or_else(String::new, |device| format!(" on {}", device.name));
        let text = format!("{from}, the packet's source, is this host's own address{place} now");
        let found = Evidence::new(Kind::Route, Certainty::Certain, text, source_of(from));
        Some(self.tell(found.with("from", from), &route))
    }

    /// Why a packet is not forwarded, where the kernel gives no reason: it is too large, or has been forwarded too often.
    fn not_forwarded(&self) -> Option<Evidence> {
        let packet = &self.question.packet;
        let hops = if self.to.is_ipv4() { packet.get(8) } else { packet.get(7) };
        let of = if hops.is_some_and(|&hops| hops <= 1) { Of::Loop } else { Of::Size };
        self.way_out(of)
    }

    /// Why a received packet is not accepted, where the kernel gives no reason: if the way back is another one, that may be
    /// why.
    fn not_accepted(&self, from: IpAddr) -> Option<Evidence> {
        let mut found = self.back(from)?;
        found.certainty = Certainty::Possible;
        Some(found)
    }

    /// By which interface the packet leaves.
    fn way_out(&self, of: Of) -> Option<Evidence> {
        let flow = self.received().unwrap_or_else(|| self.flow(self.to));
        let way =
            Route::to(self.netlink, flow).or_else(|_| Route::to(self.netlink, self.flow(self.to))).ok()?;
        let device = self.device(way.oif)?;
        let mtu = way.mtu.filter(|mtu| *mtu != 0).unwrap_or(device.mtu);
        let length = self.question.length;
        let words = self.words(&way);
        let came_by = self.question.iface.as_ref().map(|(index, _)| *index);
        let is_back = flow.received.is_some() && way.oif == came_by;
        let text = match of {
            Of::Size if mtu < length => {
                let whose = if mtu == device.mtu { "the MTU of the interface" } else { "the path's MTU" };
                format!("{} is {words} now: {whose} is {mtu} bytes, the packet has {length}", self.to)
            }
            Of::Size => format!("{} is {words} now, with an MTU of {mtu} bytes", self.to),
            Of::Loop if is_back => format!("{} is {words} now, where the packet came from: a loop", self.to),
            Of::Loop => format!("{} is {words} now", self.to),
        };
        let found = self.tell(self.evidence(text, Certainty::Certain), &way);
        Some(found.with("mtu", mtu).with("length", length))
    }

    fn evidence(&self, text: String, certainty: Certainty) -> Evidence {
        Evidence::new(Kind::Route, certainty, text, source_of(self.to)).with("to", self.to)
    }

    /// `routed by eth1 to 10.78.0.1 (10.79.0.0/16)`
    fn words(&self, route: &Route) -> String {
        let device = self.device(route.oif).map_or_else(String::new, |device| format!(" by {}", device.name));
        let gateway = route.gateway.map_or_else(String::new, |gateway| format!(" to {gateway}"));
        let what = if route.kind == LOCAL { "local" } else { "routed" };
        let prefix = if is_whole(route) { String::new() } else { format!(" ({})", prefix(route)) };
        format!("{what}{device}{gateway}{prefix}")
    }

    fn tell(&self, found: Evidence, route: &Route) -> Evidence {
        let device = self.device(route.oif).map(|device| device.name);
        let kind = if route.kind == LOCAL { "local" } else { "unicast" };
        let found = found.with("type", kind).with("device", device).with("gateway", route.gateway);
        found.with("prefix", prefix(route)).with("table", table(route.table))
    }
}

/// Whether the route is of one address alone, as the kernel gives it for a packet.
fn is_whole(route: &Route) -> bool {
    route.prefix.1 == if route.prefix.0.is_ipv4() { 32 } else { 128 }
}

fn says_no_route(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH))
}

fn source_of(address: IpAddr) -> String {
    format!("ip route get fibmatch {address}")
}

fn prefix(route: &Route) -> String {
    match route.prefix {
        (_, 0) => "default".to_owned(),
        (address, length) => format!("{address}/{length}"),
    }
}

fn table(number: u32) -> String {
    let name = TABLES.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| number.to_string())
}

/// That the interface has not joined the packet's group.
fn group(question: &Question, directory: &Path, group: IpAddr) -> Option<Evidence> {
    let (_, device) = question.iface.as_ref()?;
    let file = if group.is_ipv4() { "igmp" } else { "igmp6" };
    let text = fs::read(directory.join(file)).ok()?;
    let joined = if group.is_ipv4() { groups(&text, device) } else { groups6(&text, device) };
    if joined.contains(&group) {
        return None;
    }
    let text = format!("{device} has not joined {group} now");
    let source = format!("ip maddress show dev {device}");
    let found = Evidence::new(Kind::Route, Certainty::Certain, text, source);
    Some(found.with("device", device).with("group", group).with("joined", joined))
}

/// The groups of an interface in `/proc/net/igmp`, where its line comes before theirs.
fn groups(text: &[u8], device: &Foreign) -> Vec<IpAddr> {
    let mut is_it = false;
    let mut groups = Vec::new();
    for line in text.split(|&byte| byte == b'\n').skip(1) {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        if line.first().is_some_and(u8::is_ascii_digit) {
            is_it = words.nth(1) == Some(device.bytes());
        } else if let Some(word) = words.next().filter(|_| is_it) {
            let number = std::str::from_utf8(word).ok().and_then(|word| u32::from_str_radix(word, 16).ok());
            groups.extend(number.map(|number| IpAddr::from(number.to_ne_bytes())));
        }
    }
    groups
}

/// Those in `/proc/net/igmp6`, one a line.
fn groups6(text: &[u8], device: &Foreign) -> Vec<IpAddr> {
    let lines = text.split(|&byte| byte == b'\n');
    let groups = lines.filter_map(|line| {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).skip(1);
        let is_it = words.next()? == device.bytes();
        let group = u128::from_str_radix(std::str::from_utf8(words.next()?).ok()?, 16).ok()?;
        is_it.then(|| IpAddr::from(group.to_be_bytes()))
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_interface() {
        let igmp = b"Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
            1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
            2\teth0      :     2      V3\n\t\t\t\t030201EF     1 0:00000000\t\t0\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
        let addresses =
            |words: &[&str]| words.iter().map(|word| word.parse().expect(word)).collect::<Vec<IpAddr>>();
        assert_eq!(groups(igmp, &"eth0".into()), addresses(&["239.1.2.3", "224.0.0.1"]));
        assert_eq!(groups(igmp, &"lo".into()), addresses(&["224.0.0.1"]));
        let igmp6 = b"1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
            2    eth0            ff050000000000000000000000000099     1 0000000C 0\n";
        assert_eq!(groups6(igmp6, &"eth0".into()), addresses(&["ff05::99"]));
    }

    #[test]
    fn the_innermost_function_that_tells_says_whether_a_packet_was_received() {
        let question = |function: &str, callers: &[&str]| Question {
            function: Some(function.into()),
            callers: callers.iter().map(|&caller| caller.to_owned()).collect(),
            ..Question::default()
        };
        assert!(is_received(&question("ip_error", &[])));
        assert!(is_received(&question("ip_finish_output", &["ip_output", "ip_forward", "ip_rcv"])));
        let answer =
            question("ip_finish_output", &["ip_local_out", "ip_send_unicast_reply", "tcp_v4_rcv", "ip_rcv"]);
        assert!(!is_received(&answer) && !is_received(&question("ip_finish_output", &[])));
    }
}
