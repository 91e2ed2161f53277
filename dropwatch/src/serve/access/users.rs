//! Users and their passwords.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{error::Unspecified, hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// The most right passwords that are remembered: more than there are users.
const MOST: usize = 1024;

/// Users that are allowed.
pub struct Users {
    hashes: BTreeMap<String, String>,
    /// What an unknown user's password is compared with: it takes as long as a known one's.
    nobody: String,
    /// What names are made with of passwords that were right.
    key: hmac::Key,
    /// Those. A hash takes a tenth of a second, and a scrape comes every few.
    right: Mutex<HashSet<Vec<u8>>>,
    /// One password at a time: whoever guesses has one CPU at most, and no one else's turn while theirs is remembered.
    turn: Semaphore,
}

impl Users {
    /// These; none, if everybody is allowed.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn new(hashes: BTreeMap<String, String>) -> Result<Option<Self>, Unspecified> {
        let costliest = hashes.values().max_by_key(|hash| hash.get(4..6).map(str::to_owned));
        let Some(nobody) = costliest.cloned() else { return Ok(None) };
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Some(Self { hashes, nobody, key, right: Mutex::default(), turn: Semaphore::new(1) }))
    }

    /// Whether a request with these headers is of one of them.
    pub async fn allow(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = headers.get(AUTHORIZATION).and_then(|value| basic(value.as_bytes()))
        else {
            return false;
        };
        let known = self.hashes.get(&user);
        let hash = known.unwrap_or(&self.nobody).clone();
        let name = self.name(&hash, &password);
        if known.is_some() && self.is_right(&name) {
            return true;
        }
        // It is never closed.
        let Ok(_turn) = self.turn.acquire().await else { return false };
        if known.is_some() && self.is_right(&name) {
            return true;
        }
        let is_right = spawn_blocking(move || bcrypt::verify(password, &hash)).await;
        let is_right = matches!(is_right, Ok(Ok(true))) && known.is_some();
        if is_right {
            self.remember(name);
        }
        is_right
    }

    /// What is remembered of a password and what it was compared with: nothing that could be turned back.
    fn name(&self, hash: &str, password: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        // It has always the same length.
        context.update(hash.as_bytes());
        context.update(password);
        context.sign().as_ref().to_vec()
    }

    fn is_right(&self, name: &[u8]) -> bool {
        self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn remember(&self, name: Vec<u8>) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= MOST {
            right.clear();
        }
        right.insert(name);
    }
}

/// A user and a password out of `Basic dXNlcjpwYXNz`.
fn basic(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let value = format!("Basic {}", BASE64_STANDARD.encode(text));
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header"))])
    }

    fn allowed(users: &Users, headers: &HeaderMap) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("an event loop");
        runtime.block_on(users.allow(headers))
    }

    #[test]
    fn a_right_password_is_right_each_time_and_a_wrong_one_never() {
        let hash = bcrypt::hash("a:secret", 4).expect("a hash");
        let users = Users::new(BTreeMap::from([("anne".to_owned(), hash)])).expect("a key").expect("users");
        for _ in 0..2 {
            assert!(allowed(&users, &headers("anne:a:secret")));
            for wrong in ["anne:a:secret ", "anne:", "bert:a:secret", ":a:secret", "anne", ""] {
                assert!(!allowed(&users, &headers(wrong)), "{wrong}");
            }
            assert!(!allowed(&users, &HeaderMap::new()));
        }
        assert_eq!(users.right.lock().expect("a set").len(), 1, "only what was right is remembered");
    }

    #[test]
    fn a_header_that_is_something_else_is_nobodys() {
        for value in ["", "Basic", "Basic ", "Bearer YTpi", "Basic =", "Basic YQ==", "Basic \u{7f}"] {
            assert_eq!(basic(value.as_bytes()), None, "{value}");
        }
        assert_eq!(basic(b"bAsIc YTpi"), Some(("a".to_owned(), b"b".to_vec())));
    }
}
