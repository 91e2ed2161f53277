//! Finds lines in a thread of its own: opening debug information takes a good part of a second, and more on a busy
//! machine.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{DebugFiles, SourceLines};
use crate::{
    model::location::{Location, SourceLine},
    process::notice::Notices,
    sys::trim_memory,
};

/// How long debug information is kept open without a question.
const IDLE: Duration = Duration::from_secs(10);
/// The most answers that are remembered; beyond that, all are forgotten and looked up again.
const MAX_ANSWERS: usize = 32_768;

/// Answers questions for lines of source.
#[derive(Debug)]
pub struct LineService {
    questions: Sender<Location>,
    asked: HashSet<Location>,
    /// Questions sent since the start.
    sent: u64,
    shared: Arc<Shared>,
    /// The last wait was in vain, and not all questions of then are answered: the next ones do not wait.
    is_late: bool,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<Answers>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Answers {
    lines: HashMap<Location, Option<SourceLine>>,
    /// Questions answered since the start.
    count: u64,
    /// There will be no more.
    is_over: bool,
}

impl Shared {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, location: Location, line: Option<SourceLine>) {
        let mut answers = self.lock();
        answers.lines.insert(location, line);
        answers.count += 1;
        self.answered.notify_all();
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.answered.notify_all();
    }
}

impl LineService {
    /// Starts the thread if there are files that may be of the running kernel, whose `_stext` is at `stext`.
    #[must_use]
    pub fn start(files: DebugFiles, stext: u64, notices: &Notices) -> Option<Self> {
        let build_id = files.kernel_build_id();
        let paths = build_id.map(|build_id| files.of_kernel(&build_id)).unwrap_or_default();
        if !paths.iter().any(|path| path.exists()) {
            tell_missing(&files, notices);
            return None;
        }
        let notices = notices.clone();
        Self::spawn(
            move || {
                let opened = SourceLines::open(files.clone(), stext);
                if opened.is_none() {
                    tell_missing(&files, &notices);
                }
                opened.map(|mut lines| move |location: &Location| lines.line(location))
            },
            IDLE,
        )
    }

