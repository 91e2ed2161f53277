//! `[KEY=VALUE[,KEY=VALUE…]:]N`: what a run may drop at most, or must drop at least.

use std::{borrow::Cow, fmt, net::IpAddr};

use crate::{
    filter::Resolver,
    keys::Key,
    protocols,
    report::{Row, Value},
    spelling,
};

/// Which way a rule's number binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// No more drops than that.
    Max,
    /// No fewer.
    Expect,
}

/// One rule, as it was written and as it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which way the number binds.
    pub bound: Bound,
    /// The rule's text.
    pub text: String,
    /// Drops meet all of them to count.
    pub conditions: Vec<Condition>,
    /// The number.
    pub drops: u64,
}

/// What a drop must have to count for a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where it must have it.
    pub key: Key,
    /// What.
    pub wanted: Wanted,
}

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of these reasons, by the kernel's numbers.
    Reason(Vec<u32>),
    /// A place in the kernel.
    Location(Place),
    /// An interface's name.
    Iface(String),
    /// A network namespace's number.
    Netns(u32),
    /// A protocol, by its name or number in words.
    Protocol(String),
    /// An address.
    Address(IpAddr),
    /// A port.
    Port(u16),
    /// A CPU.
    Cpu(u32),
}

/// `SYMBOL`, `SYMBOL[MODULE]`, `SYMBOL+0xOFF` or both: every address in the function, or the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The function's name.
    pub symbol: String,
    /// Bytes from its start.
    pub offset: Option<u64>,
    /// The module it is in.
    pub module: Option<String>,
}

/// The names a rule may use, of the running kernel.
pub trait Vocabulary {
    /// The numbers of a reason; an error with the nearest name, if there is none of that name.
    fn reason(&self, name: &str) -> Result<Vec<u32>, String>;
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid rule '{rule}' for '{bound}': {problem}")]
pub struct RuleError {
    rule: String,
    bound: Bound,
    problem: String,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Max => "--max",
            Self::Expect => "--expect",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.bound, self.text)
    }
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// The rule and what is wrong with it, with the nearest valid name.
    pub fn parse(bound: Bound, text: &str, names: &impl Resolver) -> Result<Self, RuleError> {
        let error = |problem| RuleError { rule: text.to_owned(), bound, problem };
        let (conditions, number) = match text.rsplit_once(':') {
            Some((conditions, number)) => (Some(conditions), number),
            None if text.contains('=') => {
                return Err(error("it ends in a colon and a number of drops".into()));
            }
            None => (None, text),
        };
        let drops = number.parse().map_err(|_| error(format!("'{number}' is not a number of drops")))?;
        let conditions = conditions
            .into_iter()
            .flat_map(|conditions| conditions.split(','))
            .map(|condition| Condition::parse(condition, names))
            .collect::<Result<_, _>>()
            .map_err(error)?;
        Ok(Self { bound, text: text.to_owned(), conditions, drops })
    }

    /// The keys it asks for.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.conditions.iter().map(|condition| condition.key)
    }

    /// Whether the drops of a row, which has these keys, count for this rule.
    #[must_use]
    pub fn counts(&self, by: &[Key], row: &Row) -> bool {
        let value = |key| by.iter().position(|by| *by == key).and_then(|column| row.values.get(column));
        let mut conditions = self.conditions.iter();
        conditions.all(|condition| value(condition.key).is_some_and(|value| condition.wanted.is(value)))
    }
}

impl Condition {
    fn parse(text: &str, names: &impl Resolver) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(format!("'{text}' is not of the form KEY=VALUE"));
        };
        let key = Key::find(key, &KEYS)?;
        if value.is_empty() {
            return Err(format!("'{text}' has no value"));
        }
        Ok(Self { key, wanted: Wanted::parse(key, value, names)? })
    }
}

/// The keys a rule can have: all but the call chain, which is no value.
const KEYS: [Key; 11] = {
    let [keys @ .., _stack] = Key::ALL;
    keys
};

