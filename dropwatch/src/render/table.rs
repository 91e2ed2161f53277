//! `table`: for people during an incident.

use std::{
    collections::HashSet,
    io::{self, Write},
};

use anstyle::{AnsiColor, Style as Ansi};

use super::{
    Render, Style,
    advice::{Advice, Counted, advice},
    explained::Explained,
    figures::{peak, percent, rate},
    harmless,
    layout::{Footer, Line, Sheet, first_fitting, fitting, lay_out, wrapped},
    tally::Tally,
};
use crate::{
    knowledge::Meanings,
    model::{
        class::{Class, Split},
        keys::Key,
        plural::counted,
        report::{Order, Report, Row, Value, View, needs_namespaces},
    },
};

/// What stands in front of a frame.
const FRAME: &str = "        ";
/// What drops mean that are in no entry.
pub(super) const UNKNOWN: &str = "Not known to dropwatch";

/// An aligned table for each report, never wider than the terminal; and at the end one of the whole run.
#[derive(Debug)]
pub struct Table {
    style: Style,
    tally: Tally,
    meanings: Meanings,
    explained: Explained,
}

impl Table {
    /// Tables for a terminal of that style.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self {
            style,
            tally: Tally::default(),
            meanings: Meanings::default(),
            explained: Explained::default(),
        }
    }

    fn painted(&self, style: Ansi, line: &str, out: &mut dyn Write) -> io::Result<()> {
        if self.style.colour { writeln!(out, "{style}{line}{style:#}") } else { writeln!(out, "{line}") }
    }

    /// A table below its title.
    fn table(&self, sheet: &Sheet<'_>, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        let cyan = coloured(AnsiColor::Cyan);
        let room = width.map(|width| width.saturating_sub(FRAME.len()));
        let layout = lay_out(sheet, width);
        layout.above.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        layout.header.iter().try_for_each(|line| self.painted(cyan, line, out))?;
        let mut headings = Headings::default();
        let mut said = HashSet::new();
        for (lines, row) in layout.rows.iter().zip(&sheet.rows) {
            if !sheet.classes {
                self.heading(&mut headings, row.class, "", out)?;
            }
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            let meaning = row.meaning.filter(|meaning| !layout.has_meanings && said.insert(*meaning));
            let meaning = meaning.map(|meaning| in_lines(meaning, room)).unwrap_or_default();
            let below = meaning.into_iter().chain(frames(row.values, room));
            below.into_iter().try_for_each(|line| writeln!(out, "{FRAME}{line}"))?;
        }
        for (number, (lines, footer)) in layout.footers.iter().zip(&sheet.footers).enumerate() {
            self.heading(&mut headings, footer.class, " (-a shows them)", out)?;
            let is_last = number + 1 == layout.footers.len();
            let style = if is_last { cyan } else { Ansi::new() };
            lines.iter().try_for_each(|line| self.painted(style, line, out))?;
        }
        Ok(())
    }

    /// What is lost, explained.
    fn advice(&self, advice: Advice, out: &mut dyn Write) -> io::Result<()> {
        let Advice { paragraphs, explained, note } = advice;
        for (heading, lines) in paragraphs {
            writeln!(out)?;
            heading.iter().try_for_each(|line| self.painted(coloured(AnsiColor::Red).bold(), line, out))?;
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        for lines in [explained, note].iter().filter(|lines| !lines.is_empty()) {
            writeln!(out)?;
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        Ok(())
    }

    /// What stands above the first row of a class.
    fn heading(
        &self,
        headings: &mut Headings,
        class: Option<Class>,
        more: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let Some(class) = headings.next(class) else { return Ok(()) };
        let (words, colour) = match class {
            Class::Lost => ("LOST", AnsiColor::Red),
            Class::Refused => ("REFUSED (the sender was told)", AnsiColor::Yellow),
            Class::Harmless => ("HARMLESS", AnsiColor::Green),
        };
        self.painted(coloured(colour).bold(), &format!("{words}{more}"), out)
    }
}

/// Which class the last heading was about.
#[derive(Default)]
struct Headings(Option<Class>);

impl Headings {
    /// The class, if it needs a heading.
    fn next(&mut self, class: Option<Class>) -> Option<Class> {
        class.filter(|class| self.0.replace(*class) != Some(*class))
    }
}

fn coloured(colour: AnsiColor) -> Ansi {
    Ansi::new().fg_color(Some(colour.into()))
}

impl Render for Table {
    fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        self.tally.add(report);
        let width = self.style.width.now();
        for line in title(&self.style.time(report.time), report, width) {
            let style = if report.drops == 0 { Ansi::new() } else { Ansi::new().bold() };
            self.painted(style, &line, out)?;
        }
        if report.drops == 0 {
            return counters(report, width, out);
        }
        let sheet = sheet(report, &mut self.meanings);
        self.table(&sheet, width, out)?;
        counters(report, width, out)?;
        if let Some(enter) = self.style.explain {
            let rows = report.rows.iter().chain(&report.folded).collect();
            let rows = Counted { by: &report.by, rows, are_bounds: Vec::new(), time: report.time };
            let is_news = |row: &Row| self.explained.is_news(row);
            let advice = advice(&rows, &mut self.meanings, enter, width, is_news);
            self.advice(advice, out)?;
        }
        writeln!(out)
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.style.width.now();
        let words = self.tally.title();
        wrapped(&words, " ", "  ", width)
            .iter()
            .try_for_each(|line| self.painted(Ansi::new().bold(), line, out))?;
        let Some(summary) = self.tally.summary(self.style.milliseconds) else { return Ok(()) };
        let sheet = summary.sheet(&mut self.meanings);
        self.table(&sheet, width, out)?;
        if let Some(enter) = self.style.explain {
            let (by, rows, are_bounds, time) = summary.as_rows();
            let rows = Counted { by, rows: rows.iter().collect(), are_bounds, time };
            let advice = advice(&rows, &mut self.meanings, enter, width, |_| true);
            self.advice(advice, out)?;
        }
        writeln!(out)?;
        summary
            .note
            .iter()
            .try_for_each(|note| in_lines(note, width).iter().try_for_each(|line| writeln!(out, "{line}")))
    }
}

