//! What the screen shows: fed by reports and keys, without any I/O.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use dropwatch_common::row::known;

use super::{
    history::{History, Line, Lines, MARKED, RowId},
    input::{Input, InputKind, Vocabulary},
    keys::Action,
};
use crate::{
    cli::config::{Asked, Query},
    filter::Filter,
    model::{class::Class, counter::Counter, keys::Key, report::Report, snapshot::Ledger},
    process::notice::{Notice, Severity},
};

/// How long a notice stays in the status line.
const NOTICED: Duration = Duration::from_secs(15);
/// How many notices are kept for the list of them.
const NOTICES: usize = 100;
/// How long a counter that moved is shown.
const COUNTER_SHOWN: Duration = Duration::from_secs(120);
/// The most counters that are kept.
const COUNTERS: usize = 256;

/// What is said of this machine in the header.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Its name.
    pub host: String,
    /// Its kernel.
    pub kernel: String,
}

/// What comes first in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// What is lost, then what was refused, then what is harmless; each by recent drops.
    #[default]
    Class,
    /// The most drops in the last minutes.
    Recent,
    /// The most drops since the start.
    Total,
    /// What is new or has grown last.
    News,
}

impl Sort {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Recent => "recent drops",
            Self::Total => "total",
            Self::News => "newest change",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Class => Self::Recent,
            Self::Recent => Self::Total,
            Self::Total => Self::News,
            Self::News => Self::Class,
        }
    }
}

/// A counter that moved, and its sum while it is shown.
#[derive(Clone, Debug)]
pub struct Moved {
    /// As it moved last.
    pub counter: Counter,
    /// Since it first moved.
    pub total: u64,
    /// When it moved last.
    pub at: Duration,
}

/// What reports say.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// What a row stands for.
    pub by: Vec<Key>,
    /// Rows and chart.
    pub history: History,
    /// Drops since the probe was attached.
    pub total: u64,
    /// Drops in the last interval.
    pub drops: u64,
    /// The last interval.
    pub elapsed: Duration,
    /// When it ended; none before the first one.
    pub time: Option<std::time::SystemTime>,
    /// What was lost since the screen was opened.
    pub ledger: Ledger,
    /// Losses that no row has.
    pub counters: Vec<Moved>,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A row.
    Row(&'a Line),
    /// All harmless rows in one.
    Folded(&'a Lines),
}

/// What is selected, which stays so wherever it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selected {
    Row(RowId),
    Folded,
}

/// What is to be done beside the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// End.
    Quit,
    /// Stop the process, as a shell's Ctrl-Z does.
    Suspend,
    /// Draw all anew.
    Redraw,
    /// Open the selected row, and hand this key to the pane.
    Open(Option<char>),
    /// Copy the equivalent command line.
    Copy,
}

/// What is over the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The keys.
    Help,
    /// What has been said.
    Notices,
}

/// Everything that the screen shows.
#[derive(Debug, Default)]
pub struct State {
    /// The machine.
    pub about: About,
    /// What is counted, as typed.
    pub asked: Asked,
    /// The filter of that.
    pub filter: Option<Filter>,
    /// The interval that was requested.
    pub interval: Duration,
    live: Data,
    /// The same as it was when the screen was paused.
    frozen: Option<Box<Data>>,
    /// What comes first.
    pub sort: Sort,
    /// Whether harmless rows are shown one by one.
    pub all: bool,
    selected: Option<Selected>,
    /// The place that the selected row had.
    place: usize,
    /// The first line that is shown.
    pub scroll: usize,
    /// How many lines there is room for.
    pub page: usize,
    /// What is over the table.
    pub overlay: Overlay,
    /// A line that is being typed.
    pub input: Option<Input>,
    /// Whether what was typed is being tried.
    pub is_trying: bool,
    /// Names that can be completed.
    pub vocabulary: Vocabulary,
    notices: VecDeque<(Duration, Notice)>,
    /// Grows with each report.
    pub news: u64,
    /// Time since the start.
    now: Duration,
    /// The number of the probe whose reports are shown.
    generation: u64,
}

