//! How a table fits a terminal: what is left out first, and what never.
//!
//! In this order, each step only if the one before is still too wide:
//!
//! 1. everything;
//! 2. what is the same in all rows is said once above them;
//! 3. a location without its line of source and `[kernel]`, a namespace by its name alone;
//! 4. a location without the function's size;
//! 5. without the first of the figures that follow from others;
//! 6. the same again, with no column for what the drops mean: that stands below the rows;
//! 7. without all figures that follow from others;
//! 8. a location by its function alone;
//! 9. no columns: each row is a record of several lines.
//!
//! No step makes two rows look the same that did not before, and none cuts a word.

use unicode_width::UnicodeWidthStr as _;

use crate::model::{
    class::Class,
    keys::Key,
    report::{Netns, Value},
};

/// Blanks between two columns.
const GAP: usize = 2;

/// What is laid out.
#[derive(Debug)]
pub struct Sheet<'a> {
    /// What a row stands for.
    pub by: &'a [Key],
    /// The headers of the figures.
    pub figures: &'a [&'a str],
    /// Which of the figures can be left out, the first one first.
    pub optional: &'a [usize],
    /// Whether the class has a column; else rows of a class have a heading.
    pub classes: bool,
    /// Whether an interface is shown with its namespace.
    pub namespaces: bool,
    /// The rows.
    pub rows: Vec<Line<'a>>,
    /// Lines below the rows.
    pub footers: Vec<Footer>,
}

/// A row.
#[derive(Debug)]
pub struct Line<'a> {
    /// What its drops are worth, if that is known.
    pub class: Option<Class>,
    /// What they mean.
    pub meaning: Option<&'static str>,
    /// As many as there are headers.
    pub figures: Vec<String>,
    /// As many as there are keys.
    pub values: &'a [Value],
}

/// A line below the rows.
#[derive(Debug)]
pub struct Footer {
    /// The class that it sums.
    pub class: Option<Class>,
    /// As many as there are headers.
    pub figures: Vec<String>,
    /// What it is about, from many words to few: the first that fit are shown.
    pub words: Vec<String>,
}

/// A sheet, laid out.
#[derive(Debug, Default)]
pub struct Layout {
    /// What is the same in all rows.
    pub above: Vec<String>,
    /// The columns' names; none if there are no columns.
    pub header: Option<String>,
    /// The lines of each row.
    pub rows: Vec<Vec<String>>,
    /// The lines of each footer.
    pub footers: Vec<Vec<String>>,
    /// Whether a column says what the drops mean.
    pub has_meanings: bool,
}

/// How much of a location is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Detail {
    Source,
    Size,
    Offset,
    Function,
}

/// One way to lay a sheet out.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Say once what is the same in all rows.
    once: bool,
    detail: Detail,
    /// How many of the optional figures are left out.
    without: usize,
    /// Have a column for what the drops mean.
    meaning: bool,
}

const STEPS: [Step; 12] = [
    Step { once: false, detail: Detail::Source, without: 0, meaning: true },
    Step { once: true, detail: Detail::Source, without: 0, meaning: true },
    Step { once: true, detail: Detail::Size, without: 0, meaning: true },
    Step { once: true, detail: Detail::Offset, without: 0, meaning: true },
    Step { once: true, detail: Detail::Offset, without: 1, meaning: true },
    Step { once: false, detail: Detail::Source, without: 0, meaning: false },
    Step { once: true, detail: Detail::Source, without: 0, meaning: false },
    Step { once: true, detail: Detail::Size, without: 0, meaning: false },
    Step { once: true, detail: Detail::Offset, without: 0, meaning: false },
    Step { once: true, detail: Detail::Offset, without: 1, meaning: false },
    Step { once: true, detail: Detail::Offset, without: 2, meaning: false },
    Step { once: true, detail: Detail::Function, without: 2, meaning: false },
];

/// Lays a sheet out for so many columns, or for as many as it needs.
#[must_use]
pub fn lay_out(sheet: &Sheet<'_>, width: Option<usize>) -> Layout {
    let Some(width) = width else { return in_columns(&Cells::new(sheet, STEPS[0]), Vec::new(), None) };
    for step in STEPS {
        let cells = Cells::new(sheet, step);
        if cells.width() <= width && (step.detail == Detail::Source || cells.are_distinct()) {
            let above = if step.once { once(sheet, step.detail, width) } else { Vec::new() };
            return in_columns(&cells, above, Some(width));
        }
    }
    in_records(sheet, width)
}

/// The first of some texts that is no longer than that; the last, if none is.
#[must_use]
pub fn first_fitting(texts: &[String], width: Option<usize>) -> &str {
    let fits = |text: &&String| width.is_none_or(|width| text.width() <= width);
    texts.iter().find(fits).or(texts.last()).map_or("", |text| text)
}

/// Words in lines of at most that width, as far as single ones fit; all lines but the first are indented.
#[must_use]
pub fn wrapped(words: &[String], gap: &str, indent: &str, width: Option<usize>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if width.is_none_or(|width| line.width() + gap.width() + word.width() <= width) => {
                line.push_str(gap);
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{indent}{word}")),
            None => lines.push(word.clone()),
        }
    }
    lines
}

