//! What functions return, and which of their arguments is the packet.

use std::collections::{HashMap, HashSet};

use super::{Btf, Enum, Kind, MAX_CHAIN, Type};

/// The most arguments that are passed in registers.
const REGISTERS: usize = 6;

/// The structure of a packet.
pub const PACKET: &str = "sk_buff";

/// The structure with which netfilter calls its hooks.
pub const HOOK_STATE: &str = "nf_hook_state";

/// A function, as far as its calls are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// What it returns.
    pub returns: Returns,
    /// The place of its first `struct sk_buff *` among the arguments in registers, from 1.
    pub packet: Option<u8>,
    /// Whether it is a hook of netfilter, whose value is a verdict.
    pub is_hook: bool,
}

/// A type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returns {
    /// None.
    Nothing,
    /// True or false.
    Bool,
    /// A number of so many bits.
    Number {
        /// Whether it can be negative.
        is_signed: bool,
        /// How many bits.
        bits: u32,
    },
    /// An address.
    Pointer,
    /// One of some names.
    Enum {
        /// The type's name.
        name: String,
        /// Its values.
        values: Vec<(String, i64)>,
    },
    /// Something else.
    Other,
}

impl Btf<'_> {
    /// The functions of these names that this type information (not its base) describes.
    #[must_use]
    pub fn prototypes(&self, wanted: &HashSet<String>) -> HashMap<String, Prototype> {
        let functions = self.own_types().filter(|decl| decl.kind == Kind::Func);
        let named = functions.filter_map(|decl| Some((self.string(decl.name)?, decl)));
        named
            .filter(|(name, _)| wanted.contains(*name))
            .filter_map(|(name, decl)| Some((name.to_owned(), self.prototype(decl)?)))
            .collect()
    }

    /// The names of functions that this type information (not its base) describes, and that are called with all of some
    /// structures.
    pub fn functions_with(&self, structures: &[&str]) -> impl Iterator<Item = &str> {
        let functions = self.own_types().filter(|decl| decl.kind == Kind::Func);
        let with_them = functions.filter(move |decl| {
            let prototype = self.get(decl.size_or_id).filter(|decl| decl.kind == Kind::FuncProto);
            prototype.is_some_and(|prototype| {
                let arguments: Vec<_> = self.arguments(prototype).collect();
                structures.iter().all(|name| arguments.contains(&Some(name)))
            })
        });
        with_them.filter_map(|decl| self.string(decl.name))
    }

    /// The names of functions that this type information (not its base) describes, and that return nothing: of several by
    /// one name, all of them.
    #[must_use]
    pub fn returning_nothing(&self) -> HashSet<&str> {
        let functions = self.own_types().filter(|decl| decl.kind == Kind::Func);
        let returns_nothing = |decl: &Type<'_>| {
            let prototype = self.get(decl.size_or_id).filter(|decl| decl.kind == Kind::FuncProto);
            prototype.is_some_and(|prototype| prototype.size_or_id == 0)
        };
        let (nothing, something): (Vec<_>, Vec<_>) = functions.partition(returns_nothing);
        let names = |functions: Vec<Type<'_>>| -> HashSet<&str> {
            functions.iter().filter_map(|decl| self.string(decl.name)).collect()
        };
        &names(nothing) - &names(something)
    }

    /// The structures that arguments in registers point to.
    fn arguments(&self, prototype: Type<'_>) -> impl Iterator<Item = Option<&str>> {
        (0..prototype.count.min(REGISTERS))
            .map_while(move |number| prototype.word(number * 8 + 4))
            .map(|type_id| self.points_to(type_id))
    }

    fn prototype(&self, function: Type<'_>) -> Option<Prototype> {
        let prototype = self.get(function.size_or_id).filter(|decl| decl.kind == Kind::FuncProto)?;
        let arguments: Vec<_> = self.arguments(prototype).collect();
        let packet = arguments.iter().position(|name| *name == Some(PACKET));
        Some(Prototype {
            returns: self.returns(prototype.size_or_id),
            packet: packet.and_then(|place| u8::try_from(place + 1).ok()),
            is_hook: arguments.contains(&Some(HOOK_STATE)),
        })
    }

    /// The name of the structure that a pointer is to.
    fn points_to(&self, type_id: u32) -> Option<&str> {
        let pointer = self.resolve(type_id)?.of(Kind::Ptr)?;
        let aggregate = self.resolve(pointer)?;
        let has_name = aggregate.is_aggregate() || aggregate.kind == Kind::Fwd;
        self.string(aggregate.name).filter(|_| has_name)
    }

    fn returns(&self, type_id: u32) -> Returns {
        if type_id == 0 {
            return Returns::Nothing;
        }
        let Some(decl) = self.resolve(type_id) else { return Returns::Other };
        match decl.kind {
            Kind::Int => {
                // A byte above what says which bits count: 1 is signed, 4 is bool.
                let encoding = decl.word(0).unwrap_or_default() >> 24;
                if encoding & 4 != 0 {
                    return Returns::Bool;
                }
                Returns::Number { is_signed: encoding & 1 != 0, bits: decl.size_or_id.saturating_mul(8) }
            }
            Kind::Ptr => Returns::Pointer,
            Kind::Enum | Kind::Enum64 => {
                let name = self.string(decl.name).filter(|name| !name.is_empty());
                let name = name.or_else(|| self.typedef_of(type_id)).unwrap_or("enum");
                let found = Enum { btf: self, decl, name };
                let values = found.values().map(|(name, value)| (name.to_owned(), value)).collect();
                Returns::Enum { name: name.to_owned(), values }
            }
            _ => Returns::Other,
        }
    }

    /// The name that a type without one was given.
    fn typedef_of(&self, mut type_id: u32) -> Option<&str> {
        for _ in 0..MAX_CHAIN {
            let decl = self.get(type_id)?;
            if decl.kind == Kind::Typedef {
                return self.string(decl.name);
            }
            type_id = decl.is_modifier().then_some(decl.size_or_id)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::KernelBtf;

    #[test]
    fn the_running_kernels_functions_have_types() {
        let kernel = KernelBtf::default();
        let Ok(btf) = kernel.get() else {
            dropwatch_testing::skip("this kernel shows no type information");
            return;
        };
        let wanted = ["ip_rcv", "fib_table_lookup", "skb_clone", "kfree_skb_partial", "no_such_function"];
        let found = btf.prototypes(&wanted.map(str::to_owned).into());
        let int = Returns::Number { is_signed: true, bits: 32 };
        let expected = |returns, packet| Prototype { returns, packet, is_hook: false };
        assert_eq!(found["ip_rcv"], expected(int.clone(), Some(1)));
        assert_eq!(found["fib_table_lookup"], expected(int, None));
        assert_eq!(found["skb_clone"], expected(Returns::Pointer, Some(1)));
        assert_eq!(found["kfree_skb_partial"], expected(Returns::Nothing, Some(1)));
        assert!(!found.contains_key("no_such_function"));
        let with_packet: HashSet<_> = btf.functions_with(&[PACKET]).collect();
        assert!(with_packet.contains("ip_rcv") && with_packet.contains("skb_clone"));
        assert!(!with_packet.contains("fib_table_lookup"));
        let hooks: HashSet<_> = btf.functions_with(&[PACKET, HOOK_STATE]).collect();
        assert!(hooks.contains("nf_hook_slow") && !hooks.contains("ip_rcv"));
        let nothing = btf.returning_nothing();
        assert!(nothing.contains("kfree_skb_partial") && !nothing.contains("ip_rcv"));
    }
}
