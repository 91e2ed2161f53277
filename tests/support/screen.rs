//! A real terminal that keys are pressed on: tmux is the terminal.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::PATIENCE;

/// A terminal and what runs on it. Both go when this is dropped.
pub struct Screen {
    server: String,
    pressed: RefCell<BTreeSet<String>>,
}

impl Screen {
    /// One of so many columns and lines with a command of the shell.
    pub fn with(command: &str, (columns, lines): (u16, u16)) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let screen = Self { server: format!("dropwatch-{}-{number}", id()), pressed: RefCell::default() };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines, command]);
        screen
    }

    /// One with `dropwatch top` and these arguments.
    pub fn start(arguments: &[&str], size: (u16, u16)) -> Self {
        let program = super::dropwatch();
        let mut words = vec!["exec env LANG=C.UTF-8 NO_COLOR=1".to_owned()];
        let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
        words.push(quoted(program.to_str().expect("a path of text")));
        words.push("top".to_owned());
        words.extend(arguments.iter().map(|argument| quoted(argument)));
        Self::with(&words.join(" "), size)
    }

    /// Has tmux do something.
    pub fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        let output = tmux.args(["-L", &self.server]).args(arguments).env_remove("TMUX").output();
        let output = output.expect("tmux runs");
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses keys, by tmux's names for them.
    pub fn keys(&self, keys: &[&str]) {
        self.pressed.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// The keys that have been pressed.
    pub fn pressed(&self) -> BTreeSet<String> {
        self.pressed.borrow().clone()
    }

    /// Types text.
    pub fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What is on the screen, as soon as something is true of it.
    pub fn until(&self, what: &str, is_true: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let text = self.text();
            if is_true(&text) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE / 4, "never on the screen: {what}\n{text}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same, as soon as it has this text.
    pub fn shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// The same, as soon as it has all of this in words with single blanks: lines are broken anywhere.
    pub fn shows_words(&self, all: &[&str]) -> String {
        self.until(&all.join(" + "), |text| {
            let text = words(text);
            all.iter().all(|wanted| text.contains(wanted))
        })
    }

    /// The number of the command's process.
    pub fn pid(&self) -> u32 {
        self.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().parse().expect("a number")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.server, "kill-server"]).output();
    }
}

/// What is on a screen, in words with single blanks.
pub fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
