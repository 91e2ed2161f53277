//! Which drops a check looked at.

use std::fmt;

use crate::filter::{
    Filter,
    tree::{Expr, Term},
};

/// Which drops a check looked at: a rule says nothing about any other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The network namespace that all of them are in; the whole host, if none.
    pub netns: Option<String>,
    /// The filter, if there is one.
    pub filter: Option<String>,
    /// Whether the namespace is all that the filter says.
    whole: bool,
}

impl Scope {
    /// What a filter leaves of the host's drops.
    #[must_use]
    pub fn new(filter: Option<&Filter>) -> Self {
        let Some(filter) = filter else { return Self { whole: true, ..Self::default() } };
        let whole = matches!(filter.expression(), Expr::Term(Term::Netns { .. }));
        Self { netns: netns(filter.expression()), filter: Some(filter.to_string()), whole }
    }

    /// With the word before it: `on the whole host`, `in netns self`.
    #[must_use]
    pub fn placed(&self) -> String {
        let word = if self.netns.is_some() { "in" } else { "on" };
        let comma = if self.whole { "" } else { "," };
        format!("{word} {self}{comma}")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.netns {
            Some(netns) => write!(f, "netns {netns}")?,
            None => f.write_str("the whole host")?,
        }
        match &self.filter {
            Some(filter) if !self.whole => write!(f, ", of those that match '{filter}'"),
            _ => Ok(()),
        }
    }
}

/// The namespace that an expression requires in every case.
fn netns(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Term(Term::Netns { name, .. }) => Some(name.clone()),
        Expr::And(one, other) => netns(one).or_else(|| netns(other)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::Host;

    #[test]
    fn a_scope_is_a_namespace_or_the_host() {
        let scope = |text: &str| Scope::new(Some(&Filter::parse(text, &Host).expect("a filter"))).placed();
        assert_eq!(Scope::new(None).placed(), "on the whole host");
        assert_eq!(scope("netns self"), "in netns self");
        assert_eq!(scope("tcp"), "on the whole host, of those that match 'tcp',");
        assert_eq!(
            scope("netns self and udp port 53"),
            "in netns self, of those that match 'netns self and udp port 53',"
        );
        assert_eq!(scope("netns self or udp"), "on the whole host, of those that match 'netns self or udp',");
        assert_eq!(scope("not netns self"), "on the whole host, of those that match 'not netns self',");
    }
}
