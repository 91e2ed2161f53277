//! Which entry says what a drop means.

use crate::{
    knowledge::{ENTRIES, Query, class, lookup, matched, reasons_with_kinds},
    model::class::{Class, Destination},
};

fn query<'a>(reason: &'a str, function: &'a str) -> Query<'a> {
    Query { reason: Some(reason), function: Some(function), module: None }
}

/// What a drop is worth of which that much is known.
fn worth(query: Query<'_>, destination: Destination) -> Class {
    class(lookup(query), destination).expect("a class")
}

fn title(reason: &str, function: &str) -> &'static str {
    lookup(query(reason, function)).expect("an entry").title
}

/// The same reason means something else in another function, and the function's meaning wins.
#[test]
fn the_most_specific_entry_is_found() {
    assert!(title("IP_INHDR", "ip_forward").contains("TTL"));
    assert!(title("IP_INHDR", "ip_rcv_core").contains("header"));
    assert!(title("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb").contains("UDP"));
    assert!(!title("SOCKET_RCVBUFF", "tcp_add_backlog").contains("UDP"));
    // A function says more than "not specified", and less than any other reason.
    assert!(title("NOT_SPECIFIED", "ip_error").contains("blackhole"));
    assert!(title("NETFILTER_DROP", "ip_error").contains("firewall"));
    // An exact name says more than the start of one.
    assert!(title("NOT_SPECIFIED", "br_handle_frame_finish").contains("did not pass"));
    assert_eq!(title("NOT_SPECIFIED", "br_made_up"), "In a bridge");
}

/// Compilers add to the names of parts and clones of functions.
#[test]
fn clones_of_a_function_are_the_function() {
    assert_eq!(
        title("NOT_SPECIFIED", "ip_rcv_finish_core.isra.0"),
        title("NOT_SPECIFIED", "ip_rcv_finish_core")
    );
    assert_eq!(
        title("UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0"),
        title("UNHANDLED_PROTO", "__netif_receive_skb_core")
    );
    assert_eq!(matched("ip_error", "ip_error_report"), None);
}

/// Two modules have a function of the same name, with two meanings.
#[test]
fn modules_are_told_apart() {
    let in_module = |module| lookup(Query { module, ..query("NOT_SPECIFIED", "gre_rcv") }).expect("an entry");
    assert_eq!(in_module(Some("gre")).module, Some("gre"));
    assert_eq!(in_module(Some("ip_gre")).module, Some("ip_gre"));
    assert_eq!(in_module(Some("ip6_gre")).module, None);
}

/// A kernel that gives no reasons still says where.
#[test]
fn without_a_reason_the_function_tells() {
    let found = lookup(Query { function: Some("nf_hook_slow"), ..Query::default() }).expect("an entry");
    assert!(found.reasons.is_empty(), "{found:?}");
    // In these functions, a drop without a reason is harmless only where the kernel could have given one.
    for function in ["tcp_v4_rcv", "tcp_v6_rcv", "tcp_rcv_state_process"] {
        let without = Query { function: Some(function), ..Query::default() };
        assert_eq!(worth(without, Destination::Unicast), Class::Lost, "{function}");
        let with = query("NOT_SPECIFIED", function);
        assert_eq!(worth(with, Destination::Unicast), Class::Harmless, "{function}");
    }
}

/// The packet's destination decides and is not known: that is not the same as lost.
#[test]
fn a_class_that_is_not_known_is_none() {
    let found = |reason, function| class(lookup(query(reason, function)), Destination::Unknown);
    assert_eq!(found("NOT_SPECIFIED", "ip6_mc_input"), None);
    assert_eq!(found("UNHANDLED_PROTO", "__netif_receive_skb_core"), None);
    assert_eq!(found("NO_SOCKET", "ping_rcv"), Some(Class::Harmless));
    assert_eq!(found("NO_SOCKET", "cookie_v4_check"), Some(Class::Lost));
}

/// With every other reason the probe does not look at packets.
#[test]
fn reasons_with_kinds_are_those_of_entries_with_conditions() {
    let reasons: Vec<_> = reasons_with_kinds().collect();
    for reason in ["NOT_SPECIFIED", "UNHANDLED_PROTO", "IP_INNOROUTES", "NO_TX_TARGET", "QDISC_DROP"] {
        assert!(reasons.contains(&reason), "{reason}");
    }
    for reason in ["TC_EGRESS", "NO_SOCKET", "NETFILTER_DROP", "SOCKET_RCVBUFF"] {
        assert!(!reasons.contains(&reason), "{reason}");
    }
}

