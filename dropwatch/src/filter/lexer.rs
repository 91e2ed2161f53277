//! An expression's tokens, read one by one.

use std::ops::Range;

use super::words;

/// A piece of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// `(`
    Open,
    /// `)`
    Close,
    /// `not` or `!`
    Not,
    /// `and` or `&&`
    And,
    /// `or` or `||`
    Or,
    /// A keyword.
    Keyword(&'a str),
    /// Anything else, without the quotes or the backslash that say it is no keyword.
    Word(&'a str),
    /// What cannot begin anything; the message says why.
    Bad(&'static str),
    /// The end of the text.
    End,
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<'a> {
    /// The token.
    pub token: Token<'a>,
    /// Its bytes.
    pub span: Range<usize>,
}

/// A place in an expression, from which tokens are read. Copies look ahead.
#[derive(Clone, Copy, Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

/// Whether a character ends a word.
fn ends_word(character: char) -> bool {
    character.is_whitespace() || matches!(character, '(' | ')' | '!' | '&' | '|' | '"' | '\'')
}

/// A name as it must be written to be read again.
#[must_use]
pub fn quoted(name: &str) -> String {
    let plain =
        !name.is_empty() && !name.starts_with('\\') && !name.contains(ends_word) && !words::is_keyword(name);
    match plain {
        true => name.to_owned(),
        false if name.contains('"') => format!("'{name}'"),
        false => format!("\"{name}\""),
    }
}

impl<'a> Lexer<'a> {
    /// Reads from the start of a text.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token.
    pub fn next(&mut self) -> Spanned<'a> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Spanned { token: Token::End, span: self.at..self.at };
        };
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '!' => (Token::Not, 1),
            '&' if rest.starts_with("&&") => (Token::And, 2),
            '|' if rest.starts_with("||") => (Token::Or, 2),
            '&' => (Token::Bad("write 'and' or '&&'"), 1),
            '|' => (Token::Bad("write 'or' or '||'"), 1),
            '"' | '\'' => in_quotes(rest, first),
            '\\' => escaped(rest),
            _ => plain(rest),
        };
        let span = self.at..self.at + length;
        self.at = span.end;
        Spanned { token, span }
    }

    /// The next token, left where it is.
    #[must_use]
    pub fn peek(mut self) -> Spanned<'a> {
        self.next()
    }

    /// Takes a piece of text if it is next.
    pub fn take(&mut self, piece: &str) -> bool {
        let found = self.rest().starts_with(piece);
        if found {
            self.at += piece.len();
        }
        found
    }

    /// Where the next piece starts, or the last one ended.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Passes over bytes of what is left.
    pub fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// What is left, from the next character that is no blank.
    pub fn rest(&mut self) -> &'a str {
        let text: &'a str = self.text;
        let rest = text[self.at..].trim_start();
        self.at = text.len() - rest.len();
        rest
    }

    /// Takes what is left up to a character, and the character; nothing if it does not come.
    pub fn take_through(&mut self, last: char) -> Option<&'a str> {
        let (taken, _) = self.text[self.at..].split_once(last)?;
        self.at += taken.len() + last.len_utf8();
        Some(taken)
    }
}

fn in_quotes(rest: &str, quote: char) -> (Token<'_>, usize) {
    match rest[1..].find(quote) {
        Some(length) => (Token::Word(&rest[1..=length]), length + 2),
        None => (Token::Bad("this quotation does not end"), 1),
    }
}

/// A backslash says that a word is meant as a name: `ip proto \udp`.
fn escaped(rest: &str) -> (Token<'_>, usize) {
    let word = up_to_end_of_word(&rest[1..]);
    match word {
        "" => (Token::Bad("a name follows a backslash"), 1),
        word => (Token::Word(word), 1 + word.len()),
    }
}

fn plain(rest: &str) -> (Token<'_>, usize) {
    let word = up_to_end_of_word(rest);
    let token = match word {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        word if words::is_keyword(word) => Token::Keyword(word),
        word => Token::Word(word),
    };
    (token, word.len())
}

fn up_to_end_of_word(text: &str) -> &str {
    &text[..text.find(ends_word).unwrap_or(text.len())]
}
