//! The grammar: tokens to a tree.
//!
//! It is libpcap's, word for word. `and` and `or` bind alike and to the left; a value without a word before it
//! takes the words of the value before it, and parentheses neither hide those nor change them.

use std::ops::Range;

use dropwatch_common::{
    packet::{family, transport},
    rules::MAX_RULES,
};

use super::{
    FilterError, Resolver,
    lexer::{Lexer, Spanned, Token},
    number::{self, Address},
    tree::{Direction, Expr, Net, Term},
    words,
};
use crate::{check::rule::Place, spelling};

/// How deep `not` and parentheses may nest.
const MAX_DEPTH: usize = 64;

/// The longest name of an interface.
const MAX_IFACE: usize = 15;

type Result<T> = std::result::Result<T, FilterError>;

/// What was said before a value: what the value is.
#[derive(Clone, Copy, Debug)]
struct Qualifier<'a> {
    /// The word for a protocol before it, if there was one.
    protocol: Option<&'a str>,
    direction: Option<Direction>,
    kind: Kind,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
    Proto,
    Reason,
    Iface,
    Netns,
    Location,
}

impl Kind {
    /// The kind that a word announces.
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "host" => Self::Host,
            "net" => Self::Net,
            "port" => Self::Port,
            "portrange" => Self::PortRange,
            "proto" => Self::Proto,
            "reason" => Self::Reason,
            "iface" | "ifname" => Self::Iface,
            "netns" => Self::Netns,
            words::LOCATION => Self::Location,
            _ => return None,
        })
    }

    /// What is missing where the value should be.
    fn value(self) -> &'static str {
        match self {
            Self::Host => "an address",
            Self::Net => "a network",
            Self::Port => "a port",
            Self::PortRange => "a range of ports, like 8000-8080,",
            Self::Proto => "a protocol's number",
            Self::Reason => "a reason",
            Self::Iface => "an interface",
            Self::Netns => "a network namespace",
            Self::Location => "a function",
        }
    }

    /// Whether it goes with the words for protocols and directions.
    fn takes_direction(self) -> bool {
        matches!(self, Self::Host | Self::Net | Self::Port | Self::PortRange)
    }
}

/// What was read, and what a value after it would be.
type Read<'a> = (Expr, Option<Qualifier<'a>>);

pub(super) struct Parser<'a, R> {
    text: &'a str,
    lexer: Lexer<'a>,
    resolver: &'a R,
    depth: usize,
    rules: usize,
}

impl<'a, R: Resolver> Parser<'a, R> {
    pub(super) fn new(text: &'a str, resolver: &'a R) -> Self {
        Self { text, lexer: Lexer::new(text), resolver, depth: 0, rules: 0 }
    }

    /// The whole text.
    pub(super) fn parse(mut self) -> Result<Expr> {
        if self.lexer.peek().token == Token::End {
            return Err(self.error(self.text.len()..self.text.len(), "an expression is missing"));
        }
        let (expression, _) = self.expression(None)?;
        let end = self.lexer.next();
        match end.token {
            Token::End => Ok(expression),
            Token::Close => Err(self.error(end.span, "no parenthesis is open here")),
            token => Err(self.unexpected(&token, end.span, "'and' or 'or'")),
        }
    }

    fn error(&self, span: Range<usize>, problem: impl Into<String>) -> FilterError {
        FilterError::new(self.text, span, problem.into())
    }

