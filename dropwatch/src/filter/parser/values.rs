//! What follows the words that say what it is: addresses, ports, names.

use std::ops::Range;

use dropwatch_common::{
    packet::{family, transport},
    probe::FILTER_NAMES,
};

use super::{Kind, Parser, Qualifier, Result};
use crate::{
    filter::{
        NameLookup,
        lexer::Token,
        number::{self, Address},
        tree::{Direction, Expr, Net, Term},
        words,
    },
    model::{belonging::Belonging, class::Class, interface, protocols, suggestions, symbol_spec::CodePlace},
};

/// A result without a place: the value is at fault.
type Value<T> = std::result::Result<T, String>;

impl<'a, R: NameLookup> Parser<'a, R> {
    /// A value that is known to be one.
    pub(super) fn value(
        &mut self,
        word: &'a str,
        span: Range<usize>,
        qualifier: &Qualifier<'_>,
    ) -> Result<Expr> {
        let start = span.start;
        let term = match qualifier.kind {
            Kind::Host if qualifier.protocol == Some("ether") => {
                let address = number::hardware(word).map_err(|problem| self.error(span.clone(), problem))?;
                Term::Hardware { direction: qualifier.direction.unwrap_or(Direction::Either), address }
            }
            Kind::Host | Kind::Net => self.address(word, &span, qualifier)?,
            Kind::Location => self.location(word, &span)?,
            _ => self.plain_value(word, qualifier).map_err(|problem| self.error(span.clone(), problem))?,
        };
        self.counted(term, start..span.end)
    }

    /// A value of one word.
    fn plain_value(&mut self, word: &str, qualifier: &Qualifier<'_>) -> Value<Term> {
        let transports = transports(qualifier.protocol).unwrap_or(transport::ANY);
        let direction = qualifier.direction.unwrap_or(Direction::Either);
        match qualifier.kind {
            Kind::Port => {
                let (port, transports) = self.port(word, transports)?;
                Ok(Term::Port { transports, direction, range: (port, port) })
            }
            Kind::PortRange => {
                let (range, transports) = self.port_range(word, transports)?;
                Ok(Term::Port { transports, direction, range })
            }
            Kind::Proto if qualifier.protocol == Some("ether") => ethertype(word).map(Term::Ethertype),
            Kind::Proto => {
                let families = match qualifier.protocol {
                    Some("ip") => family::IPV4,
                    Some(_) => family::IPV6,
                    None => family::IPV4 | family::IPV6,
                };
                Ok(Term::Protocol { families, number: self.protocol_number(word)? })
            }
            Kind::Reason => {
                let codes = match word.parse() {
                    Ok(code) => vec![code],
                    Err(_) => self.resolver.reason(word)?,
                };
                Ok(Term::Reason { name: word.to_owned(), codes })
            }
            Kind::Class => {
                let class = Class::from_name(word).ok_or_else(|| no_class(word))?;
                self.resolver.classes()?;
                Ok(Term::Class(class))
            }
            Kind::Process => Ok(Term::Belongs(Belonging::Process(word.to_owned()))),
            Kind::Container => Ok(Term::Belongs(Belonging::Container(word.to_owned()))),
            Kind::Cgroup => Belonging::cgroup(word).map(Term::Belongs),
            Kind::Iface => self.iface(word).map(Term::Iface),
            Kind::Netns => Ok(Term::Netns { name: word.to_owned(), which: self.resolver.netns(word)? }),
            Kind::Host | Kind::Net | Kind::Location => Err(format!("'{word}' is not a word")),
        }
    }

    /// An interface's name; each one is passed to the kernel once.
    fn iface(&mut self, word: &str) -> Value<String> {
        interface::check(word)?;
        if !self.interfaces.iter().any(|known| known == word) {
            if self.interfaces.len() == FILTER_NAMES {
                return Err(format!(
                    "a filter has room for {FILTER_NAMES} names of interfaces, and here it is full"
                ));
            }
            self.interfaces.push(word.to_owned());
        }
        Ok(word.to_owned())
    }

