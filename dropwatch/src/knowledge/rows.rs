//! What the rows of a report are worth.

use std::{cmp::Reverse, collections::HashMap};

use super::{Entry, Query, class, lookup};
use crate::model::{
    class::{Class, Destination},
    foreign::Foreign,
    location::Symbol,
    reason::Reason,
    report::{Row, Value},
};

/// What is known of why and where a row's drops happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cause {
    reason: Option<String>,
    function: String,
    module: String,
}

/// What is known of the rows of reports, looked up once for each cause.
#[derive(Clone, Debug, Default)]
pub struct Meanings(HashMap<Cause, Option<&'static Entry>>);

/// The place of a row in its report, and what it means.
pub type Meant = (usize, Option<&'static Entry>);

impl Meanings {
    /// What is known of a row's drops; `None` if its keys do not include reason and function, or are unknown to us.
    pub fn entry(&mut self, values: &[Value]) -> Option<&'static Entry> {
        self.of(cause(values)?)
    }

    /// The class of a drop by place and reason; none if it depends on a destination that is not known.
    ///
    /// A reason without a name may be any.
    pub fn class(
        &mut self,
        reason: Option<&Reason>,
        symbol: &Symbol,
        destination: Destination,
    ) -> Option<Class> {
        if reason.is_some_and(|reason| reason.name.is_none()) {
            return None;
        }
        class(self.of(Cause::new(reason, &symbol.name, &symbol.module)), destination)
    }

    /// The rows of a class by their places in a report, with what they mean, the largest first: of those that mean the same
    /// the largest one, and all others. What has no meaning is of a kind of its own.
    pub fn largest<'a>(
        &mut self,
        rows: impl IntoIterator<Item = &'a Row>,
        class: Class,
    ) -> (Vec<Meant>, Vec<Meant>) {
        let rows = rows.into_iter().enumerate().filter(|(_, row)| row.class == Some(class));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(_, row)| Reverse(row.count));
        let (mut kinds, mut others) = (Vec::<Meant>::new(), Vec::new());
        for (place, row) in rows {
            let entry = self.entry(&row.values);
            let is_new = entry.is_none() || kinds.iter().all(|(_, other)| *other != entry);
            if is_new { &mut kinds } else { &mut others }.push((place, entry));
        }
        (kinds, others)
    }

    /// The same of rows that look harmless, of kinds that are not always.
    pub fn in_doubt<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) -> Vec<Meant> {
        let (kinds, _) = self.largest(rows, Class::Harmless);
        kinds.into_iter().filter(|(_, entry)| entry.is_some_and(|entry| entry.in_doubt)).collect()
    }

    fn of(&mut self, cause: Cause) -> Option<&'static Entry> {
        *self.0.entry(cause).or_insert_with_key(|cause| {
            let Cause { reason, function, module } = cause;
            lookup(Query { reason: reason.as_deref(), function: Some(function), module: Some(module) })
        })
    }
}

impl Cause {
    fn new(reason: Option<&Reason>, function: &Foreign, module: &Foreign) -> Self {
        let reason = reason.map(ToString::to_string);
        Self { reason, function: function.to_string(), module: module.to_string() }
    }
}

/// Why and where, if the row's keys tell.
fn cause(values: &[Value]) -> Option<Cause> {
    let mut reason = None;
    let mut function = None;
    for value in values {
        match value {
            Value::Reason(value) => reason = Some(value.as_ref()),
            Value::Location { location, .. } => {
                function = location.symbol.as_ref().map(|symbol| (&symbol.name, &symbol.module));
            }
            Value::Function(Some(value)) => function = Some((&value.symbol, &value.module)),
            _ => {}
        }
    }
    let (reason, (function, module)) = (reason?, function?);
    Some(Cause::new(reason, function, module))
}
