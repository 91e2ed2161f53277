//! The pane of one row: a second probe that exists only while it is open, and what it shows.

mod breakdown;
mod dig;
mod draw;
mod meaning;
mod name;
mod packets;
#[cfg(test)]
mod tests;
mod view;
mod worker;

use std::{
    borrow::Cow,
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Frame, layout::Rect};

use self::{
    dig::Digging,
    draw::Scroll,
    packets::Order,
    view::{DetailView, Stage},
    worker::Shared,
};
use super::draw::look::Look;
use crate::{
    filter::{
        Filter,
        of_row::{self, For},
    },
    kernel::symbols::Symbols,
    model::{keys::Key, report::Row},
    session::{digger::SharedLooker, open::Opener},
};

/// What is opened.
#[derive(Clone, Debug)]
pub struct Target {
    /// The table's keys.
    pub by: Vec<Key>,
    /// The row as it was last shown.
    pub row: Row,
    /// The filter in force.
    pub filter: Option<Filter>,
    /// The screen's interval.
    pub interval: Duration,
}

/// What a pane needs of the run.
#[derive(Clone)]
pub struct Tools {
    /// Opens probes.
    pub opener: Arc<Opener>,
    /// The run's symbols.
    pub symbols: Symbols,
    /// Has the screen drawn again.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// Looks for what shows the cause of drops; it knows how things were before the first one.
    pub looker: SharedLooker,
    /// Where debug information is looked for first.
    pub debug_dir: Option<PathBuf>,
}

/// What a key has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: it is not the pane's.
    Ignored,
    /// Something that is shown.
    Taken,
    /// The pane is to be closed.
    Close,
    /// Something to be said in the status line.
    Say(String),
}

/// Starts to dig for packets of a row; the command line does the same elsewhere.
type StartDigging = dyn Fn(Target, String) -> io::Result<Digging> + Send;

/// An open pane. When it is dropped its probes go, and its threads with them.
pub struct Detail {
    target: Target,
    shared: Shared,
    /// What was counted when the screen was paused.
    frozen: Option<DetailView>,
    scroll: Scroll,
    /// Ends the counting when it goes.
    _closing: Sender<()>,
    orders: Sender<Order>,
    dig: Box<StartDigging>,
    digging: Option<Digging>,
    /// The name of a file that is being typed.
    name: Option<String>,
}

impl Detail {
    /// Opens one; its probes are attached in threads of its own.
    pub fn open(target: Target, tools: Tools) -> Self {
        let shared = Shared::new(Arc::clone(&tools.wake));
        let (closing, closed) = mpsc::channel();
        let (orders, ordered) = mpsc::channel();
        let count = {
            let (target, tools, shared) = (target.clone(), tools.clone(), shared.clone());
            move || worker::run(&target, &tools, &shared, &closed)
        };
        let read = {
            let (target, tools, shared) = (target.clone(), tools.clone(), shared.clone());
            move || packets::run(&target, &tools, &shared, &ordered)
        };
        let dig = {
            let shared = shared.clone();
            move |target, command| Digging::start(target, tools.clone(), shared.clone(), command)
        };
        let started = thread::Builder::new().name("pane".into()).spawn(count);
        let started = started.and_then(|_| thread::Builder::new().name("packets".into()).spawn(read));
        if let Err(error) = started {
            shared.lock().stage = Stage::Failed(format!("cannot start a thread: {error}"));
        }
        let (frozen, scroll, digging, name) = (None, Scroll::default(), None, None);
        let dig = Box::new(dig);
        Self { target, shared, frozen, scroll, _closing: closing, orders, dig, digging, name }
    }

    /// The same row in the newest report; none if it had no drops.
    pub fn report(&mut self, row: Option<&Row>) {
        if let Some(row) = row {
            self.target.row = row.clone();
        }
    }

    /// Whether a text is being typed, so that every key is one of it.
    pub fn wants_text(&self) -> bool {
        self.name.is_some()
    }

