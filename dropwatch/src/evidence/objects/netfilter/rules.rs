//! Chains, rules and elements of sets, from the kernel's netlink messages.

use super::hook::{Family, Hook};
use crate::evidence::netlink::{attribute, attributes, text};

/// Bytes before the attributes of a message.
pub const HEADER: usize = 4;
/// No value is longer.
const LONGEST: usize = 64;
/// A type of user data: a comment.
const COMMENT: u8 = 0;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    pub family: Family,
    pub name: Vec<u8>,
}

/// A chain that packets enter from a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    pub table: Table,
    pub name: Vec<u8>,
    pub hook: Hook,
    pub priority: i32,
    /// The devices it is for; none if it is for all.
    pub devices: Vec<Vec<u8>>,
    /// Whether it drops what reaches its end.
    pub drops: bool,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub handle: u64,
    pub expressions: Vec<Expression>,
    pub comment: Option<Vec<u8>>,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    Payload {
        base: u32,
        offset: usize,
        length: usize,
        to: Register,
    },
    Meta {
        key: u32,
        to: Register,
    },
    Value {
        to: Register,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    Compare {
        from: Register,
        how: u32,
        data: Vec<u8>,
    },
    Range {
        from: Register,
        is_outside: bool,
        low: Vec<u8>,
        high: Vec<u8>,
    },
    Mask {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        flip: Vec<u8>,
    },
    /// Between the machine's order and the network's, in words of so many bytes.
    Swap {
        from: Register,
        to: Register,
        length: usize,
        word: usize,
    },
    Lookup {
        set: Vec<u8>,
        from: Register,
        to: Target,
        is_inverse: bool,
    },
    Counter {
        packets: u64,
    },
    Reject(Reject),
    /// It changes nothing that this rule's verdict depends on.
    Silent,
    /// It may match or not, and writes what is not known.
    Opaque,
    /// It may be the rule's verdict, and whether it drops is not known.
    Strange,
}

/// Where the result of a lookup goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whether there is such an element is the result.
    Nowhere,
    /// The element is a verdict.
    Verdict,
    /// The element is a value.
    Value,
}

/// Where it begins among the bytes of all registers.
pub type Register = usize;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    /// To a program, by the number of its queue.
    Queue,
    Continue,
    Return,
    Jump(Vec<u8>),
    Goto(Vec<u8>),
}

/// The error that the sender gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    pub kind: u32,
    pub code: u8,
}

impl Reject {
    /// In words.
    pub fn words(self) -> &'static str {
        match (self.kind, self.code) {
            (1, _) => "TCP reset",
            (2, 0) => "ICMP no route",
            (2, 1) | (0, 3) => "ICMP port unreachable",
            (2, 2) | (0, 1) => "ICMP host unreachable",
            (2, 3) | (0, 9 | 10 | 13) => "ICMP administratively prohibited",
            _ => "ICMP unreachable",
        }
    }
}

/// An element of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub is_end: bool,
    pub verdict: Option<Verdict>,
}

/// The number in an attribute of a message, in the network's order.
pub fn number(message: &[u8], header: usize, kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*attribute(message, header, kind)?.first_chunk()?))
}

/// The same of eight bytes.
pub fn long(message: &[u8], header: usize, kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(*attribute(message, header, kind)?.first_chunk()?))
}

/// The name in an attribute of a message.
pub fn name(message: &[u8], header: usize, kind: u16) -> Option<Vec<u8>> {
    attribute(message, header, kind).map(|bytes| text(bytes).to_vec())
}

/// The table of a message whose first attribute names it.
pub fn table(message: &[u8]) -> Option<Table> {
    Some(Table { family: Family::of(*message.first()?)?, name: name(message, HEADER, 1)? })
}

/// A table, and whether its chains are not asked.
pub fn a_table(message: &[u8]) -> Option<(Table, bool)> {
    const FLAGS: u16 = 2;
    const DORMANT: u32 = 1;
    Some((table(message)?, number(message, HEADER, FLAGS).unwrap_or(0) & DORMANT != 0))
}

