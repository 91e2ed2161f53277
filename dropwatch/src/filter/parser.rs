//! The grammar: tokens to a tree.
//!
//! It is libpcap's, word for word. `and` and `or` bind alike and to the left; a value without a word before it
//! takes the words of the value before it, and parentheses neither hide those nor change them.

mod relation;
mod values;

use std::ops::Range;

use dropwatch_common::program::MAX_INSNS;

use super::{
    FilterError, NameLookup, compile,
    lexer::{Lexer, Spanned, Token},
    number::{self, Address},
    tree::{Access, Comparison, Direction, Expr, Header, Number, Relation, Term},
    words,
};
use crate::model::suggestions;

/// How deep `not` and parentheses may nest.
const MAX_DEPTH: usize = 64;

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
    Class,
    Process,
    Container,
    Cgroup,
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
            "class" => Self::Class,
            "process" => Self::Process,
            "container" => Self::Container,
            "cgroup" => Self::Cgroup,
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
            Self::Class => "a class (lost, refused or harmless)",
            Self::Process => "a process",
            Self::Container => "a container",
            Self::Cgroup => "a cgroup's path",
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
    /// Instructions so far.
    insns: usize,
    /// Names of interfaces so far.
    interfaces: Vec<String>,
    /// Numbers of the comparison that is read.
    parts: usize,
}

