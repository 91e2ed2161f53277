//! The rows, what was lost first, each with its rate, its peak and its last minutes.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    style::Modifier,
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    State, fit,
    look::{Look, Role},
    put, rate,
};
use crate::{
    commands::top::{
        history::{Line, Lines, OF_A_ROW},
        state::{Data, Entry, is_marked},
    },
    model::{
        class::Class,
        keys::Key,
        plural::counted,
        report::{Value, needs_namespaces},
    },
};

/// How many bars a sparkline has at least, and at most.
const SHORTEST_SPARK: usize = 8;
const LONGEST_SPARK: usize = 60;

/// The columns of figures before those of the keys.
#[derive(Clone, Copy, Debug)]
struct Figures {
    has_class: bool,
    has_total: bool,
    has_peak: bool,
    spark: usize,
}

impl Figures {
    /// As many as the width has room for beside the keys.
    fn new(width: u16, data: &Data) -> Self {
        let has_class = data.history.lines.values().any(|line| line.id.1.is_some());
        Self { has_class, has_total: width >= 100, has_peak: width >= 70, spark: SHORTEST_SPARK }
    }

    /// How many columns all of them have.
    fn width(self) -> usize {
        self.words("", "", ["", "", ""]).width() + self.spark + 2
    }

    /// Their headers, and then what stands below them.
    fn words(self, mark: &str, class: &str, [rate, peak, total]: [&str; 3]) -> String {
        let if_any = |has: bool, words: String| if has { words } else { String::new() };
        let class = if_any(self.has_class, format!("{class:9}"));
        let peak = if_any(self.has_peak, format!("{peak:>10}"));
        let total = if_any(self.has_total, format!("{total:>11}"));
        format!("{mark:1} {class}{rate:>9}{peak}{total} ")
    }
}

/// How many rows there is room for.
#[must_use]
pub fn room(area: Rect, state: &State) -> usize {
    usize::from(area.height.saturating_sub(1 + counters(area, state.data())))
}

/// How many lines counters have that no row accounts for, a title among them.
fn counters(area: Rect, data: &Data) -> u16 {
    let most = match area.height {
        0..10 => 0,
        10..20 => 4,
        _ => 8,
    };
    let has = u16::try_from(data.counters.len()).unwrap_or(u16::MAX);
    if has == 0 { 0 } else { has.saturating_add(1).min(most) }
}

pub fn draw(buffer: &mut Buffer, area: Rect, state: &State, look: &Look) {
    if area.height == 0 {
        return;
    }
    let data = state.data();
    let mut figures = Figures::new(area.width, data);
    let entries = state.entries();
    let page = room(area, state);
    let shown: Vec<_> = entries.iter().enumerate().skip(state.scroll).take(page).collect();
    let room = usize::from(area.width).saturating_sub(figures.width());
    let columns = Columns::new(data, shown.iter().map(|(_, entry)| **entry), room);
    // What the keys leave is history.
    figures.spark = (figures.spark + room.saturating_sub(columns.width())).min(LONGEST_SPARK);
    header(buffer, area, figures, &columns, look);
    for (y, (place, entry)) in (area.y + 1..).zip(&shown) {
        let line = Rect { y, height: 1, ..area };
        match entry {
            Entry::Row(row) => draw_row(buffer, line, row, data, figures, &columns, look),
            Entry::Folded(lines) => draw_folded(buffer, line, lines, figures, look),
        }
        if *place == state.place() {
            buffer.set_style(line, look.style(Role::Selected));
        }
    }
    if entries.is_empty() {
        let text = if data.time.is_some() { "no drops" } else { "" };
        put(buffer, Position { x: area.x + 2, y: area.y + 1 }, area.width, text, look.style(Role::Dim));
    }
    draw_counters(buffer, area, data, look);
}

/// The columns of the keys: as wide as what is in them, the widest cut first.
struct Columns {
    names: Vec<&'static str>,
    widths: Vec<usize>,
    form: Form,
}