/// What is not known is lost, wherever it happens and whatever the packet.
#[test]
fn the_unknown_is_lost() {
    for destination in Destination::ALL {
        assert_eq!(worth(Query::default(), destination), Class::Lost);
        assert_eq!(worth(query("A_REASON_OF_TOMORROW", "sk_stream_kill_queues"), destination), Class::Lost);
        assert_eq!(worth(query("NOT_SPECIFIED", "a_function_of_tomorrow"), destination), Class::Lost);
    }
    assert_eq!(lookup(query("A_REASON_OF_TOMORROW", "ip_error")), None);
}

/// What every healthy host drops is no loss.
#[test]
fn healthy_hosts_lose_nothing() {
    let noise = [
        ("NO_SOCKET", "ping_rcv"),
        ("NO_SOCKET", "icmp_rcv"),
        ("NO_SOCKET", "icmpv6_rcv"),
        ("QUEUE_PURGE", "sk_stream_kill_queues"),
        ("QUEUE_PURGE", "tcp_disconnect"),
        ("QUEUE_PURGE", "skb_queue_purge_reason"),
        ("NOT_SPECIFIED", "tcp_v4_rcv"),
        ("NOT_SPECIFIED", "tcp_v6_rcv"),
        ("TCP_OLD_DATA", "tcp_rcv_established"),
        ("TCP_OLD_SEQUENCE", "tcp_validate_incoming"),
        ("SOCKET_CLOSE", "unix_release_sock"),
        ("NOT_SPECIFIED", "unix_stream_connect"),
        ("NOT_SPECIFIED", "__rtnl_unlock"),
        ("NOT_SPECIFIED", "netif_napi_add_weight_locked"),
        ("NOT_SPECIFIED", "udp_destruct_common"),
        ("NOT_SPECIFIED", "virtio_transport_recv_pkt"),
    ];
    for (reason, function) in noise {
        assert_eq!(
            worth(query(reason, function), Destination::Unknown),
            Class::Harmless,
            "{reason} {function}"
        );
    }
}

/// A group that hosts talk to by themselves is noise, an application's is the incident itself; unless the packet was
/// looked at, it may be either.
#[test]
fn groups_nobody_joined_are_told_by_the_packet() {
    for (reason, function) in [
        ("NOT_SPECIFIED", "ip_rcv_finish_core"),
        ("NOT_SPECIFIED", "ip6_mc_input"),
        ("IP_INNOROUTES", "ip6_pkt_discard"),
    ] {
        let of = |destination| worth(query(reason, function), destination);
        assert_eq!(of(Destination::LinkGroup), Class::Harmless, "{function}");
        assert_eq!(of(Destination::Group), Class::Lost, "{function}");
    }
}

/// Refused: connections and datagrams to a closed port. A firewall's reject looks like its drop.
#[test]
fn senders_that_were_told_are_refused() {
    for function in ["tcp_v4_rcv", "tcp_v6_rcv", "__udp4_lib_rcv", "__udp6_lib_rcv"] {
        assert_eq!(worth(query("NO_SOCKET", function), Destination::Unicast), Class::Refused, "{function}");
    }
    for function in ["nft_do_chain", "nf_hook_slow", "anything"] {
        let found = lookup(query("NETFILTER_DROP", function)).expect("an entry");
        assert_eq!(found.class, Class::Lost, "{function}");
        assert!(found.meaning.contains("reject"), "{function}");
    }
}

/// Every entry is the best one for some drop: none is hidden behind another.
#[test]
fn every_entry_is_reachable() {
    for entry in ENTRIES {
        let named = entry.reasons.iter().map(|reason| Some(*reason));
        // Without any, it is at least for kernels that give none.
        let reasons: Vec<_> = if entry.reasons.is_empty() { vec![None] } else { named.collect() };
        let functions: Vec<_> = entry.functions.iter().map(|pattern| pattern.trim_end_matches('*')).collect();
        let functions = if functions.is_empty() { vec!["a_function_of_tomorrow"] } else { functions };
        for reason in reasons {
            for function in &functions {
                let drop = Query { reason, function: Some(function), module: entry.module };
                let found = lookup(drop).expect("an entry");
                assert!(
                    std::ptr::eq(found, entry),
                    "{drop:?} finds {:?}, not {:?}",
                    found.name(),
                    entry.name()
                );
            }
        }
    }
}