/// When, how many, and of which classes: in one line, if that can be.
fn title(time: &str, report: &Report, width: Option<usize>) -> Vec<String> {
    let seconds = format!("{:.1} s", report.elapsed.as_secs_f64());
    let dropped = format!("{} dropped in {seconds}", counted(report.drops, "packet"));
    let Some(split) = report.split else {
        return wrapped(&[time.to_owned(), dropped], "  ", "  ", width);
    };
    let lines = [
        format!("{time}  {dropped}: {split}"),
        format!("{time}  {} dropped in {seconds}: {split}", report.drops),
    ];
    let line = first_fitting(&lines, width);
    if width.is_none_or(|width| line.chars().count() <= width) {
        return vec![line.to_owned()];
    }
    wrapped(&[time.to_owned(), format!("{dropped}:"), split.to_string()], "  ", "  ", width)
}

/// Words in lines, all but the first indented.
fn in_lines(text: &str, width: Option<usize>) -> Vec<String> {
    let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
    wrapped(&words, " ", "  ", width)
}

/// Losses that no row accounts for.
fn counters(report: &Report, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    if !report.counters.is_empty() {
        writeln!(out, "Counted by the kernel, and in no row:")?;
    }
    for counter in &report.counters {
        let lines = in_lines(&counter.words(), width.map(|width| width.saturating_sub(2)));
        lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    Ok(())
}

/// The call chain of a row, in words.
fn frames(values: &[Value], room: Option<usize>) -> Vec<String> {
    let in_words = |value: &Value| match value {
        Value::Stack(Some(frames)) => frames.iter().map(|frame| fitting(&frame.to_string(), room)).collect(),
        Value::Stack(None) => vec!["(the call chain is not known)".to_owned()],
        _ => vec![],
    };
    values.iter().flat_map(in_words).collect()
}

/// What a row's drops mean; `None` if its keys do not determine it.
pub(super) fn meaning(
    class: Option<Class>,
    values: &[Value],
    meanings: &mut Meanings,
) -> Option<&'static str> {
    class.map(|_| meanings.entry(values).map_or(UNKNOWN, |entry| entry.title))
}

fn sheet<'a>(report: &'a Report, meanings: &mut Meanings) -> Sheet<'a> {
    let has_peaks = report.peak.is_some();
    let figures = |drops: u64, peak: String| {
        let mut figures = vec![drops.to_string(), rate(report.rate(drops)), percent(report.share(drops))];
        if has_peaks {
            figures.insert(2, peak);
        }
        figures
    };
    let mut footers = Vec::new();
    if !report.folded.is_empty() {
        let drops = report.folded.iter().map(|row| row.count).sum();
        let folded = report.folded.iter().map(|row| (row.count, &row.values[..]));
        let words = harmless::in_words(folded, drops, meanings);
        footers.push(Footer { class: Some(Class::Harmless), figures: figures(drops, String::new()), words });
    }
    if report.cut.rows > 0 {
        let shown = report.rows.iter().chain(&report.folded).map(|row| (row.class, row.count));
        let words =
            in_other_rows(&format!("in {}", counted(report.cut.rows, "other row")), report.split, shown);
        footers.push(Footer { class: None, figures: figures(report.cut.drops, String::new()), words });
    }
    footers.push(Footer {
        class: None,
        figures: figures(report.drops, peak(report.peak)),
        words: vec![format!("total ({} since the start)", report.total), "total".to_owned()],
    });
    let rows = report.rows.iter().map(|row| Line {
        class: row.class,
        meaning: meaning(row.class, &row.values, meanings),
        figures: figures(row.count, peak(row.peak)),
        values: &row.values,
    });
    Sheet {
        by: &report.by,
        figures: if has_peaks { &["COUNT", "RATE", "PEAK", "SHARE"] } else { &["COUNT", "RATE", "SHARE"] },
        optional: if has_peaks { &[3, 1] } else { &[2, 1] },
        classes: has_class_column(report.view, &report.by, report.rows.iter().map(|row| row.class)),
        namespaces: needs_namespaces(&report.by, report.rows.iter().map(|row| &row.values[..])),
        rows: rows.collect(),
        footers,
    }
}

/// Where the drops are that are not shown, and of which classes they are.
pub(super) fn in_other_rows(
    words: &str,
    all: Option<Split>,
    mut shown: impl Iterator<Item = (Option<Class>, u64)>,
) -> Vec<String> {
    let others =
        all.and_then(|all| shown.try_fold(all, |left, (class, drops)| Some(left.without(class?, drops))));
    let split = others.map(|others| format!("{words}: {}", others.words()));
    split.into_iter().chain([words.to_owned()]).collect()
}

/// Whether the class is a column of its own: where rows of one class are not together, and it is no key.
pub(super) fn has_class_column(
    view: View,
    by: &[Key],
    mut classes: impl Iterator<Item = Option<Class>>,
) -> bool {
    view.order == Order::Count && !by.contains(&Key::Class) && classes.any(|class| class.is_some())
}