    /// A port by its number, or by the name of a service, which also says whose port it is.
    fn port(&self, word: &str, transports: u8) -> Value<(u16, u8)> {
        let is_number = word.starts_with(|first: char| first.is_ascii_digit());
        let services = self.resolver.services();
        match services.port(word, transports) {
            Some(port) => port,
            None if is_number => Ok((number::port(word)?, transports)),
            None => {
                let hint = suggestions::hint(word, services.names());
                Err(format!("'{word}' is neither a port nor a service of /etc/services{hint}"))
            }
        }
    }

    /// Ports from one to another, in either order; or just one.
    fn port_range(&self, word: &str, transports: u8) -> Value<((u16, u16), u8)> {
        let is_number = word.starts_with(|first: char| first.is_ascii_digit());
        if is_number {
            return Ok((number::range(word)?, transports));
        }
        let is_name = self.resolver.services().port(word, transports).is_some();
        let (one, other) = match word.split_once('-') {
            Some(range) if !is_name => range,
            _ => (word, word),
        };
        let ((one, of_one), (other, of_other)) = (self.port(one, transports)?, self.port(other, transports)?);
        let both = if of_one == of_other { of_one } else { transports };
        Ok(((one.min(other), one.max(other)), both))
    }

    /// A protocol above IP by number or name.
    fn protocol_number(&self, word: &str) -> Value<u8> {
        if word.starts_with(|first: char| first.is_ascii_digit()) {
            return number::octet(word);
        }
        self.resolver
            .protocol(word)
            .or_else(|| protocols::ip_protocol_number(word))
            .ok_or_else(|| no_protocol(word, protocols::ip_protocol_names()))
    }

    /// An address, with what may follow it.
    fn address(&mut self, word: &'a str, span: &Range<usize>, qualifier: &Qualifier<'_>) -> Result<Term> {
        let (word, bits) = match word.split_once('/') {
            Some((word, "")) => (word, Some(self.prefix_length()?)),
            Some((word, bits)) => (word, Some((bits, span.start + word.len() + 1..span.end))),
            None => (word, self.prefix_apart()?),
        };
        let span = span.start..span.start + word.len();
        let address = Address::parse(word).map_err(|problem| self.error(span.clone(), problem))?;
        let mask = match bits {
            None => self.mask()?,
            Some(_) => None,
        };
        let net = match (bits, mask) {
            (Some((bits, at)), _) => {
                let bits = number::number(bits).map_err(|problem| self.error(at.clone(), problem))?;
                self.only_for_nets(qualifier, address, bits == 128, at.clone())?;
                address.with_prefix(bits).map_err(|problem| self.error(span.start..at.end, problem))?
            }
            (None, Some((mask, at))) => {
                self.only_for_nets(qualifier, address, false, at.clone())?;
                address.with_mask(mask).map_err(|problem| self.error(span.start..at.end, problem))?
            }
            (None, None) if qualifier.kind == Kind::Net => address.net(),
            (None, None) => address.host(),
        };
        let families = self.families(qualifier.protocol, &net, span)?;
        let direction = qualifier.direction.unwrap_or(Direction::Either);
        Ok(Term::Address { families, direction, net })
    }

    /// `/8` with a blank before it.
    fn prefix_apart(&mut self) -> Result<Option<(&'a str, Range<usize>)>> {
        let mut ahead = self.lexer;
        if !ahead.take("/") {
            return Ok(None);
        }
        self.lexer = ahead;
        self.prefix_length().map(Some)
    }

    /// What follows a slash.
    fn prefix_length(&mut self) -> Result<(&'a str, Range<usize>)> {
        let next = self.lexer.next();
        match next.token {
            Token::Word(bits) => Ok((bits, next.span)),
            _ => Err(self.error(next.span, "the length of the prefix is missing")),
        }
    }

    /// `mask 255.0.0.0`.
    fn mask(&mut self) -> Result<Option<(Address, Range<usize>)>> {
        let mut ahead = self.lexer;
        if ahead.next().token != Token::Keyword("mask") {
            return Ok(None);
        }
        let next = ahead.next();
        let Token::Word(mask) = next.token else {
            return Err(self.error(next.span, "a mask is missing, like 255.255.0.0"));
        };
        self.lexer = ahead;
        let mask = Address::parse(mask).map_err(|problem| self.error(next.span.clone(), problem))?;
        Ok(Some((mask, next.span)))
    }

