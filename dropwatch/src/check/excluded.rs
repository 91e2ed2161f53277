//! Rules that the filter leaves no drop for: such a gate passes, or fails, whatever happens.

use std::net::IpAddr;

use dropwatch_common::packet::{ethertype, family, protocol, transport};

use super::rule::{Bound, Condition, Rule, RuleError, Wanted};
use crate::{
    filter::{
        Filter,
        tree::{Direction, Expr, Net, Term},
    },
    model::{belonging::Belonging, keys::Key, namespace::WhichNetns, protocols},
};

/// What an expression says of every drop that meets a rule's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Always,
    Never,
    Sometimes,
}

/// Protocols behind which IPv6 goes on: rows tell what comes after them, and filters name them.
const EXTENSIONS: [u8; 6] = [
    protocol::HOP_BY_HOP,
    protocol::ROUTING,
    protocol::FRAGMENT,
    protocol::AUTHENTICATION,
    protocol::DESTINATION,
    protocol::MOBILITY,
];

/// Refuses rules that no drop can meet which passes the filter. What is not certain is accepted.
///
/// # Errors
/// The first such rule.
pub fn by_filter(rules: &[Rule], filter: &Filter) -> Result<(), RuleError> {
    let excluded = |rule: &&Rule| answer(filter.expression(), &rule.conditions) == Answer::Never;
    match rules.iter().find(excluded) {
        Some(rule) => Err(RuleError {
            rule: rule.text.clone(),
            bound: rule.bound,
            problem: match rule.bound {
                Bound::Max => {
                    format!("no drop that matches --filter '{filter}' counts for it: it would always hold")
                }
                Bound::Expect => {
                    format!("no drop that matches --filter '{filter}' counts for it: it can never hold")
                }
            },
        }),
        None => Ok(()),
    }
}

fn answer(expression: &Expr, conditions: &[Condition]) -> Answer {
    use Answer::{Always, Never, Sometimes};
    let of = |inner: &Expr| answer(inner, conditions);
    match expression {
        Expr::Term(term) => term_answer(term, conditions),
        Expr::Not(inner) => match of(inner) {
            Always => Never,
            Never => Always,
            Sometimes => Sometimes,
        },
        Expr::And(one, other) => match (of(one), of(other)) {
            (Never, _) | (_, Never) => Never,
            (Always, Always) => Always,
            _ => Sometimes,
        },
        Expr::Or(one, other) => match (of(one), of(other)) {
            (Always, _) | (_, Always) => Always,
            (Never, Never) => Never,
            _ => Sometimes,
        },
    }
}

fn term_answer(term: &Term, conditions: &[Condition]) -> Answer {
    let is_other_kind = conditions.iter().any(|condition| kinds(condition) & term_kinds(term) == 0);
    let each = conditions.iter().map(|condition| under(term, condition));
    let answer = match term {
        Term::Address { families, direction, net } if families & (family::IPV4 | family::IPV6) != 0 => {
            let inside = |key| addresses(conditions, key).map(|address| contains(net, address));
            ends(*direction, inside(Key::Saddr), inside(Key::Daddr))
        }
        Term::Port { direction, range: (low, high), .. } => {
            let other =
                |key| ports(conditions, key).filter(|port| !(low..=high).contains(&port)).map(|_| false);
            ends(*direction, other(Key::Sport), other(Key::Dport))
        }
        _ => each.into_iter().find(|answer| *answer != Answer::Sometimes).unwrap_or(Answer::Sometimes),
    };
    if is_other_kind || has_other_ports(term, conditions) { Answer::Never } else { answer }
}