/// A location with as much of it as there is room for.
#[must_use]
pub fn fitting(location: &str, width: Option<usize>) -> String {
    let details = [Detail::Source, Detail::Size, Detail::Offset, Detail::Function];
    let fits = |text: &String| width.is_none_or(|width| text.width() <= width);
    let mut texts = details.map(|detail| shortened(location, detail)).into_iter();
    texts.find(fits).unwrap_or_else(|| shortened(location, Detail::Function))
}

/// `tcp_v4_rcv+0xaa/0x8d0 [kernel]` with less of it. What is in a module is always shown with it.
fn shortened(location: &str, detail: Detail) -> String {
    if detail == Detail::Source {
        return location.to_owned();
    }
    let (place, module) = location.split_once(" [").unwrap_or((location, "kernel]"));
    let module = if module == "kernel]" { String::new() } else { format!(" [{module}") };
    let place = match detail {
        Detail::Source | Detail::Size => place,
        Detail::Offset => place.rsplit_once('/').map_or(place, |(place, _)| place),
        Detail::Function => place.rsplit_once('+').map_or(place, |(function, _)| function),
    };
    format!("{place}{module}")
}

/// A value in words.
fn words(sheet: &Sheet<'_>, value: &Value, detail: Detail) -> String {
    let netns = |netns: &Netns| match &netns.name {
        Some(name) if detail > Detail::Source => name.to_string(),
        _ => netns.words(),
    };
    match value {
        Value::Iface(Some(iface)) if sheet.namespaces => iface
            .netns
            .as_ref()
            .map_or_else(|| iface.words(), |it| format!("{} in {}", iface.words(), netns(it))),
        Value::Netns(Some(it)) => netns(it),
        Value::Location { location, source: Some(source) } if detail == Detail::Source => {
            format!("{location} ({source})")
        }
        Value::Location { location, .. } => shortened(&location.to_string(), detail),
        value => value.words(),
    }
}

/// The keys from left to right: the longest come last. Call chains are no column: each stands below its row.
fn columns(by: &[Key]) -> Vec<usize> {
    let mut columns: Vec<_> = (0..by.len()).filter(|&column| by[column] != Key::Stack).collect();
    columns.sort_by_key(|&column| [Key::Function, Key::Location].iter().position(|&key| key == by[column]));
    columns
}

/// Whether a column says the same in all rows, and is not what a row is mostly about.
fn is_constant(sheet: &Sheet<'_>, column: usize, detail: Detail) -> bool {
    let mut texts = sheet.rows.iter().map(|row| words(sheet, &row.values[column], detail));
    let first = texts.next();
    !matches!(sheet.by[column], Key::Location | Key::Function)
        && first.is_some_and(|first| texts.all(|text| text == first))
}

/// What is the same in all rows, said once.
fn once(sheet: &Sheet<'_>, detail: Detail, width: usize) -> Vec<String> {
    let Some(row) = sheet.rows.first() else { return Vec::new() };
    let constant = columns(sheet.by).into_iter().filter(|&column| is_constant(sheet, column, detail));
    let mut pairs: Vec<_> = constant
        .map(|column| format!("{} {},", sheet.by[column].word(), words(sheet, &row.values[column], detail)))
        .collect();
    let Some(last) = pairs.last_mut() else { return Vec::new() };
    last.pop();
    pairs[0].insert_str(0, "in every row: ");
    wrapped(&pairs, " ", "  ", Some(width))
}

/// The text of each column.
struct Cells<'a> {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Figures alone: words of footers are in no column.
    footers: Vec<Vec<String>>,
    words: Vec<&'a [String]>,
    /// How many columns are figures, which are aligned to the right.
    figures: usize,
    has_meanings: bool,
}

impl<'a> Cells<'a> {
    fn new(sheet: &'a Sheet<'_>, step: Step) -> Self {
        let left_out = &sheet.optional[..step.without.min(sheet.optional.len())];
        let shown: Vec<_> = (0..sheet.figures.len()).filter(|figure| !left_out.contains(figure)).collect();
        let mut columns = columns(sheet.by);
        columns.retain(|&column| !(step.once && is_constant(sheet, column, step.detail)));
        let has_meanings = step.meaning && sheet.rows.iter().any(|row| row.meaning.is_some());
        let pick =
            |figures: &[String]| -> Vec<_> { shown.iter().map(|&figure| figures[figure].clone()).collect() };
        let mut header: Vec<_> = shown.iter().map(|&figure| sheet.figures[figure].to_owned()).collect();
        header.extend(sheet.classes.then(|| "CLASS".to_owned()));
        header.extend(columns.iter().map(|&column| sheet.by[column].word().to_uppercase()));
        header.extend(has_meanings.then(|| "MEANING".to_owned()));
        let rows = sheet.rows.iter().map(|row| {
            let mut cells = pick(&row.figures);
            cells.extend(sheet.classes.then(|| row.class.map_or("-", Class::name).to_owned()));
            cells.extend(columns.iter().map(|&column| words(sheet, &row.values[column], step.detail)));
            cells.extend(has_meanings.then(|| row.meaning.unwrap_or_default().to_owned()));
            cells
        });
        Self {
            header,
            rows: rows.collect(),
            footers: sheet.footers.iter().map(|footer| pick(&footer.figures)).collect(),
            words: sheet.footers.iter().map(|footer| &footer.words[..]).collect(),
            figures: shown.len(),
            has_meanings,
        }
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        [&self.header].into_iter().chain(&self.rows).chain(&self.footers)
    }

