//! Tests that need something a machine may lack: ignored, out loud, and never passed; with
//! `DROPWATCH_REQUIRE_ALL_CASES` set, failed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use libtest_mimic::{Failed, Trial};

use super::inject::needs::Need;

/// A test with needs.
pub fn trial(
    name: String,
    needs: &[Need],
    can_run: bool,
    body: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let lacking: Vec<_> = needs.iter().filter(|_| can_run).filter_map(lacking).collect();
    if lacking.is_empty() {
        return Trial::test(name, body).with_ignored_flag(!can_run);
    }
    let lacking = format!("this machine lacks {}", lacking.join(", "));
    let is_required = std::env::var_os("DROPWATCH_REQUIRE_ALL_CASES").is_some();
    if !is_required {
        eprintln!("IGNORED {name}: {lacking}.");
    }
    Trial::test(name, move || Err(lacking.into())).with_ignored_flag(!is_required)
}

/// Why the machine lacks something, found out once.
pub fn lacking(need: &Need) -> Option<String> {
    static KNOWN: Mutex<BTreeMap<&str, Option<String>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(need.name).or_insert_with(|| need.lacking()).clone()
}
