//! What a function returned, by its type.

use std::fmt;

use nix::errno::Errno;

use super::plan::Function;
use crate::{
    escape::Escaped,
    kernel::btf::{Prototype, Returns},
};

/// The largest error that a function returns as a negative number or a pointer.
const MAX_ERRNO: i64 = 4095;

/// The reasons that are no drop, and the one that gives none: `SKB_NOT_DROPPED_YET` and `SKB_CONSUMED`.
const NO_DROPS: std::ops::RangeInclusive<i64> = 0..=1;

/// A value with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What it says.
    pub kind: Kind,
    /// Whether the compiler may have changed what the function returns.
    pub is_unsure: bool,
    /// The lower half of the register, to recognise a value that is passed on.
    pub low: u32,
}

/// What a value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the function returns none.
    Nothing,
    /// Its type is unknown, or its return was not seen.
    Unknown,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(i64),
    /// A number that is an error, by its negative.
    Error(i32),
    /// An error, by the drop reason that its negative is.
    NegativeReason(i32, String),
    /// No address.
    Null,
    /// An address, of something.
    Pointer,
    /// An error in place of an address.
    ErrorPointer(i32),
    /// A name.
    Name(String),
    /// A drop reason that is a drop, without its prefix.
    Reason(i64, String),
    /// A verdict of a netfilter hook that drops.
    HookDrop,
}

impl Value {
    /// What a register says about a function's value.
    #[must_use]
    pub fn new(function: &Function, prototype: Option<&Prototype>, register: Option<u64>) -> Self {
        let low = low_half(register.unwrap_or_default());
        let kind = match (register, prototype) {
            (Some(register), Some(prototype)) => kind_of(prototype, register),
            // What the compiler has changed is often not described; an error looks like one.
            (Some(_), None) if is_errno(low.cast_signed().into()) => {
                Kind::Error(low.cast_signed().wrapping_neg())
            }
            _ => Kind::Unknown,
        };
        Self { kind, is_unsure: function.is_changed() || prototype.is_none(), low }
    }

    /// Whether it says that something went wrong.
    #[must_use]
    pub fn is_error(&self) -> bool {
        use Kind::{Error, ErrorPointer, HookDrop, NegativeReason, Reason};
        matches!(self.kind, Error(_) | NegativeReason(..) | ErrorPointer(_) | Reason(..) | HookDrop)
    }

    /// Whether it says no, as the answer to a question.
    #[must_use]
    pub fn is_no(&self) -> bool {
        matches!(self.kind, Kind::Bool(false) | Kind::Null | Kind::Number(0))
    }

    /// Whether it says anything.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(self.kind, Kind::Nothing | Kind::Unknown)
    }

    /// The error's name, or the number.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        Some(match &self.kind {
            Kind::Error(number) | Kind::ErrorPointer(number) => {
                errno(*number).unwrap_or_else(|| format!("error {number}"))
            }
            Kind::NegativeReason(_, name) | Kind::Reason(_, name) => Escaped::new(name).to_string(),
            Kind::HookDrop => "NF_DROP".to_owned(),
            _ => return None,
        })
    }

    /// The same value, if a caller returned its negative as a drop reason: since routing gives reasons, a negative
    /// number need not be an error's.
    pub fn read_as_reason(&mut self, reason: &Self) {
        if let (Kind::Error(number), Kind::Reason(code, name)) = (&self.kind, &reason.kind)
            && i64::from(*number) == *code
        {
            self.kind = Kind::NegativeReason(*number, name.clone());
        }
    }
}

/// What is printed behind the `=`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |number: i32| errno(number).map(|name| format!(" ({name})")).unwrap_or_default();
        match &self.kind {
            Kind::Nothing => return Ok(()),
            Kind::Unknown => return f.write_str("?"),
            Kind::Bool(value) => write!(f, "{value}"),
            Kind::Number(value) => write!(f, "{value}"),
            Kind::Error(number) => write!(f, "-{number}{}", named(*number)),
            Kind::NegativeReason(number, name) => write!(f, "-{number} (-{})", Escaped::new(name)),
            Kind::Null => f.write_str("NULL"),
            Kind::Pointer => f.write_str("pointer"),
            Kind::ErrorPointer(number) => write!(f, "ERR_PTR(-{number}){}", named(*number)),
            Kind::Name(name) | Kind::Reason(_, name) => Escaped::new(name).fmt(f),
            Kind::HookDrop => f.write_str("0 (NF_DROP)"),
        }?;
        if self.is_unsure { f.write_str(" ?") } else { Ok(()) }
    }
}

/// The lower half of a register.
fn low_half(register: u64) -> u32 {
    u32::try_from(register & u64::from(u32::MAX)).unwrap_or_default()
}

/// What a hook wants to become of a packet, without what it adds for some of that.
fn verdict_of(register: u64) -> u8 {
    register.to_le_bytes()[0]
}

fn kind_of(prototype: &Prototype, register: u64) -> Kind {
    match &prototype.returns {
        Returns::Nothing => Kind::Nothing,
        Returns::Other => Kind::Unknown,
        // The upper bits of the register mean nothing.
        Returns::Bool => Kind::Bool(register & 0xff != 0),
        Returns::Number { is_signed: false, .. } if prototype.is_hook && verdict_of(register) == 0 => {
            Kind::HookDrop
        }
        Returns::Number { is_signed, bits } => number(*is_signed, *bits, register),
        Returns::Pointer => match register.cast_signed() {
            0 => Kind::Null,
            value if is_errno(value) => Kind::ErrorPointer(i32::try_from(-value).unwrap_or_default()),
            _ => Kind::Pointer,
        },
        Returns::Enum { name, values } => {
            let value = i64::from(low_half(register).cast_signed());
            let found = values.iter().find(|(_, known)| *known == value).map(|(name, _)| name.as_str());
            if name == "skb_drop_reason" && !NO_DROPS.contains(&value) {
                let name = found
                    .map_or(value.to_string(), |name| name.trim_start_matches("SKB_DROP_REASON_").to_owned());
                return Kind::Reason(value, name);
            }
            found.map_or(Kind::Number(value), |name| Kind::Name(name.to_owned()))
        }
    }
}

