//! The language of `--filter`: tcpdump's words, compiled for the kernel.
//!
//! ```text
//! text - lexer, parser - tree - instructions and sets - the kernel's decision
//! ```
//!
//! The decision is `dropwatch_common::program`; here is everything before it, and no I/O but what a [`NameLookup`]
//! does.

pub mod assume;
pub mod cases;
pub mod code;
mod compile;
mod error;
mod lexer;
mod number;
pub mod of_row;
mod parser;
#[cfg(test)]
mod tests;
pub mod tree;
mod words;

use std::fmt;

use dropwatch_common::program::{CASES, Cases as Starts, Insn, MAX_INSNS};

pub use self::error::FilterError;
pub use self::lexer::quoted;
pub use self::words::all as words;
use self::{
    cases::{Cases, MOST_NAMES},
    compile::Compiled,
    parser::Parser,
    tree::Expr,
};
use crate::model::{
    namespace::WhichNetns,
    services::Services,
    symbol_spec::{CodePlace, SymbolSpec},
};

/// The names that filters and rules may use, of the running host.
pub trait NameLookup {
    /// The numbers of a reason.
    ///
    /// # Errors
    /// The kernel has no reason of that name; the nearest ones.
    fn reason(&self, name: &str) -> Result<Vec<u32>, String>;

    /// The inode number of a network namespace, by name, path or `self`.
    ///
    /// # Errors
    /// There is none of that name; the nearest ones.
    fn netns(&self, name: &str) -> Result<WhichNetns, String>;

    /// Whether a place in the code can be one of this kernel; one of a module that is not loaded can be.
    ///
    /// # Errors
    /// There is no such place; the nearest ones.
    fn code(&self, _place: &CodePlace) -> Result<(), String> {
        Ok(())
    }

    /// Whether it can be said what drops are worth.
    ///
    /// # Errors
    /// Why not.
    fn classes(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether there is a CPU of that number.
    ///
    /// # Errors
    /// There is none; which there are.
    fn cpu(&self, _cpu: u32) -> Result<(), String> {
        Ok(())
    }

    /// The names of ports.
    fn services(&self) -> &Services {
        Services::common()
    }

    /// The number of a protocol above IP by a name that is this host's own.
    fn protocol(&self, _name: &str) -> Option<u8> {
        None
    }
}

/// What an instruction looks a value up in. Modules come and go, and with them what belongs to a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// Network namespaces that have a name while drops are counted.
    Netns(String),
    /// Addresses.
    Location(SymbolSpec),
    /// Numbers of reasons.
    Reason {
        /// As it was written.
        name: String,
        /// What it meant when it was read.
        codes: Vec<u32>,
    },
}

impl Set {
    /// As it was written.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Location(place) => place.to_string(),
            Self::Netns(name) | Self::Reason { name, .. } => name.clone(),
        }
    }
}

/// Every word that has a meaning of its own.
pub fn keywords() -> impl Iterator<Item = &'static str> {
    words::all()
}

/// An expression, read and compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    expression: Expr,
    insns: Vec<Insn>,
    sets: Vec<Set>,
    interfaces: Vec<String>,
    cases: Cases,
    starts: Starts,
}

impl Filter {
    /// Reads and compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it and where.
    pub fn parse(text: &str, names: &impl NameLookup) -> Result<Self, FilterError> {
        let expression = Parser::new(text, names).parse()?;
        Self::of(expression).map_err(|problem| FilterError::new(text, 0..text.len(), problem))
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// It is too large.
    pub fn of(expression: Expr) -> Result<Self, String> {
        let cases = Cases::new(&expression).ok_or_else(|| {
            format!(
                "the filter is too large: by classes and by whose the drops are it comes to more than {CASES} different ones, \
                 or it names more than {MOST_NAMES} processes, containers and cgroups"
            )
        })?;
        let Compiled { insns, sets, interfaces, starts } = compile::compile(&cases);
        if insns.len() > MAX_INSNS {
            return Err(format!(
                "the filter is too large: it has {} tests, its own for each class of drops and each owner, and there is room for {MAX_INSNS}",
                insns.len()
            ));
        }
        Ok(Self { expression, insns, sets, interfaces, cases, starts })
    }

    /// What it comes to by what user space knows.
    #[must_use]
    pub fn cases(&self) -> &Cases {
        &self.cases
    }

    /// Where the programs of these cases start; none if the kernel decides alone.
    #[must_use]
    pub fn starts(&self) -> Starts {
        self.starts
    }

    /// The program.
    #[must_use]
    pub fn insns(&self) -> &[Insn] {
        &self.insns
    }

    /// What must be gathered, as bits of [`need`](dropwatch_common::program::need).
    #[must_use]
    pub fn needs(&self) -> u32 {
        compile::needs(&self.insns)
    }

    /// Whether it needs functions, which are looked up among the kernel's symbols.
    #[must_use]
    pub fn names_functions(&self) -> bool {
        self.cases.ask_for_classes() || self.sets.iter().any(|set| matches!(set, Set::Location(_)))
    }

    /// Whether it has sets whose values change when modules come and go: functions and reasons.
    #[must_use]
    pub fn follows_modules(&self) -> bool {
        self.sets.iter().any(|set| !matches!(set, Set::Netns(_)))
    }

    /// The sets by number.
    #[must_use]
    pub fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// The names of interfaces, each at the place of its bit.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// What it says.
    #[must_use]
    pub fn expression(&self) -> &Expr {
        &self.expression
    }
}

/// An expression that means the same.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt(f)
    }
}