/// How values are written.
#[derive(Clone, Copy, Debug, Default)]
struct Form {
    /// A location is its function alone; a namespace is its name alone.
    is_short: bool,
    /// An interface has its namespace with it.
    has_namespace: bool,
}

impl Columns {
    fn new<'a>(data: &Data, entries: impl Iterator<Item = Entry<'a>>, room: usize) -> Self {
        let rows: Vec<&Line> = entries
            .filter_map(|entry| match entry {
                Entry::Row(line) => Some(line),
                Entry::Folded(_) => None,
            })
            .collect();
        let has_namespace = needs_namespaces(&data.by, rows.iter().map(|line| &*line.row.values));
        let names: Vec<_> = data.by.iter().map(|key| key.word()).collect();
        let natural = |form: Form| -> Vec<usize> {
            let widest = |at: usize| {
                let widths = rows.iter().filter_map(|line| line.row.values.get(at));
                widths.map(|value| words(value, form).width()).max().unwrap_or(0)
            };
            names.iter().enumerate().map(|(at, name)| widest(at).max(name.len())).collect()
        };
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        let long = Form { is_short: false, has_namespace };
        let form = if total(&natural(long)) <= room { long } else { Form { is_short: true, has_namespace } };
        let mut widths = natural(form);
        while total(&widths) > room
            && let Some(widest) = widths.iter_mut().max()
            && *widest > 4
        {
            *widest -= 1;
        }
        Self { names, widths, form }
    }

    fn width(&self) -> usize {
        self.widths.iter().sum::<usize>() + 2 * self.widths.len().saturating_sub(1)
    }

    fn line(&self, words: impl Iterator<Item = String>, look: &Look) -> String {
        let fitted = words.zip(&self.widths).map(|(text, width)| fit(&text, *width, look));
        fitted.collect::<Vec<_>>().join("  ")
    }
}

fn words(value: &Value, form: Form) -> String {
    match value {
        Value::Location { location, .. } if form.is_short => match &location.symbol {
            Some(symbol) => format!("{}+{:#x}", symbol.name.word(), symbol.offset),
            None => value.words(),
        },
        Value::Netns(Some(netns)) if form.is_short => {
            netns.name.as_ref().map_or_else(|| netns.words(), ToString::to_string)
        }
        Value::Iface(Some(iface)) if form.has_namespace => match &iface.netns {
            Some(netns) => format!("{} in {}", iface.words(), netns.words()),
            None => iface.words(),
        },
        value => value.words(),
    }
}

fn header(buffer: &mut Buffer, area: Rect, figures: Figures, columns: &Columns, look: &Look) {
    let spark = fit("HISTORY", figures.spark, look);
    let names = columns.names.iter().map(|name| name.to_uppercase());
    let figures = figures.words("", "CLASS", ["RATE", "PEAK", "TOTAL"]);
    let text = format!("{figures}{spark}  {}", columns.line(names, look));
    let style = look.style(Role::Title).add_modifier(Modifier::UNDERLINED);
    put(buffer, area.as_position(), area.width, &fit(&text, usize::from(area.width), look), style);
}

fn draw_row(
    buffer: &mut Buffer,
    area: Rect,
    line: &Line,
    data: &Data,
    figures: Figures,
    columns: &Columns,
    look: &Look,
) {
    let (new, grown) = look.marks();
    let clock = data.history.clock;
    let mark = match (is_marked(line.new_at, clock), is_marked(line.grown_at, clock)) {
        (true, _) => new.to_string(),
        (false, true) => grown.to_string(),
        (false, false) => String::new(),
    };
    let class = line.id.1.map_or("", Class::name);
    let now = line.rates.back().copied().filter(|_| line.count > 0).unwrap_or(0.0);
    let text =
        figures.words(&mark, class, [&rate(f64::from(now)), &rate(line.peak), &line.total.to_string()]);
    let role = Role::from(line.id.1);
    let style = if line.count == 0 { look.style(Role::Dim) } else { look.style(role) };
    let x = put(buffer, area.as_position(), area.width, &text, style);
    if !mark.is_empty() {
        put(buffer, area.as_position(), 1, &mark, look.style(Role::New));
    }
    let x = draw_spark(buffer, area, x, &rates(&[line], figures.spark), role, figures, look);
    let values = columns.line(line.row.values.iter().map(|value| words(value, columns.form)), look);
    let plain = if line.count == 0 { Role::Dim } else { Role::Plain };
    put(
        buffer,
        Position { x, y: area.y },
        area.right().saturating_sub(x),
        values.trim_end(),
        look.style(plain),
    );
}