    /// Terms with `and` and `or` between.
    fn expression(&mut self, before: Option<Qualifier<'a>>) -> Result<Read<'a>> {
        let (mut left, mut qualifier) = self.unary(before)?;
        loop {
            let join = match self.lexer.peek().token {
                Token::And => Expr::And,
                Token::Or => Expr::Or,
                _ => return Ok((left, qualifier)),
            };
            self.lexer.next();
            let (right, after) = self.unary(qualifier)?;
            left = join(left.into(), right.into());
            qualifier = after;
        }
    }

    /// A term, with `not` or in parentheses.
    fn unary(&mut self, before: Option<Qualifier<'a>>) -> Result<Read<'a>> {
        let next = self.lexer.next();
        match next.token {
            Token::Not => {
                let (inner, after) = self.nested(next.span, |parser| parser.unary(before))?;
                Ok((Expr::Not(inner.into()), after))
            }
            Token::Open => {
                let (inner, _) = self.nested(next.span.clone(), |parser| parser.expression(before))?;
                self.close(&next.span)?;
                Ok((inner, before))
            }
            Token::Keyword(word) => match before {
                // `ip6 proto 17 or gre` is an expression of libpcap and keeps its meaning.
                Some(qualifier)
                    if words::OURS.contains(&word)
                        && qualifier.kind == Kind::Proto
                        && qualifier.protocol != Some("ether") =>
                {
                    Ok((self.value(word, next.span, &qualifier)?, before))
                }
                _ => self.term(word, next.span),
            },
            Token::Word(word) => match before {
                Some(qualifier) => Ok((self.value(word, next.span, &qualifier)?, before)),
                None => Err(self.unknown(word, next.span)),
            },
            token => Err(self.unexpected(&token, next.span, "a term")),
        }
    }

    /// Reads something inside something.
    fn nested<T>(&mut self, span: Range<usize>, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(span, format!("this is nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let inner = read(self);
        self.depth -= 1;
        inner
    }

    fn close(&mut self, open: &Range<usize>) -> Result<()> {
        let next = self.lexer.next();
        match next.token {
            Token::Close => Ok(()),
            Token::End => Err(self.error(open.clone(), "this parenthesis is not closed")),
            token => Err(self.unexpected(&token, next.span, "'and', 'or' or ')'")),
        }
    }

    /// What begins with a keyword.
    fn term(&mut self, word: &'a str, span: Range<usize>) -> Result<Read<'a>> {
        match word {
            "less" => self.length(&span, |length| Term::Length(0, length)),
            "greater" => self.length(&span, |length| Term::Length(length, u32::MAX)),
            "src" | "dst" => self.directed(None, word, &span),
            "mask" => {
                Err(self.error(span, "a mask follows 'net' and an address: 'net 10.0.0.0 mask 255.0.0.0'"))
            }
            _ => match Kind::of(word) {
                Some(kind) => self.head(None, None, kind, &span),
                None => self.protocol(word, span),
            },
        }
    }

    /// A word for a protocol: a question by itself, or the first word of one.
    fn protocol(&mut self, word: &'a str, span: Range<usize>) -> Result<Read<'a>> {
        let next = self.lexer.peek();
        match next.token {
            Token::Keyword(direction @ ("src" | "dst")) => {
                self.lexer.next();
                self.directed(Some(word), direction, &next.span)
            }
            Token::Keyword(kind @ ("host" | "net" | "port" | "portrange" | "proto")) => {
                self.lexer.next();
                let kind = Kind::of(kind).expect("one of the above");
                self.head(Some(word), None, kind, &next.span)
            }
            _ => self.abbreviation(word, span),
        }
    }

    /// `tcp`, `ip`, and so on.
    fn abbreviation(&mut self, word: &str, span: Range<usize>) -> Result<Read<'a>> {
        let ethertype = words::ETHERTYPES.iter().find(|(known, _)| *known == word);
        let protocol = words::PROTOCOLS.iter().find(|known| known.word == word);
        let term = match (ethertype, protocol) {
            (Some((_, number)), _) => Term::Ethertype(*number),
            (_, Some(known)) => Term::Protocol { families: known.families, number: known.number },
            _ => return Err(self.error(span, "'ether' is followed by 'proto' and a number")),
        };
        Ok((self.counted(term, span)?, None))
    }

    /// What begins with `src` or `dst`, which may name both ends.
    fn directed(&mut self, protocol: Option<&'a str>, word: &str, span: &Range<usize>) -> Result<Read<'a>> {
        let mut direction = if word == "src" { Direction::Source } else { Direction::Destination };
        let other = if word == "src" { "dst" } else { "src" };
        let mut ahead = self.lexer;
        let joined = match ahead.next().token {
            Token::And => Some(Direction::Both),
            Token::Or => Some(Direction::Either),
            _ => None,
        };
        if let Some(joined) = joined
            && ahead.next().token == Token::Keyword(other)
        {
            direction = joined;
            self.lexer = ahead;
        }
        let next = self.lexer.peek();
        let kind = match next.token {
            Token::Keyword(word) => Kind::of(word).filter(|kind| kind.takes_direction()),
            _ => return self.head(protocol, Some(direction), Kind::Host, span),
        };
        let Some(kind) = kind else {
            let problem = format!("'{word}' is followed by host, net, port, portrange or an address");
            return Err(self.error(next.span, problem));
        };
        self.lexer.next();
        self.head(protocol, Some(direction), kind, &next.span)
    }

    /// The value after the words that say what it is; `span` is the last of those.
    fn head(
        &mut self,
        protocol: Option<&'a str>,
        direction: Option<Direction>,
        kind: Kind,
        span: &Range<usize>,
    ) -> Result<Read<'a>> {
        let qualifier = Qualifier { protocol, direction, kind };
        self.check(&qualifier, span)?;
        let operand = self.operand(&qualifier)?;
        Ok((operand, Some(qualifier)))
    }

    /// Refuses words that do not go together.
    fn check(&self, qualifier: &Qualifier<'_>, span: &Range<usize>) -> Result<()> {
        let Some(word) = qualifier.protocol else { return Ok(()) };
        let (goes, with) = match qualifier.kind {
            Kind::Port | Kind::PortRange => (transports(Some(word)).is_some(), "'tcp', 'udp' and 'sctp'"),
            Kind::Proto => (matches!(word, "ip" | "ip6" | "ether"), "'ip', 'ip6' and 'ether'"),
            Kind::Host | Kind::Net => {
                (matches!(word, "ip" | "ip6" | "arp" | "rarp"), "'ip', 'ip6', 'arp' and 'rarp'")
            }
            Kind::Reason | Kind::Iface | Kind::Netns | Kind::Location => (false, "nothing"),
        };
        if goes {
            return Ok(());
        }
        let what = match (word, qualifier.kind) {
            ("ether", Kind::Host | Kind::Net) => {
                return Err(self.error(span.clone(), "hardware addresses lie before what is read here"));
            }
            (_, Kind::Host) => "an address",
            (_, Kind::Net) => "a network",
            (_, Kind::Port) => "'port'",
            (_, Kind::PortRange) => "'portrange'",
            (_, Kind::Proto) => "'proto'",
            _ => "this",
        };
        Err(self.error(span.clone(), format!("{what} goes with {with}, not with '{word}'")))
    }

    /// A value; `not` and parentheses may be around it and others.
    fn operand(&mut self, qualifier: &Qualifier<'a>) -> Result<Expr> {
        let next = self.lexer.next();
        match next.token {
            Token::Not => {
                let inner = self.nested(next.span, |parser| parser.operand(qualifier))?;
                Ok(Expr::Not(inner.into()))
            }
            Token::Open => {
                let inner = self.nested(next.span.clone(), |parser| parser.operands(qualifier))?;
                self.close(&next.span)?;
                Ok(inner)
            }
            Token::Word(word) => self.value(word, next.span, qualifier),
            // libpcap wants a backslash here; nothing else could be meant.
            Token::Keyword(word) if qualifier.kind == Kind::Proto && names_protocol(word, qualifier) => {
                self.value(word, next.span, qualifier)
            }
            Token::Keyword(word) => {
                let hint = match qualifier.kind {
                    Kind::Reason | Kind::Iface | Kind::Netns | Kind::Location => {
                        format!(": for the name write '\\{word}'")
                    }
                    _ => String::new(),
                };
                let value = qualifier.kind.value();
                Err(self.error(next.span, format!("{value} is missing before the keyword '{word}'{hint}")))
            }
            token => Err(self.unexpected(&token, next.span, qualifier.kind.value())),
        }
    }

    /// Values with `and` and `or` between.
    fn operands(&mut self, qualifier: &Qualifier<'a>) -> Result<Expr> {
        let mut left = self.operand(qualifier)?;
        loop {
            let join = match self.lexer.peek().token {
                Token::And => Expr::And,
                Token::Or => Expr::Or,
                _ => return Ok(left),
            };
            self.lexer.next();
            left = join(left.into(), self.operand(qualifier)?.into());
        }
    }

    fn length(&mut self, span: &Range<usize>, term: impl FnOnce(u32) -> Term) -> Result<Read<'a>> {
        let Spanned { token: Token::Word(word), span } = self.lexer.next() else {
            return Err(self.error(span.clone(), "a number of bytes is missing after this"));
        };
        let length = number::number(word).map_err(|problem| self.error(span.clone(), problem))?;
        Ok((self.counted(term(length), span)?, None))
    }

    /// A term of the tree, if there is room for its rules.
    fn counted(&mut self, term: Term, span: Range<usize>) -> Result<Expr> {
        self.rules += term.rules();
        if self.rules > MAX_RULES {
            let problem = format!(
                "the filter is too large: it has room for {MAX_RULES} tests (src and dst count as two), and here it is full"
            );
            return Err(self.error(span, problem));
        }
        Ok(Expr::Term(term))
    }

    /// A value that is known to be one.
    fn value(&mut self, word: &'a str, span: Range<usize>, qualifier: &Qualifier<'_>) -> Result<Expr> {
        let start = span.start;
        let term = match qualifier.kind {
            Kind::Host | Kind::Net => self.address(word, &span, qualifier)?,
            Kind::Location => self.location(word, &span)?,
            _ => self.plain_value(word, qualifier).map_err(|problem| self.error(span.clone(), problem))?,
        };
        self.counted(term, start..span.end)
    }

    /// A value of one word.
    fn plain_value(&self, word: &str, qualifier: &Qualifier<'_>) -> std::result::Result<Term, String> {
        let port = |range| Term::Port {
            transports: transports(qualifier.protocol).unwrap_or(transport::ANY),
            direction: qualifier.direction.unwrap_or(Direction::Either),
            range,
        };
        match qualifier.kind {
            Kind::Port => number::port(word).map(|number| port((number, number))),
            Kind::PortRange => number::range(word).map(port),
            Kind::Proto if qualifier.protocol == Some("ether") => ethertype(word).map(Term::Ethertype),
            Kind::Proto => {
                let families = match qualifier.protocol {
                    Some("ip") => family::IPV4,
                    Some(_) => family::IPV6,
                    None => family::IPV4 | family::IPV6,
                };
                Ok(Term::Protocol { families, number: protocol_number(word)? })
            }
            Kind::Reason => Ok(Term::Reason { name: word.to_owned(), codes: self.resolver.reason(word)? }),
            Kind::Iface => iface(word).map(Term::Iface),
            Kind::Netns => {
                let number = match word.parse() {
                    Ok(number) => number,
                    Err(_) => self.resolver.netns(word)?,
                };
                Ok(Term::Netns { name: word.to_owned(), number })
            }
            Kind::Host | Kind::Net | Kind::Location => Err(format!("'{word}' is not a word")),
        }
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
        let place = Place::parse(&text).map_err(|problem| self.error(span.clone(), problem))?;
        Ok(Term::Location(place))
    }

    /// A word that nothing before it gives a meaning to.
    fn unknown(&self, word: &str, span: Range<usize>) -> FilterError {
        if word.split_once('[').is_some_and(|(protocol, _)| words::is_keyword(protocol)) {
            return self.error(span, "bytes of the packet cannot be asked for here");
        }
        if words::ELSEWHERE.contains(&word) {
            return self.error(span, format!("tcpdump's '{word}' is not available here"));
        }
        let is_value = word.starts_with(|first: char| first.is_ascii_digit() || first == ':');
        if is_value || Address::parse(word).is_ok() {
            let problem = format!("what is '{word}'? Write 'host', 'net', 'port' or the like before it");
            return self.error(span, problem);
        }
        let hint = spelling::hint(word, words::all());
        self.error(span, format!("there is no word '{word}'{hint}"))
    }

    fn unexpected(&self, token: &Token<'_>, span: Range<usize>, wanted: &str) -> FilterError {
        let problem = match token {
            Token::Bad(problem) => (*problem).to_owned(),
            Token::End => format!("{wanted} is missing at the end"),
            _ => format!("{wanted} is missing before this"),
        };
        self.error(span, problem)
    }
}

/// Whose ports a protocol's word means.
fn transports(protocol: Option<&str>) -> Option<u8> {
    match protocol {
        None => Some(transport::ANY),
        Some("tcp") => Some(transport::TCP),
        Some("udp") => Some(transport::UDP),
        Some("sctp") => Some(transport::SCTP),
        Some(_) => None,
    }
}

/// Whether a word is a protocol's name after these words.
fn names_protocol(word: &str, qualifier: &Qualifier<'_>) -> bool {
    match qualifier.protocol {
        Some("ether") => words::ETHERTYPE_NAMES.iter().any(|(name, _)| *name == word),
        _ => words::PROTOCOL_NAMES.iter().any(|(name, _)| *name == word),
    }
}

/// A protocol above IP by number or name.
fn protocol_number(word: &str) -> std::result::Result<u8, String> {
    if word.starts_with(|first: char| first.is_ascii_digit()) {
        return number::octet(word);
    }
    if let Some((_, number)) = words::PROTOCOL_NAMES.iter().find(|(name, _)| *name == word) {
        return Ok(*number);
    }
    Err(no_protocol(word, words::PROTOCOL_NAMES.iter().map(|(name, _)| *name)))
}

/// An ethertype by number or name.
fn ethertype(word: &str) -> std::result::Result<u16, String> {
    /// Smaller numbers are lengths, and libpcap takes them for addresses inside.
    const FIRST: u16 = 0x600;
    if !word.starts_with(|first: char| first.is_ascii_digit()) {
        let names = words::ETHERTYPE_NAMES;
        let found = names.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
        return found.ok_or_else(|| no_protocol(word, names.iter().map(|(name, _)| *name)));
    }
    let number = number::number(word)?;
    match u16::try_from(number) {
        Ok(number) if number >= FIRST => Ok(number),
        _ => Err(format!("{word} is no ethertype: they are 0x0600 to 0xffff")),
    }
}

fn no_protocol<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let hint = spelling::nearest(word, known).map(|name| format!(": did you mean '\\{name}'?"));
    format!("there is no protocol '{word}'{}", hint.unwrap_or_default())
}

/// An interface's name.
fn iface(word: &str) -> std::result::Result<String, String> {
    match word.len() {
        1..=MAX_IFACE => Ok(word.to_owned()),
        _ => Err(format!("'{word}' is no interface: a name has 1 to {MAX_IFACE} bytes")),
    }
}
