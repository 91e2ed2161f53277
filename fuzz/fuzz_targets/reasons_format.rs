//! Any text as the format of the tracepoint.
#![no_main]

use dropwatch::reasons::Reasons;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Reasons::from_format(text);
    // Few inputs get as far as the list by themselves.
    let listed = format!("__print_symbolic(REC->reason,{text}");
    if let Some(reasons) = Reasons::from_format(&listed) {
        for reason in reasons.iter() {
            assert!(reasons.get(reason.code).name.is_some());
        }
    }
});
