//! Rules that can never hold: a gate that looks at what cannot exist passes for ever.

use super::rule::{Bound, Condition, Rule, RuleError, Wanted};
use crate::model::{keys::Key, symbol_spec::CodePlace};

/// The kinds of packets that a condition leaves, as bits.
pub(super) mod family {
    pub const IPV4: u8 = 1;
    pub const IPV6: u8 = 2;
    pub const OTHER: u8 = 4;
    pub const IP: u8 = IPV4 | IPV6;
    pub const ANY: u8 = IP | OTHER;
}

/// The protocols whose ports are counted by.
const WITH_PORTS: [&str; 5] = ["tcp", "udp", "sctp", "dccp", "udplite"];

/// Refuses conditions that no drop can meet at once.
///
/// # Errors
/// The two that exclude each other.
pub fn within(conditions: &[Condition]) -> Result<(), String> {
    for (number, one) in conditions.iter().enumerate() {
        for other in &conditions[number + 1..] {
            if one.key == other.key && !one.wanted.can_also_be(&other.wanted) {
                let key = one.key.word();
                return Err(format!(
                    "no drop has both '{}' and '{}': each has one {key}; give two rules",
                    one.text, other.text
                ));
            }
            if is_elsewhere(one, other) || is_elsewhere(other, one) {
                return Err(format!("no drop has both '{}' and '{}'", one.text, other.text));
            }
            if families(one) & families(other) == 0 || has_no_port(one, other) || has_no_port(other, one) {
                return Err(format!("no packet has both '{}' and '{}'", one.text, other.text));
            }
        }
    }
    Ok(())
}

/// Refuses two rules that cannot both hold: what one expects, another forbids.
///
/// # Errors
/// The rule that expects more than another one allows.
pub fn between(rules: &[Rule]) -> Result<(), RuleError> {
    let with = |bound| rules.iter().filter(move |rule| rule.bound == bound);
    for expected in with(Bound::Expect) {
        for allowed in with(Bound::Max) {
            if allowed.drops < expected.drops && includes(allowed, expected) {
                return Err(RuleError {
                    rule: expected.text.clone(),
                    bound: expected.bound,
                    problem: format!("'{allowed}' allows fewer, so both cannot hold"),
                });
            }
        }
    }
    Ok(())
}

/// Whether every drop that counts for `narrow` counts for `wide`.
fn includes(wide: &Rule, narrow: &Rule) -> bool {
    let is_met = |condition: &Condition| {
        narrow
            .conditions
            .iter()
            .any(|met| met.key == condition.key && met.wanted.is_within(&condition.wanted))
    };
    wide.conditions.iter().all(is_met)
}

pub(super) fn families(condition: &Condition) -> u8 {
    match (&condition.wanted, condition.key) {
        (Wanted::Address(address), _) if address.is_ipv4() => family::IPV4,
        (Wanted::Address(_), _) => family::IPV6,
        (Wanted::Protocol(_), Key::IpProto) | (Wanted::Port(_), _) => family::IP,
        (Wanted::Protocol(name), _) => match name.as_str() {
            "ipv4" => family::IPV4,
            "ipv6" => family::IPV6,
            _ => family::OTHER,
        },
        _ => family::ANY,
    }
}

/// Whether one requires a location outside the other's function.
fn is_elsewhere(place: &Condition, function: &Condition) -> bool {
    match (&place.wanted, &function.wanted) {
        (Wanted::Location(CodePlace::Named(place)), Wanted::Function(function)) => !place.overlaps(function),
        _ => false,
    }
}

/// Whether one requires a port that packets of the other's protocol do not have.
fn has_no_port(port: &Condition, protocol: &Condition) -> bool {
    let Wanted::Protocol(name) = &protocol.wanted else { return false };
    matches!(port.wanted, Wanted::Port(_))
        && protocol.key == Key::IpProto
        && !WITH_PORTS.contains(&name.as_str())
}

