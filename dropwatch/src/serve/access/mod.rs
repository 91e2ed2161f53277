//! Who may read what: the file that Prometheus' own exporters have for it.
//!
//! The file and those it names are read again when they have changed, so a certificate can be renewed while it is served.
//! If they cannot be used then, those from before stay in force.

pub mod file;
mod tls;
mod users;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio_rustls::TlsAcceptor;

use self::{file::WebConfig, users::Users};
use crate::{escape::Escaped, process::notice::Notices};

/// How often files are looked at, at most.
const PAUSE: Duration = Duration::from_secs(1);
/// The size that no such file has.
const LARGEST: u64 = 1 << 20;

/// What a file allows, as of now.
pub struct Access {
    path: PathBuf,
    notices: Notices,
    state: Mutex<State>,
}

struct State {
    rules: Arc<Rules>,
    looked: Instant,
    stamps: Vec<Stamp>,
}

/// What tells whether a file has changed: where it is, and when the kernel saw a change of it, which no tool sets back as
/// it does the time of its text.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    file: Option<[i64; 5]>,
}

/// What was read.
#[derive(Default)]
pub struct Rules {
    /// How connections are encrypted; none if they are not.
    pub tls: Option<TlsAcceptor>,
    users: Option<Users>,
    /// Whether some clients are refused.
    is_restricted: bool,
    /// What is added to each answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", Escaped::path(path))]
pub struct Unusable {
    path: PathBuf,
    why: String,
}

impl Unusable {
    fn new(path: &Path, why: &(impl ToString + ?Sized)) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

impl Access {
    /// What a file allows.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn load(path: &Path, notices: Notices) -> Result<Self, Unusable> {
        let (rules, stamps) = Rules::load(path)?;
        let state = State { rules: Arc::new(rules), looked: Instant::now(), stamps };
        Ok(Self { path: path.to_owned(), notices, state: Mutex::new(state) })
    }

    /// One that a test has: the user is `prometheus`, the password `password`.
    #[cfg(feature = "fakes")]
    pub fn of_a_test() -> Self {
        let hash = "$2a$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96".to_owned();
        let users = Users::new([("prometheus".to_owned(), hash)].into()).ok().flatten();
        let rules = Rules { users, is_restricted: true, ..Rules::default() };
        let state = State { rules: Arc::new(rules), looked: Instant::now(), stamps: Vec::new() };
        Self { path: PathBuf::new(), notices: Notices::to(drop), state: Mutex::new(state) }
    }

    /// What it allows now.
    pub fn rules(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= PAUSE {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        Arc::clone(&state.rules)
    }

    /// Whether there are clients that it refuses.
    pub fn is_restricted(&self) -> bool {
        self.rules().is_restricted
    }

    fn look(&self, state: &mut State) {
        let now: Vec<_> = state.stamps.iter().map(|stamp| Stamp::of(stamp.path.clone())).collect();
        if now == state.stamps {
            return;
        }
        match Rules::load(&self.path) {
            Ok((rules, stamps)) => (state.rules, state.stamps) = (Arc::new(rules), stamps),
            Err(error) => {
                // Said once: it is looked at again when something changes.
                state.stamps = now;
                self.notices.warn(format!("what was read of --web-config before stays in force: {error}"));
            }
        }
    }
}

impl Rules {
    /// Reads a file, and those it names.
    fn load(path: &Path) -> Result<(Self, Vec<Stamp>), Unusable> {
        let mut stamps = vec![Stamp::of(path.to_owned())];
        let text = read(path)?;
        let text = std::str::from_utf8(&text).map_err(|error| Unusable::new(path, &error))?;
        let config = WebConfig::parse(text).map_err(|why| Unusable::new(path, &why))?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let tls = match &config.tls_server_config {
            Some(section) => {
                stamps.extend(section.files().map(|file| Stamp::of(directory.join(file))));
                Some(tls::acceptor(section, path, directory)?)
            }
            None => None,
        };
        let users = Users::new(config.users()).map_err(|error| Unusable::new(path, &error))?;
        let is_restricted = users.is_some() || config.requires_certificates();
        Ok((Self { tls, users, is_restricted, headers: config.headers() }, stamps))
    }

    /// Whether a request with these headers may be answered.
    pub async fn allow(&self, headers: &HeaderMap) -> bool {
        match &self.users {
            Some(users) => users.allow(headers).await,
            None => true,
        }
    }
}

impl Stamp {
    fn of(path: PathBuf) -> Self {
        let file = path.metadata().ok();
        let file = file.map(|file| {
            [
                file.dev().cast_signed(),
                file.ino().cast_signed(),
                file.size().cast_signed(),
                file.ctime(),
                file.ctime_nsec(),
            ]
        });
        Self { path, file }
    }
}

/// Reads a small file.
fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    let file = path.metadata().map_err(|error| Unusable::new(path, &error))?;
    if !file.is_file() || file.len() > LARGEST {
        return Err(Unusable::new(path, "it must be a regular file of at most 1 MiB"));
    }
    fs::read(path).map_err(|error| Unusable::new(path, &error))
}

/// Reads the text of a file that names no others.
///
/// # Errors
/// What is wrong with it.
#[cfg(feature = "fakes")]
pub fn read_text(text: &str) -> Result<(), String> {
    let config = WebConfig::parse(text)?;
    config.users();
    config.headers();
    match &config.tls_server_config {
        Some(section) if section.files().next().is_none() => {
            let nowhere = Path::new("web.yml");
            tls::acceptor(section, nowhere, nowhere).map(drop).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}