impl State {
    /// Before the first report.
    #[must_use]
    pub fn new(about: About, asked: Asked, by: Vec<Key>, interval: Duration, all: bool) -> Self {
        let live = Data { by, ..Data::default() };
        Self { about, asked, interval, live, all, page: 1, ..Self::default() }
    }

    /// What is shown of the reports: of the last one, or of the last before the pause.
    #[must_use]
    pub fn data(&self) -> &Data {
        self.frozen.as_deref().unwrap_or(&self.live)
    }

    /// Whether the screen is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Time goes on.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    /// Takes a report of the probe with this number.
    pub fn report(&mut self, generation: u64, report: &Report) {
        let data = &mut self.live;
        data.ledger = data.ledger.plus(report.ledger);
        add_counters(&mut data.counters, &report.counters, data.history.clock + report.elapsed);
        if generation < self.generation {
            // The last of a probe that another one has replaced: its drops are in the chart.
            data.history.add_column(report);
            return;
        }
        data.history.add(report);
        (data.total, data.drops) = (report.total, report.drops);
        (data.elapsed, data.time) = (report.elapsed, Some(report.time));
        self.news += 1;
        self.follow();
    }

    /// From now on another probe's reports are shown.
    pub fn applied(&mut self, generation: u64, asked: Asked, query: &Query) {
        let by = query.by.clone();
        self.filter.clone_from(&query.filter);
        self.generation = generation;
        let has_other_keys = self.live.by != by;
        self.say(&match (asked.filter.as_str(), has_other_keys) {
            (_, true) => format!("rows are by {} now; totals are since now", asked.by),
            ("", false) => "all drops are counted now; totals are since now".to_owned(),
            (filter, false) => {
                format!("only drops that match '{filter}' are counted now; totals are since now")
            }
        });
        (self.asked, self.live.by) = (asked, by);
        self.live.history.clear_rows();
        (self.live.total, self.live.drops) = (0, 0);
        (self.frozen, self.input, self.is_trying) = (None, None, false);
        (self.selected, self.place, self.scroll) = (None, 0, 0);
    }

    /// These names can be completed from now on.
    pub fn know(&mut self, vocabulary: Vocabulary) {
        self.vocabulary = vocabulary;
        if let Some(input) = &mut self.input {
            input.renew(&self.vocabulary);
        }
    }

    /// What was typed is not counted, and why; the caret is where the fault is.
    pub fn faulty(&mut self, problem: String, span: Option<std::ops::Range<usize>>) {
        self.is_trying = false;
        match &mut self.input {
            Some(input) => input.fault = Some((span, problem)),
            None => self.say(&problem),
        }
    }

    /// Says something in the status line.
    pub fn say(&mut self, text: &str) {
        self.notice(Notice { severity: Severity::Info, text: text.to_owned() });
    }

    /// The same of something that matters.
    pub fn notice(&mut self, notice: Notice) {
        if self.notices.len() == NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back((self.now, notice));
    }

    /// What was said last, as long as it is news.
    #[must_use]
    pub fn noticed(&self) -> Option<&Notice> {
        let recent = self.notices.iter().rev().take_while(|(at, _)| self.now.saturating_sub(*at) < NOTICED);
        // A warning is not hidden by what is said after it.
        let by_weight = |(_, notice): &&(Duration, Notice)| notice.severity == Severity::Warning;
        recent.clone().find(by_weight).or_else(|| recent.clone().next()).map(|(_, notice)| notice)
    }

    /// Everything that was said, the newest first.
    pub fn notices(&self) -> impl Iterator<Item = (Duration, &Notice)> {
        self.notices.iter().rev().map(|(at, notice)| (self.now.saturating_sub(*at), notice))
    }

    /// Whether anything on the screen changes with time alone.
    #[must_use]
    pub fn fades(&self) -> bool {
        self.noticed().is_some()
    }