impl Wanted {
    /// Whether a value that is this one can be the other as well.
    fn can_also_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Reason(codes), Self::Reason(others)) => codes.iter().any(|code| others.contains(code)),
            (Self::Location(place), Self::Location(other)) => place.overlaps(other),
            (Self::Function(function), Self::Function(other)) => function.overlaps(other),
            // One interface can have both names, and a name and a number may be of one process or container.
            (Self::Iface(_), Self::Iface(_))
            | (Self::Process(_), Self::Process(_))
            | (Self::Container(_), Self::Container(_)) => true,
            _ => self == other,
        }
    }

    /// Whether a value that is this one is always the other as well.
    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Reason(codes), Self::Reason(others)) => codes.iter().all(|code| others.contains(code)),
            _ => self == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::rule::tests::rule, fakes::Host};

    #[test]
    fn what_no_drop_can_be_is_refused() {
        for text in [
            "reason=NETFILTER_DROP,reason=NO_SOCKET:0",
            "dport=53,dport=9:0",
            "cpu=0,cpu=1:0",
            "location=ip_rcv,location=tcp_v4_rcv:0",
            "location=ip_rcv+0x10,location=ip_rcv+0x11:0",
            "location=gre_rcv[gre],location=gre_rcv[ip_gre]:0",
            "location=0xffffffff81000010,location=0xffffffff81000011:0",
            "function=ip_rcv,function=tcp_v4_rcv:0",
            "function=ip_rcv,location=tcp_v4_rcv+0x10:0",
            "saddr=10.0.0.1,daddr=::1:0",
            "saddr=10.0.0.1,protocol=ipv6:0",
            "daddr=::1,protocol=ipv4:0",
            "daddr=::1,protocol=arp:0",
            "ipproto=udp,protocol=arp:0",
            "dport=53,protocol=arp:0",
            "sport=53,ipproto=icmp:0",
            "ipproto=47,dport=53:0",
        ] {
            for bound in [Bound::Max, Bound::Expect] {
                let error = Rule::parse(bound, text, &Host).expect_err(text);
                assert!(error.to_string().contains(" has both '"), "{error}");
            }
        }
    }

    #[test]
    fn what_can_be_is_accepted() {
        for text in [
            "reason=NETFILTER_DROP,reason=core:12:0",
            "dport=53,dport=53:0",
            "iface=eth0,iface=port-1-of-the-upper-switch:0",
            "location=ip_rcv,location=ip_rcv+0x10:0",
            "location=gre_rcv,location=gre_rcv[gre]:0",
            "location=ip_rcv,location=0xffffffff81000010:0",
            "function=ip_rcv,location=ip_rcv+0x10:0",
            "saddr=10.0.0.1,daddr=10.0.0.2,protocol=ipv4,ipproto=tcp,sport=1,dport=2:0",
            "saddr=::1,daddr=::2,protocol=ipv6,ipproto=udplite,sport=1:0",
            "ipproto=icmp6,protocol=ipv4:0",
        ] {
            assert!(Rule::parse(Bound::Max, text, &Host).is_ok(), "{text}");
        }
    }

    #[test]
    fn rules_that_exclude_each_other_are_refused() {
        for (max, expect, fits) in [
            ("0", "1", false),
            ("5", "5", true),
            ("4", "5", false),
            ("0", "reason=NO_SOCKET:1", false),
            ("reason=NO_SOCKET:0", "1", true),
            ("reason=NO_SOCKET:4", "location=ip_rcv,reason=NO_SOCKET:5", false),
            ("reason=NO_SOCKET:4", "reason=NETFILTER_DROP:5", true),
            ("dport=53,reason=NO_SOCKET:4", "reason=NO_SOCKET:5", true),
        ] {
            let rules = [rule(Bound::Max, max), rule(Bound::Expect, expect)];
            let error = between(&rules).err().map(|error| error.to_string());
            assert_eq!(error.is_none(), fits, "{max} {expect}");
            assert!(error.is_none_or(|error| error.contains(&format!("'--max {max}' allows fewer"))));
        }
    }
}