    /// libpcap takes a whole address of IPv6 with its `/128` for a host.
    fn only_for_nets(
        &self,
        qualifier: &Qualifier<'_>,
        address: Address,
        whole: bool,
        span: Range<usize>,
    ) -> Result<()> {
        if qualifier.kind == Kind::Net || (whole && matches!(address, Address::V6(_))) {
            return Ok(());
        }
        Err(self.error(span, "only a network has a mask: write 'net'"))
    }

    /// Whose addresses are compared.
    fn families(&self, protocol: Option<&str>, net: &Net, span: Range<usize>) -> Result<u8> {
        let families = match (protocol, net.address.is_ipv4()) {
            (None, true) => family::IPV4 | family::ARP | family::RARP,
            (Some("ip"), true) => family::IPV4,
            (Some("arp"), true) => family::ARP,
            (Some("rarp"), true) => family::RARP,
            (None | Some("ip6"), false) => family::IPV6,
            (Some(word), true) => {
                return Err(self.error(span, format!("'{word}' has no addresses of IPv4")));
            }
            (Some(word), false) => {
                return Err(self.error(span, format!("'{word}' has no addresses of IPv6")));
            }
        };
        Ok(families)
    }

    /// A function; its module may stand apart, as reports print it.
    fn location(&mut self, word: &str, span: &Range<usize>) -> Result<Term> {
        let mut text = word.to_owned();
        let mut ahead = self.lexer;
        if ahead.take("[")
            && let Some(module) = ahead.take_through(']')
        {
            text = format!("{word}[{}]", module.trim());
            self.lexer = ahead;
        }
        match CodePlace::parse(&text).map_err(|problem| self.error(span.clone(), problem))? {
            CodePlace::Named(place) => Ok(Term::Location(place)),
            CodePlace::Address(address) => Ok(Term::CodeAddress(address)),
        }
    }
}

/// Whose ports a protocol's word means.
pub(super) fn transports(protocol: Option<&str>) -> Option<u8> {
    match protocol {
        None => Some(transport::ANY),
        Some("tcp") => Some(transport::TCP),
        Some("udp") => Some(transport::UDP),
        Some("sctp") => Some(transport::SCTP),
        Some(_) => None,
    }
}

/// Whether a word is a protocol's name after these words.
pub(super) fn names_protocol(word: &str, qualifier: &Qualifier<'_>) -> bool {
    match qualifier.protocol {
        Some("ether") => ethertype_number(word).is_some(),
        _ => protocols::ip_protocol_number(word).is_some(),
    }
}

/// An ethertype by a name: one of libpcap, or one that reports print.
fn ethertype_number(name: &str) -> Option<u16> {
    let known = words::ETHERTYPE_NAMES.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).or_else(|| protocols::ethertype_number(name))
}

/// An ethertype by number or name.
fn ethertype(word: &str) -> Value<u16> {
    /// Smaller numbers are lengths, and libpcap takes them for addresses inside.
    const FIRST: u16 = 0x600;
    if !word.starts_with(|first: char| first.is_ascii_digit()) {
        let names = words::ETHERTYPE_NAMES.iter().map(|(name, _)| *name);
        let names = names.chain(protocols::ethertype_names());
        return ethertype_number(word).ok_or_else(|| no_protocol(word, names));
    }
    let number = number::number(word)?;
    match u16::try_from(number) {
        Ok(number) if number >= FIRST => Ok(number),
        _ => Err(format!("{word} is no ethertype: they are 0x0600 to 0xffff")),
    }
}

fn no_protocol<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let hint = suggestions::nearest(word, known).map(|name| format!(": did you mean '\\{name}'?"));
    format!("there is no protocol '{word}'{}", hint.unwrap_or_default())
}

/// What to write in place of a word that is no class.
fn no_class(word: &str) -> String {
    let names = Class::ALL.map(Class::name);
    format!(
        "there is no class '{word}'{} (known classes: {})",
        suggestions::hint(word, names),
        names.join(", ")
    )
}
