//! Text from outside, made safe to print: the one place that decides what reaches a terminal, a log or a file.
//!
//! Names of processes, interfaces and namespaces belong to any local user, and a terminal obeys what it is sent. No
//! control character, no bidirectional control and no separator of lines gets through. The escaped form is unambiguous:
//!
//! | text | printed |
//! | --- | --- |
//! | a control character below U+0080 | `\x1b` |
//! | another character that must not be printed | `\u{202e}` |
//! | a byte that is not UTF-8 | `\xff` |
//! | a backslash | `\\` |

use std::{borrow::Cow, fmt, os::unix::ffi::OsStrExt as _, path::Path};

/// Whether a character must not reach a terminal as it is.
#[must_use]
pub fn is_unsafe(character: char) -> bool {
    matches!(
        character,
        // C0, DEL and C1.
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        // Bidirectional controls.
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Separators of lines and paragraphs.
        | '\u{2028}' | '\u{2029}'
        // Not characters, which XML refuses.
        | '\u{fffe}' | '\u{ffff}'
    )
}

/// Foreign text, displayed escaped: always a part of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escaped<'a>(&'a [u8]);

impl<'a> Escaped<'a> {
    /// Of any bytes, which should be UTF-8 and need not be.
    #[must_use]
    pub fn new<T: AsRef<[u8]> + ?Sized>(text: &'a T) -> Self {
        Self(text.as_ref())
    }

    /// Of the name of a file.
    #[must_use]
    pub fn path(path: &'a Path) -> Self {
        Self(path.as_os_str().as_bytes())
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let mut plain = chunk.valid();
            while let Some(at) = plain.find(|character| character == '\\' || is_unsafe(character)) {
                f.write_str(&plain[..at])?;
                let mut rest = plain[at..].chars();
                rest.next().into_iter().try_for_each(|character| write_escaped(character, f))?;
                plain = rest.as_str();
            }
            f.write_str(plain)?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

fn write_escaped(character: char, out: &mut impl fmt::Write) -> fmt::Result {
    match u32::from(character) {
        _ if character == '\\' => out.write_str("\\\\"),
        number @ 0..0x80 => write!(out, "\\x{number:02x}"),
        number => write!(out, "\\u{{{number:x}}}"),
    }
}

/// Escaped text as one word, so that a line splits at its blanks.
#[must_use]
pub fn word(escaped: &str) -> Cow<'_, str> {
    without(escaped, char::is_whitespace)
}

/// A message of our own, with the line breaks and tabs that we put there, without anything else a terminal obeys.
///
/// Foreign text in a message has been [`Escaped`] and stays as it is; this holds back what was forgotten.
#[must_use]
pub fn message(text: &str) -> Cow<'_, str> {
    without(text, |character| is_unsafe(character) && !matches!(character, '\n' | '\t'))
}

