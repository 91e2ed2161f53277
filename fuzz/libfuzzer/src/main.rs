//! One program for all targets: the environment says which.
#![no_main]

use std::sync::LazyLock;

use dropwatch_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("DROPWATCH_FUZZ_TARGET").expect("the name of a target in DROPWATCH_FUZZ_TARGET");
    dropwatch_fuzz::target(&name).expect("a target of that name")
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
