//! The thread of the screen: waits for keys and reports, and draws.

use std::{
    io::{self, PipeReader, PipeWriter, Write as _},
    mem,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    detail::{Detail, Reply, Target, Tools},
    draw::{draw, look::Look},
    history::RowId,
    input::Typed,
    keys::{Action, Decoder, action},
    state::{Effect, Overlay, State},
    terminal::{self, Screen, Waited},
};
use crate::{
    cli::config::Asked,
    kernel::names::KernelNames,
    model::{
        interval::Interval,
        keys::Key,
        report::{Report, View},
    },
    process::{notice::Notice, signals::stop_here},
    session::sink::Sink,
};

/// How long the rest of a key is waited for.
const REST_OF_KEY: Duration = Duration::from_millis(40);
/// The shortest time between two frames that no key requires.
const FRAME: Duration = Duration::from_millis(40);
/// How often the ages of what has been said are looked at.
const AGEING: Duration = Duration::from_secs(1);

/// What is requested of the rest of the command.
#[derive(Debug)]
pub enum Request {
    /// Count something else.
    Count(Asked),
    /// Names for completion.
    Vocabulary,
}

/// What the screen shares with the rest of the command.
pub struct Shared {
    state: Mutex<State>,
    wake: PipeWriter,
    /// Whether a wake-up is on its way.
    is_waking: AtomicBool,
    /// Whether the screen is to be given up.
    is_ended: AtomicBool,
    /// Whether the process was continued, or is to be stopped.
    is_continued: AtomicBool,
    is_stopped: AtomicBool,
    started: Instant,
}

