//! The language of `--filter`: tcpdump's words, compiled for the kernel.
//!
//! ```text
//! text - lexer, parser - tree - rules and sets - the kernel's decision
//! ```
//!
//! The decision is `dropwatch_common::rules`; here is everything before it, and no I/O but what a [`Resolver`]
//! does.

mod compile;
mod error;
mod lexer;
pub mod netns;
mod number;
mod parser;
mod sets;
#[cfg(test)]
mod tests;
pub mod tree;
mod words;

use std::fmt;

use dropwatch_common::rules::{Rule, RuleTable};

pub use self::{error::FilterError, sets::TooMany};
use self::{parser::Parser, tree::Expr};
use crate::check::rule::{Place, Vocabulary};

/// The names that an expression may use, of the running host.
pub trait Resolver: Vocabulary {
    /// The number of a network namespace's inode, by name, path or `self`; see [`netns::number`].
    ///
    /// # Errors
    /// There is none, in words.
    fn netns(&self, name: &str) -> Result<u32, String>;
}

/// What a rule looks a value up in. Modules come and go, and with them what belongs to a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// Addresses.
    Location(Place),
    /// Numbers of reasons.
    Reason {
        /// As it was written.
        name: String,
        /// What it meant when it was read.
        codes: Vec<u32>,
    },
}

/// An expression, read and compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    expression: Expr,
    table: RuleTable,
    length: usize,
    sets: Vec<Set>,
}

impl Filter {
    /// Reads and compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it and where.
    pub fn parse(text: &str, resolver: &impl Resolver) -> Result<Self, FilterError> {
        let expression = Parser::new(text, resolver).parse()?;
        let (table, length, sets) = compile::compile(&expression);
        Ok(Self { expression, table, length, sets })
    }

    /// What the kernel gets, whole.
    #[must_use]
    pub fn table(&self) -> &RuleTable {
        &self.table
    }

    /// The rules in use.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.table.0[..self.length]
    }

    /// What must be gathered, as bits of [`need`](dropwatch_common::rules::need).
    #[must_use]
    pub fn needs(&self) -> u32 {
        compile::needs(self.rules())
    }

    /// The sets by number.
    #[must_use]
    pub fn sets(&self) -> &[Set] {
        &self.sets
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
