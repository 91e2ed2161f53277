//! What the tests of dropwatch's crates share: what a test does that cannot run here, packets of all kinds, and the
//! inputs that the fuzzer starts from.

#![expect(clippy::missing_panics_doc, clippy::must_use_candidate, reason = "only tests call this")]

pub mod generator;
pub mod packets;

use std::{env, fmt::Display, fs, path::Path};

/// Set where every test has to run: by `cargo xtask test`, except with `--no-live`.
pub const REQUIRED: &str = "DROPWATCH_REQUIRE_LIVE";

/// Ends a test that cannot run here: `let Some(it) = find() else { return skip("no such thing") };`
///
/// # Panics
///
/// With [`REQUIRED`] set: there a test that does not run is a failure.
pub fn skip(why: impl Display) {
    skip_if_allowed(env::var_os(REQUIRED).is_none(), why);
}

/// Compares a seed of the fuzzer with what the tests write; `INSTA_UPDATE=always` rewrites it.
pub fn assert_seed(target: &str, name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target).join(name);
    if env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        fs::write(&path, bytes).expect("the corpus can be written");
    }
    let is_same = fs::read(&path).is_ok_and(|seed| seed == bytes);
    assert!(is_same, "{} is out of date: run this test with INSTA_UPDATE=always", path.display());
}

fn skip_if_allowed(is_allowed: bool, why: impl Display) {
    assert!(is_allowed, "this test cannot run here, which {REQUIRED} makes a failure: {why}");
    eprintln!("SKIPPED: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it is allowed, a test may go on to its end.
    #[test]
    fn where_nothing_is_required_a_test_may_be_skipped() {
        skip_if_allowed(true, "no compiler");
    }

    /// Where it is not, the reason is in the failure.
    #[test]
    #[should_panic(expected = "DROPWATCH_REQUIRE_LIVE makes a failure: no compiler")]
    fn where_tests_are_required_a_skipped_one_fails() {
        skip_if_allowed(false, "no compiler");
    }
}