    /// Does what a key means; what is left to do beside it.
    pub fn act(&mut self, action: Action) -> Option<Effect> {
        match action {
            Action::Quit => return Some(Effect::Quit),
            Action::Suspend => return Some(Effect::Suspend),
            Action::Redraw => return Some(Effect::Redraw),
            Action::Copy => return Some(Effect::Copy),
            Action::Open(key) => return self.open(key),
            Action::Close if self.overlay != Overlay::None => self.overlay = Overlay::None,
            Action::Close => {}
            Action::Help => self.toggle(Overlay::Help),
            Action::Notices => self.toggle(Overlay::Notices),
            Action::Sort => self.sort = self.sort.next(),
            Action::All => self.all = !self.all,
            Action::Pause => self.pause(),
            Action::Filter => self.edit(InputKind::Filter),
            Action::Keys => self.edit(InputKind::Keys),
            Action::Up(lines) => self.select(self.place.saturating_sub(lines)),
            Action::Down(lines) => self.select(self.place.saturating_add(lines)),
            Action::PageUp => self.select(self.place.saturating_sub(self.page)),
            Action::PageDown => self.select(self.place.saturating_add(self.page)),
            Action::First => self.select(0),
            Action::Last => self.select(usize::MAX),
        }
        self.follow();
        None
    }

    fn toggle(&mut self, overlay: Overlay) {
        self.overlay = if self.overlay == overlay { Overlay::None } else { overlay };
    }

    fn open(&mut self, key: Option<char>) -> Option<Effect> {
        if self.selected == Some(Selected::Folded) || self.is_on_folded() {
            self.all = true;
            self.follow();
            return None;
        }
        self.selected_row().is_some().then_some(Effect::Open(key))
    }

    fn is_on_folded(&self) -> bool {
        matches!(self.entries().get(self.place), Some(Entry::Folded(_)))
    }

