//! Explanations for people.

use std::fmt::Write as _;

use anstyle::{Effects, Style};

use super::{Page, class_meaning, kind, legend, wrap::paragraph};
use crate::knowledge::Entry;

const BOLD: Style = Style::new().effects(Effects::BOLD);
const INDENT: &str = "  ";
const DEEPER: &str = "    ";
const DEEPEST: &str = "        ";

/// The entries, one after the other.
#[must_use]
pub fn text(entries: &[&Entry], page: Page) -> String {
    let mut out = String::new();
    for entry in entries {
        if !out.is_empty() {
            out.push('\n');
        }
        one(&mut out, entry, page);
    }
    if let Some(legend) = legend(entries) {
        out.push('\n');
        paragraph(&mut out, "", "", legend, page.width);
    }
    out
}

fn one(out: &mut String, entry: &Entry, page: Page) {
    let width = page.width;
    heading(out, "", &format!("{}: {}", entry.name(), entry.title), page);
    paragraph(out, INDENT, INDENT, entry.meaning, width);
    classes(out, entry, page);
    if !entry.causes.is_empty() {
        heading(out, INDENT, "Usual causes", page);
    }
    for cause in entry.causes {
        paragraph(out, "  * ", DEEPER, cause, width);
    }
    if !entry.check.is_empty() {
        heading(out, INDENT, "What to check", page);
    }
    for check in entry.check {
        // A command is not broken, so that it can be copied.
        let _ = writeln!(out, "{DEEPER}{}", check.run);
        paragraph(out, DEEPEST, DEEPEST, check.shows, width);
    }
    let since = [
        entry.since.map(|since| format!("Linux {since}")),
        entry.until.map(|until| format!("until {until}")),
    ];
    let since: Vec<_> = since.into_iter().flatten().collect();
    let facts = [
        ("Reasons", if entry.reasons.len() > 1 { entry.reasons.join(", ") } else { String::new() }),
        ("Functions", if entry.functions.len() > 1 { entry.functions.join(", ") } else { String::new() }),
        ("Counters", entry.counters.join(", ")),
        ("Settings", entry.sysctls.join(", ")),
        ("Since", since.join(", ")),
        ("Seen in", entry.seen.map(|seen| format!("Linux {seen}")).unwrap_or_default()),
    ];
    for (name, words) in facts.iter().filter(|(_, words)| !words.is_empty()) {
        paragraph(out, &format!("{INDENT}{name:<10}"), "            ", words, width);
    }
}

fn classes(out: &mut String, entry: &Entry, page: Page) {
    let class = format!("{}: {}", entry.class, class_meaning(entry.class));
    paragraph(out, "  Class     ", "            ", &class, page.width);
    for when in entry.when {
        let other = format!("{} {}: {}", when.class, kind(when.destination), when.because);
        paragraph(out, "            ", "            ", &other, page.width);
    }
}

fn heading(out: &mut String, indent: &str, words: &str, page: Page) {
    if page.colour {
        let _ = write!(out, "{BOLD}");
        paragraph(out, indent, indent, words, page.width);
        out.pop();
        let _ = writeln!(out, "{BOLD:#}");
    } else {
        paragraph(out, indent, indent, words, page.width);
    }
}
