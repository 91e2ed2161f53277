//! What a refusal means for this packet, where its values say so.

use std::net::IpAddr;

use super::value::{Kind, Value};

/// What is known of the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The interface's name, as it is printed.
    pub iface: Option<String>,
    /// Its source.
    pub source: Option<IpAddr>,
    /// Its destination.
    pub destination: Option<IpAddr>,
    /// The port it was sent to.
    pub port: Option<u16>,
}

/// Functions that look for a way back to the packet's source.
const WAY_BACK: [&str; 2] = ["fib_validate_source", "__fib_validate_source"];

/// The meaning of a refusal: the calls from the one that freed the packet down, with their values.
#[must_use]
pub fn of(refusal: &[(String, Value)], packet: &Packet) -> Option<String> {
    let iface = packet.iface.as_deref().unwrap_or("the interface");
    let source = packet.source.map_or("the source".to_owned(), |address| address.to_string());
    let destination = packet.destination.map_or("the destination".to_owned(), |address| address.to_string());
    let said = |functions: &[&str], is: fn(&Value) -> bool| {
        refusal.iter().any(|(name, value)| functions.contains(&name.as_str()) && is(value))
    };
    let called = |functions: &[&str]| said(functions, |_| true);
    if said(&["ip_check_mc_rcu", "ipv6_chk_mcast_addr"], Value::is_no) {
        return Some(format!("{iface} has not joined {destination}"));
    }
    if said(&WAY_BACK, is_wrong_way) {
        return Some(format!("replies to {source} do not leave by {iface}, and its rp_filter requires it"));
    }
    if said(&["fib_table_lookup", "__fib_lookup", "fib_rules_lookup"], is_no_route) {
        let to = if called(&WAY_BACK) { source } else { destination };
        return Some(format!("there is no route to {to}"));
    }
    if said(&["__nf_conntrack_alloc"], |value| value.kind == Kind::ErrorPointer(libc::ENOMEM)) {
        return Some(
            "the table of connections is full (compare net.netfilter.nf_conntrack_count and nf_conntrack_max)"
                .to_owned(),
        );
    }
    let is_null = |value: &Value| value.kind == Kind::Null;
    let port = packet.port.map(|port| format!(" and port {port}")).unwrap_or_default();
    if said(&["__udp4_lib_lookup", "__udp6_lib_lookup"], is_null) {
        return Some(format!("no socket is bound to {destination}{port}"));
    }
    if said(&["__inet_lookup_listener", "inet_lookup_listener", "inet6_lookup_listener"], is_null) {
        return Some(format!("no socket listens on {destination}{port}"));
    }
    if said(&["fib_validate_source", "__fib_validate_source"], |value| is_reason(value, "IP_LOCAL_SOURCE")) {
        return Some(format!("{source} is an address of this host, and accept_local of {iface} is off"));
    }
    if said(&["__skb_checksum_complete", "__skb_checksum_complete_head"], is_not_zero) {
        return Some("the checksum in the packet is wrong".to_owned());
    }
    None
}

/// Reverse path filtering has its own error, and later its own reason.
fn is_wrong_way(value: &Value) -> bool {
    match &value.kind {
        Kind::Error(number) => *number == libc::EXDEV,
        _ => is_reason(value, "IP_RPFILTER"),
    }
}

fn is_reason(value: &Value, wanted: &str) -> bool {
    matches!(&value.kind, Kind::NegativeReason(_, name) | Kind::Reason(_, name) if name == wanted)
}

/// No table has a route, or the one that answers says that it is unreachable.
fn is_no_route(value: &Value) -> bool {
    matches!(value.kind, Kind::Error(libc::EAGAIN | libc::ENETUNREACH))
}

fn is_not_zero(value: &Value) -> bool {
    matches!(value.kind, Kind::Number(number) if number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(refusal: &[(&str, Kind)]) -> Option<String> {
        let value = |kind: &Kind| Value { kind: kind.clone(), is_unsure: false, low: 0 };
        let refusal: Vec<_> = refusal.iter().map(|(name, kind)| ((*name).to_owned(), value(kind))).collect();
        let packet = Packet {
            iface: Some("eth0".to_owned()),
            source: Some([10, 1, 2, 3].into()),
            destination: Some([224, 0, 0, 5].into()),
            port: Some(53),
        };
        of(&refusal, &packet)
    }

    #[test]
    fn values_are_put_into_words() {
        let refused = ("ip_route_input_noref", Kind::Error(22));
        let said = |last| meaning(&[refused.clone(), last]);
        let words = "eth0 has not joined 224.0.0.5";
        assert_eq!(said(("ip_check_mc_rcu", Kind::Number(0))).as_deref(), Some(words));
        assert_eq!(said(("ip_check_mc_rcu", Kind::Number(1))), None);
        let words = "replies to 10.1.2.3 do not leave by eth0, and its rp_filter requires it";
        assert_eq!(said(("__fib_validate_source", Kind::Error(18))).as_deref(), Some(words));
        let reason = Kind::NegativeReason(16, "IP_RPFILTER".to_owned());
        assert_eq!(said(("__fib_validate_source", reason)).as_deref(), Some(words));
        assert_eq!(said(("__fib_validate_source", Kind::Error(22))), None);
        let words = "there is no route to 224.0.0.5";
        assert_eq!(said(("fib_table_lookup", Kind::Error(11))).as_deref(), Some(words));
        let back = [("__fib_validate_source", Kind::Error(22)), ("fib_table_lookup", Kind::Error(11))];
        assert_eq!(meaning(&back).as_deref(), Some("there is no route to 10.1.2.3"));
        let words = meaning(&[("__nf_conntrack_alloc", Kind::ErrorPointer(12))]).unwrap();
        assert!(words.contains("is full"), "{words}");
        let words = meaning(&[("__skb_checksum_complete", Kind::Number(7))]).unwrap();
        assert_eq!(words, "the checksum in the packet is wrong");
        assert_eq!(meaning(&[("__skb_checksum_complete", Kind::Number(0))]), None);
        let words = meaning(&[("udp_rcv", Kind::Number(0)), ("__udp4_lib_lookup", Kind::Null)]).unwrap();
        assert_eq!(words, "no socket is bound to 224.0.0.5 and port 53");
        assert_eq!(meaning(&[("__udp4_lib_lookup", Kind::Pointer)]), None);
        let words = meaning(&[("__inet_lookup_listener", Kind::Null)]).unwrap();
        assert_eq!(words, "no socket listens on 224.0.0.5 and port 53");
        let reason = Kind::NegativeReason(95, "IP_LOCAL_SOURCE".to_owned());
        let words = meaning(&[("fib_validate_source", reason)]).unwrap();
        assert_eq!(words, "10.1.2.3 is an address of this host, and accept_local of eth0 is off");
        assert_eq!(meaning(&[]), None);
    }
}
