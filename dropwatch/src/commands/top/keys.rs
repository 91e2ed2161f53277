//! What keys mean, and which bytes they are.
//!
//! The bytes are read here and not by crossterm, whose reader neither sees the end of a terminal that is gone (it reads
//! zero bytes for ever) nor lets anything else be waited for.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key means to the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End.
    Quit,
    /// Stop, as a shell's Ctrl-Z does.
    Suspend,
    /// Draw all anew.
    Redraw,
    /// Up so many lines.
    Up(usize),
    /// Down so many lines.
    Down(usize),
    /// Up by what is shown.
    PageUp,
    /// Down by what is shown.
    PageDown,
    /// To the first line.
    First,
    /// To the last line.
    Last,
    /// Open the selected row, and hand this key to the pane.
    Open(Option<char>),
    /// Close what is over the table.
    Close,
    /// Show or hide the keys.
    Help,
    /// Show or hide what has been said.
    Notices,
    /// Sort otherwise.
    Sort,
    /// Show or fold harmless rows.
    All,
    /// Freeze the screen, or let it go on.
    Pause,
    /// Edit the filter.
    Filter,
    /// Edit the keys.
    Keys,
    /// Copy the equivalent command line.
    Copy,
}

/// The keys and what they do, as the help shows them.
pub const HELP: &[(&str, &str)] = &[
    ("Up Down  j k", "select a row"),
    ("PgUp PgDn  Home End  g G", "the same, by pages, to the first, to the last"),
    ("Enter", "open the row: what it means, what shows its cause, its packets"),
    ("Esc", "close what is open"),
    ("/", "filter, with Tab to complete words; an empty one counts all drops"),
    ("b", "keys: what a row stands for, with Tab to complete words"),
    ("s", "sort by class, recent drops, total, newest change"),
    ("a", "show harmless rows one by one, or in one line"),
    ("Space", "pause the screen; counting goes on"),
    ("y", "copy the command line that shows the same; it is also printed at the end"),
    ("w", "write packets of the row as pcapng"),
    ("d", "dig: which call refused a packet of the row"),
    ("n", "all that has been said in the status line"),
    ("Ctrl-L", "draw all anew"),
    ("Ctrl-Z", "suspend; counting goes on"),
    ("?", "these keys"),
    ("q  Ctrl-C", "quit"),
];

/// What a key means while no line is being typed.
#[must_use]
pub fn action(key: KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'd') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('l') => Some(Action::Redraw),
            KeyCode::Char('f') => Some(Action::PageDown),
            KeyCode::Char('b') => Some(Action::PageUp),
            KeyCode::Char('n') => Some(Action::Down(1)),
            KeyCode::Char('p') => Some(Action::Up(1)),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Up | KeyCode::Char('k') => Action::Up(1),
        KeyCode::Down | KeyCode::Char('j') => Action::Down(1),
        KeyCode::PageUp => Action::PageUp,
        KeyCode::PageDown => Action::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Action::First,
        KeyCode::End | KeyCode::Char('G') => Action::Last,
        KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => Action::Open(None),
        KeyCode::Char(key @ ('w' | 'd')) => Action::Open(Some(key)),
        KeyCode::Esc | KeyCode::Left | KeyCode::Char('h') => Action::Close,
        KeyCode::Char('?') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('n') => Action::Notices,
        KeyCode::Char('s') => Action::Sort,
        KeyCode::Char('a') => Action::All,
        KeyCode::Char(' ' | 'p') => Action::Pause,
        KeyCode::Char('/' | 'f') => Action::Filter,
        KeyCode::Char('b') => Action::Keys,
        KeyCode::Char('y') => Action::Copy,
        _ => return None,
    })
}

/// Makes keys of bytes. What is not a whole key yet waits for the next bytes.
#[derive(Debug, Default)]
pub struct Decoder(Vec<u8>);

/// The longest sequence that is waited for: beyond it, it is none.
const LONGEST: usize = 32;

impl Decoder {
    /// The keys in these bytes and those before.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<KeyEvent> {
        self.0.extend_from_slice(bytes);
        let mut keys = Vec::new();
        while !self.0.is_empty() {
            match decode(&self.0) {
                Decoded::Key(key, length) => {
                    keys.push(key);
                    self.0.drain(..length);
                }
                Decoded::Nothing(length) => drop(self.0.drain(..length)),
                Decoded::More if self.0.len() > LONGEST => self.0.clear(),
                Decoded::More => break,
            }
        }
        keys
    }

    /// Whether something waits for more bytes.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.0.is_empty()
    }

    /// No more bytes have come for a while: an escape character alone is the key.
    pub fn flush(&mut self) -> Vec<KeyEvent> {
        let is_escape = self.0.first() == Some(&0x1b);
        self.0.clear();
        if is_escape { vec![KeyEvent::from(KeyCode::Esc)] } else { Vec::new() }
    }
}

enum Decoded {
    /// A key of so many bytes.
    Key(KeyEvent, usize),
    /// So many bytes that are no key.
    Nothing(usize),
    /// The beginning of a key.
    More,
}