impl Wanted {
    fn parse(key: Key, value: &str, names: &impl Resolver) -> Result<Self, String> {
        let number = |what: &str| format!("'{value}' is not {what}");
        Ok(match key {
            Key::Reason => Self::Reason(names.reason(value)?),
            Key::Location | Key::Stack => Self::Location(Place::parse(value)?),
            Key::Iface => Self::Iface(value.to_owned()),
            Key::Netns => Self::Netns(match value.parse() {
                Ok(inum) => inum,
                Err(_) => names.netns(value)?,
            }),
            Key::Protocol => Self::Protocol(protocols::ethertype(ethertype(value)?).into_owned()),
            Key::IpProto => Self::Protocol(protocols::ip_protocol(ip_protocol(value)?).into_owned()),
            Key::Saddr | Key::Daddr => Self::Address(value.parse().map_err(|_| number("an address"))?),
            Key::Sport | Key::Dport => Self::Port(value.parse().map_err(|_| number("a port"))?),
            Key::Cpu => Self::Cpu(value.parse().map_err(|_| number("a CPU's number"))?),
        })
    }

    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Reason(codes), Value::Reason(Some(reason))) => codes.contains(&reason.code),
            (Self::Location(place), Value::Location { location, .. }) => {
                location.symbol.as_ref().is_some_and(|symbol| {
                    place.names(&symbol.name)
                        && place.offset.is_none_or(|offset| offset == symbol.offset)
                        && place.module.as_ref().is_none_or(|module| **module == *symbol.module)
                })
            }
            (Self::Iface(name), Value::Iface(Some(iface))) => iface.name.as_deref() == Some(name),
            (Self::Netns(inum), Value::Netns(Some(netns))) => *inum == netns.inum,
            (Self::Protocol(_), Value::Protocol(Some(_)) | Value::IpProto(Some(_))) => {
                matches!(self, Self::Protocol(name) if *name == value.words())
            }
            (Self::Address(address), Value::Address(Some(of))) => address == of,
            (Self::Port(port), Value::Port(Some(of))) => port == of,
            (Self::Cpu(cpu), Value::Cpu(of)) => cpu == of,
            _ => false,
        }
    }
}

/// An ethertype by its name or its number in hexadecimal.
fn ethertype(text: &str) -> Result<u16, String> {
    let number = text.strip_prefix("0x").map(|digits| u16::from_str_radix(digits, 16));
    let named = || (0..=u16::MAX).find(|&number| protocols::ethertype(number) == text);
    number.and_then(Result::ok).or_else(named).ok_or_else(|| {
        let known = (0..=u16::MAX).map(protocols::ethertype).filter(|name| !name.starts_with("0x"));
        unknown("protocol", text, known, "0x88cc")
    })
}

/// A protocol above IP by its name or number.
fn ip_protocol(text: &str) -> Result<u8, String> {
    let named = || (0..=u8::MAX).find(|&number| protocols::ip_protocol(number) == text);
    text.parse().ok().or_else(named).ok_or_else(|| {
        let known = (0..=u8::MAX).map(protocols::ip_protocol).filter(|name| name.parse::<u8>().is_err());
        unknown("protocol above IP", text, known, "47")
    })
}

fn unknown(what: &str, text: &str, known: impl Iterator<Item = Cow<'static, str>>, number: &str) -> String {
    let known: Vec<_> = known.collect();
    let hint = spelling::hint(text, known.iter().map(|name| &**name));
    format!("there is no {what} '{text}'{hint} (a number, like {number}, is one)")
}

impl Place {
    /// Whether a function is meant: also by what it is called in the source, which a compiler that splits or clones
    /// a function adds to (`ip_rcv_finish_core.constprop.0`).
    #[must_use]
    pub fn names(&self, function: &str) -> bool {
        function == self.symbol || function.split('.').next() == Some(&self.symbol)
    }

