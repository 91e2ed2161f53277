//! The words of the data files: what reads them when the program is built shares this list with the program.

use serde::{Deserialize, Serialize};

/// What a drop is worth to the people on both ends.
///
/// In the order in which they matter: what is lost comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The packet is missing somewhere, and the sender gets no error. Also whatever is not known.
    Lost,
    /// The packet was rejected, and the sender gets an error: a reset, or ICMP.
    Refused,
    /// The kernel frees here what it has no further use for.
    Harmless,
}

/// Whom a packet is for, as far as a class depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// Not looked at, or not to be had.
    #[default]
    #[serde(skip_deserializing)]
    Unknown,
    /// All hosts on the link, and no IP packet: LLDP, spanning tree, and the like.
    #[serde(rename = "not IP")]
    NotIp,
    /// One host.
    Unicast,
    /// One host, and a segment of TCP that brings nothing: neither data nor a new connection.
    #[serde(rename = "empty segment")]
    EmptySegment,
    /// All hosts of a network.
    Broadcast,
    /// A group that hosts talk to by themselves when a link comes up: all routers, MLD, mDNS.
    #[serde(rename = "link group")]
    LinkGroup,
    /// Any other group: one that an application or a routing protocol has chosen.
    Group,
}

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A socket.
    Socket,
    /// A rule, a chain or a policy of nftables or iptables.
    Netfilter,
    /// A queue discipline.
    Qdisc,
    /// A BPF program.
    Program,
    /// A route, or a rule of routing.
    Route,
    /// A neighbour: a host on the same link.
    Neighbour,
    /// An interface.
    Link,
    /// A setting.
    Sysctl,
    /// The table of connections.
    Conntrack,
    /// A policy or a state of `IPsec`.
    Xfrm,
    /// A port of a bridge.
    Bridge,
}

/// Where losses are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Netstat,
    Snmp,
    Snmp6,
    #[serde(rename = "xfrm_stat")]
    Xfrm,
    #[serde(rename = "softnet_stat")]
    Softnet,
    Netlink,
    PacketSockets,
    Link,
}