/// What one condition makes of a term about one field.
fn under(term: &Term, condition: &Condition) -> Answer {
    match (term, &condition.wanted) {
        (Term::Reason { codes, .. }, Wanted::Reason(wanted)) => {
            all_or_none(wanted.iter().map(|code| codes.contains(code)))
        }
        (Term::Class(class), Wanted::Class(wanted)) => all_or_none([class == wanted].into_iter()),
        (Term::Belongs(Belonging::Process(name)), Wanted::Process(wanted))
        | (Term::Belongs(Belonging::Container(name)), Wanted::Container(wanted))
            if name == wanted =>
        {
            Answer::Always
        }
        // Another name may be one of the same interface.
        (Term::Iface(name), Wanted::Iface(wanted)) if name == wanted => Answer::Always,
        (Term::Netns { which: WhichNetns::One(one), .. }, Wanted::Netns(WhichNetns::One(wanted))) => {
            if one == wanted {
                Answer::Always
            } else if one.is(*wanted) {
                Answer::Sometimes
            } else {
                Answer::Never
            }
        }
        (Term::Ethertype(number), Wanted::Protocol(name)) if condition.key == Key::Protocol => {
            match protocols::ethertype(*number) {
                ethertype if ethertype != **name => Answer::Never,
                // Of one name there may be two numbers.
                _ => of_kind(*number, condition),
            }
        }
        (Term::Ethertype(number), _) => of_kind(*number, condition),
        (Term::Protocol { number, .. }, Wanted::Protocol(name)) if condition.key == Key::IpProto => {
            let can_be = EXTENSIONS.contains(number) || protocols::ip_protocol(*number) == **name;
            if can_be { Answer::Sometimes } else { Answer::Never }
        }
        _ => Answer::Sometimes,
    }
}

/// Whether a condition leaves only packets of an ethertype.
fn of_kind(number: u16, condition: &Condition) -> Answer {
    let is_it = kinds(condition) == term_kinds(&Term::Ethertype(number));
    if is_it && matches!(number, ethertype::IPV4 | ethertype::IPV6) {
        Answer::Always
    } else {
        Answer::Sometimes
    }
}

fn all_or_none(answers: impl Iterator<Item = bool>) -> Answer {
    let answers: Vec<_> = answers.collect();
    if answers.iter().all(|answer| *answer) {
        Answer::Always
    } else if answers.contains(&true) {
        Answer::Sometimes
    } else {
        Answer::Never
    }
}

/// What is known of both ends comes to what is known of the direction in question.
fn ends(direction: Direction, source: Option<bool>, destination: Option<bool>) -> Answer {
    let answer = match direction {
        Direction::Source => source,
        Direction::Destination => destination,
        Direction::Either => match (source, destination) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        Direction::Both => match (source, destination) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
    };
    match answer {
        Some(true) => Answer::Always,
        Some(false) => Answer::Never,
        None => Answer::Sometimes,
    }
}

fn addresses(conditions: &[Condition], key: Key) -> Option<IpAddr> {
    conditions.iter().filter(|condition| condition.key == key).find_map(|condition| match condition.wanted {
        Wanted::Address(address) => Some(address),
        _ => None,
    })
}

fn ports(conditions: &[Condition], key: Key) -> Option<u16> {
    conditions.iter().filter(|condition| condition.key == key).find_map(|condition| match condition.wanted {
        Wanted::Port(port) => Some(port),
        _ => None,
    })
}

fn contains(net: &Net, address: IpAddr) -> bool {
    let (mask, bytes) = (u128::from_be_bytes(net.mask), u128::from_be_bytes(net.bytes()));
    let address = match (net.address, address) {
        (IpAddr::V4(_), IpAddr::V4(address)) => u128::from(address.to_bits()) << 96,
        (IpAddr::V6(_), IpAddr::V6(address)) => address.to_bits(),
        _ => return false,
    };
    address & mask == bytes
}

/// Whether a term is about ports that packets of the protocol that is wanted do not have.
fn has_other_ports(term: &Term, conditions: &[Condition]) -> bool {
    let Term::Port { transports, .. } = term else { return false };
    let with_ports = [("tcp", transport::TCP), ("udp", transport::UDP), ("sctp", transport::SCTP)];
    conditions.iter().filter(|condition| condition.key == Key::IpProto).any(|condition| {
        let Wanted::Protocol(wanted) = &condition.wanted else { return false };
        !with_ports.iter().any(|(name, bit)| name == wanted && transports & bit != 0)
    })
}

/// The kinds of packets that a condition leaves, as bits.
fn kinds(condition: &Condition) -> u8 {
    super::contradictions::families(condition)
}