impl<'a, R: NameLookup> Parser<'a, R> {
    pub(super) fn new(text: &'a str, resolver: &'a R) -> Self {
        Self { text, lexer: Lexer::new(text), resolver, depth: 0, insns: 0, interfaces: Vec::new(), parts: 0 }
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
        if relation::starts(self.lexer) {
            return Ok((self.relation()?, None));
        }
        let start = self.lexer;
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
                _ if matches!(word, "len" | "length") || self.bytes_follow(word) => {
                    self.lexer = start;
                    Ok((self.relation()?, None))
                }
                _ => self.term(word, next.span),
            },
            Token::Word(word) if is_access(word) => {
                self.lexer = start;
                Ok((self.relation()?, None))
            }
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
            "broadcast" | "multicast" => self.group(None, word, span),
            "vlan" => self.vlan(),
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
        let word = if word == "link" { "ether" } else { word };
        let next = self.lexer.peek();
        match next.token {
            Token::Keyword(direction @ ("src" | "dst")) => {
                self.lexer.next();
                self.directed(Some(word), direction, &next.span)
            }
            Token::Keyword(group @ ("broadcast" | "multicast")) => {
                self.lexer.next();
                self.group(Some(word), group, span.start..next.span.end)
            }
            Token::Keyword(kind @ ("host" | "net" | "port" | "portrange" | "proto")) => {
                self.lexer.next();
                let kind = Kind::of(kind).expect("one of the above");
                self.head(Some(word), None, kind, &next.span)
            }
            _ => self.abbreviation(word, span),
        }
    }

    /// `broadcast` and `multicast`, and of what.
    fn group(&mut self, protocol: Option<&str>, word: &str, span: Range<usize>) -> Result<Read<'a>> {
        let term = match (protocol, word) {
            (None | Some("ether"), "broadcast") => {
                Term::Hardware { direction: Direction::Destination, address: [0xff; 6] }
            }
            (None | Some("ether"), _) => Term::Group,
            (Some("ip"), "multicast") => multicast("ip", 16, Comparison::GreaterOrEqual, 224),
            (Some("ip6"), "multicast") => multicast("ip6", 24, Comparison::Equal, 255),
            (Some("ip"), _) => {
                let problem = "which addresses are broadcast depends on a netmask, which is not known here: write \
                               'broadcast', or 'dst host' and the address";
                return Err(self.error(span, problem));
            }
            (Some(protocol), _) => {
                return Err(self.error(span, format!("there is no {word} of '{protocol}'")));
            }
        };
        Ok((self.counted(term, span)?, None))
    }

    /// `vlan`, and which.
    fn vlan(&mut self) -> Result<Read<'a>> {
        /// A tag has twelve bits for it.
        const MAX: u32 = 4095;
        let next = self.lexer.peek();
        let number = match next.token {
            Token::Word(word) if word.starts_with(|first: char| first.is_ascii_digit()) => {
                self.lexer.next();
                let number =
                    number::number(word).map_err(|problem| self.error(next.span.clone(), problem))?;
                let number = u16::try_from(number).ok().filter(|number| u32::from(*number) <= MAX);
                let problem = || format!("{word} is no VLAN: their numbers end at {MAX}");
                Some(number.ok_or_else(|| self.error(next.span.clone(), problem()))?)
            }
            _ => None,
        };
        Ok((self.counted(Term::Vlan(number), next.span)?, None))
    }

    /// Whether bytes of a header are meant: its word has been read, and `[` is next.
    fn bytes_follow(&self, word: &str) -> bool {
        let mut ahead = self.lexer;
        words::header(word).is_some() && ahead.take("[")
    }

    /// `tcp`, `ip`, and so on.
    fn abbreviation(&mut self, word: &str, span: Range<usize>) -> Result<Read<'a>> {
        let ethertype = words::ETHERTYPES.iter().find(|(known, _)| *known == word);
        let protocol = words::PROTOCOLS.iter().find(|known| known.word == word);
        let term = match (ethertype, protocol) {
            (Some((_, number)), _) => Term::Ethertype(*number),
            (_, Some(known)) => Term::Protocol { families: known.families, number: known.number },
            _ => {
                let problem =
                    format!("'{word}' is followed by host, src, dst, proto, broadcast or multicast");
                return Err(self.error(span, problem));
            }
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
            Token::Word(word) if Address::parse(word).is_err() && !word.contains('/') => {
                const KINDS: [&str; 4] = ["host", "net", "port", "portrange"];
                let hint = suggestions::hint(word, KINDS);
                if !hint.is_empty() {
                    return Err(self.error(next.span, format!("'{word}' is not an address{hint}")));
                }
                return self.head(protocol, Some(direction), Kind::Host, span);
            }
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
            Kind::Port | Kind::PortRange => {
                (values::transports(Some(word)).is_some(), "'tcp', 'udp' and 'sctp'")
            }
            Kind::Proto => (matches!(word, "ip" | "ip6" | "ether"), "'ip', 'ip6' and 'ether'"),
            Kind::Host | Kind::Net => {
                let is_host = word == "ether" && qualifier.kind == Kind::Host;
                let goes = is_host || matches!(word, "ip" | "ip6" | "arp" | "rarp");
                (goes, "'ip', 'ip6', 'arp' and 'rarp'")
            }
            Kind::Reason
            | Kind::Class
            | Kind::Process
            | Kind::Container
            | Kind::Cgroup
            | Kind::Iface
            | Kind::Netns
            | Kind::Location => (false, "nothing"),
        };
        if goes {
            return Ok(());
        }
        let what = match (word, qualifier.kind) {
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
            // libpcap requires a backslash here, but the word is not ambiguous.
            Token::Keyword(word)
                if qualifier.kind == Kind::Proto && values::names_protocol(word, qualifier) =>
            {
                self.value(word, next.span, qualifier)
            }
            // Reports print it.
            Token::Keyword(word @ "host") if qualifier.kind == Kind::Netns => {
                self.value(word, next.span, qualifier)
            }
            Token::Keyword(word) => {
                let hint = match qualifier.kind {
                    Kind::Reason
                    | Kind::Process
                    | Kind::Container
                    | Kind::Iface
                    | Kind::Netns
                    | Kind::Location => {
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

    /// A term of the tree, if there is room for its instructions.
    fn counted(&mut self, term: Term, span: Range<usize>) -> Result<Expr> {
        self.insns += compile::length(&term);
        if self.insns > MAX_INSNS {
            let problem = format!(
                "the filter is too large: it has room for {MAX_INSNS} tests (src and dst count as two), and here it is full"
            );
            return Err(self.error(span, problem));
        }
        Ok(Expr::Term(term))
    }

    /// A word that nothing before it gives a meaning to.
    fn unknown(&self, word: &str, span: Range<usize>) -> FilterError {
        if words::ELSEWHERE.contains(&word) {
            return self.error(span, format!("tcpdump's '{word}' is not available here"));
        }
        let is_value = word.starts_with(|first: char| first.is_ascii_digit() || first == ':');
        if is_value || Address::parse(word).is_ok() {
            let problem = format!("what is '{word}'? Write 'host', 'net', 'port' or the like before it");
            return self.error(span, problem);
        }
        let hint = suggestions::hint(word, words::all());
        self.error(span, format!("there is no word '{word}'{hint}"))
    }

    fn unexpected(&self, token: &Token<'_>, span: Range<usize>, wanted: &str) -> FilterError {
        let problem = match token {
            Token::Bad(problem) => (*problem).to_owned(),
            Token::End => format!("{wanted} is missing at the end"),
            Token::Word(word) => {
                let is_value = word.starts_with(|first: char| first.is_ascii_digit() || first == ':');
                let known = words::all().filter(|known| !matches!(*known, "and" | "or" | "not"));
                let near = suggestions::nearest(word, known).filter(|_| !is_value);
                let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
                format!("{wanted} is missing before this{hint}")
            }
            _ => format!("{wanted} is missing before this"),
        };
        self.error(span, problem)
    }
}

/// Whether a word is that of a header with `[` behind it.
fn is_access(word: &str) -> bool {
    word.split_once('[').is_some_and(|(word, _)| words::header(word).is_some())
}

/// A comparison of one byte of a header with a number.
fn multicast(word: &'static str, index: u32, comparison: Comparison, number: u32) -> Term {
    let header = words::header(word).unwrap_or(Header::Ether);
    let access = Access { header, index: Number::Constant(index), size: 1 };
    Term::Relation(Relation {
        left: Number::Bytes(access.into()),
        comparison,
        right: Number::Constant(number),
    })
}