    /// Starts the thread with what it asks: `open` is called for the first question, and for the first one after
    /// `idle` without any.
    fn spawn<F>(open: impl FnMut() -> Option<F> + Send + 'static, idle: Duration) -> Option<Self>
    where
        F: FnMut(&Location) -> Option<SourceLine>,
    {
        let (questions, asked) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let answers = Arc::clone(&shared);
        let work = move || {
            work(open, idle, &asked, &answers);
            answers.end();
        };
        thread::Builder::new().name("source lines".into()).spawn(work).ok()?;
        Some(Self { questions, asked: HashSet::new(), sent: 0, shared, is_late: false })
    }

    /// The line of a location, if it is found until then. If not, a later call may know it, and no call waits before
    /// the questions asked up to now are answered.
    pub fn line(&mut self, location: &Location, until: Instant) -> Option<SourceLine> {
        self.ask(location);
        let mut answers = self.shared.lock();
        self.is_late &= answers.count < self.sent;
        if !self.is_late {
            let is_open = |answers: &mut Answers| !answers.is_over && !answers.lines.contains_key(location);
            let left = until.saturating_duration_since(Instant::now());
            let waited = self.shared.answered.wait_timeout_while(answers, left, is_open);
            let (waited, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            answers = waited;
            self.is_late = timeout.timed_out();
        }
        answers.lines.get(location).cloned().flatten()
    }

    fn ask(&mut self, location: &Location) {
        if self.asked.contains(location) {
            return;
        }
        if self.asked.len() >= MAX_ANSWERS {
            self.asked.clear();
            self.shared.lock().lines.clear();
        }
        self.asked.insert(location.clone());
        // A thread that is gone answers nothing.
        self.sent += u64::from(self.questions.send(location.clone()).is_ok());
    }
}

/// Answers questions until there will be no more, or nothing to answer them from.
fn work<F>(mut open: impl FnMut() -> Option<F>, idle: Duration, asked: &Receiver<Location>, shared: &Shared)
where
    F: FnMut(&Location) -> Option<SourceLine>,
{
    while let Ok(first) = asked.recv() {
        let Some(mut line) = open() else { return };
        shared.answer(first.clone(), line(&first));
        loop {
            match asked.recv_timeout(idle) {
                Ok(location) => {
                    let found = line(&location);
                    shared.answer(location, found);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        drop(line);
        trim_memory();
    }
}

/// Most systems have no debug information, so that is a warning only where it was said to be there.
fn tell_missing(files: &DebugFiles, notices: &Notices) {
    let text = format!(
        "locations have no lines of source: debug information of this very kernel is not installed ({})",
        files.cure()
    );
    if files.was_given {
        notices.warn(text);
    } else {
        log::info!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn location(address: u64) -> Location {
        Location { address, symbol: None }
    }

    fn found(location: &Location) -> Option<SourceLine> {
        let line = u32::try_from(location.address).ok().filter(|&line| line > 0)?;
        Some(SourceLine { file: "net/core/dev.c".into(), line })
    }

    fn service<F: FnMut(&Location) -> Option<SourceLine>>(
        open: impl FnMut() -> Option<F> + Send + 'static,
    ) -> LineService {
        LineService::spawn(open, LONG).unwrap()
    }

    #[test]
    fn the_first_call_has_the_line_if_it_is_found_in_time() {
        let mut service = service(|| Some(found));
        let until = Instant::now() + LONG;
        assert_eq!(service.line(&location(7), until).unwrap().line, 7);
        assert_eq!(service.line(&location(0), until), None, "it has no line, and is not waited for");
        assert_eq!(service.line(&location(8), Instant::now() + LONG).unwrap().line, 8);
        assert!(Instant::now() < until, "nothing was waited for");
    }

    #[test]
    fn only_one_wait_is_in_vain() {
        let (opened, opening) = mpsc::channel();
        let mut service = service(move || opening.recv().ok().map(|()| found));
        let wait = Duration::from_millis(50);
        let start = Instant::now();
        assert_eq!(service.line(&location(7), start + wait), None);
        assert!(start.elapsed() >= wait);

        let until = Instant::now() + LONG;
        assert_eq!(service.line(&location(7), until), None, "it is still not there");
        assert_eq!(service.line(&location(8), until), None);
        assert!(Instant::now() < until, "the second call did not wait");

        opened.send(()).unwrap();
        while service.line(&location(8), Instant::now()).is_none() {
            thread::yield_now();
        }
        assert_eq!(service.line(&location(7), Instant::now()).unwrap().line, 7);
        assert_eq!(service.line(&location(9), Instant::now() + LONG).unwrap().line, 9, "it waits again");
    }

    #[test]
    fn nothing_is_waited_for_where_nothing_can_be_opened() {
        let mut service = service(|| None::<fn(&Location) -> Option<SourceLine>>);
        let until = Instant::now() + LONG;
        assert_eq!(service.line(&location(7), until), None);
        assert_eq!(service.line(&location(8), until), None);
        assert!(Instant::now() < until);
    }

    #[test]
    fn what_is_not_used_is_closed_and_opened_again() {
        let opened = Arc::new(());
        let held = Arc::downgrade(&opened);
        let open = move || {
            let held = Arc::clone(&opened);
            Some(move |location: &Location| {
                let _ = &held;
                found(location)
            })
        };
        let mut service = LineService::spawn(open, Duration::from_millis(1)).unwrap();
        for address in [7, 8] {
            assert!(service.line(&location(address), Instant::now() + LONG).is_some());
            while held.strong_count() > 1 {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn answers_are_bounded() {
        let mut service = service(|| Some(found));
        for address in 1..2 * MAX_ANSWERS as u64 + 10 {
            service.line(&location(address), Instant::now() + LONG);
        }
        assert!(service.asked.len() <= MAX_ANSWERS);
        assert!(service.shared.lock().lines.len() <= MAX_ANSWERS + 1);
        assert_eq!(service.line(&location(1), Instant::now() + LONG).unwrap().line, 1);
    }
}