impl Shared {
    /// What the screen shows at first, and what wakes it.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn new(state: State) -> io::Result<(Arc<Self>, PipeReader)> {
        let (reader, wake) = io::pipe()?;
        let shared = Self {
            state: Mutex::new(state),
            wake,
            is_waking: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            is_continued: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            started: Instant::now(),
        };
        Ok((Arc::new(shared), reader))
    }

    /// Has the screen look for what is new.
    pub fn wake(&self) {
        if !self.is_waking.swap(true, Ordering::SeqCst) {
            // There is room for one byte, or the reader has gone.
            let _ = (&self.wake).write(&[0]);
        }
    }

    /// Changes what is shown.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.tick(self.started.elapsed());
        let changed = change(&mut state);
        drop(state);
        self.wake();
        changed
    }

    /// Shows a notice.
    pub fn notice(&self, notice: Notice) {
        self.change(|state| state.notice(notice));
    }

    /// Ends the screen.
    pub fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// The process was stopped and goes on.
    pub fn continued(&self) {
        self.is_continued.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// The process is to be stopped.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes reports of one probe's intervals, for the screen.
pub struct Feed {
    /// What the screen shares.
    pub shared: Arc<Shared>,
    /// The number of the probe.
    pub generation: u64,
    /// Its keys.
    pub by: Vec<Key>,
    /// The names for what it counts.
    pub names: KernelNames,
}

impl Sink for Feed {
    fn interval(&mut self, interval: Interval) -> Result<ControlFlow<()>> {
        let report = Report::new(interval, &self.by, View::default(), &mut self.names.for_report());
        self.shared.change(|state| state.report(self.generation, &report));
        Ok(ControlFlow::Continue(()))
    }
}

/// The screen and the keys.
pub struct Ui {
    shared: Arc<Shared>,
    wake: PipeReader,
    requests: UnboundedSender<Request>,
    tools: Tools,
    look: Look,
    screen: Screen,
    decoder: Decoder,
    detail: Option<(RowId, Detail)>,
    /// The last report that an open row has.
    told: u64,
    /// Command lines that were copied, to be printed at the end.
    copied: Vec<String>,
}

impl Ui {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// It is none, or has gone.
    pub fn new(
        shared: Arc<Shared>,
        wake: PipeReader,
        requests: UnboundedSender<Request>,
        tools: Tools,
        look: Look,
    ) -> io::Result<Self> {
        let (screen, decoder) = (Screen::take()?, Decoder::default());
        Ok(Self {
            shared,
            wake,
            requests,
            tools,
            look,
            screen,
            decoder,
            detail: None,
            told: 0,
            copied: Vec::new(),
        })
    }

    /// Shows it until the end; the command lines that were copied.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn run(mut self) -> io::Result<Vec<String>> {
        let ended = self.show();
        // The probe of an open row ends before the terminal shows a prompt.
        self.detail = None;
        terminal::restore();
        ended.map(|()| self.copied)
    }

    fn show(&mut self) -> io::Result<()> {
        let mut drawn = None;
        loop {
            if self.shared.is_ended.load(Ordering::SeqCst) {
                return Ok(());
            }
            if self.draw().is_err() {
                // The terminal has gone.
                return Ok(());
            }
            let last: Instant = *drawn.insert(Instant::now());
            let mut waited = self.wait(None)?;
            if waited.is_woken && waited.bytes.is_empty() && !waited.is_gone {
                let rest = FRAME.saturating_sub(last.elapsed());
                waited = Waited { is_woken: true, ..self.wait(Some(rest))? };
            }
            if waited.is_gone {
                return Ok(());
            }
            let keys = self.keys(&waited);
            for key in keys {
                if self.key(key)?.is_break() {
                    return Ok(());
                }
            }
            self.obey()?;
            self.tell();
        }
    }

    fn wait(&mut self, most: Option<Duration>) -> io::Result<Waited> {
        let ageing = self.shared.lock().fades().then_some(AGEING);
        let timeout = most.or(if self.decoder.waits() { Some(REST_OF_KEY) } else { ageing });
        let waited = terminal::wait(&mut self.wake, timeout)?;
        if waited.is_woken {
            self.shared.is_waking.store(false, Ordering::SeqCst);
        }
        Ok(waited)
    }

    fn keys(&mut self, waited: &Waited) -> Vec<KeyEvent> {
        if waited.bytes.is_empty() && self.decoder.waits() && !waited.is_woken {
            self.decoder.flush()
        } else {
            self.decoder.feed(&waited.bytes)
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let (shared, look) = (&self.shared, &self.look);
        let detail = self.detail.as_ref().map(|(_, detail)| detail);
        // Only drawing into memory holds the lock: a terminal that is slow to take it holds up nothing else.
        self.screen.draw(|frame| {
            let mut state = shared.lock();
            state.tick(shared.started.elapsed());
            draw(frame, &mut state, detail, look);
        })
    }

    /// Stops and goes on as signals say.
    fn obey(&mut self) -> io::Result<()> {
        if self.shared.is_stopped.swap(false, Ordering::SeqCst) {
            self.suspend()?;
        }
        if self.shared.is_continued.swap(false, Ordering::SeqCst) {
            self.screen.retake()?;
        }
        Ok(())
    }

    /// Gives the terminal back, stops, and takes it again.
    fn suspend(&mut self) -> io::Result<()> {
        terminal::restore();
        stop_here();
        self.screen.retake()
    }

    /// Hands the newest report to an open row.
    fn tell(&mut self) {
        let Some((id, detail)) = &mut self.detail else { return };
        let state = self.shared.lock();
        if mem::replace(&mut self.told, state.news) != state.news && !state.is_paused() {
            let line = state.row(id).filter(|line| line.count > 0);
            detail.report(line.map(|line| &line.row));
        }
    }

    /// Does what a key means.
    fn key(&mut self, key: KeyEvent) -> io::Result<ControlFlow<()>> {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        let is_global = is_control && matches!(key.code, KeyCode::Char('c' | 'z' | 'l'));
        let is_typing = self.shared.lock().input.is_some();
        if is_typing && !(is_control && key.code == KeyCode::Char('z')) {
            self.type_key(key);
            return Ok(ControlFlow::Continue(()));
        }
        let wants_text = self.detail.as_ref().is_some_and(|(_, detail)| detail.wants_text());
        if !is_global && (wants_text || self.detail.is_some() && !is_of_the_screen(key)) {
            match self.hand_over(key) {
                Reply::Ignored if wants_text => return Ok(ControlFlow::Continue(())),
                Reply::Ignored => {}
                _ => return Ok(ControlFlow::Continue(())),
            }
        }
        let Some(action) = action(key) else { return Ok(ControlFlow::Continue(())) };
        let has_overlay = self.shared.lock().overlay != Overlay::None;
        match action {
            Action::Close if self.detail.is_some() && !has_overlay => self.detail = None,
            // The table is not there to be moved in.
            _ if self.detail.is_some() && is_of_the_table(action) => {}
            action => {
                if let Some(effect) = self.shared.change(|state| state.act(action)) {
                    return self.effect(&effect);
                }
                if action == Action::Pause
                    && let Some((_, detail)) = &mut self.detail
                {
                    detail.pause(self.shared.lock().is_paused());
                }
                if matches!(action, Action::Filter | Action::Keys) {
                    self.request(Request::Vocabulary);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn hand_over(&mut self, key: KeyEvent) -> Reply {
        let Some((_, detail)) = &mut self.detail else { return Reply::Ignored };
        let reply = detail.key(key);
        match &reply {
            Reply::Close => self.detail = None,
            Reply::Say(text) => self.shared.change(|state| state.say(text)),
            Reply::Ignored | Reply::Taken => {}
        }
        reply
    }

    fn type_key(&mut self, key: KeyEvent) {
        let asked = self.shared.change(|state| {
            let (input, names) = (state.input.as_mut()?, &state.vocabulary);
            match input.key(key, names) {
                Typed::Still => None,
                Typed::Cancelled => {
                    state.input = None;
                    None
                }
                Typed::Entered => {
                    let asked = state.typed()?;
                    if asked == state.asked {
                        state.input = None;
                        return None;
                    }
                    state.is_trying = true;
                    Some(asked)
                }
            }
        });
        if let Some(asked) = asked {
            self.request(Request::Count(asked));
        }
    }

    fn effect(&mut self, effect: &Effect) -> io::Result<ControlFlow<()>> {
        match effect {
            Effect::Quit => return Ok(ControlFlow::Break(())),
            Effect::Suspend => self.suspend()?,
            Effect::Redraw => self.screen.retake()?,
            Effect::Copy => self.copy(),
            Effect::Open(key) => self.open(*key),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn open(&mut self, key: Option<char>) {
        let target = {
            let state = self.shared.lock();
            let Some(line) = state.selected_row() else { return };
            let target = Target {
                by: state.data().by.clone(),
                row: line.row.clone(),
                filter: state.filter.clone(),
                interval: state.interval,
            };
            (line.id.clone(), target)
        };
        let (id, target) = target;
        self.detail = Some((id, Detail::open(target, self.tools.clone())));
        if let Some(key) = key {
            self.hand_over(KeyEvent::from(KeyCode::Char(key)));
        }
    }

    /// Copies the command line that shows the same, shows it, and keeps it for the end.
    fn copy(&mut self) {
        let command = match &self.detail {
            Some((_, detail)) => detail.command(),
            None => self.shared.lock().command(),
        };
        // Whether the terminal can copy is not known, so the line is shown as well.
        let _ = terminal::copy(&command);
        self.shared.change(|state| state.say(&command));
        if !self.copied.contains(&command) {
            self.copied.push(command);
        }
    }

    fn request(&self, request: Request) {
        // Without anybody to take it, the run has ended.
        let _ = self.requests.send(request);
    }
}

/// Keys that mean the same while a row is open.
fn is_of_the_screen(key: KeyEvent) -> bool {
    matches!(key.code, KeyCode::Esc | KeyCode::Char('q' | '?' | ' ' | 'y'))
}

/// What only means something where the table is.
fn is_of_the_table(action: Action) -> bool {
    !matches!(
        action,
        Action::Quit
            | Action::Suspend
            | Action::Redraw
            | Action::Help
            | Action::Notices
            | Action::Close
            | Action::Pause
            | Action::Copy
    )
}
