//! The expression for a row's drops: what a filter can say of them.
//!
//! There are two. The one for the kernel never leaves out a drop of the row; of others it lets through what a filter's
//! words do not tell apart. The one for people says as much as they would write.

use dropwatch_common::packet::{ethertype, family, protocol, transport};

use super::tree::{Direction, Expr, Net, Term};
use crate::model::{
    belonging::Belonging,
    foreign::Foreign,
    interface,
    keys::Key,
    location::Location,
    namespace::WhichNetns,
    report::{Function, Row, Value},
    symbol_spec::SymbolSpec,
};

/// Who an expression is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// The kernel: every drop of the row passes.
    Kernel,
    /// People, who can type it again.
    People,
}

/// The filter in force and what the row says; none if neither says anything.
#[must_use]
pub fn expression(filter: Option<&Expr>, by: &[Key], row: &Row, reader: For) -> Option<Expr> {
    let ipproto = value(by, row, Key::IpProto).and_then(|value| match value {
        Value::IpProto(number) => *number,
        _ => None,
    });
    let terms = by.iter().zip(&row.values).filter_map(|(key, value)| term(*key, value, ipproto, reader));
    filter.cloned().into_iter().chain(terms).reduce(|left, right| Expr::And(left.into(), right.into()))
}

fn value<'a>(by: &[Key], row: &'a Row, key: Key) -> Option<&'a Value> {
    by.iter().zip(&row.values).find(|(it, _)| **it == key).map(|(_, value)| value)
}

/// What a filter can say of a value.
fn term(key: Key, value: &Value, ipproto: Option<u8>, reader: For) -> Option<Expr> {
    let end =
        |key| if matches!(key, Key::Saddr | Key::Sport) { Direction::Source } else { Direction::Destination };
    let people = reader == For::People;
    let term = match value {
        Value::Location { location, .. } => place(location, reader),
        Value::Function(Some(function)) => Term::Location(in_function(function)?),
        Value::Reason(Some(reason)) => Term::Reason { name: reason.to_string(), codes: vec![reason.code] },
        Value::Iface(Some(iface)) => {
            let name = name(iface.name.as_ref()?).filter(|name| interface::check(name).is_ok())?;
            let term = Expr::Term(Term::Iface(name));
            let netns = iface.netns.as_ref().map(|netns| of_netns(netns.namespace));
            // An interface is one of its namespace; people have that as a key of its own.
            return Some(match netns.filter(|_| !people) {
                Some(netns) => Expr::And(term.into(), Expr::Term(netns).into()),
                None => term,
            });
        }
        Value::Netns(Some(netns)) => of_netns(netns.namespace),
        Value::Protocol(Some(number)) => Term::Ethertype(*number),
        Value::IpProto(Some(number)) => return Some(of_protocol(*number, reader)),
        Value::Address(Some(address)) => {
            let (families, net) = match address {
                std::net::IpAddr::V4(address) => (family::IPV4, Net::v4((*address).into(), u32::MAX)),
                std::net::IpAddr::V6(address) => (family::IPV6, Net::v6(*address, 128)),
            };
            Term::Address { families, direction: end(key), net }
        }
        Value::Port(Some(port)) => return Some(of_port(*port, end(key), ipproto, reader)),
        Value::Class(class) if people => Term::Class(*class),
        Value::Process(owner) if people => Term::Belongs(Belonging::Process(word(&owner.words()?)?)),
        Value::Container { container: Some(container), .. } if people => {
            Term::Belongs(Belonging::Container(name(&container.name)?))
        }
        _ => return None,
    };
    Some(Expr::Term(term))
}

/// Addresses move with the next start of the machine, and names do not.
fn place(location: &Location, reader: For) -> Term {
    match (&location.symbol, reader) {
        (Some(symbol), For::People) => match name(&symbol.name) {
            Some(symbol_name) => Term::Location(SymbolSpec {
                symbol: symbol_name,
                offset: Some(symbol.offset),
                size: None,
                module: (!symbol.is_in_kernel()).then(|| symbol.module.text().into_owned()),
            }),
            None => Term::CodeAddress(location.address),
        },
        _ => Term::CodeAddress(location.address),
    }
}

fn in_function(function: &Function) -> Option<SymbolSpec> {
    let module = function.module.text().into_owned();
    Some(SymbolSpec { symbol: name(&function.symbol)?, offset: None, size: None, module: Some(module) })
}

fn of_netns(namespace: crate::model::namespace::Namespace) -> Term {
    Term::Netns { name: namespace.inum.to_string(), which: WhichNetns::One(namespace) }
}

/// Behind extension headers of IPv6, a filter does not see it.
fn of_protocol(number: u8, reader: For) -> Expr {
    let families = family::IPV4 | family::IPV6;
    let term = Expr::Term(Term::Protocol { families, number });
    match reader {
        For::People => term,
        For::Kernel => Expr::Or(Expr::Term(Term::Ethertype(ethertype::IPV6)).into(), term.into()),
    }
}

/// Packets of DCCP and UDP-Lite have ports that a filter knows nothing of.
fn of_port(port: u16, direction: Direction, ipproto: Option<u8>, reader: For) -> Expr {
    let transports = match ipproto {
        Some(protocol::TCP) => transport::TCP,
        Some(protocol::UDP) => transport::UDP,
        Some(protocol::SCTP) => transport::SCTP,
        _ => transport::ANY,
    };
    let term = Expr::Term(Term::Port { transports, direction, range: (port, port) });
    if reader == For::People || transports != transport::ANY {
        return term;
    }
    let families = family::IPV4 | family::IPV6;
    let known =
        [protocol::TCP, protocol::UDP, protocol::SCTP].map(|number| Term::Protocol { families, number });
    let known = known.map(Expr::Term).into_iter().reduce(|left, right| Expr::Or(left.into(), right.into()));
    match known {
        Some(known) => Expr::Or(term.into(), Expr::Not(known.into()).into()),
        None => term,
    }
}

/// A name that can be written in an expression.
fn name(name: &Foreign) -> Option<String> {
    word(std::str::from_utf8(name.bytes()).ok()?)
}

fn word(text: &str) -> Option<String> {
    let can_be_quoted = !(text.contains('"') && text.contains('\''));
    (can_be_quoted && !text.is_empty()).then(|| text.to_owned())
}