    fn pause(&mut self) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => Some(Box::new(self.live.clone())),
        };
    }

    fn edit(&mut self, kind: InputKind) {
        let text = match kind {
            InputKind::Filter => &self.asked.filter,
            InputKind::Keys => &self.asked.by,
        };
        self.input = Some(Input::new(kind, text));
    }

    /// What the typed line changes.
    #[must_use]
    pub fn typed(&self) -> Option<Asked> {
        let input = self.input.as_ref()?;
        let text = input.text().trim().to_owned();
        Some(match input.kind {
            InputKind::Filter => Asked { filter: text, ..self.asked.clone() },
            InputKind::Keys => Asked { by: text, ..self.asked.clone() },
        })
    }

    /// The command line that shows the same.
    #[must_use]
    pub fn command(&self) -> String {
        let mut words = vec!["dropwatch".to_owned()];
        words.extend([
            "-i".to_owned(),
            humantime::format_duration(self.interval).to_string().replace(' ', ""),
        ]);
        words.extend(["-b".to_owned(), self.asked.by.clone()]);
        if !self.asked.filter.is_empty() {
            words.extend(["-f".to_owned(), self.asked.filter.clone()]);
        }
        if self.all {
            words.push("-a".to_owned());
        }
        let words = words.iter().map(String::as_str);
        // No word has a NUL: it was typed, or given as an argument.
        shlex::try_join(words).unwrap_or_default()
    }

    /// The lines of the table, in order.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry<'_>> {
        let (mut shown, folded) = self.shown();
        shown.sort_by(|line, other| self.order(line, other));
        shown.into_iter().map(Entry::Row).chain(folded).collect()
    }

    /// The rows that are shown one by one, in no order, and the line of the others.
    fn shown(&self) -> (Vec<&Line>, Option<Entry<'_>>) {
        let lines = &self.data().history.lines;
        let is_shown = |line: &&Line| self.all || line.id.1 != Some(Class::Harmless);
        let shown: Vec<&Line> = lines.values().filter(is_shown).collect();
        let folded = (shown.len() < lines.len()).then_some(Entry::Folded(lines));
        (shown, folded)
    }

    /// How many lines the table has.
    fn height(&self) -> usize {
        let (shown, folded) = self.shown();
        shown.len() + usize::from(folded.is_some())
    }

    fn order(&self, line: &Line, other: &Line) -> Ordering {
        let recent = || other.recent.total_cmp(&line.recent);
        let changed = |line: &Line| line.new_at.max(line.grown_at);
        let by_sort = match self.sort {
            Sort::Class => line.id.1.cmp(&other.id.1),
            Sort::Recent => Ordering::Equal,
            Sort::Total => other.total.cmp(&line.total),
            Sort::News => changed(other).cmp(&changed(line)),
        };
        by_sort.then_with(recent).then_with(|| line.id.cmp(&other.id))
    }

    /// The place of the selected line.
    #[must_use]
    pub fn place(&self) -> usize {
        self.place
    }

    /// The selected row.
    #[must_use]
    pub fn selected_row(&self) -> Option<&Line> {
        match self.entries().get(self.place) {
            Some(Entry::Row(line)) => Some(line),
            _ => None,
        }
    }

    /// The row with this identity, if it had drops in the last report.
    #[must_use]
    pub fn row(&self, id: &RowId) -> Option<&Line> {
        self.data().history.lines.get(id)
    }

    /// The namespaces that rows are of, as far as their keys tell.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<u32> {
        let keys = self.data().history.lines.values().map(|line| &line.row.key);
        keys.filter(|key| key.known & known::NETNS != 0).map(|key| key.netns).collect()
    }

    fn select(&mut self, place: usize) {
        let entries = self.entries();
        let place = place.min(entries.len().saturating_sub(1));
        let selected = entries.get(place).map(|entry| match entry {
            Entry::Row(line) => Selected::Row(line.id.clone()),
            Entry::Folded(_) => Selected::Folded,
        });
        (self.place, self.selected) = (place, selected);
    }

    /// Keeps the selection on its row, and on the screen.
    fn follow(&mut self) {
        let found = self.selected.as_ref().and_then(|selected| {
            let is_it = |entry: &Entry<'_>| match (entry, selected) {
                (Entry::Row(line), Selected::Row(id)) => line.id == *id,
                (Entry::Folded(_), Selected::Folded) => true,
                _ => false,
            };
            self.entries().iter().position(is_it)
        });
        self.place = found.unwrap_or_else(|| self.place.min(self.height().saturating_sub(1)));
        if found.is_none() && self.selected.is_some() {
            self.select(self.place);
        }
        let first = self.scroll.min(self.place);
        self.scroll = first.max((self.place + 1).saturating_sub(self.page.max(1)));
    }

    /// There is room for so many lines.
    pub fn resized(&mut self, page: usize) {
        if self.page != page.max(1) {
            self.page = page.max(1);
            self.follow();
        }
        let most = self.height().saturating_sub(self.page);
        self.scroll = self.scroll.min(most);
    }
}

/// Whether a mark that was made then still stands.
#[must_use]
pub fn is_marked(at: Option<Duration>, clock: Duration) -> bool {
    at.is_some_and(|at| clock.saturating_sub(at) < MARKED)
}

/// Adds what moved, and forgets what has long not.
fn add_counters(moved: &mut Vec<Moved>, counters: &[Counter], now: Duration) {
    for counter in counters {
        let is_it = |known: &&mut Moved| {
            let known = &known.counter;
            known.name == counter.name && known.netns == counter.netns && same_part(known, counter)
        };
        match moved.iter_mut().find(is_it) {
            Some(known) => {
                known.total += counter.count;
                (known.counter, known.at) = (counter.clone(), now);
            }
            None => moved.push(Moved { counter: counter.clone(), total: counter.count, at: now }),
        }
    }
    moved.retain(|known| now.saturating_sub(known.at) < COUNTER_SHOWN);
    moved.sort_by(|one, other| {
        other.counter.is_loss.cmp(&one.counter.is_loss).then(other.total.cmp(&one.total))
    });
    moved.truncate(COUNTERS);
}

/// Whether two counters count for the same interface and queue discipline.
fn same_part(one: &Counter, other: &Counter) -> bool {
    one.part.iface == other.part.iface && one.part.qdisc == other.part.qdisc
}
