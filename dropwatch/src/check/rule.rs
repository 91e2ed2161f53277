//! `[KEY=VALUE[,KEY=VALUE…]:]N`: what a run may drop at most, or must drop at least.

#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, net::IpAddr};

use super::contradictions;
use crate::{
    filter::NameLookup,
    model::{
        belonging,
        class::Class,
        interface,
        keys::Key,
        location::return_probe,
        namespace::WhichNetns,
        protocols,
        report::{Row, Value},
        suggestions,
        symbol_spec::{CodePlace, SymbolSpec},
    },
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
    /// As it was written.
    pub text: String,
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
    /// A class.
    Class(Class),
    /// A place in the kernel.
    Location(CodePlace),
    /// A function.
    Function(SymbolSpec),
    /// An interface's name.
    Iface(String),
    /// Network namespaces.
    Netns(WhichNetns),
    /// A protocol, by its name or number in words.
    Protocol(String),
    /// An address.
    Address(IpAddr),
    /// A port.
    Port(u16),
    /// A CPU.
    Cpu(u32),
    /// A process, by its name or its number.
    Process(String),
    /// A container or a service, by its name or the number of the container, or a cgroup, by its path.
    Container(String),
}

/// How many drops count for a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// These do.
    pub counted: u64,
    /// These may: they are at places without a name.
    pub nameless: u64,
    /// These may: their class is not known.
    pub unclassed: u64,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid rule '{rule}' for '{bound}': {problem}")]
pub struct RuleError {
    pub(super) rule: String,
    pub(super) bound: Bound,
    pub(super) problem: String,
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
    pub fn parse(bound: Bound, text: &str, names: &impl NameLookup) -> Result<Self, RuleError> {
        let error = |problem| RuleError { rule: text.to_owned(), bound, problem };
        let (conditions, number) = match text.rsplit_once(':') {
            Some((conditions, number)) => (Some(conditions), number),
            None if text.contains('=') => {
                return Err(error("it ends in a colon and a number of drops".into()));
            }
            None => (None, text),
        };
        let drops = number.parse().map_err(|_| error(format!("'{number}' is not a number of drops")))?;
        let conditions: Vec<_> = conditions
            .into_iter()
            .flat_map(|conditions| conditions.split(','))
            .map(|condition| Condition::parse(condition, names))
            .collect::<Result<_, _>>()
            .map_err(error)?;
        contradictions::within(&conditions).map_err(error)?;
        if bound == Bound::Expect && drops == 0 {
            return Err(error("at least 0 is always true: expect 1 or more".into()));
        }
        Ok(Self { bound, text: text.to_owned(), conditions, drops })
    }

    /// The keys it names.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.conditions.iter().map(|condition| condition.key)
    }

    /// The functions it names.
    pub fn functions(&self) -> impl Iterator<Item = &SymbolSpec> {
        self.conditions.iter().filter_map(|condition| match &condition.wanted {
            Wanted::Location(CodePlace::Named(function)) | Wanted::Function(function) => Some(function),
            _ => None,
        })
    }

    /// The class that it is about, if it is about one.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        self.conditions.iter().find_map(|condition| match condition.wanted {
            Wanted::Class(class) => Some(class),
            _ => None,
        })
    }

    /// How many of a row's drops count for this rule.
    #[must_use]
    pub fn tally(&self, by: &[Key], row: &Row) -> Tally {
        let (of_class, unclassed) = match self.class() {
            None => (row.count, 0),
            Some(class) if row.class == Some(class) => (row.count - row.unclassed, row.unclassed),
            Some(_) => (0, row.unclassed),
        };
        match self.counts(by, row) {
            Some(true) => Tally { counted: of_class, nameless: 0, unclassed },
            Some(false) => Tally::default(),
            None => Tally { counted: 0, nameless: of_class + unclassed, unclassed: 0 },
        }
    }

    /// Whether the drops of a row, which has these keys, count for this rule if they are of its class; unknown if only a
    /// name that the row lacks could tell.
    #[must_use]
    pub fn counts(&self, by: &[Key], row: &Row) -> Option<bool> {
        let value = |key| by.iter().position(|by| *by == key).and_then(|column| row.values.get(column));
        let mut answer = Some(true);
        for condition in self.conditions.iter().filter(|condition| condition.key != Key::Class) {
            match value(condition.key).map_or(Some(false), |value| condition.wanted.is(value)) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => answer = None,
            }
        }
        answer
    }
}

impl Condition {
    fn parse(text: &str, names: &impl NameLookup) -> Result<Self, String> {
        let (key, value) = match text.split_once('=') {
            Some(pair) => pair,
            None if Class::from_name(text).is_some() => (Key::Class.word(), text),
            None => {
                let hint = suggestions::hint(text, Class::ALL.into_iter().map(Class::name));
                return Err(format!("'{text}' is neither a class nor of the form KEY=VALUE{hint}"));
            }
        };
        let key = Key::find(key, &KEYS)?;
        if value.is_empty() {
            return Err(format!("'{text}' has no value"));
        }
        Ok(Self { text: text.to_owned(), key, wanted: Wanted::parse(key, value, names)? })
    }
}

/// The keys a rule can have: all but those whose values have parts, the socket and the call chain.
const KEYS: [Key; 15] = {
    let [keys @ .., _socket, process, container, _stack] = Key::ALL;
    let [location, function, reason, class, iface, netns, protocol, ipproto, saddr, daddr, sport, dport, cpu] =
        keys;
    [
        location, function, reason, class, iface, netns, protocol, ipproto, saddr, daddr, sport, dport, cpu,
        process, container,
    ]
};

