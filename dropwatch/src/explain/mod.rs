//! `dropwatch explain`: what reasons and functions mean, found by any name that dropwatch prints.
//!
//! Everything in here is pure: words in, text out.

mod find;
mod json;
mod list;
mod markdown;
mod name;
#[cfg(test)]
mod tests;
mod text;
mod wrap;

pub use find::{find, search};
pub use json::json;
pub use list::list;
pub use markdown::markdown;
pub use text::text;

use clap::ValueEnum;

use crate::{
    knowledge::Entry,
    model::class::{Class, Destination},
};

/// How much room a reader has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Columns; lines are not broken, if none.
    pub width: Option<usize>,
    /// Whether to use bold type.
    pub colour: bool,
}

/// What an explanation can look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExplainFormat {
    /// Text, for people.
    Text,
    /// One object per entry, one line each.
    Json,
    /// A Markdown document.
    Markdown,
}

/// What a user looks up.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Names to explain, or words to search for.
    pub words: &'a [String],
    /// Whether to list.
    pub list: bool,
    /// Output format.
    pub format: ExplainFormat,
    /// Where it is read.
    pub page: Page,
}

/// The answer, or what is wrong with the names.
///
/// # Errors
/// A message for the user: the names are unknown, or nothing has the words in it.
pub fn answer(request: Request<'_>) -> Result<String, String> {
    let Request { words, list: is_list, format, page } = request;
    let entries = if is_list { search(words)? } else { find(words)? };
    Ok(match format {
        ExplainFormat::Json => json(&entries),
        ExplainFormat::Markdown => markdown(&entries),
        ExplainFormat::Text if is_list => list(&entries, page),
        ExplainFormat::Text => text(&entries, page),
    })
}

/// What a class says about a drop.
fn class_meaning(class: Class) -> &'static str {
    match class {
        Class::Lost => "the packet is missing, or it cannot be known that it is not",
        Class::Refused => "the sender gets an error",
        Class::Harmless => "nothing is missing: the kernel had no further use for the packet",
    }
}

/// What packets another class is for.
fn kind(destination: Destination) -> &'static str {
    match destination {
        Destination::Unknown => "if nothing is known of the packet",
        Destination::NotIp => "if it is no IP packet",
        Destination::Unicast => "for a single host",
        Destination::EmptySegment => "if it is a TCP segment without data and without SYN",
        Destination::Broadcast => "for all hosts (broadcast)",
        Destination::LinkGroup => {
            "for a group that hosts talk to by themselves (MLD, mDNS, all routers and the like)"
        }
        Destination::Group => "for a multicast group that an application or routing protocol chose",
    }
}

/// What the words in braces stand for, if there are any.
fn legend(entries: &[&Entry]) -> Option<&'static str> {
    let has_any = entries.iter().flat_map(|entry| entry.check).any(|check| check.run.contains('{'));
    has_any.then_some(
        "{iface}, {netns}, {saddr}, {daddr}, {sport}, {dport}: what the drop's row says (dropwatch --by iface,netns,...).",
    )
}