/// The kinds of packets that a term can hold for, in the same bits.
fn term_kinds(term: &Term) -> u8 {
    use super::contradictions::family as kind;
    match term {
        Term::Ethertype(ethertype::IPV4) => kind::IPV4,
        Term::Ethertype(ethertype::IPV6) => kind::IPV6,
        Term::Ethertype(_) => kind::OTHER,
        Term::Port { .. } => kind::IP,
        Term::Protocol { families, .. } | Term::Address { families, .. } => [
            (family::IPV4, kind::IPV4),
            (family::IPV6, kind::IPV6),
            (family::ARP | family::RARP, kind::OTHER),
        ]
        .into_iter()
        .filter(|(bits, _)| families & bits != 0)
        .fold(0, |kinds, (_, kind)| kinds | kind),
        _ => kind::ANY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::rule::tests::rule, fakes::Host};

    fn is_refused(filter: &str, text: &str) -> bool {
        let filter = Filter::parse(filter, &Host).expect("a filter");
        let refused = [Bound::Max, Bound::Expect].map(|bound| {
            let refused = by_filter(&[rule(bound, text)], &filter);
            refused.is_err_and(|error| error.to_string().contains(&format!("matches --filter '{filter}'")))
        });
        assert_eq!(refused[0], refused[1]);
        refused[0]
    }

    #[test]
    fn a_rule_that_the_filter_leaves_nothing_for_is_refused() {
        for (filter, rule) in [
            ("reason NO_SOCKET", "reason=NETFILTER_DROP:1"),
            ("not reason NO_SOCKET", "reason=NO_SOCKET:1"),
            ("not (tcp or reason NO_SOCKET)", "reason=NO_SOCKET:1"),
            ("class lost", "harmless:1"),
            ("not class lost and udp", "lost:1"),
            ("udp", "ipproto=tcp:1"),
            ("udp", "protocol=arp:1"),
            ("arp", "ipproto=tcp:1"),
            ("ip6", "saddr=10.0.0.1:1"),
            ("not ip", "saddr=10.0.0.1:1"),
            ("not ip6", "protocol=ipv6:1"),
            ("icmp6", "protocol=ipv4:1"),
            ("netns 4026531840 and tcp", "ipproto=udp:1"),
            ("not iface eth0", "iface=eth0:1"),
            ("not netns self", "netns=self:1"),
            ("port 53", "sport=1,dport=2:1"),
            ("src port 53", "sport=54:1"),
            ("dst portrange 10-20", "dport=21:1"),
            ("tcp port 53", "ipproto=udp:1"),
            ("port 53", "ipproto=icmp:1"),
            ("src and dst port 53", "dport=54:1"),
            ("host 10.0.0.1", "saddr=10.0.0.2,daddr=10.0.0.3:1"),
            ("dst net 10.0.0.0/8", "daddr=11.0.0.1:1"),
            ("not src net 10.0.0.0/8", "saddr=10.1.0.1:1"),
            ("host ::1", "saddr=10.0.0.1:1"),
            ("tcp and host 10.0.0.1", "protocol=ipv6:1"),
        ] {
            assert!(is_refused(filter, rule), "{filter}: {rule}");
        }
    }

    #[test]
    fn what_is_not_certain_is_accepted() {
        for (filter, rule) in [
            ("reason NO_SOCKET", "1"),
            ("reason NO_SOCKET", "reason=NO_SOCKET:1"),
            ("class lost or udp", "harmless:1"),
            ("class lost", "lost,reason=NO_SOCKET:1"),
            ("reason NO_SOCKET or tcp", "reason=NETFILTER_DROP:1"),
            // One interface can have both names, and a namespace too.
            ("iface a", "iface=b:1"),
            ("netns d", "netns=e:1"),
            ("not netns d", "netns=d:1"),
            // Behind a header that a filter names.
            ("ip6 proto 0", "ipproto=tcp:1"),
            ("not tcp", "ipproto=tcp:1"),
            ("port 53", "sport=1:1"),
            ("port 53", "ipproto=udp,sport=53:1"),
            ("host 10.0.0.1", "saddr=10.0.0.2:1"),
            ("host 10.0.0.1", "protocol=arp:1"),
            ("not host 10.0.0.1", "saddr=10.0.0.2:1"),
            ("net 10.0.0.0/8", "saddr=10.1.2.3:1"),
            ("less 100", "ipproto=tcp:1"),
            ("ip", "ipproto=tcp,saddr=10.0.0.1:1"),
            // Two names can be of one function.
            ("location ip_rcv", "location=tcp_v4_rcv:1"),
            ("vlan 7", "protocol=arp:1"),
        ] {
            assert!(!is_refused(filter, rule), "{filter}: {rule}");
        }
    }
}
