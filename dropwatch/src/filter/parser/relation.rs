//! Comparisons of numbers: `tcp[13] & 2 != 0`.
//!
//! The operators bind as libpcap's grammar has it: `* /` before `+ -`, then `<< >>`, `&`, `|`. It gives no rank to
//! `%` and `^`, so that what follows one of these, as far as it goes, is its right side.

use std::ops::Range;

use super::{Parser, Result};
use crate::filter::{
    NameLookup,
    compile::relation,
    lexer::Lexer,
    tree::{Access, Comparison, Expr, Header, Number, Operation, Relation, Term},
    words,
};

/// The most numbers in a comparison.
const MAX_PARTS: usize = 64;

/// A piece of a calculation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Constant(u32),
    Length,
    Header(Header),
    Operation(Operation),
    Comparison(Comparison),
    Open,
    Close,
    OpenIndex,
    CloseIndex,
    Colon,
    /// A word or a number that is none.
    Other(&'a str),
    End,
}

/// A piece and where it stands.
type Spanned<'a> = (Piece<'a>, Range<usize>);

/// Signs, of which the first that fits is the one that is meant.
const SIGNS: [(&str, Piece<'static>); 27] = [
    ("&&", Piece::End),
    ("||", Piece::End),
    ("<<", Piece::Operation(Operation::ShiftLeft)),
    (">>", Piece::Operation(Operation::ShiftRight)),
    ("<=", Piece::Comparison(Comparison::LessOrEqual)),
    (">=", Piece::Comparison(Comparison::GreaterOrEqual)),
    ("!=", Piece::Comparison(Comparison::NotEqual)),
    ("==", Piece::Comparison(Comparison::Equal)),
    ("=", Piece::Comparison(Comparison::Equal)),
    ("<", Piece::Comparison(Comparison::Less)),
    (">", Piece::Comparison(Comparison::Greater)),
    ("+", Piece::Operation(Operation::Add)),
    ("-", Piece::Operation(Operation::Sub)),
    ("*", Piece::Operation(Operation::Mul)),
    ("/", Piece::Operation(Operation::Div)),
    ("%", Piece::Operation(Operation::Mod)),
    ("&", Piece::Operation(Operation::And)),
    ("|", Piece::Operation(Operation::Or)),
    ("^", Piece::Operation(Operation::Xor)),
    ("(", Piece::Open),
    (")", Piece::Close),
    ("[", Piece::OpenIndex),
    ("]", Piece::CloseIndex),
    (":", Piece::Colon),
    ("!", Piece::End),
    ("\"", Piece::End),
    ("'", Piece::End),
];

/// The next piece.
fn next<'a>(lexer: &mut Lexer<'a>) -> Spanned<'a> {
    let rest = lexer.rest();
    let (piece, length) = piece(rest);
    let start = lexer.at();
    lexer.skip(length);
    (piece, start..start + length)
}

fn piece(rest: &str) -> (Piece<'_>, usize) {
    let Some(first) = rest.chars().next() else { return (Piece::End, 0) };
    if let Some((sign, piece)) = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign)) {
        return (*piece, sign.len());
    }
    let is_number = first.is_ascii_digit();
    let ends =
        |character: char| !(character.is_ascii_alphanumeric() || !is_number && "-_.".contains(character));
    let word = &rest[..rest.find(ends).unwrap_or(rest.len()).max(first.len_utf8())];
    let piece = match word {
        "len" | "length" => Piece::Length,
        word if is_number => super::number::number(word).map_or(Piece::Other(word), Piece::Constant),
        word => words::constant(word)
            .map(Piece::Constant)
            .or_else(|| words::header(word).map(Piece::Header))
            .unwrap_or(Piece::Other(word)),
    };
    (piece, word.len())
}

/// Whether a comparison starts here: nothing but numbers and operators stand in front of a sign that compares.
///
/// Such a sign inside parentheses belongs to a comparison that is all inside: those are around more than numbers.
pub(super) fn starts(mut lexer: Lexer<'_>) -> bool {
    let mut depth = 0_usize;
    loop {
        match next(&mut lexer).0 {
            Piece::Comparison(_) => return depth == 0,
            Piece::Open => depth += 1,
            Piece::Close if depth > 0 => depth -= 1,
            Piece::Close | Piece::End | Piece::Other(_) => return false,
            _ => {}
        }
    }
}

/// How close an operator binds; `%` and `^` take everything to their right.
fn rank(operation: Operation) -> Option<u8> {
    match operation {
        Operation::Or => Some(1),
        Operation::And => Some(2),
        Operation::ShiftLeft | Operation::ShiftRight => Some(3),
        Operation::Add | Operation::Sub => Some(4),
        Operation::Mul | Operation::Div => Some(5),
        Operation::Mod | Operation::Xor => None,
    }
}