fn decode(bytes: &[u8]) -> Decoded {
    let plain = |code| Decoded::Key(KeyEvent::from(code), 1);
    match bytes[0] {
        0x1b => escape(bytes),
        b'\r' | b'\n' => plain(KeyCode::Enter),
        b'\t' => plain(KeyCode::Tab),
        0x7f | 0x08 => plain(KeyCode::Backspace),
        letter @ 1..=0x1a => {
            let letter = char::from(letter - 1 + b'a');
            Decoded::Key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL), 1)
        }
        0..0x20 => Decoded::Nothing(1),
        _ => character(bytes),
    }
}

/// A character, in UTF-8.
fn character(bytes: &[u8]) -> Decoded {
    let length = match bytes[0] {
        0..0x80 => 1,
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => return Decoded::Nothing(1),
    };
    let Some(whole) = bytes.get(..length) else { return Decoded::More };
    match str::from_utf8(whole).ok().and_then(|text| text.chars().next()) {
        Some(character) => Decoded::Key(KeyEvent::from(KeyCode::Char(character)), length),
        None => Decoded::Nothing(1),
    }
}

/// A sequence after the escape character: `ESC [ A`, `ESC O A`, `ESC [ 5 ~`, `ESC [ 1 ; 5 A`.
fn escape(bytes: &[u8]) -> Decoded {
    match bytes.get(1) {
        None => Decoded::More,
        Some(b'[') => {
            let Some(end) = bytes[2..].iter().position(|byte| (0x40..=0x7e).contains(byte)) else {
                return Decoded::More;
            };
            let (parameters, last, length) = (&bytes[2..2 + end], bytes[2 + end], end + 3);
            sequence(parameters, last)
                .map_or(Decoded::Nothing(length), |code| Decoded::Key(KeyEvent::from(code), length))
        }
        Some(b'O') => match bytes.get(2) {
            None => Decoded::More,
            Some(&last) => {
                sequence(&[], last).map_or(Decoded::Nothing(3), |code| Decoded::Key(KeyEvent::from(code), 3))
            }
        },
        // Escape, and then another key.
        Some(_) => Decoded::Key(KeyEvent::from(KeyCode::Esc), 1),
    }
}

fn sequence(parameters: &[u8], last: u8) -> Option<KeyCode> {
    Some(match last {
        b'A' => KeyCode::Up,
        b'B' => KeyCode::Down,
        b'C' => KeyCode::Right,
        b'D' => KeyCode::Left,
        b'H' => KeyCode::Home,
        b'F' => KeyCode::End,
        b'Z' => KeyCode::BackTab,
        b'P' => KeyCode::F(1),
        b'~' => match parameters.split(|byte| *byte == b';').next()? {
            b"1" | b"7" => KeyCode::Home,
            b"3" => KeyCode::Delete,
            b"4" | b"8" => KeyCode::End,
            b"5" => KeyCode::PageUp,
            b"6" => KeyCode::PageDown,
            b"11" => KeyCode::F(1),
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(bytes: &[u8]) -> Vec<KeyCode> {
        Decoder::default().feed(bytes).into_iter().map(|key| key.code).collect()
    }

    #[test]
    fn bytes_are_keys() {
        use KeyCode::{Char, Down, End, Enter, F, Home, PageDown, PageUp, Up};
        assert_eq!(codes(b"jk/\r"), [Char('j'), Char('k'), Char('/'), Enter]);
        assert_eq!(
            codes(b"\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[1~\x1bOF"),
            [Up, Down, PageUp, PageDown, Home, End]
        );
        assert_eq!(codes(b"\x1b[1;5A\x1bOP"), [Up, F(1)], "with a modifier, and a function key");
        assert_eq!(codes("é\u{4e2d}".as_bytes()), [Char('é'), Char('\u{4e2d}')]);
        assert_eq!(codes(b"\xff\x00j"), [Char('j')], "what is no key is left out");
        assert_eq!(codes(b"\x1b[200~j"), [Char('j')], "a sequence that is unknown is left out whole");
        let control = Decoder::default().feed(b"\x1a\x03");
        let letters: Vec<_> = control.iter().map(|key| (key.code, key.modifiers)).collect();
        assert_eq!(letters, [(Char('z'), KeyModifiers::CONTROL), (Char('c'), KeyModifiers::CONTROL)]);
    }

    #[test]
    fn a_key_in_pieces_is_one_key() {
        let mut decoder = Decoder::default();
        for piece in [&b"\x1b"[..], b"[", b"5"] {
            assert_eq!(decoder.feed(piece), []);
            assert!(decoder.waits());
        }
        assert_eq!(decoder.feed(b"~"), [KeyEvent::from(KeyCode::PageUp)]);
        assert!(!decoder.waits());
    }

    #[test]
    fn an_escape_alone_is_a_key_once_nothing_follows() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(b"\x1b"), []);
        assert_eq!(decoder.flush(), [KeyEvent::from(KeyCode::Esc)]);
        assert_eq!(decoder.flush(), []);
        assert_eq!(codes(b"\x1bq"), [KeyCode::Esc, KeyCode::Char('q')]);
    }

    #[test]
    fn what_never_ends_is_not_kept() {
        let mut decoder = Decoder::default();
        for _ in 0..1000 {
            decoder.feed(b"\x1b[1111111111");
            assert!(decoder.0.len() <= 2 * LONGEST);
        }
    }
}
