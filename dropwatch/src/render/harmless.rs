//! What harmless drops are, in one line for all of them.

use std::collections::HashMap;

use crate::{knowledge::Meanings, model::report::Value};

/// How many kinds are named.
const NAMED: usize = 3;

/// What these drops are, in many words and in fewer: `An answer to ping, already delivered: 400; others: 190`.
///
/// `total` may be more than these are.
#[must_use]
pub fn in_words<'a>(
    drops: impl Iterator<Item = (u64, &'a [Value])>,
    total: u64,
    meanings: &mut Meanings,
) -> Vec<String> {
    let (mut titles, mut functions) = (HashMap::new(), HashMap::new());
    for (count, values) in drops {
        let title = meanings.entry(values).map_or("not known", |entry| entry.title);
        *titles.entry(title.to_owned()).or_default() += count;
        *functions.entry(function(values)).or_default() += count;
    }
    let (titles, functions) = (largest(titles), largest(functions));
    let listed = |kinds: &[(String, u64)], most: usize| {
        let named = &kinds[..most.min(kinds.len())];
        let rest = total - named.iter().map(|(_, count)| count).sum::<u64>();
        let named = named.iter().map(|(kind, count)| format!("{kind}: {count}"));
        named.chain((rest > 0).then(|| format!("others: {rest}"))).collect::<Vec<_>>().join("; ")
    };
    let ways =
        [(&titles, NAMED), (&titles, 2), (&functions, NAMED), (&functions, 2), (&titles, 1), (&functions, 1)];
    let ways = ways.into_iter().map(|(kinds, most)| listed(kinds, most));
    ways.chain(["harmless".to_owned()]).collect()
}

fn largest(kinds: HashMap<String, u64>) -> Vec<(String, u64)> {
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_unstable_by(|(kind, count), (other_kind, other)| {
        other.cmp(count).then_with(|| kind.cmp(other_kind))
    });
    kinds
}

/// The function that dropped them.
fn function(values: &[Value]) -> String {
    let name = values.iter().find_map(|value| match value {
        Value::Location { location, .. } => location.symbol.as_ref().map(|symbol| symbol.name.word()),
        Value::Function(function) => function.as_ref().map(|function| function.symbol.word()),
        _ => None,
    });
    name.unwrap_or_else(|| "-".to_owned())
}
