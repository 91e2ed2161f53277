//! Comparisons of numbers: `tcp[13] & 2 != 0`.

use std::fmt;

use dropwatch_common::program::alu;

/// Two numbers compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// What is written first.
    pub left: Number,
    /// How they are compared.
    pub comparison: Comparison,
    /// What is written second.
    pub right: Number,
}

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`, `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A number of 32 bits, without a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Number {
    /// One that is written.
    Constant(u32),
    /// The packet's length.
    Length,
    /// Bytes of the packet.
    Bytes(Box<Access>),
    /// Zero less another.
    Negative(Box<Number>),
    /// What an operation makes of two.
    Calculated(Box<Number>, Operation, Box<Number>),
}

/// Bytes of a packet: `tcp[2:2]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where the bytes are counted from.
    pub header: Header,
    /// How many are in front.
    pub index: Number,
    /// How many there are: 1, 2 or 4.
    pub size: u8,
}

/// A header that bytes are counted from. Packets without it do not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The Ethernet header.
    Ether,
    /// What follows it, if it is of this ethertype.
    Network(&'static str, u16),
    /// What follows an IPv4 header, if it is of this protocol.
    Transport(&'static str, u8),
    /// `ICMPv6`, right behind an IPv6 header.
    Icmp6,
}

/// An operation on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `&`
    And,
    /// `|`
    Or,
    /// `^`
    Xor,
    /// `<<`
    ShiftLeft,
    /// `>>`
    ShiftRight,
}

impl Operation {
    /// As it is written.
    fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::And => "&",
            Self::Or => "|",
            Self::Xor => "^",
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
        }
    }

    /// One of [`alu`].
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Add => alu::ADD,
            Self::Sub => alu::SUB,
            Self::Mul => alu::MUL,
            Self::Div => alu::DIV,
            Self::Mod => alu::MOD,
            Self::And => alu::AND,
            Self::Or => alu::OR,
            Self::Xor => alu::XOR,
            Self::ShiftLeft => alu::LSH,
            Self::ShiftRight => alu::RSH,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.comparison {
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        };
        write!(f, "{} {sign} {}", self.left, self.right)
    }
}

impl Number {
    /// As a part of another.
    fn fmt_part(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calculated(..) => write!(f, "({self})"),
            _ => write!(f, "{self}"),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(number) => write!(f, "{number}"),
            Self::Length => f.write_str("len"),
            Self::Bytes(access) => access.fmt(f),
            Self::Negative(number) => {
                f.write_str("-")?;
                number.fmt_part(f)
            }
            Self::Calculated(one, operation, other) => {
                one.fmt_part(f)?;
                write!(f, " {} ", operation.sign())?;
                other.fmt_part(f)
            }
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.header {
            Header::Ether => "ether",
            Header::Network(word, _) | Header::Transport(word, _) => word,
            Header::Icmp6 => "icmp6",
        };
        match self.size {
            1 => write!(f, "{word}[{}]", self.index),
            size => write!(f, "{word}[{}:{size}]", self.index),
        }
    }
}
