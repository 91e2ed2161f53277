//! Any bytes as a record of the ring buffer, and any bytes as a packet that is whole or cut.
#![no_main]

use dropwatch::trace::{
    event::Event,
    frame::{Frame, Link},
    words::Words,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u32)| {
    let (bytes, length) = input;
    if let Ok(event) = Event::parse(bytes) {
        let _ = Words::of(&Frame::new(&event));
        let _ = (event.iface(), event.stack().count());
    }
    let words = Words::of(&Frame { bytes: bytes.into(), length, link: Link::Own });
    // A line is a line.
    assert!(!words.text.is_empty() && !words.text.contains(|letter: char| letter.is_control()));
});
