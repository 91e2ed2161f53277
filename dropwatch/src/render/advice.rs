//! What lost rows mean, and the commands that show their cause.

use std::{collections::BTreeSet, time::SystemTime};

use super::{
    commands::{Enter, Facts},
    layout::wrapped,
    table::UNKNOWN,
};
use crate::{
    knowledge::{Entry, Meanings},
    model::{
        class::Class,
        evidence::Evidence,
        keys::Key,
        report::{Row, Value},
    },
};

/// How many kinds of drops are explained.
pub const EXPLAINED: usize = 3;

/// Rows of a report, or of a whole run.
#[derive(Clone, Debug)]
pub struct Counted<'a> {
    /// What a row stands for.
    pub by: &'a [Key],
    /// All that there are, also those that are summed.
    pub rows: Vec<&'a Row>,
    /// Which of them had at least as many drops: more than were counted, if there is one for each row.
    pub are_bounds: Vec<bool>,
    /// When they were counted.
    pub time: SystemTime,
}

/// A paragraph for each of the largest lost rows; several that mean the same have one.
#[derive(Debug)]
pub struct Advice {
    /// A heading and what is below it, in lines.
    pub paragraphs: Vec<(Vec<String>, Vec<String>)>,
    /// Which were explained before, in lines.
    pub explained: Vec<String>,
    /// How to have the rest filled in.
    pub note: Vec<String>,
}

/// What there is to say of the lost rows; of those that are no news, only their names.
pub fn advice(
    of: &Counted<'_>,
    meanings: &mut Meanings,
    enter: Enter,
    width: Option<usize>,
    mut is_news: impl FnMut(&Row) -> bool,
) -> Advice {
    let mut missing = BTreeSet::new();
    let (news, explained): (Vec<_>, Vec<_>) =
        largest(&of.rows, meanings).into_iter().partition(|(place, _)| is_news(of.rows[*place]));
    let paragraphs = news.into_iter().map(|(place, entry)| {
        let (row, is_bound) = (of.rows[place], of.are_bounds.get(place) == Some(&true));
        let heading = format!(
            "{}{} {}: {} ({})",
            if is_bound { ">=" } else { "" },
            row.count,
            if row.class == Some(Class::Lost) { "lost" } else { "look harmless, and may be lost" },
            entry.map_or(UNKNOWN, |entry| entry.title),
            named(&row.values)
        );
        let facts = Facts::new(of.by, row, enter);
        let below = match entry {
            Some(entry) => below(entry, row, &facts, of.time, &mut missing, width),
            None => {
                indented(2, "The call chain (-b stack) and the packets (dropwatch trace) say more.", width)
            }
        };
        (indented(0, &heading, width), below)
    });
    let paragraphs = paragraphs.collect();
    let explained: Vec<_> = explained.into_iter().map(|(place, _)| named(&of.rows[place].values)).collect();
    let explained = if explained.is_empty() {
        Vec::new()
    } else {
        indented(0, &format!("Explained above: {}", explained.join(", ")), width)
    };
    Advice { paragraphs, explained, note: note(of.by, &missing, width) }
}

/// What one drop means, what shows its cause, and what to run.
#[must_use]
pub fn explanation(
    entry: &Entry,
    by: &[Key],
    row: &Row,
    time: SystemTime,
    enter: Enter,
    width: Option<usize>,
) -> Vec<String> {
    let mut lines = indented(0, &format!("{} in {}", entry.title, named(&row.values)), width);
    lines.extend(below(entry, row, &Facts::new(by, row, enter), time, &mut BTreeSet::new(), width));
    lines
}

fn below(
    entry: &Entry,
    row: &Row,
    facts: &Facts,
    time: SystemTime,
    missing: &mut BTreeSet<String>,
    width: Option<usize>,
) -> Vec<String> {
    let mut lines = indented(2, entry.meaning, width);
    lines.extend(evidence(row, time, width));
    lines.extend(commands(entry, facts, missing, width));
    lines
}

/// The largest lost rows, of those that mean the same the largest one; and those that are lost only by their evidence.
fn largest(rows: &[&Row], meanings: &mut Meanings) -> Vec<(usize, Option<&'static Entry>)> {
    let (kinds, _) = meanings.largest(rows.iter().copied(), Class::Lost);
    let in_doubt = meanings.in_doubt(rows.iter().copied()).into_iter();
    let in_doubt =
        in_doubt.filter(|(place, _)| rows[*place].evidence.as_ref().is_some_and(|found| !found.is_empty()));
    kinds.into_iter().take(EXPLAINED).chain(in_doubt).collect()
}

/// What shows its cause, an object a line.
fn evidence(row: &Row, reported: SystemTime, width: Option<usize>) -> Vec<String> {
    let all = row.evidence.as_deref().unwrap_or_default();
    let line = |found: &Evidence| {
        let time = if found.time < reported {
            format!(", read at {}", humantime::format_rfc3339_seconds(found.time))
        } else {
            String::new()
        };
        let words = found.words(all);
        indented(2, &format!("-> {words} ({}{time})", found.source), width)
    };
    all.iter().flat_map(line).collect()
}

/// What to run.
fn commands(
    entry: &Entry,
    facts: &Facts,
    missing: &mut BTreeSet<String>,
    width: Option<usize>,
) -> Vec<String> {
    let mut lines = Vec::new();
    for check in entry.check {
        // A command is not broken, so that it can be copied.
        lines.push(format!("    {}", facts.command(check.run, missing)));
        lines.extend(indented(8, &facts.sentence(check.shows), width));
    }
    lines
}

/// How to have what is missing filled in; nothing, where no key would help.
fn note(by: &[Key], missing: &BTreeSet<String>, width: Option<usize>) -> Vec<String> {
    let has_namespace = by.iter().any(|key| matches!(key, Key::Iface | Key::Netns));
    let is_told = |key: &str| by.iter().any(|it| it.word() == key);
    // An interface comes with its namespace.
    let is_needed =
        |key: &&String| !is_told(key) && (**key != "netns" || !(has_namespace || missing.contains("iface")));
    let keys: Vec<_> = missing.iter().filter(is_needed).map(String::as_str).collect();
    if keys.is_empty() {
        return Vec::new();
    }
    let words = missing.iter().any(|key| key != "netns" && !is_told(key));
    let text = if words {
        "To have the words in capitals filled in, and the network namespace:"
    } else {
        "To have the commands run in the right network namespace:"
    };
    let all: Vec<_> = by.iter().map(|key| key.word()).chain(keys).collect();
    let mut lines = indented(0, text, width);
    lines.push(format!("    -b {}", all.join(",")));
    lines
}

/// `SOCKET_RCVBUFF in __udp_queue_rcv_one_skb`
fn named(values: &[Value]) -> String {
    let reason = values.iter().find(|value| matches!(value, Value::Reason(_))).map(Value::words);
    let place = values.iter().find_map(|value| match value {
        Value::Location { location, .. } => Some(match &location.symbol {
            Some(symbol) => symbol.name.to_string(),
            None => location.to_string(),
        }),
        Value::Function(_) => Some(value.words()),
        _ => None,
    });
    [reason, place].into_iter().flatten().collect::<Vec<_>>().join(" in ")
}

fn indented(indent: usize, text: &str, width: Option<usize>) -> Vec<String> {
    let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
    let blanks = " ".repeat(indent);
    let room = width.map(|width| width.saturating_sub(indent));
    wrapped(&words, " ", "", room).iter().map(|line| format!("{blanks}{line}")).collect()
}