/// A chain, if it has a hook.
pub fn base_chain(message: &[u8]) -> Option<BaseChain> {
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const NUMBER: u16 = 1;
    const PRIORITY: u16 = 2;
    const DEVICE: u16 = 3;
    const DEVICES: u16 = 4;
    let table = table(message)?;
    let hook = attribute(message, HEADER, HOOK)?;
    let several = attribute(hook, 0, DEVICES).into_iter().flat_map(|list| attributes(list, 0));
    let mut devices: Vec<_> = several.map(|(_, device)| text(device).to_vec()).collect();
    if devices.is_empty() {
        devices.extend(name(hook, 0, DEVICE));
    }
    Some(BaseChain {
        hook: table.family.hook(number(hook, 0, NUMBER)?)?,
        table,
        name: name(message, HEADER, NAME)?,
        priority: number(hook, 0, PRIORITY)?.cast_signed(),
        devices,
        drops: number(message, HEADER, POLICY) == Some(0),
    })
}

/// A rule.
pub fn rule(message: &[u8]) -> Option<Rule> {
    const HANDLE: u16 = 3;
    const EXPRESSIONS: u16 = 4;
    const USER_DATA: u16 = 7;
    let list = attribute(message, HEADER, EXPRESSIONS).unwrap_or_default();
    Some(Rule {
        handle: long(message, HEADER, HANDLE)?,
        expressions: attributes(list, 0).map(|(_, one)| expression(one)).collect(),
        comment: attribute(message, HEADER, USER_DATA).and_then(comment),
    })
}

/// The table and the chain that a rule is in.
pub fn chain_of_rule(message: &[u8]) -> Option<(Table, Vec<u8>)> {
    Some((table(message)?, name(message, HEADER, 2)?))
}

/// The comment in a rule's user data: types, lengths and values.
fn comment(mut data: &[u8]) -> Option<Vec<u8>> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value).to_vec());
        }
        data = &rest[value.len()..];
    }
    None
}

/// The elements in an answer about a set.
pub fn elements(message: &[u8]) -> Vec<Element> {
    const ELEMENTS: u16 = 3;
    const DATA: u16 = 2;
    const FLAGS: u16 = 3;
    let list = attribute(message, HEADER, ELEMENTS).unwrap_or_default();
    let one = |(_, element)| Element {
        is_end: number(element, 0, FLAGS).unwrap_or(0) & 1 != 0,
        verdict: attribute(element, 0, DATA).and_then(in_data),
    };
    attributes(list, 0).map(one).collect()
}

/// One step of a rule. What is not known may do anything.
fn expression(bytes: &[u8]) -> Expression {
    let data = attribute(bytes, 0, 2).unwrap_or_default();
    let of = Parts(data);
    let parsed = match name(bytes, 0, 1).unwrap_or_default().as_slice() {
        b"payload" => of.payload(),
        b"meta" => of.meta(),
        b"immediate" => of.immediate(),
        b"cmp" => of.compare(),
        b"range" => of.range(),
        b"bitwise" => of.mask(),
        b"byteorder" => of.swap(),
        b"lookup" => of.lookup(),
        b"counter" => of.long(2).map(|packets| Expression::Counter { packets }),
        b"reject" => of.reject(),
        b"queue" => Some(Expression::Verdict(Verdict::Queue)),
        b"target" => of.target(),
        // Neither writes a register nor ends a rule.
        b"log" | b"notrack" | b"dup" | b"last" => Some(Expression::Silent),
        // Reads without a register to write to set something.
        b"ct" if of.number(1).is_none() => Some(Expression::Silent),
        b"ct" | b"limit" | b"quota" | b"connlimit" | b"fib" | b"socket" | b"rt" | b"exthdr" | b"numgen"
        | b"hash" | b"osf" | b"xfrm" | b"tunnel" | b"match" | b"dynset" | b"objref" | b"inner" => {
            Some(Expression::Opaque)
        }
        _ => None,
    };
    parsed.unwrap_or(Expression::Strange)
}