/// The rank of a sign in front of a number.
const SIGN: u8 = 6;

impl<R: NameLookup> Parser<'_, R> {
    /// A comparison, of which it is known that it starts here.
    pub(super) fn relation(&mut self) -> Result<Expr> {
        self.parts = 0;
        let start = self.lexer.peek().span.start;
        let left = self.calculation(0)?;
        let (piece, span) = next(&mut self.lexer);
        let Piece::Comparison(comparison) = piece else {
            return Err(self.error(span, "a comparison is missing before this, like '!= 0'"));
        };
        let right = self.calculation(0)?;
        let relation = Relation { left, comparison, right };
        let span = start..self.lexer.at();
        if !relation::fits(&relation) {
            return Err(self.error(span, "this has too many calculations inside each other"));
        }
        self.counted(Term::Relation(relation), span)
    }

    /// Numbers with operators between that bind closer than a rank.
    fn calculation(&mut self, above: u8) -> Result<Number> {
        let mut left = self.number_or_access()?;
        loop {
            let mut ahead = self.lexer;
            let (Piece::Operation(operation), span) = next(&mut ahead) else { return Ok(left) };
            let rank = rank(operation);
            if rank.is_some_and(|rank| rank <= above) {
                return Ok(left);
            }
            self.lexer = ahead;
            let right = self.nested(span.clone(), |parser| parser.calculation(rank.unwrap_or(0)))?;
            self.check_operands(operation, &right, span)?;
            left = Number::Calculated(left.into(), operation, right.into());
        }
    }

    /// Refuses what no packet could give a meaning to.
    fn check_operands(&self, operation: Operation, right: &Number, span: Range<usize>) -> Result<()> {
        match (operation, right) {
            (Operation::Div | Operation::Mod, Number::Constant(0)) => {
                Err(self.error(span, "this is a division by zero"))
            }
            (Operation::ShiftLeft | Operation::ShiftRight, Number::Constant(32..)) => {
                Err(self.error(span, "numbers have 32 bits, and this shifts by more than 31"))
            }
            _ => Ok(()),
        }
    }

    fn number_or_access(&mut self) -> Result<Number> {
        let (piece, span) = next(&mut self.lexer);
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(self.error(span, format!("this comparison has more than {MAX_PARTS} numbers")));
        }
        match piece {
            Piece::Constant(number) => Ok(Number::Constant(number)),
            Piece::Length => Ok(Number::Length),
            Piece::Header(header) => self.access(header, span),
            Piece::Operation(Operation::Sub) => {
                let number = self.nested(span, |parser| parser.calculation(SIGN))?;
                Ok(Number::Negative(number.into()))
            }
            Piece::Open => {
                let number = self.nested(span.clone(), |parser| parser.calculation(0))?;
                match next(&mut self.lexer) {
                    (Piece::Close, _) => Ok(number),
                    _ => Err(self.error(span, "this parenthesis is not closed")),
                }
            }
            Piece::Other(word) => Err(self.no_number(word, span)),
            _ => Err(self.error(span, "a number is missing before this, like 2, tcp[13] or len")),
        }
    }

    fn no_number(&self, word: &str, span: Range<usize>) -> super::FilterError {
        if let Err(problem) = super::number::number(word)
            && word.starts_with(|first: char| first.is_ascii_digit())
        {
            return self.error(span, problem);
        }
        let hint = super::suggestions::hint(word, words::constants());
        self.error(span, format!("'{word}' is not a number{hint}"))
    }

    /// `[13]` or `[2:2]` after the name of a header.
    fn access(&mut self, header: Header, span: Range<usize>) -> Result<Number> {
        if next(&mut self.lexer).0 != Piece::OpenIndex {
            return Err(
                self.error(span, "which bytes of it? Write the first one's number behind it, like [0]")
            );
        }
        let index = self.nested(span.clone(), |parser| parser.calculation(0))?;
        let mut size = 1;
        let (mut piece, mut at) = next(&mut self.lexer);
        if piece == Piece::Colon {
            let (number, span) = next(&mut self.lexer);
            size = match number {
                Piece::Constant(1) => 1,
                Piece::Constant(2) => 2,
                Piece::Constant(4) => 4,
                _ => return Err(self.error(span, "what can be read at once is 1, 2 or 4 bytes")),
            };
            (piece, at) = next(&mut self.lexer);
        }
        match piece {
            Piece::CloseIndex => Ok(Number::Bytes(Access { header, index, size }.into())),
            Piece::End => Err(self.error(span.start..at.start, "a ']' is missing after this")),
            _ => Err(self.error(at, "']' is missing before this")),
        }
    }
}