    /// Reads `SYMBOL`, `SYMBOL[MODULE]` or `SYMBOL+0xOFF`.
    ///
    /// # Errors
    /// What it is not.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, module) = match text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) {
            Some((rest, module)) => (rest.trim_end(), Some(module.to_owned())),
            None => (text, None),
        };
        let (symbol, offset) = match rest.split_once('+') {
            Some((symbol, offset)) => {
                let digits = offset
                    .strip_prefix("0x")
                    .ok_or_else(|| format!("'{offset}' is not an offset like 0x1f"))?;
                let offset = u64::from_str_radix(digits, 16);
                (symbol, Some(offset.map_err(|_| format!("'+0x{digits}' is not an offset"))?))
            }
            None => (rest, None),
        };
        if symbol.is_empty() || symbol.contains(char::is_whitespace) {
            return Err(format!("'{text}' is not SYMBOL, SYMBOL[MODULE] or SYMBOL+0xOFF"));
        }
        Ok(Self { symbol: symbol.to_owned(), offset, module })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.symbol)?;
        if let Some(offset) = self.offset {
            write!(f, "+{offset:#x}")?;
        }
        self.module.iter().try_for_each(|module| write!(f, "[{module}]"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        reasons::Reason,
        report::{Iface, Netns},
        symbols::{Location, Symbol},
    };

    /// A kernel with two reasons.
    pub(crate) struct Kernel;

    impl Vocabulary for Kernel {
        fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
            match name {
                "NO_SOCKET" => Ok(vec![3]),
                "NETFILTER_DROP" | "core:12" => Ok(vec![12]),
                other => Err(format!("there is no reason '{other}'")),
            }
        }
    }

    impl Resolver for Kernel {
        fn netns(&self, name: &str) -> Result<u32, String> {
            if name == "self" { Ok(4_026_531_840) } else { Err(format!("there is no namespace '{name}'")) }
        }
    }

    /// The keys of [`row`].
    pub(crate) const BY: [Key; 2] = [Key::Location, Key::Reason];

    pub(crate) fn rule(bound: Bound, text: &str) -> Rule {
        Rule::parse(bound, text, &Kernel).expect("a rule")
    }

    fn problem(text: &str) -> String {
        Rule::parse(Bound::Max, text, &Kernel).expect_err("no rule").problem
    }

    pub(crate) fn row(symbol: &str, module: &str, reason: u32, count: u64) -> Row {
        let symbol = Symbol { name: symbol.into(), offset: 0x1f, size: Some(0x100), module: module.into() };
        let location = Location { address: 0xffff_ffff_8100_001f, symbol: Some(symbol) };
        let reason = Reason { code: reason, subsystem: Some("core".into()), name: None };
        let values = vec![Value::Location { location, source: None }, Value::Reason(Some(reason))];
        Row { count, total: Some(count), values }
    }

    #[test]
    fn a_number_alone_is_about_every_drop() {
        let rule = rule(Bound::Max, "0");
        assert_eq!((rule.drops, rule.conditions.len()), (0, 0));
        assert!(rule.counts(&BY, &row("tcp_v4_rcv", "kernel", 3, 1)));
    }

    #[test]
    fn conditions_are_all_met_or_it_does_not_count() {
        let rule = rule(Bound::Expect, "reason=NO_SOCKET,location=__udp4_lib_rcv:5");
        assert_eq!(rule.drops, 5);
        assert!(rule.counts(&BY, &row("__udp4_lib_rcv", "kernel", 3, 1)));
        assert!(!rule.counts(&BY, &row("__udp4_lib_rcv", "kernel", 12, 1)));
        assert!(!rule.counts(&BY, &row("tcp_v4_rcv", "kernel", 3, 1)));
    }

    #[test]
    fn a_location_is_a_function_or_a_place_in_one() {
        let here = row("gre_rcv", "ip_gre", 3, 1);
        for (text, counts) in [
            ("location=gre_rcv:0", true),
            ("location=gre_rcv[ip_gre]:0", true),
            ("location=gre_rcv [ip_gre]:0", true),
            ("location=gre_rcv[gre]:0", false),
            ("location=gre_rcv+0x1f:0", true),
            ("location=gre_rcv+0x1f[ip_gre]:0", true),
            ("location=gre_rcv+0x20:0", false),
            ("location=gre:0", false),
        ] {
            assert_eq!(rule(Bound::Max, text).counts(&BY, &here), counts, "{text}");
        }
    }

    #[test]
    fn a_function_is_known_by_its_name_in_the_source() {
        let clone = row("ip_rcv_finish_core.constprop.0", "kernel", 3, 1);
        assert!(rule(Bound::Max, "location=ip_rcv_finish_core:0").counts(&BY, &clone));
        assert!(rule(Bound::Max, "location=ip_rcv_finish_core.constprop.0:0").counts(&BY, &clone));
        assert!(!rule(Bound::Max, "location=ip_rcv_finish_core.part.0:0").counts(&BY, &clone));
        assert!(!rule(Bound::Max, "location=ip_rcv_finish:0").counts(&BY, &clone));
    }

    #[test]
    fn every_key_has_its_own_values() {
        let by = [
            Key::Saddr,
            Key::Daddr,
            Key::Dport,
            Key::IpProto,
            Key::Protocol,
            Key::Iface,
            Key::Netns,
            Key::Cpu,
        ];
        let address = |text: &str| Value::Address(Some(text.parse().expect("an address")));
        let values = vec![
            address("10.0.0.1"),
            address("2001:db8::1"),
            Value::Port(Some(53)),
            Value::IpProto(Some(17)),
            Value::Protocol(Some(0x88b5)),
            Value::Iface(Some(Iface { index: 2, name: Some("eth0".into()) })),
            Value::Netns(Some(Netns { inum: 4_026_531_840, name: None })),
            Value::Cpu(1),
        ];
        let row = Row { count: 1, total: None, values };
        for (text, counts) in [
            ("saddr=10.0.0.1:0", true),
            ("daddr=10.0.0.1:0", false),
            ("daddr=2001:db8:0::1:0", true),
            ("dport=53,ipproto=udp:0", true),
            ("ipproto=17:0", true),
            ("ipproto=6:0", false),
            ("protocol=0x88B5:0", true),
            ("protocol=ipv4:0", false),
            ("iface=eth0,netns=self:0", true),
            ("iface=eth:0", false),
            ("netns=4026531840:0", true),
            ("cpu=1:0", true),
            ("cpu=0:0", false),
            ("sport=53:0", false),
        ] {
            assert_eq!(rule(Bound::Max, text).counts(&by, &row), counts, "{text}");
        }
    }

    #[test]
    fn the_last_colon_is_before_the_number() {
        assert_eq!(rule(Bound::Max, "reason=core:12:7").drops, 7);
    }

    #[test]
    fn what_is_mistyped_is_refused() {
        assert!(problem("reason=NO_SOCKET").contains("a colon and a number"));
        assert!(problem("").contains("not a number"));
        assert!(problem("-1").contains("not a number"));
        assert!(problem("reason=NO_SOCKET:many").contains("'many'"));
        assert!(problem("reson=NO_SOCKET:0").contains("did you mean 'reason'"));
        assert!(problem("stack=ip_rcv:0").contains("it takes location, reason"));
        assert!(problem("ipproto=uddp:0").contains("did you mean 'udp'"));
        assert!(problem("protocol=ipv5:0").contains("did you mean 'ipv"));
        assert!(problem("saddr=10.0.0.0/8:0").contains("not an address"));
        assert!(problem("dport=65536:0").contains("not a port"));
        assert!(problem("netns=blue:0").contains("'blue'"));
        assert!(problem("reason=NO_SUCH:0").contains("NO_SUCH"));
        assert!(problem("reason:0").contains("KEY=VALUE"));
        assert!(problem("reason=:0").contains("no value"));
        assert!(problem("location=gre_rcv+12:0").contains("offset"));
        assert!(problem("location=[gre]:0").contains("SYMBOL"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = Rule::parse(Bound::Max, &text, &Kernel);
        }

        #[test]
        fn text_near_a_rule_does_not_either(text in "(reason|location|x)?=?[A-Z_]{0,9}[+,\\[\\]]?(0x)?[0-9]{0,3}:?[0-9]{0,25}") {
            let _ = Rule::parse(Bound::Expect, &text, &Kernel);
        }
    }
}