/// All harmless rows in one line.
fn draw_folded(buffer: &mut Buffer, area: Rect, lines: &Lines, figures: Figures, look: &Look) {
    let lines: Vec<_> = lines.values().filter(|line| line.id.1 == Some(Class::Harmless)).collect();
    let now: f64 = lines
        .iter()
        .filter(|line| line.count > 0)
        .filter_map(|line| line.rates.back())
        .copied()
        .map(f64::from)
        .sum();
    let total: u64 = lines.iter().map(|line| line.total).sum();
    let text = figures.words("", Class::Harmless.name(), [&rate(now), "", &total.to_string()]);
    let style = look.style(Role::Harmless);
    let x = put(buffer, area.as_position(), area.width, &text, style);
    let x = draw_spark(buffer, area, x, &rates(&lines, figures.spark), Role::Harmless, figures, look);
    let text = format!("{} (a shows them)", counted(lines.len() as u64, "row"));
    put(buffer, Position { x, y: area.y }, area.right().saturating_sub(x), &text, look.style(Role::Dim));
}

/// The sum of the last rates of some rows, as many as there is room for.
fn rates(lines: &[&Line], most: usize) -> Vec<f64> {
    let most = most.min(OF_A_ROW);
    let mut sums = vec![0.0; most];
    for line in lines {
        for (sum, rate) in sums.iter_mut().rev().zip(line.rates.iter().rev()) {
            *sum += f64::from(*rate);
        }
    }
    sums
}

fn draw_spark(
    buffer: &mut Buffer,
    area: Rect,
    x: u16,
    rates: &[f64],
    role: Role,
    figures: Figures,
    look: &Look,
) -> u16 {
    let text = format!("{:>width$}  ", look.sparkline(rates), width = figures.spark);
    put(buffer, Position { x, y: area.y }, area.right().saturating_sub(x), &text, look.style(role))
}

/// The kernel's own counters that moved, of losses that are in no row.
fn draw_counters(buffer: &mut Buffer, area: Rect, data: &Data, look: &Look) {
    let height = counters(area, data);
    if height == 0 {
        return;
    }
    let y = area.bottom() - height;
    let shown = usize::from(height - 1);
    let more = data.counters.len().saturating_sub(shown);
    let more = if more > 0 { format!(" ({more} more)") } else { String::new() };
    let title = format!("COUNTED BY THE KERNEL, IN NO ROW{more}");
    put(buffer, Position { x: area.x, y }, area.width, &title, look.style(Role::Title));
    for (y, moved) in (y + 1..).zip(data.counters.iter().take(shown)) {
        let counter = crate::model::counter::Counter { count: moved.total, ..moved.counter.clone() };
        let role = if counter.is_loss { Role::Lost } else { Role::Plain };
        let text = fit(&counter.words(), usize::from(area.width).saturating_sub(2), look);
        put(buffer, Position { x: area.x + 2, y }, area.width, &text, look.style(role));
    }
}

/// The keys and values of a row, for a line that shows it in full.
#[must_use]
pub fn in_full(by: &[Key], line: &Line) -> String {
    let values = by.iter().zip(&line.row.values);
    values.map(|(key, value)| format!("{} {}", key.word(), value.words())).collect::<Vec<_>>().join("  ")
}
