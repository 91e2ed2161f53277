//! A line that is being typed: a filter or keys, with completion and the caret of its last fault.

use std::{fmt, ops::Range, sync::Arc};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    filter,
    model::{class::Class, keys::Key},
};

/// The most completions that are offered.
pub const OFFERED: usize = 64;
/// The longest line: a filter of the command line may be as long as that.
const LONGEST: usize = 4096;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// A filter.
    Filter,
    /// What a row stands for.
    Keys,
}

/// Names of this host that can be completed.
#[derive(Clone, Default)]
pub struct Vocabulary {
    /// Of reasons.
    pub reasons: Vec<String>,
    /// Of interfaces.
    pub interfaces: Vec<String>,
    /// Of network namespaces.
    pub namespaces: Vec<String>,
    /// Of functions that begin so, at most so many.
    pub functions: Option<Functions>,
}

/// Finds functions by the beginning of their names.
pub type Functions = Arc<dyn Fn(&str, usize) -> Vec<String> + Send + Sync>;

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").field("reasons", &self.reasons.len()).finish_non_exhaustive()
    }
}

/// A line that is being typed.
#[derive(Clone, Debug)]
pub struct Input {
    /// What it is.
    pub kind: InputKind,
    text: String,
    /// A byte's place, at a character's start.
    cursor: usize,
    /// What is wrong with what was entered, and where.
    pub fault: Option<(Option<Range<usize>>, String)>,
    /// What the word at the cursor can become.
    pub offers: Vec<String>,
    /// The part of the line that an offer replaces, and which one is in its place.
    offered: Option<(Range<usize>, usize)>,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// It is still being typed.
    Still,
    /// It is given up.
    Cancelled,
    /// It is entered.
    Entered,
}

impl Input {
    /// A line that begins with what is in force.
    #[must_use]
    pub fn new(kind: InputKind, text: &str) -> Self {
        let (text, cursor) = (text.to_owned(), text.len());
        Self { kind, text, cursor, fault: None, offers: Vec::new(), offered: None }
    }

    /// What has been typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the cursor is, in bytes.
    #[must_use]
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// The offer that is in the line.
    #[must_use]
    pub fn chosen(&self) -> Option<usize> {
        self.offered.as_ref().map(|(_, chosen)| *chosen)
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, names: &Vocabulary) -> Typed {
        let is_tab = matches!(key.code, KeyCode::Tab | KeyCode::BackTab);
        if !is_tab {
            self.offered = None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c' | 'g') => return Typed::Cancelled,
                KeyCode::Char('u') => self.replace(0..self.cursor, ""),
                KeyCode::Char('k') => self.replace(self.cursor..self.text.len(), ""),
                KeyCode::Char('w') => self.replace(self.word_before()..self.cursor, ""),
                KeyCode::Char('a') => self.cursor = 0,
                KeyCode::Char('e') => self.cursor = self.text.len(),
                _ => {}
            }
        } else {
            match key.code {
                KeyCode::Enter => return Typed::Entered,
                KeyCode::Esc => return Typed::Cancelled,
                KeyCode::Char(character) if self.text.len() < LONGEST => {
                    self.replace(self.cursor..self.cursor, character.encode_utf8(&mut [0; 4]));
                }
                KeyCode::Backspace => self.replace(self.before()..self.cursor, ""),
                KeyCode::Delete => self.replace(self.cursor..self.after(), ""),
                KeyCode::Left => self.cursor = self.before(),
                KeyCode::Right => self.cursor = self.after(),
                KeyCode::Home => self.cursor = 0,
                KeyCode::End => self.cursor = self.text.len(),
                KeyCode::Tab => self.complete(names, 1),
                KeyCode::BackTab => self.complete(names, usize::MAX),
                _ => {}
            }
        }
        if !is_tab {
            self.offers = self.candidates(names).1;
        }
        Typed::Still
    }

    /// Other names can be completed from now on.
    pub fn renew(&mut self, names: &Vocabulary) {
        if self.offered.is_none() {
            self.offers = self.candidates(names).1;
        }
    }

    fn replace(&mut self, range: Range<usize>, with: &str) {
        self.cursor = range.start + with.len();
        self.text.replace_range(range, with);
        // The caret is under another text now.
        self.fault = None;
    }

    fn before(&self) -> usize {
        self.text[..self.cursor].char_indices().next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        self.text[self.cursor..].chars().next().map_or(self.cursor, |next| self.cursor + next.len_utf8())
    }

    fn word_before(&self) -> usize {
        let before = self.text[..self.cursor].trim_end();
        before.rfind(|character: char| character.is_whitespace() || character == ',').map_or(0, |at| at + 1)
    }

    /// Puts the next offer in the place of the word at the cursor; first of all, what they all begin with.
    fn complete(&mut self, names: &Vocabulary, step: usize) {
        if let Some((range, chosen)) = self.offered.clone() {
            let next = if step == 1 {
                (chosen + 1) % self.offers.len()
            } else {
                (chosen + self.offers.len() - 1) % self.offers.len()
            };
            return self.offer(range, next);
        }
        let (range, offers) = self.candidates(names);
        self.offers = offers;
        let common = common_start(&self.offers);
        match &*self.offers {
            [] => {}
            [only] => {
                let whole = if self.kind == InputKind::Filter { format!("{only} ") } else { only.clone() };
                self.replace(range, &whole);
                self.offers.clear();
            }
            _ if common.len() > range.len() => self.replace(range, &common),
            _ => self.offer(range, if step == 1 { 0 } else { self.offers.len() - 1 }),
        }
    }

    fn offer(&mut self, range: Range<usize>, chosen: usize) {
        let word = self.offers[chosen].clone();
        let start = range.start;
        self.replace(range, &word);
        self.offered = Some((start..start + word.len(), chosen));
    }

    /// The part of the word before the cursor, and what it can become.
    fn candidates(&self, names: &Vocabulary) -> (Range<usize>, Vec<String>) {
        let before = &self.text[..self.cursor];
        let ends = |character: char| match self.kind {
            InputKind::Keys => character == ',' || character.is_whitespace(),
            InputKind::Filter => character.is_whitespace() || "()!&|".contains(character),
        };
        let start = before.rfind(ends).map_or(0, |at| at + 1);
        let word = &before[start..];
        let fits = |known: &&str| known.len() > word.len() && starts_alike(known, word);
        let of =
            |known: &[String]| known.iter().map(String::as_str).filter(fits).map(str::to_owned).collect();
        let mut found: Vec<String> = match self.kind {
            InputKind::Keys => {
                let has = |key: &Key| self.text.split(',').any(|word| word.trim() == key.word());
                let keys = Key::ALL.iter().filter(|key| !has(key)).map(|key| key.word());
                keys.filter(fits).map(str::to_owned).collect()
            }
            InputKind::Filter => match before[..start].split(ends).rfind(|word| !word.is_empty()) {
                Some("reason") => of(&names.reasons),
                Some("iface" | "ifname") => of(&names.interfaces),
                Some("netns") => of(&names.namespaces),
                Some("class") => {
                    Class::ALL.iter().map(|class| class.name()).filter(fits).map(str::to_owned).collect()
                }
                Some("location") if word.is_empty() => Vec::new(),
                Some("location") => {
                    names.functions.as_ref().map_or_else(Vec::new, |find| find(word, OFFERED))
                }
                _ if word.is_empty() => Vec::new(),
                _ => filter::keywords().filter(fits).map(str::to_owned).collect(),
            },
        };
        found.sort_unstable();
        found.dedup();
        found.truncate(OFFERED);
        (start..self.cursor, found)
    }
}

