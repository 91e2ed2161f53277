//! The list of names in the text of a tracepoint's `format` file.

use std::iter;

/// The numbers and names a tracepoint prints a field with: those of the list
/// `__print_symbolic(REC->FIELD, { 2, "NOT_SPECIFIED" }, { 3, "NO_SOCKET" })`.
///
/// Entries that are not a number and a quoted name are left out: where the kernel could not work out a
/// number, it leaves the C expression. Reading ends with the list, or with the text.
pub(super) fn symbols<'a>(text: &'a str, field: &str) -> impl Iterator<Item = (u32, &'a str)> {
    let mut rest = list(text, field).unwrap_or("");
    iter::from_fn(move || {
        let (entry, after) = next_entry(rest)?;
        rest = after;
        Some(entry)
    })
    .filter_map(symbol)
}

/// What follows the field in the list.
fn list<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    text.split("__print_symbolic(").skip(1).find_map(|list| {
        list.trim_start().strip_prefix("REC->")?.strip_prefix(field)?.trim_start().strip_prefix(',')
    })
}

/// What is between the next braces, and what follows them.
fn next_entry(text: &str) -> Option<(&str, &str)> {
    let open = text.trim_start_matches([',', ' ', '\t', '\n']).strip_prefix('{')?;
    open.split_once('}')
}

fn symbol(entry: &str) -> Option<(u32, &str)> {
    let (number, name) = entry.split_once(',')?;
    let name = name.trim().strip_prefix('"')?.strip_suffix('"')?;
    let number = number.trim();
    let number = match number.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    Some((number.ok()?, name))
}