/// The attributes of an expression.
#[derive(Clone, Copy)]
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn number(self, kind: u16) -> Option<u32> {
        number(self.0, 0, kind)
    }

    fn long(self, kind: u16) -> Option<u64> {
        long(self.0, 0, kind)
    }

    fn length(self, kind: u16) -> Option<usize> {
        usize::try_from(self.number(kind)?).ok().filter(|length| *length <= LONGEST)
    }

    fn register(self, kind: u16) -> Option<Register> {
        register(self.number(kind)?)
    }

    /// A value.
    fn value(self, kind: u16) -> Option<Vec<u8>> {
        let data = attribute(self.0, 0, kind)?;
        let value = attribute(data, 0, 1)?;
        (value.len() <= LONGEST).then(|| value.to_vec())
    }

    fn payload(self) -> Option<Expression> {
        let Some(to) = self.register(1) else { return Some(Expression::Silent) };
        let (base, offset, length) = (self.number(2)?, self.number(3)? as usize, self.length(4)?);
        Some(Expression::Payload { base, offset, length, to })
    }

    fn meta(self) -> Option<Expression> {
        let Some(to) = self.register(1) else { return Some(Expression::Silent) };
        Some(Expression::Meta { key: self.number(2)?, to })
    }

    fn immediate(self) -> Option<Expression> {
        if self.number(1)? == 0 {
            return in_data(attribute(self.0, 0, 2)?).map(Expression::Verdict);
        }
        Some(Expression::Value { to: self.register(1)?, data: self.value(2)? })
    }

    fn compare(self) -> Option<Expression> {
        Some(Expression::Compare { from: self.register(1)?, how: self.number(2)?, data: self.value(3)? })
    }

    fn range(self) -> Option<Expression> {
        let (from, is_outside) = (self.register(1)?, self.number(2)? == 1);
        Some(Expression::Range { from, is_outside, low: self.value(3)?, high: self.value(4)? })
    }

    fn mask(self) -> Option<Expression> {
        if self.number(6).unwrap_or(0) != 0 {
            return Some(Expression::Opaque);
        }
        let (from, to, length) = (self.register(1)?, self.register(2)?, self.length(3)?);
        let (mask, flip) = (self.value(4)?, self.value(5)?);
        (mask.len() == length && flip.len() == length).then_some(Expression::Mask { from, to, mask, flip })
    }

    fn swap(self) -> Option<Expression> {
        let (from, to) = (self.register(1)?, self.register(2)?);
        let (length, word) = (self.length(4)?, self.length(5)?);
        Some(Expression::Swap { from, to, length, word })
    }

    fn lookup(self) -> Option<Expression> {
        let to = match self.number(3) {
            None => Target::Nowhere,
            Some(0) => Target::Verdict,
            Some(_) => Target::Value,
        };
        let is_inverse = self.number(5).unwrap_or(0) & 1 != 0;
        Some(Expression::Lookup { set: name(self.0, 0, 1)?, from: self.register(2)?, to, is_inverse })
    }

    fn reject(self) -> Option<Expression> {
        let code = attribute(self.0, 0, 2).and_then(|code| code.first()).copied();
        Some(Expression::Reject(Reject { kind: self.number(1)?, code: code.unwrap_or(0) }))
    }

    /// A target of iptables.
    fn target(self) -> Option<Expression> {
        match name(self.0, 0, 1)?.as_slice() {
            b"REJECT" => Some(Expression::Reject(Reject { kind: 0, code: u8::MAX })),
            b"NFQUEUE" => Some(Expression::Verdict(Verdict::Queue)),
            b"LOG" | b"NFLOG" | b"MARK" | b"CONNMARK" | b"CT" | b"TCPMSS" | b"SET" | b"DSCP" | b"TOS"
            | b"TTL" | b"HL" | b"CLASSIFY" | b"TRACE" | b"CHECKSUM" | b"TEE" | b"RATEEST" | b"SECMARK"
            | b"CONNSECMARK" | b"HMARK" | b"LED" | b"AUDIT" => Some(Expression::Silent),
            _ => None,
        }
    }
}

/// The verdict in data.
fn in_data(data: &[u8]) -> Option<Verdict> {
    verdict(attribute(data, 0, 2)?)
}

/// A verdict; none if it is not known.
pub fn verdict(bytes: &[u8]) -> Option<Verdict> {
    let chain = || name(bytes, 0, 2);
    Some(match number(bytes, 0, 1)?.cast_signed() {
        -5 => Verdict::Return,
        -4 => Verdict::Goto(chain()?),
        -3 => Verdict::Jump(chain()?),
        -1 => Verdict::Continue,
        code if code < 0 => return None,
        code => match code & 0xff {
            0 => Verdict::Drop,
            3 => Verdict::Queue,
            _ => Verdict::Accept,
        },
    })
}

