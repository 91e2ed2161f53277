//! Explanations for programs.

use serde::Serialize;

use crate::knowledge::Entry;

#[derive(Serialize)]
struct Object<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    entry: &'a Entry,
}

/// An object for each entry, one line each.
///
/// # Panics
/// Never: what is written is strings.
#[must_use]
pub fn json(entries: &[&Entry]) -> String {
    let mut out = String::new();
    for entry in entries {
        let object = Object { schema: 1, kind: "explanation", entry };
        out.push_str(&serde_json::to_string(&object).expect("strings can be written"));
        out.push('\n');
    }
    out
}
