//! What a pane shows: values, and the lines that they become.

use std::time::{Duration, SystemTime};

use super::breakdown::Table;
use crate::model::plural;

/// How far a pane has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Its probe is being attached.
    #[default]
    Opening,
    /// Drops are counted.
    Open,
    /// The kernel refuses the probe: why, and what to do.
    Failed(String),
}

/// Everything that a pane shows.
#[derive(Clone, Debug, Default)]
pub struct DetailView {
    /// How far it has come.
    pub stage: Stage,
    /// What is less than was requested, and why.
    pub less: Vec<String>,
    /// When its probe was attached.
    pub since: Option<SystemTime>,
    /// For how long it has counted.
    pub elapsed: Duration,
    /// The drops it has counted.
    pub drops: u64,
    /// What they mean, what shows their cause and what to check.
    pub meaning: Vec<String>,
    /// When the objects in it were looked at.
    pub looked: Option<SystemTime>,
    /// What they consist of.
    pub tables: Vec<Table>,
    /// The last packets, the oldest first.
    pub packets: Vec<String>,
    /// Drops that are not among these packets and never were.
    pub not_shown: u64,
    /// Drops that are in no table or not in each, and why.
    pub losses: Vec<String>,
    /// The file that packets are written to.
    pub writing: Option<Writing>,
    /// What digging has found.
    pub dug: Vec<Line>,
}

/// A capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writing {
    /// The file.
    pub file: String,
    /// Packets that are in it.
    pub written: u64,
    /// Packets that are not, since it was begun.
    pub missing: u64,
    /// Whether it has ended.
    pub has_ended: bool,
    /// Why it ended, if it went wrong.
    pub fault: Option<String>,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The name of a section.
    Heading,
    /// What is said.
    Text,
    /// What is beside it.
    Aside,
    /// Something that is wrong.
    Fault,
}

/// A line of a pane.
pub type Line = (Kind, String);

impl DetailView {
    /// One line about all of it.
    pub fn summary(&self) -> Line {
        match &self.stage {
            Stage::Opening => (Kind::Aside, "opening ...".to_owned()),
            Stage::Failed(why) => (Kind::Fault, why.clone()),
            Stage::Open => {
                let since = self.since.map(clock).unwrap_or_default();
                let drops = plural::counted(self.drops, "drop");
                (Kind::Text, format!("{drops} since {since}, counted by a probe of this pane alone"))
            }
        }
    }

    /// Everything below it.
    pub fn lines(&self, width: usize) -> Vec<Line> {
        let mut lines = Lines { width, lines: Vec::new() };
        for text in self.less.iter().chain(&self.losses) {
            lines.text(Kind::Fault, text);
        }
        if let Some(writing) = &self.writing {
            lines.writing(writing);
        }
        if !self.dug.is_empty() {
            lines.heading("DIG");
            self.dug.iter().for_each(|(kind, text)| lines.text(*kind, text));
        }
        if !self.meaning.is_empty() {
            lines.heading("WHAT IT MEANS, AND WHAT SHOWS THE CAUSE");
            self.meaning.iter().for_each(|text| lines.text(Kind::Text, text));
            if let Some(time) = self.looked {
                lines.text(Kind::Aside, &format!("  (as it was at {})", clock(time)));
            }
        }
        for table in self.tables.iter().filter(|_| self.drops > 0) {
            lines.table(table, self.drops);
        }
        lines.packets(&self.packets, self.not_shown);
        lines.lines
    }
}

struct Lines {
    width: usize,
    lines: Vec<Line>,
}

impl Lines {
    fn heading(&mut self, text: &str) {
        if !self.lines.is_empty() {
            self.lines.push((Kind::Text, String::new()));
        }
        self.hanging(Kind::Heading, 0, 0, text);
    }

    /// A paragraph; what does not fit goes on below, indented as it began.
    fn text(&mut self, kind: Kind, text: &str) {
        let indent = text.len() - text.trim_start_matches(' ').len();
        let text = text.trim_start_matches(' ');
        // What goes on below a command or an object begins farther to the right.
        let more = if indent == 4 {
            4
        } else if text.starts_with("-> ") {
            3
        } else {
            0
        };
        self.hanging(kind, indent, indent + more, text);
    }

    fn hanging(&mut self, kind: Kind, first: usize, rest: usize, text: &str) {
        let room = self.width.saturating_sub(first.max(rest)).max(10);
        for (place, piece) in wrapped(text, room).into_iter().enumerate() {
            let blanks = " ".repeat(if place == 0 { first } else { rest });
            self.lines.push((kind, format!("{blanks}{piece}")));
        }
    }

    fn table(&mut self, table: &Table, drops: u64) {
        let Table { title, rows, cut, beyond } = table;
        self.heading(title);
        let digits = drops.to_string().len().max(5);
        let figure = |count: &u64| format!("{count:>digits$} {:>6}  ", share(*count, drops));
        for (count, words) in rows {
            let figure = figure(count);
            self.hanging(Kind::Text, 0, figure.len(), &format!("{figure}{words}"));
        }
        let more =
            [(cut.drops, format!("in {}", plural::counted(cut.rows, "other"))), (*beyond, BEYOND.to_owned())];
        for (count, words) in more.iter().filter(|(count, _)| *count > 0) {
            let figure = figure(count);
            self.hanging(Kind::Aside, 0, figure.len(), &format!("{figure}{words}"));
        }
    }

    fn packets(&mut self, packets: &[String], not_shown: u64) {
        if packets.is_empty() && not_shown == 0 {
            return;
        }
        self.heading("LAST PACKETS");
        if not_shown > 0 {
            let drops = plural::counted(not_shown, "other drop");
            self.text(Kind::Aside, &format!("({drops} not shown: only some of many are)"));
        }
        for packet in packets {
            self.hanging(Kind::Text, 0, 4, packet);
        }
    }

    fn writing(&mut self, writing: &Writing) {
        let Writing { file, written, missing, has_ended, fault } = writing;
        let state = if *has_ended { "written to" } else { "so far in" };
        let missing = match missing {
            0 => String::new(),
            missing => format!(", {missing} not"),
        };
        self.text(Kind::Text, &format!("{} {state} {file}{missing}", plural::counted(*written, "packet")));
        if let Some(fault) = fault {
            self.text(Kind::Fault, fault);
        }
    }
}

const BEYOND: &str = "more than can be told apart here";

/// A share of all drops.
#[expect(clippy::cast_precision_loss, reason = "shares are shown to a few digits")]
fn share(count: u64, drops: u64) -> String {
    format!("{:.1}%", count as f64 * 100.0 / drops.max(1) as f64)
}

/// The time of day, as the host's other lines have it: UTC.
pub fn clock(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.split_once('T').map_or(text.clone(), |(_, time)| time.to_owned())
}

/// Pieces of at most so many columns, broken at blanks, and inside a word where it is longer.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    for word in text.split_inclusive(' ') {
        if piece.width() + word.trim_end().width() > width && !piece.trim().is_empty() {
            pieces.push(std::mem::take(&mut piece).trim_end().to_owned());
        }
        for character in word.chars() {
            if piece.width() + character.width().unwrap_or(0) > width {
                if character == ' ' {
                    continue;
                }
                pieces.push(std::mem::take(&mut piece));
            }
            piece.push(character);
        }
    }
    if !piece.trim().is_empty() || pieces.is_empty() {
        pieces.push(piece.trim_end().to_owned());
    }
    pieces
}