/// Where a register begins: four of sixteen bytes, or sixteen of four in the same place.
fn register(number: u32) -> Option<Register> {
    match usize::try_from(number).ok()? {
        number @ 1..=4 => Some((number - 1) * 16),
        number @ 8..=23 => Some((number - 8) * 4),
        _ => None,
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evidence::netlink::writer::{attribute as put, nested};

    /// An expression as the kernel sends it.
    pub fn sent(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
        nested(1, &[put(1, format!("{name}\0").as_bytes()), nested(2, parts)])
    }

    fn parsed(name: &str, parts: &[Vec<u8>]) -> Expression {
        let sent = sent(name, parts);
        expression(&sent[4..])
    }

    fn be(kind: u16, value: u32) -> Vec<u8> {
        put(kind, &value.to_be_bytes())
    }

    fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
        nested(kind, &[put(1, bytes)])
    }

    #[test]
    fn expressions_are_what_nft_made_of_a_rule() {
        let to = [be(1, 1), be(2, 2), be(3, 2), be(4, 2)];
        let payload = Expression::Payload { base: 2, offset: 2, length: 2, to: 0 };
        assert_eq!(parsed("payload", &to), payload);
        assert_eq!(parsed("meta", &[be(1, 9), be(2, 16)]), Expression::Meta { key: 16, to: 4 });
        assert_eq!(parsed("meta", &[be(3, 1), be(2, 3)]), Expression::Silent, "it sets a mark");
        let compare = Expression::Compare { from: 0, how: 0, data: vec![0x19, 0x64] };
        assert_eq!(parsed("cmp", &[be(1, 1), be(2, 0), value(3, &[0x19, 0x64])]), compare);
        assert_eq!(parsed("ct", &[be(1, 1), be(2, 0)]), Expression::Opaque);
        assert_eq!(parsed("counter", &[put(2, &7_u64.to_be_bytes())]), Expression::Counter { packets: 7 });
        assert_eq!(parsed("from the future", &[]), Expression::Strange);
        assert_eq!(parsed("target", &[put(1, b"DNAT\0")]), Expression::Strange);
    }

    #[test]
    fn verdicts_are_drops_jumps_and_the_rest() {
        let immediate = |code: i32, chain: &str| {
            let verdict = nested(2, &[be(1, code.cast_unsigned()), put(2, format!("{chain}\0").as_bytes())]);
            parsed("immediate", &[be(1, 0), nested(2, &[verdict])])
        };
        assert_eq!(immediate(0, ""), Expression::Verdict(Verdict::Drop));
        assert_eq!(immediate(1, ""), Expression::Verdict(Verdict::Accept));
        assert_eq!(immediate(-3, "media"), Expression::Verdict(Verdict::Jump(b"media".into())));
        let reject = parsed("reject", &[be(1, 1), put(2, &[0])]);
        assert_eq!(reject, Expression::Reject(Reject { kind: 1, code: 0 }));
        assert_eq!(Reject { kind: 2, code: 1 }.words(), "ICMP port unreachable");
    }

    #[test]
    fn a_chain_has_its_hook_and_its_policy() {
        let hook = nested(4, &[be(1, 1), put(2, &(-5_i32).to_be_bytes())]);
        let parts = [put(1, b"filter\0"), put(3, b"input\0"), hook, be(5, 0)];
        let message = [&[1, 0, 0, 0][..], &parts.concat()].concat();
        let chain = base_chain(&message).expect("a chain");
        assert_eq!((chain.hook, chain.priority, chain.drops), (Hook::Input, -5, true));
        assert_eq!(chain.table, Table { family: Family::Inet, name: b"filter".into() });
        assert_eq!(base_chain(&[&[1, 0, 0, 0][..], &parts[..2].concat()].concat()), None);
    }

    #[test]
    fn a_rule_has_its_handle_and_its_comment() {
        let user_data = put(7, b"\x02\x01x\x00\x06jumbo\0");
        let parts = [put(3, &9_u64.to_be_bytes()), nested(4, &[sent("log", &[])]), user_data];
        let rule = rule(&[&[1, 0, 0, 0][..], &parts.concat()].concat()).expect("a rule");
        let (handle, comment) = (9, Some(b"jumbo".into()));
        assert_eq!(rule, Rule { handle, expressions: vec![Expression::Silent], comment });
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (rule(&bytes), base_chain(&bytes), a_table(&bytes), elements(&bytes), comment(&bytes));
            let _ = (expression(&bytes), verdict(&bytes), chain_of_rule(&bytes));
        }

        #[test]
        fn no_expression_makes_it_panic(
            name in prop::sample::select(vec!["payload", "meta", "immediate", "cmp", "range", "bitwise", "byteorder", "lookup"]),
            parts in prop::collection::vec((1..7_u16, prop::collection::vec(any::<u8>(), 0..20)), 0..7),
        ) {
            let parts: Vec<_> = parts.iter().map(|(kind, bytes)| put(*kind, bytes)).collect();
            let _ = parsed(name, &parts);
        }
    }
}