    /// The width of each column.
    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for line in self.lines() {
            widths.resize(widths.len().max(line.len()), 0);
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.width().max(*width);
            }
        }
        widths
    }

    /// With the blank before the first column, and the shortest words of footers.
    fn width(&self) -> usize {
        let widths = self.widths();
        let columns = |widths: &[usize]| 1 + widths.iter().map(|width| width + GAP).sum::<usize>();
        let shortest = self.words.iter().filter_map(|words| words.last()).map(|words| words.width());
        let footers = columns(&widths[..self.figures]) + shortest.max().unwrap_or(0);
        footers.max(columns(&widths).saturating_sub(GAP))
    }

    fn are_distinct(&self) -> bool {
        let mut names: Vec<_> = self.rows.iter().map(|row| &row[self.figures..]).collect();
        names.sort_unstable();
        names.is_sorted_by(|one, other| one < other || one.is_empty())
    }
}

fn in_columns(cells: &Cells<'_>, above: Vec<String>, width: Option<usize>) -> Layout {
    let widths = cells.widths();
    let line = |texts: &[String]| {
        let mut line = String::new();
        for (column, text) in texts.iter().enumerate() {
            let blanks = " ".repeat(widths[column] - text.width());
            line.push_str(if column == 0 { " " } else { "  " });
            let is_figure = column < cells.figures;
            line.extend(if is_figure { [blanks.as_str(), text] } else { [text, blanks.as_str()] });
        }
        line
    };
    let trimmed = |texts: &Vec<String>| line(texts).trim_end().to_owned();
    let footer = |(figures, words): (&Vec<String>, &&[String])| {
        let figures = line(figures);
        let room = width.map(|width| width.saturating_sub(figures.width() + GAP));
        vec![format!("{figures}{:GAP$}{}", "", first_fitting(words, room))]
    };
    Layout {
        above,
        header: Some(trimmed(&cells.header)),
        rows: cells.rows.iter().map(|row| vec![trimmed(row)]).collect(),
        footers: cells.footers.iter().zip(&cells.words).map(footer).collect(),
        has_meanings: cells.has_meanings,
    }
}

/// Each row as several lines: its figures, then a line for each key.
fn in_records(sheet: &Sheet<'_>, width: usize) -> Layout {
    const INDENT: &str = "   ";
    const DEEPER: &str = "     ";
    let columns = columns(sheet.by);
    let varying = columns.into_iter().filter(|&column| !is_constant(sheet, column, Detail::Size));
    let varying: Vec<_> = varying.collect();
    let figures = |figures: &[String]| {
        let figures = figures.iter().filter(|figure| !figure.is_empty());
        let figures: Vec<_> = figures.map(|figure| format!(" {figure}")).collect();
        wrapped(&figures, " ", INDENT, Some(width))
    };
    let record = |row: &Line<'_>| {
        let mut lines = figures(&row.figures);
        lines.extend(sheet.classes.then(|| format!("{INDENT}class {}", row.class.map_or("-", Class::name))));
        for &column in &varying {
            let value = &row.values[column];
            let word = if let Value::Location { .. } = value { "at" } else { sheet.by[column].word() };
            let text = words(sheet, value, Detail::Size);
            let parts = match text.split_once('+').filter(|_| matches!(value, Value::Location { .. })) {
                Some((function, rest)) if INDENT.len() + word.width() + 1 + text.width() > width => {
                    vec![word.to_owned(), function.to_owned(), format!("+{rest}")]
                }
                _ => vec![word.to_owned(), text],
            };
            let indented = wrapped(&parts, " ", DEEPER, Some(width.saturating_sub(INDENT.len())));
            lines.extend(
                indented
                    .iter()
                    .enumerate()
                    .map(|(number, line)| if number == 0 { format!("{INDENT}{line}") } else { line.clone() }),
            );
        }
        lines
    };
    let footer = |footer: &Footer| {
        let mut lines = figures(&footer.figures);
        let room = width.saturating_sub(INDENT.len());
        lines.push(format!("{INDENT}{}", first_fitting(&footer.words, Some(room))));
        lines
    };
    Layout {
        above: once(sheet, Detail::Size, width),
        header: None,
        rows: sheet.rows.iter().map(record).collect(),
        footers: sheet.footers.iter().map(footer).collect(),
        has_meanings: false,
    }
}