/// Escaped text with some more characters escaped. Backslashes stay: the text is escaped already.
#[must_use]
pub fn without(escaped: &str, unwanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !escaped.contains(&unwanted) {
        return Cow::Borrowed(escaped);
    }
    let mut text = String::new();
    for character in escaped.chars() {
        if unwanted(character) {
            // A string takes everything.
            let _ = write_escaped(character, &mut text);
        } else {
            text.push(character);
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Names as an attacker gives them: what must not be printed, and what looks like an escape already.
    pub fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let pieces: Vec<&[u8]> = vec![
            b"a",
            b"\\",
            b"\\x1b",
            b"\\u{9b}",
            b"\"",
            b"'",
            b" ",
            b";",
            b"<&>",
            b"\n",
            b"\r",
            b"\t",
            b"\0",
            b"\x01",
            b"\x1b]0;hi\x07",
            b"\x7f",
            b"\xc2\x9b",
            b"\xff",
            b"\xc3",
            b"\xed\xa0\x80",
            "ü".as_bytes(),
            "\u{61c}".as_bytes(),
            "\u{200e}".as_bytes(),
            "\u{202e}".as_bytes(),
            "\u{2067}".as_bytes(),
            "\u{2028}".as_bytes(),
            "\u{2029}".as_bytes(),
            "\u{fffe}".as_bytes(),
        ];
        let piece = prop_oneof![
            3 => select(pieces).prop_map(<[u8]>::to_vec),
            1 => vec(any::<u8>(), 0..4),
            1 => any::<char>().prop_map(|character| character.to_string().into_bytes()),
        ];
        vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    /// Checks that text may go to a terminal: so many lines, and nothing in them that it obeys.
    ///
    /// Written without the code under test: by bytes, as the terminal sees them.
    pub fn assert_safe(output: &[u8], lines: usize) {
        let text = std::str::from_utf8(output).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), lines, "{text:?}");
        let is_c0 = |byte: u8| (byte < 0x20 && byte != b'\n' && byte != b'\t') || byte == 0x7f;
        assert!(!text.bytes().any(is_c0), "{text:?}");
        let is_c1 = |pair: &[u8]| pair[0] == 0xc2 && (0x80..0xa0).contains(&pair[1]);
        assert!(!text.as_bytes().windows(2).any(is_c1), "{text:?}");
        for forbidden in [
            0x61c, 0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069,
            0x2028, 0x2029,
        ] {
            assert!(!text.chars().any(|character| u32::from(character) == forbidden), "{text:?}");
        }
    }

    /// Reads an escaped text back.
    fn unescaped(text: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('\\') {
            bytes.extend(before.as_bytes());
            let (kind, after) = after.split_at(1);
            rest = match kind {
                "\\" => {
                    bytes.push(b'\\');
                    after
                }
                "x" => {
                    bytes.push(u8::from_str_radix(&after[..2], 16).expect("two digits"));
                    &after[2..]
                }
                "u" => {
                    let (number, after) = after[1..].split_once('}').expect("an end");
                    let number = u32::from_str_radix(number, 16).expect("a number");
                    let character = char::from_u32(number).expect("a character");
                    bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
                    after
                }
                _ => panic!("no escape: {text}"),
            };
        }
        bytes.extend(rest.as_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn no_foreign_text_reaches_a_terminal_as_it_is(bytes in hostile()) {
            let escaped = Escaped::new(&bytes).to_string();
            assert_safe(escaped.as_bytes(), 0);
            prop_assert!(!escaped.contains('\t'));
            prop_assert_eq!(&unescaped(&escaped), &bytes, "it reads back");
            prop_assert_eq!(message(&escaped), escaped.as_str(), "it is escaped once");
            let word = word(&escaped);
            prop_assert!(!word.contains(char::is_whitespace));
            prop_assert_eq!(unescaped(&word), bytes, "a word too");
        }

        #[test]
        fn a_message_keeps_only_its_lines(text in any::<String>(), bytes in hostile()) {
            let text = text + &String::from_utf8_lossy(&bytes);
            let said = message(&text);
            assert_safe(said.as_bytes(), text.matches('\n').count());
        }
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["eth0", "q\"x", "bürö0", "веб", "a b", "tcp_v4_rcv"] {
            assert_eq!(Escaped::new(name).to_string(), name);
        }
    }

    #[test]
    fn what_is_escaped_says_what_it_was() {
        let shown = |bytes: &[u8]| Escaped::new(bytes).to_string();
        assert_eq!(shown(b"a\x1b]0;hi\x07\nb"), "a\\x1b]0;hi\\x07\\x0ab");
        assert_eq!(shown(b"eth\x7f\xff"), "eth\\x7f\\xff");
        assert_eq!(shown("\u{9b}31m\u{202e}".as_bytes()), "\\u{9b}31m\\u{202e}");
        assert_eq!(shown(b"a\\x1b"), "a\\\\x1b");
        assert_eq!(word("a b\u{a0}c"), "a\\x20b\\u{a0}c");
        assert_eq!(message("two\n\tlines\r\x1b"), "two\n\tlines\\x0d\\x1b");
    }
}