    /// A key.
    pub fn key(&mut self, key: KeyEvent) -> Reply {
        if self.name.is_some() {
            return self.type_name(key);
        }
        match key.code {
            KeyCode::Left | KeyCode::Char('h') => Reply::Close,
            KeyCode::Char('w') => self.write(),
            KeyCode::Char('d') => self.dig(),
            code if self.scroll.key(code) => Reply::Taken,
            _ => Reply::Ignored,
        }
    }

    /// Opens the line for the name of a file, or ends the one that is being written.
    fn write(&mut self) -> Reply {
        let is_writing = self.shared.lock().writing.as_ref().is_some_and(|writing| !writing.has_ended);
        if is_writing {
            return match self.orders.send(Order::Finish) {
                Ok(()) => Reply::Taken,
                Err(_) => Reply::Say(NO_PACKETS.to_owned()),
            };
        }
        self.name = Some(name::default(&self.target.row));
        Reply::Taken
    }

    fn type_name(&mut self, key: KeyEvent) -> Reply {
        let Some(name) = &mut self.name else { return Reply::Ignored };
        match key.code {
            KeyCode::Enter => {
                let path = PathBuf::from(std::mem::take(name));
                self.name = None;
                if path.as_os_str().is_empty() {
                    return Reply::Taken;
                }
                if self.orders.send(Order::Write(path)).is_err() {
                    return Reply::Say(NO_PACKETS.to_owned());
                }
            }
            KeyCode::Esc => self.name = None,
            KeyCode::Backspace => _ = name.pop(),
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => name.clear(),
            KeyCode::Char(character) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
                name.push(character);
            }
            _ => {}
        }
        Reply::Taken
    }

    /// Follows the calls to the next of the row's packets, or ends that.
    fn dig(&mut self) -> Reply {
        if let Some(digging) = self.digging.as_ref().filter(|digging| digging.is_running()) {
            digging.end();
            return Reply::Taken;
        }
        self.scroll.to_top();
        match (self.dig)(self.target.clone(), self.line("dig")) {
            Ok(digging) => self.digging = Some(digging),
            Err(error) => return Reply::Say(format!("cannot start a thread: {error}")),
        }
        Reply::Taken
    }

    /// The screen is paused, or goes on: what is counted meanwhile is shown afterwards.
    pub fn pause(&mut self, is_paused: bool) {
        self.frozen = is_paused.then(|| self.shared.lock().clone()).filter(|view| view.stage == Stage::Open);
    }

    /// What is shown. What a key has begun goes on while all else is frozen.
    fn view(&self) -> DetailView {
        let live = self.shared.lock().clone();
        match &self.frozen {
            Some(frozen) => DetailView { writing: live.writing, dug: live.dug, ..frozen.clone() },
            None => live,
        }
    }

    /// Draws it.
    pub fn draw(&self, frame: &mut Frame<'_>, area: Rect, look: &Look) {
        let view = self.view();
        draw::pane(frame, area, look, &self.target, &view, &self.scroll, self.name.as_deref());
    }

    /// The command line that traces the same drops.
    pub fn command(&self) -> String {
        self.line("trace")
    }

    fn line(&self, command: &str) -> String {
        let Target { by, row, filter, .. } = &self.target;
        let expression = of_row::expression(filter.as_ref().map(Filter::expression), by, row, For::People);
        let expression = expression.map(|it| it.to_string()).unwrap_or_default();
        let quoted = shlex::try_quote(&expression).map(Cow::into_owned).unwrap_or_default();
        if expression.is_empty() {
            format!("dropwatch {command}")
        } else {
            format!("dropwatch {command} {quoted}")
        }
    }

    /// Its keys.
    pub fn help(&self) -> &'static [(&'static str, &'static str)] {
        if self.wants_text() {
            return &[
                ("Enter", "write the packets to this file"),
                ("Ctrl-U", "another name"),
                ("Esc", "do not"),
            ];
        }
        &[
            ("j k PgUp PgDn", "scroll"),
            ("Tab", "the next section"),
            ("w", "write the row's packets to a file, or end it"),
            ("d", "dig: which function refuses the next packet, or end that"),
        ]
    }
}

const NO_PACKETS: &str = "there is no probe that hands over packets";