/// Whether a name begins so, in whatever case it is typed.
fn starts_alike(known: &str, word: &str) -> bool {
    known.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn common_start(words: &[String]) -> String {
    let Some(first) = words.first() else { return String::new() };
    let common =
        |other: &String| first.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let length = words.iter().map(common).min().unwrap_or(0);
    first.chars().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let find = |start: &str, most: usize| {
            let known = ["tcp_rcv_established", "tcp_v4_rcv", "udp_queue_rcv_one_skb"];
            known.into_iter().filter(|name| name.starts_with(start)).take(most).map(str::to_owned).collect()
        };
        Vocabulary {
            reasons: words(&["NO_SOCKET", "NOT_SPECIFIED", "NETFILTER_DROP", "SOCKET_RCVBUFF"]),
            interfaces: words(&["eth0", "lo"]),
            namespaces: words(&["blue", "self"]),
            functions: Some(Arc::new(find)),
        }
    }

    fn typed(kind: InputKind, keys: &str) -> Input {
        let (mut input, names) = (Input::new(kind, ""), vocabulary());
        for character in keys.chars() {
            let code = if character == '\t' { KeyCode::Tab } else { KeyCode::Char(character) };
            assert_eq!(input.key(KeyEvent::from(code), &names), Typed::Still);
        }
        input
    }

    #[test]
    fn words_are_completed_by_what_is_before_them() {
        let cases = [
            ("rea\t", "reason "),
            ("reason SO\t", "reason SOCKET_RCVBUFF "),
            ("reason so\t", "reason SOCKET_RCVBUFF "),
            ("reason N\t", "reason NETFILTER_DROP"),
            ("reason NO\t", "reason NOT_SPECIFIED"),
            ("reason NO\t\t", "reason NO_SOCKET"),
            ("reason NO\t\t\t", "reason NOT_SPECIFIED"),
            ("iface e\t", "iface eth0 "),
            ("not (netns b\t", "not (netns blue "),
            ("class l\t", "class lost "),
            ("location udp_\t", "location udp_queue_rcv_one_skb "),
            ("location tcp\t", "location tcp_"),
            ("location tcp\t\t", "location tcp_rcv_established"),
            ("zzz\t", "zzz"),
            ("\t", ""),
        ];
        for (keys, expected) in cases {
            assert_eq!(typed(InputKind::Filter, keys).text(), expected, "{keys:?}");
        }
        assert_eq!(typed(InputKind::Keys, "loc\t,rea\t,reas").text(), "location,reason,reas");
        assert_eq!(typed(InputKind::Keys, "reason,rea").offers, [""; 0], "each key once");
    }

    #[test]
    fn a_line_is_edited_by_characters() {
        let names = vocabulary();
        let mut input = Input::new(InputKind::Filter, "port é");
        for code in [KeyCode::Left, KeyCode::Backspace, KeyCode::Delete, KeyCode::Home, KeyCode::Char('x')] {
            input.key(KeyEvent::from(code), &names);
        }
        assert_eq!((input.text(), input.cursor()), ("xport", 1));
        input.fault = Some((Some(0..1), "no".to_owned()));
        input.key(KeyEvent::new(KeyCode::Char('k'), KeyModifiers::CONTROL), &names);
        assert_eq!((input.text(), &input.fault), ("x", &None), "another text has another fault");
        input.key(KeyEvent::new(KeyCode::Char('w'), KeyModifiers::CONTROL), &names);
        assert_eq!(input.text(), "");
        assert_eq!(input.key(KeyEvent::from(KeyCode::Enter), &names), Typed::Entered);
        assert_eq!(input.key(KeyEvent::from(KeyCode::Esc), &names), Typed::Cancelled);
    }
}
