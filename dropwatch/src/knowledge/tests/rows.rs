//! What is known of a report's rows.

use crate::{
    knowledge::Meanings,
    model::{
        class::{Class, Destination},
        location::{Location, Symbol},
        reason::Reason,
        report::{Function, Value},
    },
};

fn symbol(function: &str, module: &str) -> Symbol {
    Symbol { name: function.into(), offset: 1, size: None, module: module.into() }
}

fn reason(name: Option<&str>) -> Reason {
    Reason { code: 1, subsystem: None, name: name.map(Into::into) }
}

/// What a drop of a packet for one host is worth.
fn class(reason: Option<&Reason>, function: &str, module: &str) -> Option<Class> {
    Meanings::default().class(reason, &symbol(function, module), Destination::Unicast)
}

fn title(values: &[Value]) -> Option<&'static str> {
    Meanings::default().entry(values).map(|entry| entry.title)
}

fn at(function: &str) -> Value {
    let location = Location { address: 1, symbol: Some(symbol(function, "kernel")) };
    Value::Location { location, source: None }
}

#[test]
fn reason_and_function_decide() {
    let of = |name, function, module| class(Some(&reason(Some(name))), function, module);
    assert_eq!(of("NO_SOCKET", "tcp_v4_rcv", "kernel"), Some(Class::Refused));
    assert_eq!(of("NO_SOCKET", "ping_rcv", "kernel"), Some(Class::Harmless));
    assert_eq!(of("NO_SOCKET", "cookie_v4_check", "kernel"), Some(Class::Lost));
    assert_eq!(of("NOT_SPECIFIED", "gre_rcv", "ip_gre"), Some(Class::Lost));
    assert_eq!(of("NOT_SPECIFIED", "gre_rcv", "gre"), Some(Class::Lost));
}

/// A row is known by its place or its function alike.
#[test]
fn a_row_says_what_it_means() {
    let no_socket = || Value::Reason(Some(reason(Some("NO_SOCKET"))));
    let function = Function { symbol: "ping_rcv".into(), module: "kernel".into() };
    let found = title(&[no_socket(), Value::Function(Some(function))]);
    assert!(found.is_some());
    assert_eq!(found, title(&[at("ping_rcv"), no_socket()]));
    assert_eq!(title(&[no_socket()]), None, "a reason alone may mean several things");
    assert_eq!(title(&[at("ping_rcv")]), None, "and so may a function");
}

/// What has no name may be anything.
#[test]
fn a_reason_without_a_name_has_no_class() {
    assert_eq!(class(Some(&reason(None)), "sk_stream_kill_queues", "kernel"), None);
    // A kernel that gives no reasons: the function may be known to drop nothing else.
    assert_eq!(class(None, "sk_stream_kill_queues", "kernel"), Some(Class::Harmless));
    assert_eq!(class(None, "tcp_v4_rcv", "kernel"), Some(Class::Lost));
}

/// Whom the packet was for decides.
#[test]
fn the_destination_decides_where_it_is_known() {
    let to = |function, name, destination| {
        Meanings::default().class(Some(&reason(Some(name))), &symbol(function, "kernel"), destination)
    };
    assert_eq!(to("ip6_mc_input", "NOT_SPECIFIED", Destination::LinkGroup), Some(Class::Harmless));
    assert_eq!(to("ip6_mc_input", "NOT_SPECIFIED", Destination::Group), Some(Class::Lost));
    assert_eq!(to("ip6_mc_input", "NOT_SPECIFIED", Destination::Unknown), None);
    assert_eq!(to("somewhere", "UNHANDLED_PROTO", Destination::NotIp), Some(Class::Harmless));
    assert_eq!(to("somewhere", "UNHANDLED_PROTO", Destination::Unicast), Some(Class::Lost));
}