impl Wanted {
    fn parse(key: Key, value: &str, names: &impl NameLookup) -> Result<Self, String> {
        let number = |what: &str| format!("'{value}' is not {what}");
        Ok(match key {
            Key::Reason => Self::Reason(names.reason(value)?),
            Key::Class => Self::Class(class(value)?),
            Key::Location | Key::Socket | Key::Stack => {
                let place = CodePlace::parse(value)?;
                names.code(&place)?;
                Self::Location(place)
            }
            Key::Function => {
                let function = SymbolSpec::parse(value).and_then(whole_function)?;
                names.code(&CodePlace::Named(function.clone()))?;
                Self::Function(function)
            }
            Key::Iface => interface::check(value).map(|()| Self::Iface(value.to_owned()))?,
            Key::Netns => Self::Netns(names.netns(value)?),
            Key::Protocol => Self::Protocol(protocols::ethertype(ethertype(value)?).into_owned()),
            Key::IpProto => Self::Protocol(protocols::ip_protocol(ip_protocol(value)?).into_owned()),
            Key::Saddr | Key::Daddr => Self::Address(value.parse().map_err(|_| number("an address"))?),
            Key::Sport | Key::Dport => Self::Port(value.parse().map_err(|_| number("a port"))?),
            Key::Cpu => {
                let cpu = value.parse().map_err(|_| number("a CPU's number"))?;
                names.cpu(cpu)?;
                Self::Cpu(cpu)
            }
            Key::Process => Self::Process(value.to_owned()),
            Key::Container => Self::Container(value.to_owned()),
        })
    }

    /// Whether a value matches; unknown if the value has no name, or a return probe hides what it is.
    fn is(&self, value: &Value) -> Option<bool> {
        let is_hidden = match value {
            Value::Location { location, .. } => location.is_hidden(),
            Value::Function(Some(function)) => return_probe(&function.symbol.text()).is_some(),
            _ => false,
        };
        self.is_as_shown(value).filter(|matches| *matches || !is_hidden)
    }

    fn is_as_shown(&self, value: &Value) -> Option<bool> {
        if let (Self::Location(place), Value::Location { location, .. }) = (self, value) {
            return place.contains(location);
        }
        Some(match (self, value) {
            (Self::Reason(codes), Value::Reason(Some(reason))) => codes.contains(&reason.code),
            (Self::Function(spec), Value::Function(Some(function))) => {
                spec.means(&function.symbol.text(), &function.module.text())
            }
            (Self::Function(_), Value::Function(None))
            | (Self::Container(_), Value::Container { container: None, is_known: false }) => return None,
            (Self::Process(wanted), Value::Process(owner)) => return belonging::is_process(wanted, owner),
            (Self::Container(wanted), Value::Container { container: Some(container), .. }) => {
                belonging::is_container(wanted, container)
            }
            (Self::Iface(name), Value::Iface(Some(iface))) => iface.is_called(name),
            (Self::Netns(WhichNetns::One(one)), Value::Netns(Some(netns))) => one.is(netns.namespace),
            (Self::Netns(WhichNetns::Named(name)), Value::Netns(Some(netns))) => {
                netns.names.iter().any(|known| *known == **name)
            }
            (Self::Protocol(_), Value::Protocol(Some(_)) | Value::IpProto(Some(_))) => {
                matches!(self, Self::Protocol(name) if *name == value.words())
            }
            (Self::Address(address), Value::Address(Some(of))) => address == of,
            (Self::Port(port), Value::Port(Some(of))) => port == of,
            (Self::Cpu(cpu), Value::Cpu(of)) => cpu == of,
            _ => false,
        })
    }
}

fn class(text: &str) -> Result<Class, String> {
    Class::from_name(text).ok_or_else(|| {
        let names = Class::ALL.map(Class::name);
        let hint = suggestions::hint(text, names);
        format!("there is no class '{text}'{hint} (the classes are {})", names.join(", "))
    })
}

/// A function has no offset.
fn whole_function(spec: SymbolSpec) -> Result<SymbolSpec, String> {
    match spec.offset {
        Some(_) => Err(format!("'{spec}' is a place in a function: use location={spec}")),
        None => Ok(spec),
    }
}

/// An ethertype by its name or its number in hexadecimal.
fn ethertype(text: &str) -> Result<u16, String> {
    let number = text.strip_prefix("0x").map(|digits| u16::from_str_radix(digits, 16));
    let named = || protocols::ethertype_number(text);
    number
        .and_then(Result::ok)
        .or_else(named)
        .ok_or_else(|| unknown("protocol", text, protocols::ethertype_names(), "0x88cc"))
}

/// A protocol above IP by its name or number.
fn ip_protocol(text: &str) -> Result<u8, String> {
    let named = || protocols::ip_protocol_number(text);
    text.parse()
        .ok()
        .or_else(named)
        .ok_or_else(|| unknown("protocol above IP", text, protocols::ip_protocol_names(), "47"))
}

fn unknown(what: &str, text: &str, known: impl Iterator<Item = &'static str>, number: &str) -> String {
    let hint = suggestions::hint(text, known);
    format!("there is no {what} '{text}'{hint} (a number, like {number}, is one)")
}