fn number(is_signed: bool, bits: u32, register: u64) -> Kind {
    let unused = 64_u32.saturating_sub(bits).min(63);
    let value = if is_signed {
        (register << unused).cast_signed() >> unused
    } else {
        return i64::try_from(register << unused >> unused).map_or(Kind::Unknown, Kind::Number);
    };
    if bits >= 32 && is_errno(value) {
        return Kind::Error(i32::try_from(-value).unwrap_or_default());
    }
    Kind::Number(value)
}

fn is_errno(value: i64) -> bool {
    (-MAX_ERRNO..0).contains(&value)
}

/// The name of an error, if it is one that this system knows.
fn errno(number: i32) -> Option<String> {
    // Not shown to programs, and therefore in no list.
    const ENOTSUPP: i32 = 524;
    match Errno::from_raw(number) {
        _ if number == ENOTSUPP => Some("ENOTSUPP".to_owned()),
        Errno::UnknownErrno => None,
        known => Some(format!("{known:?}")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn function(name: &str) -> Function {
        Function { start: 0, name: name.into(), module: "kernel".into() }
    }

    pub fn prototype(returns: Returns) -> Prototype {
        Prototype { returns, packet: None, is_hook: false }
    }

    pub const INT: Returns = Returns::Number { is_signed: true, bits: 32 };

    fn shown(returns: Returns, register: u64) -> String {
        Value::new(&function("f"), Some(&prototype(returns)), Some(register)).to_string()
    }

    fn reasons() -> Returns {
        let values = [("SKB_NOT_DROPPED_YET", 0), ("SKB_CONSUMED", 1), ("SKB_DROP_REASON_IP_RPFILTER", 16)];
        let values = values.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Returns::Enum { name: "skb_drop_reason".to_owned(), values }
    }

    #[test]
    fn values_are_what_their_types_say() {
        assert_eq!(shown(INT, 0xffff_ffea), "-22 (EINVAL)", "the upper half means nothing");
        assert_eq!(shown(INT, 0x1_0000_0000), "0");
        assert_eq!(shown(INT, (-5000_i32).cast_unsigned().into()), "-5000");
        assert_eq!(shown(INT, (-524_i64).cast_unsigned()), "-524 (ENOTSUPP)");
        assert_eq!(
            shown(Returns::Number { is_signed: false, bits: 32 }, 0xffff_ffff_ffff_ffea),
            "4294967274"
        );
        assert_eq!(shown(Returns::Number { is_signed: true, bits: 8 }, 0xff), "-1");
        assert_eq!(shown(Returns::Bool, 0x100), "false");
        assert_eq!(shown(Returns::Bool, 1), "true");
        assert_eq!(shown(Returns::Pointer, 0), "NULL");
        assert_eq!(shown(Returns::Pointer, 0xff11_0000_0000_1000), "pointer");
        assert_eq!(shown(Returns::Pointer, (-12_i64).cast_unsigned()), "ERR_PTR(-12) (ENOMEM)");
        assert_eq!(shown(Returns::Nothing, 5), "");
        assert_eq!(shown(Returns::Other, 5), "?");
        assert_eq!(shown(reasons(), 16), "IP_RPFILTER");
        assert_eq!(shown(reasons(), 0), "SKB_NOT_DROPPED_YET");
        assert_eq!(shown(reasons(), 99), "99");
    }

    #[test]
    fn what_is_not_known_is_a_question_mark() {
        assert_eq!(Value::new(&function("f"), None, Some(3)).to_string(), "?");
        assert_eq!(Value::new(&function("f"), None, Some(0xffff_ffea)).to_string(), "-22 (EINVAL) ?");
        assert_eq!(Value::new(&function("f"), Some(&prototype(INT)), None).to_string(), "?");
        let changed = Value::new(&function("f.constprop.0"), Some(&prototype(INT)), Some(0xffff_ffea));
        assert_eq!(changed.to_string(), "-22 (EINVAL) ?");
    }

    #[test]
    fn a_hook_that_returns_zero_drops() {
        let hook = Prototype { is_hook: true, ..prototype(Returns::Number { is_signed: false, bits: 32 }) };
        let value = |register| Value::new(&function("f"), Some(&hook), Some(register));
        assert_eq!(value(0).to_string(), "0 (NF_DROP)");
        assert!(value(0).is_error() && !value(1).is_error());
    }

    #[test]
    fn a_negative_number_may_be_a_reason() {
        let reason = Value::new(&function("f"), Some(&prototype(reasons())), Some(16));
        let mut value = Value::new(&function("g"), Some(&prototype(INT)), Some((-16_i64).cast_unsigned()));
        assert_eq!(value.to_string(), "-16 (EBUSY)");
        value.read_as_reason(&reason);
        assert_eq!(value.to_string(), "-16 (-IP_RPFILTER)");
        assert!(value.is_error());
        assert_eq!(value.error().as_deref(), Some("IP_RPFILTER"));
    }
}
